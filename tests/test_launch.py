"""Launch files: bash reads the scripts, dry runs, and the form of the .yaml files."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
import toy
import yaml

SETTINGS = toy.config_file('gan/digits.py').__globals__['SETTINGS']
LAUNCH = pathlib.Path(__file__).parents[1] / 'launch'
SCRIPTS = sorted(LAUNCH.glob('*.sh'))
COMMAND = ['python', '-m', 'nat_jax.main', '--workdir', 'a folder']


def run(script, *args, **env):
  return subprocess.run(
      [str(LAUNCH / script), *args], env=os.environ | env, text=True,
      capture_output=True, timeout=60)


@pytest.mark.process
@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_it_and_it_tells_its_use(script):
  assert subprocess.run(['bash', '-n', script]).returncode == 0
  assert os.access(script, os.X_OK)
  told = run(script.name)
  assert told.returncode == 2
  assert f'launch/{script.name}' in told.stdout and 'DRY_RUN=1' in told.stdout


@pytest.mark.process
def test_tpu_vm(tmp_path):
  lines = run('tpu_vm.sh', *COMMAND, DRY_RUN='1', VENV=f'{tmp_path}/venv').stdout
  assert lines.splitlines() == [
      'python3 -m pip install --quiet uv',
      f'python3 -m uv venv --quiet --seed --python 3.12 {tmp_path}/venv',
      f'{tmp_path}/venv/bin/pip install --quiet -e .[tpu,gcs]',
      f'exec {" ".join(COMMAND)}']
  assert not (tmp_path / 'venv').exists()


@pytest.mark.process
def test_slurm():
  assert run('slurm.sh', *COMMAND, DRY_RUN='1').stdout.splitlines() == [
      f'srun --kill-on-bad-exit=1 {" ".join(COMMAND)}']


@pytest.mark.process
def test_gan_digits_trains_every_objective():
  lines = run('gan_digits.sh', 'runs/x', '--jobs', '2', DRY_RUN='1').stdout
  path = 'configs/gan/digits.py'
  words, encoder = (line.split() for line in lines.splitlines())
  rows = [word.removeprefix(f'{path}:') for word in words if word.startswith(path)]
  assert [row for row in rows if row not in SETTINGS] == ['nat0', 'natm0'] + [
      f'{name}{num}' for name in ('gan', 'catgan', 'am', 'nat') for num in (3, 10)]
  assert {row.removesuffix('0') for row in rows} >= set(SETTINGS)
  for found, folder, sources in (
      (words, 'runs/x', [f'{path}:{row}' for row in rows]),
      (encoder, 'runs/x-gaan',
       [f'configs/gan/gaan.py:{row}' for row in ('gaan', 'gaan3', 'gaan_dist')])):
    assert found == [
        'python', '-m', 'nat_jax.main', '--mode=sweep', '--workdir', folder, *sources,
        '--seeds', '0,1,2,3,4,5,6,7,8,9', '--config.steps=2000', '--jobs', '2']


def program(folder, name, code):
  """A program of the name, which the first folder of PATH holds."""
  path = folder / name
  path.write_text(f'#!/usr/bin/env bash\n{code}\n')
  path.chmod(0o755)
  return f'{folder}:{os.environ["PATH"]}'


@pytest.mark.process
@pytest.mark.parametrize('given, told', [
    ({'SLURM_CPUS_PER_TASK': '8'}, '8'), ({}, '1')])
def test_slurm_hands_the_cores_on(given, told, tmp_path):
  path = program(tmp_path, 'srun', 'echo "$SRUN_CPUS_PER_TASK"')
  assert run('slurm.sh', *COMMAND, PATH=path, **given).stdout == f'{told}\n'


@pytest.mark.process
def test_local_on_gpus(tmp_path):
  """One of the given GPUs for each process, and none where JAX is to use CPUs."""
  env = {'PATH': program(tmp_path, 'nvidia-smi', ':'), 'DRY_RUN': '1',
         'JAX_PLATFORMS': '', 'DEVICES': '3'}
  given = env | {'CUDA_VISIBLE_DEVICES': '4,5'}

  def told(num, env):
    ran = run('local.sh', str(num), 'train', **env)
    return [line.partition(' ')[2] for line in ran.stdout.splitlines()]

  assert told(2, given) == [f'CUDA_VISIBLE_DEVICES={k} train' for k in (4, 5)]
  assert told(1, given | {'JAX_PLATFORMS': 'cpu'}) == [
      'JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=3 train']
  refused = run('local.sh', '3', 'train', **given)
  assert refused.returncode == 2 and refused.stdout == ''
  assert 'expected at most 2 processes' in refused.stderr and '=4,5' in refused.stderr
  if 'CUDA_VISIBLE_DEVICES' not in os.environ:
    assert told(2, env) == [f'CUDA_VISIBLE_DEVICES={k} train' for k in (0, 1)]


@pytest.mark.process
def test_local_dry_run():
  lines = run('local.sh', '3', *COMMAND, DRY_RUN='1').stdout.splitlines()
  assert len(lines) == 3
  for k, line in enumerate(lines):
    assert line.startswith(f'NAT_JAX_PROCESS_ID={k} ') and ' '.join(COMMAND) in line


@pytest.mark.process
def test_local_gives_each_process_its_place_and_passes_failure_on():
  code = ('import os, sys; e = os.environ; k = e["NAT_JAX_PROCESS_ID"]; '
          'keys = "NUM_PROCESSES", "COORDINATOR"; '
          'line = " ".join([k, *(e["NAT_JAX_" + key] for key in keys)]) + "\\n"; '
          'os.write(1, line.encode()); '  # in one piece, beside the other's
          'sys.exit(3 if k == "1" else 0)')
  ran = run('local.sh', '2', sys.executable, '-c', code, PORT='4321')
  assert sorted(ran.stdout.splitlines()) == [
      '0 2 127.0.0.1:4321', '1 2 127.0.0.1:4321']
  assert ran.returncode == 3
  assert 'process 1 of 2 ended with status 3; stopping the others' in ran.stderr


@pytest.mark.process
def test_local_ends_the_others_when_one_fails():
  code = ('import os, sys, time; '
          'sys.exit(7) if os.environ["NAT_JAX_PROCESS_ID"] == "0" else time.sleep(50)')
  ran = run('local.sh', '2', sys.executable, '-c', code, GRACE='0')
  assert ran.returncode == 7
  assert ran.stderr.count('ended with status') == 1


@pytest.mark.process
def test_local_passes_a_stop_on():
  """SIGTERM to the script reaches both, which end well."""
  code = ('import os, signal, sys, time; '
          'signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); '
          'os.write(1, b"ready\\n"); time.sleep(50); sys.exit(1)')
  process = subprocess.Popen(
      [str(LAUNCH / 'local.sh'), '2', sys.executable, '-c', code], text=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  assert [process.stdout.readline() for _ in range(2)] == ['ready\n'] * 2
  process.terminate()
  assert process.communicate(timeout=60) == ('', '') and process.returncode == 0


def assert_form(value, form, place='it'):
  """Asserts that a value of YAML has the form: a type, [form], or {key: form}.

  A key that ends with '?' may be missing, and '*' stands for any further key.
  """
  if isinstance(form, dict):
    assert isinstance(value, dict), place
    forms = {key.rstrip('?'): part for key, part in form.items()}
    missing = {key for key in form if key[-1] not in '?*'} - value.keys()
    assert not missing, f'{place} lacks {missing}'
    for key, part in value.items():
      assert key in forms or '*' in forms, f'{place} has an unknown key {key!r}'
      assert_form(part, forms.get(key, forms.get('*')), f'{place}.{key}')
  elif isinstance(form, list):
    assert isinstance(value, list) and value, place
    for i, part in enumerate(value):
      assert_form(part, form[0], f'{place}[{i}]')
  else:
    assert type(value) is form, f'{place}: expected {form.__name__}, got {value!r}'


# The parts in use of the CustomResourceDefinition jobsets.jobset.x-k8s.io, version
# v1alpha2 (github.com/kubernetes-sigs/jobset, config/components/crd/bases).
TEXTS = {'*': str}
POD = {
    'restartPolicy': str, 'terminationGracePeriodSeconds?': int, 'nodeSelector?': TEXTS,
    'serviceAccountName?': str,
    'containers': [{
        'name': str, 'image': str, 'workingDir?': str, 'command?': [str],
        'args?': [str], 'env?': [{'name': str, 'value': str}],
        'ports?': [{'containerPort': int}],
        'resources?': {'requests?': {'*': int}, 'limits?': {'*': int}}}]}
JOB = {'parallelism?': int, 'completions?': int, 'backoffLimit?': int,
       'template': {'spec': POD}}
JOBSET = {
    'apiVersion': str, 'kind': str,
    'metadata': {'name': str, 'annotations?': TEXTS, 'labels?': TEXTS},
    'spec': {
        'failurePolicy?': {'maxRestarts?': int},
        'replicatedJobs': [
            {'name': str, 'replicas?': int, 'template': {'spec': JOB}}]}}
# The parts in use of SkyPilot 0.14's get_task_schema and get_resources_schema
# (github.com/skypilot-org/skypilot, sky/utils/schemas.py).
SKYPILOT = {
    'name?': str, 'workdir?': str, 'num_nodes?': int, 'envs?': TEXTS, 'setup?': str,
    'run?': str,
    'resources?': {
        'accelerators?': str, 'use_spot?': bool,
        'job_recovery?': {'strategy?': str, 'max_restarts_on_errors?': int}}}


def read_yaml(name):
  return yaml.safe_load((LAUNCH / name).read_text())


@pytest.mark.process
def test_jobset():
  """One pod per host of the slice; each runs a script and a config that exist."""
  found = read_yaml('jobset.yaml')
  assert_form(found, JOBSET)
  assert (found['apiVersion'], found['kind']) == (
      'jobset.x-k8s.io/v1alpha2', 'JobSet')
  [slices] = found['spec']['replicatedJobs']
  job = slices['template']['spec']
  pod = job['template']['spec']
  [container] = pod['containers']
  rows, columns = map(
      int, pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x'))
  chips = container['resources']['limits']['google.com/tpu']
  assert container['resources']['requests'] == container['resources']['limits']
  assert job['parallelism'] == job['completions'] == rows * columns // chips
  assert pod['restartPolicy'] == 'Never' and job['backoffLimit'] == 0
  [script] = container['command']
  assert os.access(LAUNCH.parent / script, os.X_OK)
  env = {entry['name']: entry['value'] for entry in container['env']}
  assert env['NAT_JAX_SIGTERM_STATUS'] != '0'
  lines = run('tpu_vm.sh', *container['args'], DRY_RUN='1', VENV='/nowhere').stdout
  assert lines.splitlines()[-1] == f'exec {" ".join(container["args"])}'
  config = container['args'][container['args'].index('--config') + 1]
  assert (LAUNCH.parent / config).exists()


@pytest.mark.process
def test_skypilot(tmp_path):
  """The second of three nodes joins the first; the config exists."""
  found = read_yaml('skypilot.yaml')
  assert_form(found, SKYPILOT)
  assert (LAUNCH.parent / found['envs']['CONFIG']).exists()
  for name in re.findall(r"'\.\[([a-z,]+)\]'", found['setup'])[0].split(','):
    assert re.search(rf'(?m)^{name} =', (LAUNCH.parent / 'setup.cfg').read_text())
  bin_folder = tmp_path / '.venv' / 'bin'
  bin_folder.mkdir(parents=True)
  (bin_folder / 'python').write_text('#!/bin/sh\nenv | grep ^NAT_JAX\necho "$@"\n')
  (bin_folder / 'python').chmod(0o755)
  env = {key: value for key, value in os.environ.items()
         if not key.startswith('NAT_JAX')}
  ran = subprocess.run(
      ['bash', '-ec', found['run']], cwd=tmp_path, text=True, capture_output=True,
      env=env | found['envs'] | {
          'SKYPILOT_NODE_IPS': '10.0.0.7\n10.0.0.8\n10.0.0.9',
          'SKYPILOT_NODE_RANK': '1', 'SKYPILOT_NUM_NODES': '3'})
  *joined, command = ran.stdout.splitlines()
  assert sorted(joined) == [
      'NAT_JAX_COORDINATOR=10.0.0.7:12355', 'NAT_JAX_DISTRIBUTED=1',
      'NAT_JAX_NUM_PROCESSES=3', 'NAT_JAX_PROCESS_ID=1']
  assert command == (f'-m nat_jax.main --config {found["envs"]["CONFIG"]} '
                     f'--workdir {found["envs"]["WORKDIR"]}')


@pytest.mark.parametrize('path, value', [
    (('spec', 'replicatedJob'), []), (('spec', 'replicatedJobs'), []),
    (('spec', 'failurePolicy', 'maxRestarts'), '3'), (('kind',), None)])
def test_form_is_checked(path, value):
  found = place = read_yaml('jobset.yaml')
  for key in path[:-1]:
    place = place[key]
  place[path[-1]] = value
  with pytest.raises(AssertionError):
    assert_form(found, JOBSET)
