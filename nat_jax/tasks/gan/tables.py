"""Tables on GAN runs beside the scores: more measures, classes, conventions, runs.

    for table in conventions(report.group(runs)):
      print(table.markdown())
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from nat_jax.reports.tables import Table, find, mean_text

# measure -> its name in a table and its digits
DISTANCES = {
    'kid': ('KID', 4), 'cafd': ('CAFD', 2), 'cafd_left_out': ('classes left out', 0),
    'diversity': ('diversity ratio', 3)}
MANIFOLD = {
    'precision': ('precision', 3), 'recall': ('recall', 3), 'density': ('density', 3),
    'coverage': ('coverage', 3),
}
INDEPENDENT = {
    'independent_inception_score': ('IS of samples', 2),
    'reference_independent_inception_score': ('IS of real images', 2),
}
MAX_CLASSES = 20  # with a row each in the table of class shares
NAMES, SENTENCE = 25, 80  # characters in a line of the table of conventions

Runs = Sequence[Mapping[str, Any]]
Groups = Mapping[str, Runs]


def judge(runs: Runs) -> str:
  """What judged the samples of some runs, in words."""
  found = [run['conventions'].get('judge', 'not known') for run in runs]
  return '; or '.join(dict.fromkeys(found))


def judges_of(groups: Groups) -> list[str]:
  """The different judges, in order of appearance."""
  return list(dict.fromkeys(judge(runs) for runs in groups.values()))


def head(label: str, runs: Runs) -> str:
  """'nat3 (3 seeds, 1 collapsed)'."""
  notes = [f'{len(runs)} seeds'] if len(runs) > 1 else []
  collapsed = sum(values(runs, 'collapsed'))
  notes += [f'{collapsed} collapsed'] if collapsed else []
  return f'{label} ({", ".join(notes)})' if notes else label


def values(runs: Runs, measure: str) -> list:
  """A measure of those runs that have it."""
  return find([run['evals'] for run in runs], 'samples', measure)


def more_measures(groups: Groups) -> list[Table]:
  """KID, class-aware FID and diversity; precision, recall, density and coverage."""
  found = []
  for title, measures in (
      ('KID and class-aware FID (CAFD, without classes of fewer than two samples): '
       'lower is better. Diversity: mean distance within a class, as a ratio to that '
       'of real images.', DISTANCES),
      ('Are samples like real images (precision, density), and are real images like '
       'samples (recall, coverage)? Higher is better.', MANIFOLD),
      ('Inception Score by a classifier of other labels, which the discriminator has '
       'not learned.', INDEPENDENT)):
    measures = {m: form for m, form in measures.items()
                if any(values(runs, m) for runs in groups.values())}
    rows = [[head(label, runs)] + [
        mean_text(values(runs, m), digits) for m, (_, digits) in measures.items()]
        for label, runs in groups.items()]
    header = ['run', *(name for name, _ in measures.values())]
    found += [Table(title, header, rows)] if measures else []
  return found


def class_shares(groups: Groups) -> Table | None:
  """The share of each class, and the extremes; None where the judge knows none."""
  shares = {}
  for label, runs in groups.items():
    found = values(runs, 'class_shares')
    if found and len({len(one) for one in found}) == 1:
      shares[label] = list(zip(*found, strict=True))  # [class][seed]
  if not shares:
    return None
  real = [run['evals']['samples'].get('reference_class_shares')
          for runs in groups.values() for run in runs]
  if real[0] and all(one == real[0] for one in real):
    shares['real images'] = [(share,) for share in real[0]]
  counts = {len(of_class) for of_class in shares.values()}
  rows = []
  if len(counts) == 1 and max(counts) <= MAX_CLASSES:
    names = next(iter(groups.values()))[0]['class_names']
    names = names if len(names) in counts else [str(i) for i in range(max(counts))]
    rows = [[name, *(mean_text(of_class[i], 3) for of_class in shares.values())]
            for i, name in enumerate(names)]
  for name, reduce in (('largest', max), ('smallest', min)):
    rows.append([name, *(
        mean_text([reduce(seed) for seed in zip(*of_class, strict=True)], 3)
        for of_class in shares.values())])
  rows.append(['classes without a sample', *(
      mean_text([sum(not share for share in seed)
                 for seed in zip(*of_class, strict=True)], 1)
      for of_class in shares.values())])
  return Table('Shares of the classes that the judge sees in the samples.',
               ['class', *shares], rows)


def merged(sentences: Sequence[str]) -> str:
  """Sentences that differ in numbers alone become one: 'of 3 to 5 classes'."""
  forms: dict[tuple, list] = {}
  for sentence in dict.fromkeys(sentences):
    parts = re.split(r'(\d+(?:\.\d+)?)', sentence)
    forms.setdefault(tuple(parts[::2]), []).append(parts[1::2])
  texts = []
  for words, numbers in forms.items():
    text = words[0]
    for word, found in zip(words[1:], zip(*numbers, strict=True), strict=True):
      low, high = min(found, key=float), max(found, key=float)
      text += (low if low == high else f'{low} to {high}') + word
    texts.append(text)
  return ' Or: '.join(texts)


def conventions(groups: Groups) -> list[Table]:
  """How each measure was taken: a table for each judge."""
  judges = judges_of(groups)
  return [_conventions(groups, judges, i) for i in range(len(judges))]


def _conventions(groups, judges, index):
  of_judge = {label: runs for label, runs in groups.items()
              if judge(runs) == judges[index]}
  sentences: dict[str, list[str]] = {}
  for runs in of_judge.values():
    for run in runs:
      for measure, sentence in run['conventions'].items():
        if measure != 'judge':
          sentences.setdefault(measure, []).append(sentence)
  together: dict[str, list[str]] = {}  # what several measures share is said once
  for measure, found in sentences.items():
    together.setdefault(merged(found), []).append(measure)
  rows = []
  for sentence, names in together.items():
    left = textwrap.wrap(', '.join(names), NAMES)
    right = textwrap.wrap(sentence, SENTENCE)
    for i in range(max(len(left), len(right))):
      rows.append([lines[i] if i < len(lines) else '' for lines in (left, right)])
  which = f'Judge {index + 1}, of {", ".join(of_judge)}' if len(judges) > 1 else 'Judge'
  return Table(f'How the measures were taken. {which}: {judges[index]}.',
               ['measure', 'convention'], rows, left=2)


def about_runs(groups: Groups) -> Table:
  """Step, losses, networks, spread and workdir of each run."""
  rows = []
  for runs in groups.values():
    for run in runs:
      config, one = run['config'], [run]
      steps = config.get('steps')
      rows.append([
          run['label'], f'{run["step"]} of {steps}' if steps else str(run['step']),
          *(config.get(key, {}).get('name', '-')
            for key in ('loss', 'generator', 'discriminator')),
          mean_text(values(one, 'spread'), 2)
          + (' COLLAPSED' if any(values(one, 'collapsed')) else ''), run['workdir']])
  return Table(
      'Runs. Spread: of the samples, as a share of that of real images.',
      ['run', 'step', 'loss', 'generator', 'discriminator', 'spread', 'workdir'],
      rows, left=7)
