"""Files that are whole or not there, and readers that name what they cannot read."""

import json
import os
import re

import numpy as np
import pytest

from nat_jax.runtime import files


def listing(folder):
  return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
  path = tmp_path / 'eval.json'
  files.write_json(path, {'name': 'é'})
  with pytest.raises(TypeError):
    files.write_json(path, {'name': object()})
  with pytest.raises(KeyboardInterrupt):
    with files.replacing(path) as file:
      file.write('{"na')
      raise KeyboardInterrupt
  assert files.read_json(path, '') == {'name': 'é'}
  assert listing(tmp_path) == ['eval.json']


def test_the_disk_has_the_file_before_its_name(tmp_path, monkeypatch):
  """A crash between the two would leave an empty file under the name."""
  calls = []
  fsync, replace = os.fsync, os.replace
  monkeypatch.setattr(os, 'fsync', lambda fd: (
      calls.append(('fsync', os.fstat(fd).st_size)), fsync(fd)))
  monkeypatch.setattr(os, 'replace', lambda *a: (calls.append('replace'), replace(*a)))
  files.write_json(tmp_path / 'a.json', {})
  assert calls == [('fsync', 3), 'replace']


def test_a_full_disk_is_named_by_the_path(tmp_path):
  """OSErrors of a write carry no file name of their own."""
  with pytest.raises(OSError, match='No space left.*eval.json'):
    with files.replacing(tmp_path / 'eval.json'):
      raise OSError(28, 'No space left on device')


@pytest.mark.parametrize('content', [
    b'', b'{"a": ', b'[1, 2]', b'null', b'\xff\xfe{}', b'[' * 200_000])
def test_what_is_no_json_object(content, tmp_path):
  path = tmp_path / 'config.json'
  path.write_bytes(content)
  with pytest.raises(files.Unreadable, match='config.json.*; mend it'):
    files.read_json(path, 'mend it')


def test_a_bad_line_hides_no_other_record(tmp_path, caplog):
  path = tmp_path / 'metrics.jsonl'
  good = [{'step': k, 'kind': 'train', 'loss': k / 2} for k in range(6)]
  lines = [json.dumps(record).encode() for record in good]
  bad = [b'{"step": 3, "ki', b'\xff\x00', b'[]', b'{"step": "3", "kind": "train"}',
         b'{"step": true, "kind": "train"}', b'{"step": 3}', b'', b'[' * 100_000,
         b'{"step": 3, "kind": "eval", "evals": 1}']
  for k, line in enumerate(bad):
    lines.insert(k, line)
  path.write_bytes(b'\n'.join(lines))
  assert list(files.read_records(path)) == good
  assert re.search(rf'{path}.*\b{len(bad)}\b.*line 1\b', caplog.text)
  assert list(files.read_records(tmp_path / 'none')) == []


def test_damaged_arrays_are_found_out(tmp_path):
  """Whatever byte is changed or cut: what was saved, or one kind of error."""
  path = tmp_path / 'a.npz'
  arrays = {'max_prob': np.arange(50) / 50, 'set': np.array(['a', 'bc'])}
  files.write_npz(path, **arrays)
  whole, unreadable = path.read_bytes(), 0
  rng = np.random.default_rng(0)
  damaged = [whole[:n] for n in range(0, len(whole), 7)]
  for at in rng.integers(0, len(whole), 400):
    changed = bytearray(whole)
    changed[at] ^= rng.integers(1, 256)
    damaged.append(bytes(changed))
  for content in damaged:
    path.write_bytes(content)
    try:
      found = files.read_npz(path, 'make it again')
    except files.Unreadable as error:
      assert 'a.npz' in str(error) and 'make it again' in str(error)
      unreadable += 1
    else:
      for key in set(found) & set(arrays):  # the name of an entry has no checksum
        np.testing.assert_array_equal(found[key], arrays[key])
  assert unreadable > len(damaged) / 2


def test_missing_arrays_and_missing_files(tmp_path):
  files.write_npz(tmp_path / 'a.npz', x=np.zeros(2))
  with pytest.raises(files.Unreadable, match=r'a.npz.*\by\b.*\bx\b.*evaluate again'):
    files.read_npz(tmp_path / 'a.npz', 'evaluate again', keys=('x', 'y'))
  with pytest.raises(FileNotFoundError):
    files.read_npz(tmp_path / 'b.npz', '')
  with pytest.raises(FileNotFoundError):
    files.read_json(tmp_path / 'b.json', '')


def test_lists_of_numbers_are_one_line_of_json(tmp_path):
  """And nothing else is changed, such as text that looks like a list."""
  value = {'a': [1, 2.5, None, True], 'b': [[1, 2], []],
           'c': ['[\n 1,\n 2\n]', '[', 'x'], 'g': [],
           'd': {'e [': [0], ']': [{'f': 3}]}}
  files.write_json(tmp_path / 'a.json', value)
  text = (tmp_path / 'a.json').read_text()
  assert json.loads(text) == value
  assert '"a": [1, 2.5, null, true],\n' in text and '    [1, 2],\n' in text
  assert '"e [": [0],\n' in text


def test_two_processes_may_write_one_file(tmp_path):
  """Each writes a temporary file of its own; the last one to end replaces the other."""
  with files.replacing(tmp_path / 'a') as one:
    one.write('one')
    with files.replacing(tmp_path / 'a') as other:
      other.write('other')
    assert (tmp_path / 'a').read_text() == 'other'
  assert (tmp_path / 'a').read_text() == 'one'
  with files.writing_together(tmp_path) as one, files.writing_together(
      tmp_path) as other:
    assert one('a') != other('a')
    for path in (one, other):
      files.write_json(path('a'), {})
  assert [path.name for path in tmp_path.iterdir()] == ['a']
