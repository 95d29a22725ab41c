"""Loads runs, groups them by seed, and writes report.html, report.md and report.csv.

    groups = group([load_run('runs/digits-baseline'), load_run('runs/digits')])
    path = write(groups, tables, figures, 'runs/digits')    # 'runs/.../report.html'

Runs that differ only in the seed form a group, which has one row of mean and standard
deviation in tables and one colour in figures.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nat_jax import metrics, schema
from nat_jax.reports import about, figures, page
from nat_jax.reports.frames import frame
from nat_jax.reports.tables import Table
from nat_jax.runtime import files, results, writers
from nat_jax.runtime import workdir as workdirs

Run = dict[str, Any]

# Variants that other variants are compared with; they come first in reports.
FIRST = ('baseline', 'am', 'gan', 'gan_wide', 'madgan')
NOT_THE_EXPERIMENT = ('seed', 'run', 'compare_with')  # may differ within a group
GROUPS = ('trainer', 'loss', 'model', 'generator', 'discriminator', 'data')


def load_run(workdir: str) -> Run:
  """Reads the results of a run from its workdir.

  Rates at thresholds that are not informative for the number of classes
  (`metrics.informative`) are removed, so that no table, test or plot has them.

  Args:
    workdir: holds eval.json, and usually config.json, metrics.jsonl and scores/.

  Returns:
    A dict with the keys 'workdir', 'task', 'name', 'variant', 'seed', 'config', 'step',
    'evals', 'reference', 'num_classes', 'class_names', and
    'label': '<name>:<variant> seed <seed>',
    'conventions': how a GAN's metrics were computed,
    'evaluation': the content of eval.json,
    'history': {'train': [(step, record)], 'eval': [(step, evals)]},
    'sessions': for each process that trained the run, what it recorded of itself:
      'command', 'devices', 'examples' and, unless it was killed, 'seconds',
    'made': number of updates, by the last record of metrics.jsonl; None: not known.

  Raises:
    ValueError: there is no eval.json, or a file cannot be read.
  """
  folder = files.as_path(workdir)
  evaluation = results.read_evaluation(workdir)
  if evaluation is None and not files.is_remote(workdir) and not folder.is_dir():
    raise ValueError(f'{workdir} is not the workdir of a run: there is no such folder')
  if evaluation is None:
    raise ValueError(
        f'{workdir} holds no eval.json to report on; evaluate the run first: '
        f'python -m nat_jax.main --mode=evaluate --workdir {workdir}')
  config = _read_config(workdir)
  known = {**evaluation, **config}
  name = known.get('name') or folder.resolve().name
  variant = known.get('variant') or known.get('loss', {}).get('name') or 'run'
  # Both may be names of folders, whose bytes need not be UTF-8.
  name, variant = (
      text.encode(errors='backslashreplace').decode() for text in (name, variant))
  seed = known.get('seed', 0)
  classes = evaluation.get('num_classes') or config.get('num_classes') or 1
  background = evaluation.get(
      'background', config.get('loss', {}).get('name') == 'background')
  informative = functools.partial(_informative, classes, background)
  names = list(evaluation.get('class_names', ()))
  names += map(str, range(len(names), classes))
  records = list(files.read_records(folder / writers.METRICS))
  return {
      'workdir': str(workdir), 'task': schema.upgrade(config)['task'],
      'name': name, 'variant': variant, 'seed': seed,
      'label': f'{name}:{variant} seed {seed}', 'config': config,
      'step': evaluation['step'], 'evals': informative(evaluation.get('evals', {})),
      'reference': evaluation.get('reference', 'test'), 'num_classes': classes,
      'class_names': names,
      'conventions': evaluation.get('conventions', {}),
      'evaluation': evaluation,
      'history': _history(records, informative),
      'sessions': _sessions(records),
      'made': max(records[-1]['step'], evaluation['step']) if records else None,
  }


def _informative(num_classes, background, evals):
  """`evals` without rates at thresholds that are not informative."""
  if num_classes < 2:  # not known
    return evals
  kept = metrics.informative(metrics.THRESHOLDS, num_classes, background)
  removed = [str(t) for t in metrics.THRESHOLDS if t not in kept]

  def filtered(key, value):
    metric = metrics.METRICS.get(key.removesuffix('_interval'))
    if not (metric and metric.by_threshold and isinstance(value, Mapping)):
      return value
    return {t: rate for t, rate in value.items() if t not in removed}

  return {name: {key: filtered(key, value) for key, value in figures_of_set.items()}
          for name, figures_of_set in evals.items()}


def write(
    groups: Mapping[str, Sequence[Run]], tables: Sequence[Table],
    drawn: Iterable[tuple[str, str, str, Any]], out_dir: str,
    verdict: Sequence[tuple[str, Sequence[str]]] = (), missing: Sequence[str] = (),
) -> str:
  """Writes report.html, report.md, report.csv and figures/*.png.

  report.html is self-contained; report.csv is the data frame of `frames.frame`.

  Args:
    groups: from `group`.
    tables: of the runs.
    drawn: for each figure (file name, without the extension for a PNG; caption; note on
      what is missing, or ''; figure or None).
    out_dir: the folder to write to.
    verdict: (headline or '', sentences) for each paragraph, with which the page begins.
    missing: runs that should be in the report, and why they are not.

  Returns:
    The path of report.html.
  """
  out = files.as_path(out_dir)
  (out / 'figures').mkdir(parents=True, exist_ok=True)
  shown = []
  for name, caption, note, figure in drawn:
    path = out / 'figures' / (name if '.' in name else f'{name}.png')
    path.unlink(missing_ok=True)  # of an earlier report
    if figure:
      figures.save(figure, path)
    shown.append((caption, note, path if figure else None))
  runs = [run for same in groups.values() for run in same]
  title = 'Report on ' + ', '.join(dict.fromkeys(run['name'] for run in runs))
  known = about.facts(groups) + [('Not in this report', one) for one in missing]
  content = page.Page(title, verdict, known, tables, shown)
  for name, text in (('md', page.markdown(content)), ('html', page.html(content))):
    # Paths may be of any bytes.
    with files.replacing(out / f'report.{name}', errors='backslashreplace') as file:
      file.write(text)
  with files.replacing(
      out / 'report.csv', newline='', errors='backslashreplace') as file:
    frame(groups).to_csv(file, index=False)
  return str(out / 'report.html')


def group(runs: Sequence[Run]) -> dict[str, list[Run]]:
  """Groups the runs of each experiment, under the shortest label that is unique.

  The label is the variant, such as 'nat'; 'digits:nat' where names of experiments
  differ; followed by the workdir where these are equal too. Groups that others are
  compared with come first; the runs of a group are ordered by seed.

  Args:
    runs: from `load_run`.

  Returns:
    {label: runs, one per seed}.
  """
  runs = sorted(runs, key=lambda run: run['variant'] not in FIRST)
  members: dict[str, list[Run]] = {}
  for run in runs:
    config = {k: v for k, v in run['config'].items() if k not in NOT_THE_EXPERIMENT}
    config['trainer'] = {  # each seed may have its own teacher
        k: v for k, v in config.get('trainer', {}).items() if 'teacher' not in k}
    # Without early stopping seeds are evaluated at one step.
    step = None if config.get('patience') else run['step']
    key = json.dumps([run['name'], run['variant'], config, step], sort_keys=True)
    while any(run['seed'] == other['seed'] for other in members.get(key, [])):
      key += ' again'  # a repeated seed is not an independent sample
    members.setdefault(key, []).append(run)
  one_name = len({run['name'] for run in runs}) == 1
  firsts = [same[0] for same in members.values()]
  labels = [run['variant'] if one_name else f'{run["name"]}:{run["variant"]}'
            for run in firsts]
  groups = {}
  for label, same in zip(labels, members.values(), strict=True):
    same = sorted(same, key=lambda run: run['seed'])
    if labels.count(label) > 1:
      label = f'{label} ({same[0]["workdir"]})'
      same = [run | {'label': f'{run["label"]} ({run["workdir"]})'} for run in same]
    groups[label] = same
  return groups


def _history(records, informative):
  """The records of metrics.jsonl; a later record of a step replaces an earlier one."""
  found = {'train': {}, 'eval': {}}
  for record in records:
    step, kind = record['step'], record['kind']
    if kind == 'train':
      found[kind][step] = record
    elif kind == 'eval' and 'evals' in record:
      found[kind][step] = informative(record['evals'])
  return {kind: sorted(records.items()) for kind, records in found.items()}


def _sessions(records):
  """The records of each process that trained a run, in order."""
  found = []
  for record in records:
    if record['kind'] == writers.START:
      found.append(dict(record))
    elif record['kind'] == writers.END and found:
      found[-1]['seconds'] = record['seconds']
  return found


def _read_config(workdir):
  """The config of a run; {} if there is no config.json, as in a copy of eval.json."""
  path = files.as_path(workdir) / workdirs.CONFIG
  remedy = 'remove that file, or restore it by training the run again'
  try:
    config = files.read_json(path, remedy)
  except (FileNotFoundError, NotADirectoryError):
    return {}
  schema.check_format(config, path)
  config.pop('format', None)
  wrong = [key for key in GROUPS if not isinstance(config.get(key, {}), dict)]
  if wrong:
    raise files.Unreadable(path, f'its {wrong[0]} is not an object', remedy)
  return config
