"""Further tables of a report on GANs: class shares, conventions, runs.

    for table in conventions(reports.group(runs)):
      print(table.markdown())
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nat_jax.metrics import describe
from nat_jax.reports.tables import Table, cells, labels, mean_text
from nat_jax.runtime import results

# Keys of the evaluation classifier among the conventions of eval.json; the second is
# that of version 0.1.
CLASSIFIER = results.CLASSIFIER, 'judge'
MAX_CLASSES = 20  # with more classes the table of class shares has no row for each
SAMPLES = results.SAMPLES  # the evaluation set of a GAN
REAL = 'real'  # the row of what real images reach

Runs = Sequence[Mapping[str, Any]]
Groups = Mapping[str, Runs]


def classifier(runs: Runs) -> str:
  """The name of the evaluation classifier of some runs."""
  found = [next((run['conventions'][key] for key in CLASSIFIER
                 if key in run['conventions']), 'not known') for run in runs]
  return '; or '.join(dict.fromkeys(found))


def classifiers(groups: Groups) -> list[str]:
  """The names of the different evaluation classifiers, in order of appearance."""
  return list(dict.fromkeys(classifier(runs) for runs in groups.values()))


def samples_of(run: Mapping[str, Any]) -> Mapping[str, Any]:
  """The metrics of the samples of a run, as in eval.json."""
  return run['evals'].get(SAMPLES, {})


def heads(groups: Groups) -> dict[str, str]:
  """Label -> the name in tables, such as 'nat3 (3 seeds, 1 collapsed)'."""
  counts = {label: sum(bool(samples_of(run).get('collapsed')) for run in runs)
            for label, runs in groups.items()}
  return labels(groups, {label: f'{n} collapsed' for label, n in counts.items() if n})


def real_images(found) -> tuple[str, dict[tuple[str, ...], str]]:
  """The metrics of real images that were not trained on, as the row `REAL` of tables.

  Args:
    found: from `reports.frame`, of all groups.

  Returns:
    (the name of the row, {(REAL, eval, metric, ''): text} as of
    `reports.tables.cells`); ('', {}) unless all runs have these figures, the same ones.
  """
  held_out = found[(found.metric == 'held_out') & found.value.notna()]
  if held_out.empty or held_out.run.nunique() < found.run.nunique():
    return '', {}
  said: dict[str, set[str]] = {}  # metric -> the texts of all runs
  for metric, value in zip(held_out.threshold, held_out.value, strict=True):
    said.setdefault(metric, set()).add(mean_text([value], describe(metric).digits))
  if any(len(texts) > 1 for texts in said.values()):
    return '', {}
  num = int(held_out[held_out.threshold == 'num_samples'].value.iloc[0])
  return f'{num:,} real images, held out', {
      (REAL, SAMPLES, metric, ''): text for metric, (text,) in said.items()}


def class_shares(found, groups: Groups) -> Table | None:
  """The table of class shares in the samples; None if no run has them.

  Args:
    found: from `reports.frame`, of all groups.
    groups: from `reports.group`.
  """
  shares = found[(found.metric == 'class_shares') & found.value.notna()]
  if shares.empty:
    return None
  real = found[found.metric == 'reference_class_shares']
  first = real[real.run == real.run.iloc[0]] if len(real) else real
  if real.run.nunique() == found.run.nunique() and (
      real.groupby('threshold').value.nunique().max() == 1):
    import pandas
    shares = pandas.concat([shares, first.assign(
        group='real images', metric='class_shares')])
  columns = shares.group.unique().tolist()
  num, names = shares.threshold.nunique(), next(iter(groups.values()))[0]['class_names']
  names = names if len(names) == num else [str(i) for i in range(num)]
  text, rows = cells(shares), []
  for i, name in enumerate(names if num <= MAX_CLASSES else ()):
    rows.append([name, *(text.get((group, SAMPLES, 'class_shares', str(i)), '-')
                         for group in columns)])
  of_runs = shares.groupby(['group', 'run'], sort=False).value
  for name, values, digits in (
      ('largest', of_runs.max(), 3), ('smallest', of_runs.min(), 3),
      ('classes without a sample', of_runs.agg(lambda x: (x == 0).sum()), 1)):
    rows.append([name, *(mean_text(values[group].tolist(), digits)
                         for group in columns)])
  return Table(
      'Shares of the classes that the evaluation classifier predicts for the samples.',
      ['class', *columns], rows)


def conventions(groups: Groups) -> list[Table]:
  """How each metric was computed: a table for each evaluation classifier."""
  known = classifiers(groups)
  tables = []
  for i, name in enumerate(known):
    runs = {f'{label} seed {run["seed"]}': run for label, same in groups.items()
            if classifier(same) == name for run in same}
    which = 'Evaluation classifier'
    if len(known) > 1:
      which += f' {i + 1}, of ' + ', '.join(
          label for label, same in groups.items() if classifier(same) == name)
    tables.append(Table(
        f'How the metrics were computed. {which}: {name}.', ['measure', 'convention'],
        _sentences(runs), left=2))
  return tables


def _sentences(runs):
  """Rows (metrics, sentence); a sentence that is not of all runs begins with theirs."""
  said: dict[str, dict[str, list[str]]] = {}  # metric -> sentence -> runs
  for label, run in runs.items():
    for measure, sentence in run['conventions'].items():
      said.setdefault(measure, {}).setdefault(sentence, []).append(label)
  for key in CLASSIFIER:
    said.pop(key, None)
  together: dict[tuple[str, str], list[str]] = {}  # (runs, sentence) -> metrics
  for measure, sentences in said.items():
    for sentence, of_runs in sentences.items():
      where = '' if len(of_runs) == len(runs) else ', '.join(of_runs)
      together.setdefault((where, sentence), []).append(measure)
  return [[', '.join(measures), f'{where}: {sentence}' if where else sentence]
          for (where, sentence), measures in together.items()]


def about_runs(groups: Groups) -> Table:
  """The table of runs: step, loss, networks, spread and workdir of each."""
  rows = []
  for run in (run for runs in groups.values() for run in runs):
    config, samples = run['config'], samples_of(run)
    steps, spread = config.get('steps'), samples.get('spread')
    rows.append([
        run['label'], f'{run["step"]} of {steps}' if steps else str(run['step']),
        *(config.get(key, {}).get('name', '-')
          for key in ('loss', 'generator', 'discriminator')),
        mean_text([] if spread is None else [spread], 2)
        + (' COLLAPSED' if samples.get('collapsed') else ''), run['workdir']])
  return Table(
      'Runs. Spread: of the samples, as a share of that of real images.',
      ['run', 'step', 'loss', 'generator', 'discriminator', 'spread', 'workdir'],
      rows, left=7)
