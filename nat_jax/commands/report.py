"""Writes one report on many workdirs of one task.

    print(tables(['runs/digits-baseline', 'runs/digits']))  # Markdown for a terminal
    path = write(['runs/digits-baseline', 'runs/digits'])   # 'runs/.../report.html'
"""

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence

import tqdm

from nat_jax import reports
from nat_jax.commands import flags
from nat_jax.reports import page
from nat_jax.runtime import files
from nat_jax.task import Task
from nat_jax.tasks import TASKS


def tables(workdirs: Sequence[str]) -> str:
  """All tables of the runs as Markdown, aligned for a terminal, and the verdict.

  Raises:
    ValueError: a workdir without eval.json, or runs of several tasks.
  """
  return _as_text(*_load(workdirs))


def _as_text(task, groups):
  said = ['\n'.join(map(_wrapped, page.paragraph(*one))) + '\n'
          for one in task.verdict(groups)]
  return '\n'.join([*(table.markdown() for table in task.tables(groups)), *said])


def _wrapped(line):
  return textwrap.fill(line, 88, subsequent_indent='  ' * line.startswith('- '))


def write(workdirs: Sequence[str], out: str | None = None) -> str:
  """Writes report.html (self-contained), report.md, report.csv and figures/*.png.

  Figures for which the runs have no data are left out, with a note that says so.

  Args:
    workdirs: of the runs; repeated ones count once.
    out: the folder to write to; None: the first workdir.

  Returns:
    The path of report.html.

  Raises:
    ValueError: no workdirs, one without eval.json, or runs of several tasks.
  """
  return _write(*_load(workdirs), out or workdirs[0])


def _write(task, groups, out, missing=()):
  return reports.write(
      groups, task.tables(groups), _told(task.figures(groups)), out,
      task.verdict(groups), missing)


def _told(drawn):
  """The figures of a report, while a bar on a terminal says which one is drawn."""
  with tqdm.tqdm(
      file=sys.stderr, disable=None, leave=False, bar_format='drawing figures: {desc}'
  ) as bar:
    for name, *rest in drawn:
      bar.set_description_str(f'{bar.n + 1}, {name}')
      bar.update()
      yield (name, *rest)


def _load(workdirs) -> tuple[Task, Mapping]:
  if not workdirs:
    raise ValueError('expected at least one workdir to report on, got none')
  distinct = {os.path.realpath(workdir): workdir for workdir in workdirs}
  runs = [reports.load_run(workdir) for workdir in distinct.values()]
  found: dict[str, list[str]] = {}
  for run_ in runs:
    found.setdefault(run_['task'], []).append(run_['workdir'])
  if len(found) > 1:
    kinds = '; '.join(
        f'{TASKS[task].title}: {", ".join(dirs)}' for task, dirs in found.items())
    raise ValueError(
        f'expected runs of one task, got {kinds}; report on each kind apart')
  return TASKS[next(iter(found))], reports.group(runs)


def show(
    workdirs: Sequence[str], out: str | None = None, missing: Sequence[str] = ()
) -> None:
  """Prints the tables, writes the report and prints where the files are.

  Args:
    workdirs: of the runs.
    out: the folder to write to; None: the first workdir.
    missing: runs that should be in the report, and why they are not.

  Raises:
    ValueError: no workdirs, one without eval.json, or runs of several tasks.
    OSError: the report cannot be written; the runs themselves are complete.
  """
  print()
  task, groups = _load(workdirs)
  try:
    with files.named(out or workdirs[0]):
      print(_as_text(task, groups))
      print('\ndrawing the figures', flush=True)
      print(f'report: {_write(task, groups, out or workdirs[0], missing)}')
  except OSError as error:
    raise OSError(
        f'the report cannot be written: {error}. Nothing of the runs is lost; free '
        f'some space and run: python -m nat_jax.main --mode=report '
        f'{" ".join(workdirs)}') from error
  for workdir in workdirs:
    print(f'run: {workdir}  (eval.json, metrics.jsonl, checkpoints/, figures)')


def run(argv: Sequence[str] = ()) -> None:
  """--mode=report: reports on the workdirs in `argv`, in --workdir or the first one."""
  workdirs = list(argv) or [flags.needed(flags.WORKDIR, 'report')]
  print(f'reading {len(workdirs)} run{"s" * (len(workdirs) > 1)}', flush=True)
  show(workdirs, flags.WORKDIR.value)
