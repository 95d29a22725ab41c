"""The launch scripts: bash reads them, and a dry run prints what they would do."""

import os
import pathlib
import subprocess
import sys

import pytest

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
      f'python3 -m venv {tmp_path}/venv',
      f'{tmp_path}/venv/bin/pip install --quiet -e .[tpu]',
      f'exec {" ".join(COMMAND)}']
  assert not (tmp_path / 'venv').exists()


@pytest.mark.process
def test_slurm():
  assert run('slurm.sh', *COMMAND, DRY_RUN='1').stdout.splitlines() == [
      f'srun --kill-on-bad-exit=1 {" ".join(COMMAND)}']


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
