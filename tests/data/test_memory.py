"""Tests of the check of memory: limits of containers and jobs."""

import pytest

from nat_jax.data import memory

GB = 10**9


@pytest.fixture
def groups(tmp_path, monkeypatch):
  """Returns put(own, {file: text}), which writes the control groups of the process."""
  monkeypatch.setattr(memory, 'CGROUPS', tmp_path / 'cgroup')
  monkeypatch.setattr(memory, 'OWN_GROUPS', tmp_path / 'own')

  def put(own, files):
    (tmp_path / 'own').write_text(own)
    for name, text in files.items():
      path = tmp_path / 'cgroup' / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text)

  return put


@pytest.mark.parametrize('own, files', [
    ('0::/\n', {'memory.max': '1000000000\n'}),
    ('0::/job_7/step_0\n', {  # the limit of a parent, as under Slurm
        'memory.max': '4000000000', 'job_7/memory.max': '1000000000\n',
        'job_7/step_0/memory.max': 'max\n'}),
    ('5:cpu:/\n3:memory,x:/docker/a\n', {'memory/memory.limit_in_bytes': '1000000000'}),
])
def test_the_smallest_limit_of_a_group_counts(own, files, groups):
  groups(own, files)
  assert memory.total() == (GB, 'container or job')
  memory.check_memory(GB, 'images', 'lower num')
  with pytest.raises(ValueError, match='take about 2 GB.* this container or job has 1'):
    memory.check_memory(2 * GB, 'images', 'lower num')


@pytest.mark.parametrize('own, files', [
    ('0::/\n', {'memory.max': 'max\n'}),
    ('0::/\n', {}),
    ('3:memory:/\n', {'memory/memory.limit_in_bytes': '9223372036854771712'}),
])
def test_without_a_limit_it_is_the_memory_of_the_machine(own, files, groups):
  groups(own, files)
  size, owner = memory.total()
  assert owner == 'machine' and size > GB / 10
  with pytest.raises(ValueError, match='this machine has'):
    memory.check_memory(2 * size, 'images', 'lower num')
