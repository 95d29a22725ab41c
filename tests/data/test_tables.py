"""Tables of pictures: parts within each class, groups that stay together, mistakes."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nat_jax.data import load
from nat_jax.data.table_source import PARTS, SHARES, assign, read_table

HEAD = 'path,label,split,group'


def write(folder, text, pictures=()):
  """A table, and pictures whose grey is their position."""
  for k, name in enumerate(pictures):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', (3, 2), k).save(folder / name)
  (folder / 'table.csv').write_text(text)
  return str(folder / 'table.csv')


def many(folder, counts, group=lambda name, k: ''):
  """A table of so many pictures of each label, without splits."""
  rows = [(f'{label or "none"}/{k}.png', label, group(label, k))
          for label, count in counts.items() for k in range(count)]
  path = write(folder, '', [row[0] for row in rows])
  with open(path, 'w', newline='') as file:
    csv.writer(file).writerows([('path', 'label', 'group'), *rows])
  return path


def test_given_parts_labels_and_negatives(tmp_path):
  names = [f'{k}.png' for k in range(12)]
  rows = [f'{name},{label},{part},' for (part, label), name in zip(
      [(part, label) for part in PARTS for label in ('dog', '', 'a cat')], names,
      strict=True)]
  path = write(tmp_path, '\ufeff' + '\r\n'.join([HEAD, *rows]), names)
  found = read_table(path)
  assert found.names == ('a cat', 'dog') and found.label.tolist() == [1, -1, 0] * 4
  for k, part in enumerate(PARTS):
    spec = {'name': 'table', 'path': path, 'part': part, 'mode': 'L'}
    positives, negatives = load(spec), load({**spec, 'negatives': True})
    assert positives.image[:, 0, 0, 0].tolist() == [3 * k, 3 * k + 2]
    assert positives.label.tolist() == [1, 0] and positives.names == ('a cat', 'dog')
    assert negatives.image[:, 0, 0, 0].tolist() == [3 * k + 1]
    assert negatives.label.tolist() == [0]
    assert positives.image.shape == (2, 2, 3, 1)


def test_quotes_after_spaces_are_quotes(tmp_path):
  rows = [f'"{k}.png", "{("a, b", "c", "")[k % 3]}"' for k in range(30)]
  path = write(tmp_path, '\n'.join(['path, label', *rows]))
  for k in range(30):
    Image.new('L', (3, 2), k).save(tmp_path / f'{k}.png')
  found = read_table(path)
  assert found.names == ('a, b', 'c') and found.label.tolist() == [0, 1, -1] * 10


def test_a_cached_table_is_the_one_in_memory(tmp_path, monkeypatch):
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path / 'cache'))
  spec = {'name': 'table', 'path': many(tmp_path, {'a': 9, 'b': 6, '': 7}), 'size': 4}
  for part in PARTS:
    once, stored = (load({**spec, 'part': part, 'negatives': True, 'lazy': lazy})
                    for lazy in (False, 'auto'))
    np.testing.assert_array_equal(np.asarray(stored.image), once.image)
    assert list(stored.files) == list(once.files)
  assert len(list((tmp_path / 'cache').rglob('image.npy'))) == 1


@given(counts=st.lists(st.integers(4, 60), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_without_groups_each_class_is_split_in_the_shares(counts):
  label = np.repeat(np.arange(len(counts)), counts)
  order = np.random.default_rng(sum(counts)).permutation(len(label))
  names = np.array([f'{k}.png' for k in range(len(label))])
  part = assign(label, names, SHARES)
  shuffled = assign(label[order], names[order], SHARES)
  np.testing.assert_array_equal(shuffled, part[order])  # the order does not matter
  for k, count in enumerate(counts):
    for name, share in SHARES.items():
      num = (part[label == k] == name).sum()
      assert num >= 1
      if count % 10 == 0:
        assert num == round(share * count)
      elif name != 'train':
        assert abs(num - share * count) <= 1


@given(sizes=st.lists(st.integers(1, 9), min_size=4, max_size=30),
       seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_groups_stay_together_and_reach_all_parts(sizes, seed):
  rng = np.random.default_rng(seed)
  group = np.repeat([f'g{k}' for k in range(len(sizes))], sizes)
  label = rng.integers(0, 3, len(group))
  part = assign(label, group, SHARES)
  for name in set(group):
    assert len(set(part[group == name])) == 1
  assert set(assign(label * 0, group, SHARES)) == set(PARTS)


def test_one_large_group_leaves_the_others_to_the_other_parts():
  group = ['big'] * 97 + ['b', 'c', 'd']
  part = assign(np.zeros(100, int), group, SHARES)
  assert set(part[:97]) == {'train'} and set(part[97:]) == set(PARTS[1:])


def test_groups_of_several_classes_in_a_table(tmp_path):
  """Patients with pictures of all kinds, as many with as without a finding."""
  path = many(tmp_path, {'ill': 40, 'well': 40, '': 20}, lambda name, k: f'p{k // 2}')
  found = read_table(path)
  patient = np.array([f'p{k // 2}' for n in (40, 40, 20) for k in range(n)])
  for name in set(patient):
    assert len(set(found.part[patient == name])) == 1
  for k, count in ((0, 40), (1, 40), (-1, 20)):
    for name, share in SHARES.items():
      assert abs((found.part[found.label == k] == name).sum() - share * count) <= 4


def test_validation_and_calibration_are_taken_from_training(tmp_path):
  rows = [(f'{k}.png', 'ab'[k % 2], 'test' if k < 10 else 'train') for k in range(90)]
  path = write(tmp_path, '\n'.join(
      ['path,label,split', *map(','.join, rows)]), [row[0] for row in rows])
  found = read_table(path)
  assert (found.part[:10] == 'test').all() and 'test' not in found.part[10:]
  counts = {name: (found.part == name).sum() for name in PARTS}
  assert counts == {'train': 60, 'validation': 10, 'calibration': 10, 'test': 10}


ROWS = [f'{k}{label}.png,{label},{part},' for k, part in enumerate(PARTS)
        for label in 'ab']
FILES = [row.partition(',')[0] for row in ROWS]


@pytest.mark.parametrize('rows, message', [
    ([*ROWS, 'gone.png,a,test,'], r"line 10: there is no file '.*/gone.png'.*relative"),
    ([*ROWS, ',a,test,'], 'line 10: there is no path'),
    ([*ROWS, '0a.png,a,test,'], 'line 10: 0a.png is in line 2 already'),
    ([*ROWS, './/0a.png,a,test,'], 'line 10: .//0a.png is in line 2 already'),
    ([*ROWS, 'gone.png,a,test,', ',a,test,', '0a.png,a,test,'],
     "line 10: there is no file .*also in lines 11, 12$"),
    ([*ROWS, *8 * [',a,test,']], 'line 10: .*lines 11, 12, 13, 14, 15 and 2 more$'),
    ([*ROWS[:-1], '3b.png,b,tset,'], "line 9.*'tset'.*mean 'test'.*train, validation"),
    ([*ROWS[:-1], '3b.png,b,,'], "line 9: unknown split ''.*leave it out"),
    ([f'{row}p{row[0]}' for row in ROWS[:-1]] + ['3b.png,b,test,p0'],
     "line 9: the group 'p0' is in the split 'test'.*'train' in line 2"),
    ([*ROWS[:-1], '3b.png,c,test,'], r"class 'b' \(line 3\) is in the part 'test'"),
    ([*ROWS, 'x.png,c,test,'], r"class 'c' \(line 10\).*part 'train'; of its 1 pic"),
    ([*ROWS, 'x.png,,train,'], r"rows without a label \(line 10\).*'validation'"),
    ([*ROWS, 'x.png,a'], 'line 10: expected 4 values'),
    ([*ROWS, 'x.png,a,test,,'], 'line 10: expected 4 values.*double quotes'),
    ([], 'lists no picture'),
    ([f'{row[:2]}.png,,{part},' for row, part in zip(ROWS[::2], PARTS, strict=True)],
     'no pictures with a label'),
])
def test_mistakes_are_named_with_their_lines(rows, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    read_table(write(tmp_path, '\n'.join([HEAD, *rows]), [*FILES, 'x.png']))


@pytest.mark.parametrize('text, message', [
    ('path,split\n0a.png,train', "no column 'label' in its first line"),
    ('path,lable\n0a.png,a', "unknown column 'lable'.*mean 'label'"),
    ('path,label,label\n0a.png,a,a', 'a column twice'),
    ('', "no column 'path'"),
    ('path;label\n0a.png;a', "by commas, got the first line 'path;label'"),
    ('path\tlabel\n0a.png\ta', 'save the table as CSV with commas'),
])
def test_columns_that_are_wrong(text, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    read_table(write(tmp_path, text, FILES))


def test_files_that_are_no_tables(tmp_path):
  with pytest.raises(ValueError, match="no file.*'.*gone.csv'"):
    read_table(str(tmp_path / 'gone.csv'))
  (tmp_path / 'bytes.csv').write_bytes(b'path,label\n\xff\xfe,a\n')
  with pytest.raises(ValueError, match='not a CSV file in UTF-8'):
    read_table(str(tmp_path / 'bytes.csv'))
  path = many(tmp_path, {'a': 4, 'b': 4})
  with pytest.raises(ValueError, match='no pictures without a label'):
    load({'name': 'table', 'path': path, 'negatives': True})
  with pytest.raises(ValueError, match="part 'tests'.*mean 'test'"):
    load({'name': 'table', 'path': path, 'part': 'tests'})
