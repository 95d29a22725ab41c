"""Compiled programs on disk: the same bits, a folder of one's own, never an error."""

import json
import os
import pathlib
import platform
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from nat_jax import runs
from nat_jax.runtime import checkpoint, compilation

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path, monkeypatch):
  """JAX's settings, as `keep_programs` finds and leaves them; nothing is set."""
  found = {'jax_compilation_cache_dir': None, 'jax_enable_compilation_cache': True}
  config = types.SimpleNamespace(**found)
  config.update = lambda name, value: setattr(config, name, value)
  monkeypatch.setattr(compilation, 'jax', types.SimpleNamespace(
      config=config, __version__='7.8.9'))
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path))
  for name in ('DIR', 'MAX_SIZE'):
    monkeypatch.delenv(f'JAX_COMPILATION_CACHE_{name}', raising=False)
  monkeypatch.delenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', raising=False)
  return config


def test_folder_of_version_and_processor_for_this_user_alone(settings, tmp_path):
  compilation.keep_programs()
  [folder] = (tmp_path / compilation.FOLDER).iterdir()
  assert settings.jax_compilation_cache_dir == str(folder)
  assert folder.name == f'jax7.8.9-{compilation.processor()}'
  assert folder.stat().st_mode & 0o777 == 0o700
  assert settings.jax_compilation_cache_max_size == compilation.MAX_BYTES
  assert settings.jax_persistent_cache_min_compile_time_secs == 0
  compilation.keep_programs()  # it is there


@pytest.mark.parametrize('name, value', [
    ('jax_compilation_cache_dir', '/somewhere'),
    ('jax_enable_compilation_cache', False)])
def test_settings_of_the_user_come_first(name, value, settings, tmp_path):
  setattr(settings, name, value)
  before = dict(vars(settings))
  compilation.keep_programs()
  assert vars(settings) == before and not list(tmp_path.iterdir())


def test_bounds_of_the_user_come_first(settings, monkeypatch):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_MAX_SIZE', '3')
  compilation.keep_programs()
  assert settings.jax_compilation_cache_dir
  assert not hasattr(settings, 'jax_compilation_cache_max_size')


def a_file(tmp_path, monkeypatch):
  (tmp_path / compilation.FOLDER).touch()


def of_another_user(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'getuid', lambda: tmp_path.stat().st_uid + 1)


def no_locks(tmp_path, monkeypatch):
  def unsupported(*args, **kwargs):
    raise NotImplementedError('flock')

  monkeypatch.setattr(compilation.filelock, 'FileLock', unsupported)


@pytest.mark.parametrize('trouble', [a_file, of_another_user, no_locks])
def test_folder_that_cannot_be_used_is_a_warning(
    trouble, settings, tmp_path, monkeypatch, caplog):
  trouble(tmp_path, monkeypatch)
  compilation.keep_programs()
  assert settings.jax_compilation_cache_dir is None
  assert 'Compiled programs are not kept' in caplog.text
  assert str(tmp_path / compilation.FOLDER) in caplog.text


def test_processors_have_names_of_their_own(monkeypatch, tmp_path):
  """By what they can do, whatever their speed at the moment."""
  cpus = [
      'model name\t: A\ncpu MHz\t: 1\nflags\t: avx2\n\nprocessor\t: 1\nflags: x\n',
      'model name\t: A\ncpu MHz\t: 2\nflags\t: avx2\n',
      'model name\t: A\ncpu MHz\t: 1\nflags\t: avx2 avx512f\n',
      'CPU part\t: 0xd0c\nFeatures\t: sve\n']
  names = []
  for text in cpus:
    monkeypatch.setattr(pathlib.Path, 'read_text', lambda self, text=text: text)
    names.append(compilation.processor())
  assert names[0] == names[1] and len(set(names)) == 3

  def missing(self):
    raise FileNotFoundError

  monkeypatch.setattr(pathlib.Path, 'read_text', missing)
  monkeypatch.setattr(platform, 'processor', lambda: 'arm')
  assert compilation.processor() not in names


@pytest.mark.process
def test_results_are_the_same_with_an_empty_a_full_and_no_cache(tmp_path):
  """The digits job, bit for bit; a second start compiles nothing."""
  def train(name, **env):
    env = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1',
                        'NAT_JAX_CACHE': str(tmp_path / 'cache')} | env
    ran = subprocess.run(
        [sys.executable, '-m', 'nat_jax.main', '--config', 'configs/digits.py:nat',
         '--config.compare_with=', '--config.steps=12', '--workdir', tmp_path / name],
        cwd=ROOT, env=env, text=True, capture_output=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    state = checkpoint._without_keys(runs.restore(str(tmp_path / name)).state)
    evaluation = json.loads((tmp_path / name / 'eval.json').read_text())
    return evaluation, [np.asarray(x) for x in jax.tree.leaves(state)]

  def programs():
    return set((tmp_path / 'cache').rglob('*-cache'))

  without = train('without', JAX_ENABLE_COMPILATION_CACHE='0')
  assert not programs()
  empty, kept = train('empty'), programs()
  assert len(kept) > 3
  full = train('full')
  assert programs() == kept
  for evaluation, state in (empty, full):
    assert evaluation == without[0]
    jax.tree.map(np.testing.assert_array_equal, state, without[1])
