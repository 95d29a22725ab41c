"""Tables on GAN runs beside the scores: classes, conventions, runs.

    for table in conventions(reports.group(runs)):
      print(table.markdown())
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nat_jax.reports.tables import Table, cells, labels, mean_text

MAX_CLASSES = 20  # with a row each in the table of class shares
SAMPLES = 'samples'  # the evaluation set of a GAN

Runs = Sequence[Mapping[str, Any]]
Groups = Mapping[str, Runs]


def classifier(runs: Runs) -> str:
  """The evaluation classifier of some runs, in words."""
  found = [run['conventions'].get('judge', 'not known') for run in runs]
  return '; or '.join(dict.fromkeys(found))


def classifiers(groups: Groups) -> list[str]:
  """The different evaluation classifiers, in order of appearance."""
  return list(dict.fromkeys(classifier(runs) for runs in groups.values()))


def samples_of(run: Mapping[str, Any]) -> Mapping[str, Any]:
  """The measures of the samples of a run, as in eval.json."""
  return run['evals'].get(SAMPLES, {})


def heads(groups: Groups) -> dict[str, str]:
  """What a table calls each group: 'nat3 (3 seeds, 1 collapsed)'."""
  counts = {label: sum(bool(samples_of(run).get('collapsed')) for run in runs)
            for label, runs in groups.items()}
  return labels(groups, {label: f'{n} collapsed' for label, n in counts.items() if n})


def class_shares(found, groups: Groups) -> Table | None:
  """The share of each class, and the extremes; None without known classes.

  Args:
    found: the data frame of the groups.
    groups: of `reports.group`.
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
      'Shares of the classes that the evaluation classifier sees in the samples.',
      ['class', *columns], rows)


def conventions(groups: Groups) -> list[Table]:
  """How each measure was taken: a table for each evaluation classifier."""
  known = classifiers(groups)
  tables = []
  for i, one in enumerate(known):
    runs = {f'{label} seed {run["seed"]}': run for label, same in groups.items()
            if classifier(same) == one for run in same}
    which = 'Evaluation classifier'
    if len(known) > 1:
      which += f' {i + 1}, of ' + ', '.join(
          label for label, same in groups.items() if classifier(same) == one)
    tables.append(Table(
        f'How the measures were taken. {which}: {one}.', ['measure', 'convention'],
        _sentences(runs), left=2))
  return tables


def _sentences(runs):
  """Rows of measures and a sentence, after the runs it is true of if not of all."""
  said: dict[str, dict[str, list[str]]] = {}  # measure -> sentence -> runs
  for label, run in runs.items():
    for measure, sentence in run['conventions'].items():
      said.setdefault(measure, {}).setdefault(sentence, []).append(label)
  said.pop('judge', None)
  together: dict[tuple[str, str], list[str]] = {}  # what measures share is said once
  for measure, sentences in said.items():
    for sentence, of_runs in sentences.items():
      where = '' if len(of_runs) == len(runs) else ', '.join(of_runs)
      together.setdefault((where, sentence), []).append(measure)
  return [[', '.join(measures), f'{where}: {sentence}' if where else sentence]
          for (where, sentence), measures in together.items()]


def about_runs(groups: Groups) -> Table:
  """Step, losses, networks, spread and workdir of each run."""
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
