"""eval.json and the arrays beside it belong together, wherever a writer was stopped."""

import contextlib
import itertools
import json
import os
import re

import numpy as np
import pytest

from nat_jax.runtime import files, results

CONFIG = {'name': 'toy', 'variant': 'nat', 'seed': 0}
ARRAYS = {'scores/test': {'max_prob': [0.5]}, 'scores/noise': {'max_prob': [0.25]},
          'mistakes/noise': {'image': [0]}}


def write(workdir, step):
  arrays = {name: {key: np.array(x) * step for key, x in values.items()}
            for name, values in ARRAYS.items()}
  results.write_evaluation(
      workdir, CONFIG, step, {'evals': {'test': {'n': 1, 'part': 'test'}}}, arrays)


def read(workdir):
  """The step of eval.json, after a check that all arrays are of that step."""
  step = results.read_evaluation(workdir)['step']
  for name, values in ARRAYS.items():
    found = results.read_arrays(workdir, name, step, list(values))
    assert set(found) == set(values)
    for key, x in values.items():
      np.testing.assert_array_equal(found[key], np.array(x) * step)
  return step


def stopped_after(count, function):
  """The function, which is interrupted once it was called `count` times."""
  calls = itertools.count()

  def stopped(*args, **kwargs):
    if next(calls) >= count:
      raise KeyboardInterrupt
    return function(*args, **kwargs)

  return stopped


def test_cut_off_anywhere_it_mixes_no_two_evaluations(tmp_path, monkeypatch):
  """An error at each write and each rename in turn, as a kill there would leave it."""
  outcomes = []
  for name in ('write_npz', 'write_json', 'replace'):
    for count in range(4):
      workdir = str(tmp_path / f'{name}{count}')
      os.makedirs(workdir)
      write(workdir, 1)
      module = os if name == 'replace' else files
      with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(module, name, stopped_after(count, getattr(module, name)))
        write(workdir, 2)
      try:
        outcomes.append(read(workdir))
      except files.Unreadable as error:
        assert re.search(r'step 1\b.*\b2\b', str(error))
        outcomes.append('mixed, and found out')
  assert {1, 2} <= set(outcomes) <= {1, 2, 'mixed, and found out'}


def test_arrays_without_a_step_or_of_another(tmp_path):
  write(tmp_path, 3)
  with pytest.raises(files.Unreadable, match=r'test.npz.*step 4\b.*\b3\b'):
    results.read_arrays(tmp_path, 'scores/test', 4)
  files.write_npz(tmp_path / 'scores' / 'test.npz', max_prob=np.zeros(1))  # as 0.1 did
  with pytest.raises(files.Unreadable, match='test.npz.*step.*--mode=evaluate'):
    results.read_arrays(tmp_path, 'scores/test', 3)
  assert results.read_arrays(tmp_path, 'scores/other', 3) is None
  assert results.read_evaluation(tmp_path / 'nowhere') is None


@pytest.mark.parametrize('content', [
    {}, {'step': '3', 'evals': {}}, {'step': 3, 'evals': []},
    {'step': 3, 'evals': {'test': 1}}, {'step': 3, 'evals': {'test': {'ncr': 'x'}}},
    {'step': True, 'evals': {}}])
def test_what_is_no_evaluation(content, tmp_path):
  (tmp_path / 'eval.json').write_text(json.dumps(content))
  with pytest.raises(files.Unreadable, match='eval.json.*--mode=evaluate'):
    results.read_evaluation(tmp_path)
