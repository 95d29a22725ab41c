"""The jobs of a sweep as an array of Slurm jobs, or as managed jobs of SkyPilot.

    text = slurm_script(jobs, 'runs/small', python)
    submit_slurm(text, slurm_commands(todo, len(jobs), options))
    text = skypilot_yaml(jobs, 'gs://bucket/runs/small')
    skypilot_commands(jobs, 'gs://bucket/runs/small', 'sweep.yaml', options)

Neither Slurm nor SkyPilot was at hand when this was written: the formats are those of
their documentation (SkyPilot 0.14), and the scripts were run in bash without them.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from nat_jax.commands import jobs as jobs_lib
from nat_jax.commands.jobs import Job

NUMBER = 'NAT_JAX_JOB'  # environment variable: the number of a job, or 'report'

SLURM = """\
#!/usr/bin/env bash
# A run of a sweep for each number of the array, and number {report} for the report.
#SBATCH --job-name={name}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --output={log}
set -euo pipefail
# srun does not inherit it from the job since Slurm 22.05.
export SRUN_CPUS_PER_TASK=${{SLURM_CPUS_PER_TASK:-1}}
run() {{ srun --kill-on-bad-exit=1 {python} "$@"; }}
{cases}
"""

SKYPILOT = """\
# A run of a sweep for each value of {number}: 0 to {last}, or report.
name: {name}
workdir: .
resources:
  accelerators: [L4:1, A100:1, H100:1]
file_mounts:
  {mount}:
    source: {bucket}
    mode: MOUNT_CACHED  # the mode in which files can be appended to and renamed
envs:
  {number}: null
setup: |
  pip install -q uv
  uv venv -q --allow-existing --python 3.12 ~/nat_jax_venv
  uv pip install -q --python ~/nat_jax_venv/bin/python -e '.[cuda]'
run: |
  set -euo pipefail
  run() {{ ~/nat_jax_venv/bin/python "$@"; }}
{cases}
"""


def slurm_script(jobs: Sequence[Job], out: str, python: str) -> str:
  """A script for sbatch: number i of the array trains `jobs[i]`, the next one reports.

  Args:
    jobs: of the sweep.
    out: folder of the workdirs, on a disk that all nodes share.
    python: path of the Python on the nodes.
  """
  return SLURM.format(
      report=len(jobs), name=_label(out), log=shlex.quote(f'{out}/slurm-%A_%a.log'),
      python=shlex.quote(python),
      cases=_cases(jobs, out, '$SLURM_ARRAY_TASK_ID', str(len(jobs))))


def slurm_commands(
    todo: Sequence[int], number: int, options: Sequence[str], at_once: int | None = None
) -> list[list[str]]:
  """The commands that submit the script, which they read from standard input.

  Args:
    todo: numbers of the jobs to train.
    number: of the job that reports. It waits until the others have ended, whose job
      number stands for ARRAY.
    options: further arguments of sbatch.
    at_once: largest number of jobs that run at a time; None: no limit.
  """
  array = ','.join(map(str, todo)) + (f'%{at_once}' if at_once else '')
  return [
      ['sbatch', '--parsable', f'--array={array}', *options],
      ['sbatch', '--parsable', f'--array={number}', '--dependency=afterany:ARRAY',
       *options]]


def submit_slurm(script: str, commands: Sequence[Sequence[str]]) -> list[str]:
  """Submits the jobs; returns the numbers that Slurm gave to the array and the report.

  Args:
    script: from `slurm_script`.
    commands: from `slurm_commands`.

  Raises:
    OSError: there is no sbatch, or it failed.
  """
  found = []
  for command in commands:
    command = [part.replace('ARRAY', found[0]) if found else part for part in command]
    found.append(_output(command, script).strip().partition(';')[0])
  return found


def skypilot_yaml(jobs: Sequence[Job], url: str) -> str:
  """A task of SkyPilot that trains one of `jobs`, or reports, as NAT_JAX_JOB says.

  Args:
    jobs: of the sweep, with workdirs below `jobs.MOUNT`.
    url: of the folder of the workdirs in a bucket.
  """
  bucket, out = jobs_lib.split_bucket(url)
  cases = _cases(jobs, out, f'${NUMBER}', 'report')
  return SKYPILOT.format(
      number=NUMBER, last=len(jobs) - 1, name=_label(out), mount=jobs_lib.MOUNT,
      bucket=bucket, cases=re.sub('^(?=.)', '  ', cases, flags=re.M))


def skypilot_commands(
    jobs: Sequence[Job], url: str, path: str, options: Sequence[str]
) -> list[list[str]]:
  """The commands that launch the jobs and, for when they have ended, the report.

  Args:
    jobs, url: see `skypilot_yaml`.
    path: of the YAML file.
    options: further arguments of `sky jobs launch`.
  """
  label = _label(jobs_lib.split_bucket(url)[1])
  names = {**{str(i): job.name for i, job in enumerate(jobs)}, 'report': 'report'}
  return [
      ['sky', 'jobs', 'launch', '--yes', '--detach-run',
       '--name', _plain(f'{label}-{name}'), '--env', f'{NUMBER}={number}', *options,
       path]
      for number, name in names.items()]


def submit_skypilot(
    text: str, jobs: Sequence[Job], url: str, options: Sequence[str]
) -> None:
  """Launches the jobs, without the report.

  Args:
    text: from `skypilot_yaml`.
    jobs, url, options: see `skypilot_commands`.

  Raises:
    OSError: there is no program sky, or it failed.
  """
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'sweep.yaml')
    with open(path, 'w', encoding='utf-8') as file:
      file.write(text)
    for command in skypilot_commands(jobs, url, path, options)[:-1]:
      print(_output(command), end='', flush=True)


def _cases(jobs, out, number, report):
  """Bash that trains the job of a number, or reports on the runs that are evaluated."""
  lines = [f'case {number} in']
  for i, job in enumerate(jobs):
    lines.append(f'  {i}) run {_arguments(job.args)} ;;')
  workdirs = ' '.join(shlex.quote(job.workdir) for job in jobs)
  arguments = _arguments(['--mode=report', '--workdir', out])
  return '\n'.join([
      *lines,
      f'  {report})',
      '    ended=()',
      f'    for workdir in {workdirs}; do',
      '      if [ -e "$workdir/eval.json" ]; then ended+=("$workdir"); fi',
      '    done',
      f'    JAX_PLATFORMS=cpu run {arguments} "${{ended[@]}}" ;;',
      'esac'])


def _arguments(args):
  return shlex.join(jobs_lib.command(args)[1:])


def _label(out):
  return f'nat_jax-{_plain(os.path.basename(out))}'


def _plain(text):
  """Letters, digits, _ and - only, as names of jobs have."""
  return re.sub(r'[^\w-]+', '-', text, flags=re.A)


def _output(command, text=None):
  """The standard output of a command that reads `text`; OSError if it fails."""
  if not shutil.which(command[0]):
    raise OSError(
        f'there is no program {command[0]} on this machine; add --dry_run to see what '
        'would be submitted')
  ran = subprocess.run(command, input=text, text=True, capture_output=True)
  if ran.returncode:
    raise OSError(f'{shlex.join(command)} failed: {ran.stderr.strip()}')
  return ran.stdout
