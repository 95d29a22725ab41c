"""The tables, the figure and the verdict of a report on AdvGANs.

    for table in tables(reports.group(runs)):
      print(table.markdown())
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nat_jax.metrics import METRICS
from nat_jax.reports import pictures
from nat_jax.reports.frames import frame
from nat_jax.reports.tables import (
    Table,
    arrange,
    cells,
    labels,
    mean_text,
    of_metrics,
    percent,
)
from nat_jax.runtime import results
from nat_jax.tasks.advgan.evaluate import EXAMPLES, TITLES

Groups = Mapping[str, Sequence[Mapping[str, Any]]]
HONEST = (
    'Adversarial pictures show where a classifier errs; they do not make it robust. A '
    'classifier that was trained on them must be attacked anew.')


def tables(groups: Groups) -> list[Table]:
  """A table of attacks for each evaluation set, and one of the runs.

  Args:
    groups: from `reports.group`.
  """
  text, made = cells(frame(groups)), []
  names = dict.fromkeys(
      name for runs in groups.values() for run in runs for name in run['evals'])
  thresholds = sorted({run['config']['measures']['threshold']
                       for runs in groups.values() for run in runs})
  limit = ' or '.join(map(str, thresholds))
  for name in names:
    found = [run['evals'].get(name, {}) for runs in groups.values() for run in runs]
    attacks = [attack for attack in TITLES
               if any(attack in one.get('success', {}) for one in found)]
    rows = {TITLES[attack]: {'threshold': attack} for attack in attacks}
    made.append(arrange(
        f'Attacks on {name}, as shares of the pictures that are classified correctly '
        'as they are. Success: taken for another class. Confident errors: taken for '
        f'another class with a maximum probability above {limit}. Accepted errors: '
        'taken for another class, at a threshold that accepts 95 % of the pictures as '
        'they are. Change: mean over pixels, as a share of the range from black to '
        'white.', text, rows, of_metrics(
            ['success', 'confident_errors', 'accepted_errors', 'change'], eval=name),
        labels(groups), corner='attack'))
  made.append(_about(groups))
  return made


def _about(groups):
  """The runs: what was attacked, with which budget, and how good it is unattacked."""
  rows = []
  for run in (run for runs in groups.values() for run in runs):
    config = run['config']
    for name, found in run['evals'].items():
      shown = config['evals'].get(name, {}).get('classifier') or config['target']
      rows.append([
          run['label'], config['target']['workdir'],
          'black box' if config['student'] else 'semi-white box', name,
          shown['workdir'], str(found['n']), f'{config["trainer"]["budget"]:g}',
          mean_text([found['accuracy']], METRICS['accuracy'].digits),
          mean_text([found['accepted']], METRICS['accepted'].digits)])
  return Table(
      'Runs. Target: the pictures are changed for it. Classifier: it sees them. '
      'Accuracy, and the share that is accepted with a maximum probability above the '
      'threshold, are of the pictures as they are.',
      ['run', 'target', 'attack', 'set', 'classifier', 'pictures', 'budget', 'accuracy',
       'accepted'], rows, left=5)


def verdict(groups: Groups) -> list[tuple[str, list[str]]]:
  """What the attack does, in words: (headline, sentences) for each group.

  Args:
    groups: from `reports.group`.
  """
  said = []
  for label, runs in groups.items():
    sentences, headline = [], ''
    for name in runs[0]['evals']:
      success, errors = (
          {attack: mean for attack in TITLES
           if (mean := _mean(runs, name, metric, attack)) is not None}
          for metric in ('success', 'confident_errors'))
      if not success:
        sentences.append(f'{name}: no picture is classified correctly as it is.')
        continue
      if not headline:
        headline = (f'{label}: AdvGAN misleads the classifier on '
                    f'{percent(success["advgan"])} of {name}, PGD on '
                    f'{percent(success["pgd"])}.')
      sentences.append(
          f'{name}: success of ' + ', '.join(
              f'{TITLES[attack]} {percent(value)}' for attack, value in success.items())
          + f'; confident errors: AdvGAN {percent(errors["advgan"])}, at most '
          f'{percent(max(errors.values()))}.')
    nothing = 'no picture is classified correctly' if sentences else 'no evaluation'
    said.append((headline or f'{label}: {nothing}.', [*sentences, HONEST]))
  return said


def _mean(runs, name, metric, attack):
  """The mean of a figure over runs; None if a run lacks it."""
  found = [run['evals'].get(name, {}).get(metric, {}).get(attack) for run in runs]
  return None if None in found else sum(found) / len(found)


def figures(groups: Groups) -> Iterator[tuple[str, str, str, Any]]:
  """Yields (file name, caption, note on what is missing or '', figure or None)."""
  sheets, names = {}, []
  for label, runs in groups.items():
    for name in runs[0]['evals']:
      found = results.read_arrays(
          runs[0]['workdir'], f'{EXAMPLES}/{name}', runs[0]['step'], ['image'])
      if found is None or not len(found['image']):
        continue
      names = runs[0]['class_names']
      for when, key in (('before', 'image'), ('after', 'changed')):
        sheets[f'{label}, {name}, {when} the change'] = {
            'image': found[key], 'prediction': found[f'prediction_{when}'],
            'max_prob': found[f'max_prob_{when}']}
  yield ('adversarial', 'Pictures before and after the change by AdvGAN, with '
         'prediction and maximum probability', '' if sheets else
         'Left out: no run has such pictures.',
         pictures.sheets(sheets, names) if sheets else None)
