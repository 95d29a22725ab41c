"""The verdict on classifiers in words, with the intervals of its figures.

    for headline, sentences in verdict(reports.group(runs)):
      print(headline, *sentences)

    >>> refused(0.01), refused(0.6)
    ('almost all of', 'less than half of')
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nat_jax import data, metrics
from nat_jax.reports import claims
from nat_jax.reports.frames import set_names
from nat_jax.reports.tables import joined, percent
from nat_jax.schema import CORRUPTION
from nat_jax.tasks.classify.report import baselines

Groups = Mapping[str, Sequence[Mapping[str, Any]]]
Paragraph = tuple[str, list[str]]

ACCEPTED = 'fpr95_id_positive'  # negatives accepted where 95 % of positives are
MOST = 4  # groups that have a paragraph each
WIDE = 0.3  # of an interval; a share that is known less exactly is not put in words
REFUSED = ((0.05, 'almost all of'), (0.25, 'most of'), (0.5, 'more than half of'),
           (0.8, 'less than half of'))


class Share(NamedTuple):
  """A share of the images of a set, of one run or several.

  Attributes:
    mean: over the runs.
    low, high: of one run the 95 % interval over its images, of several their range.
    values: of each run.
    n: number of images; None: not known, or not the same in all runs.
  """

  mean: float
  low: float
  high: float
  values: list[float]
  n: int | None

  def __str__(self) -> str:
    ends = [percent(end).removesuffix(' %') for end in (self.low, self.high)]
    return f'{percent(self.mean)} ({ends[0]} to {ends[1]} %)'


def share(runs: Sequence[Mapping[str, Any]], name: str, metric: str) -> Share | None:
  """The share that a metric is, in a set; None where no run has it.

  Args:
    runs: of one group, from `reports.load_run`.
    name: of the evaluation set.
    metric: in eval.json, a share of the images of the set.
  """
  found = [run['evals'].get(name, {}) for run in runs]
  values = [figures[metric] for figures in found if figures.get(metric) is not None]
  if not values:
    return None
  counts = {figures['n'] for figures in found if figures.get('n')}
  n = counts.pop() if len(counts) == 1 else None
  low, high = min(values), max(values)
  if len(values) == 1:
    known = next((one for one in found if one.get(f'{metric}_interval')), None)
    if known:
      low, high = known[f'{metric}_interval']
    elif n:
      low, high = metrics.proportion_interval(round(values[0] * n), n)
  return Share(statistics.fmean(values), low, high, values, n)


def verdict(groups: Groups) -> list[Paragraph]:
  """What the runs can do, in words: (headline, sentences) for each group.

  Groups that others are compared with have no paragraph of their own.

  Args:
    groups: from `reports.group`.
  """
  rivals = baselines(groups)
  labels = [label for label in groups if label not in rivals.values()] or list(groups)
  found = [(_headline(label, groups[label]),
            list(_sentences(label, groups, rivals.get(label))))
           for label in labels[:MOST]]
  if len(labels) > MOST:
    found.append(('', [f'{len(labels) - MOST} more: {", ".join(labels[MOST:])}; their '
                       'figures are in the tables.']))
  several = any(len(runs) > 1 for runs in groups.values())
  single = any(len(runs) == 1 for runs in groups.values())
  brackets = joined(single * ['95 % intervals over the test images of one network']
                    + several * ['the range over seeds'])
  return [*found, ('', [f'In brackets behind a share: {brackets}.'])]


def refused(accepted: float) -> str:
  """The share of negatives that is refused, in words, given the share accepted."""
  return next((words for most, words in REFUSED if accepted <= most), 'hardly any of')


def _headline(label, runs):
  """The accuracy, and which kinds of negatives are refused."""
  run = runs[0]
  accuracy = share(runs, run['reference'], 'accuracy')
  if accuracy:
    text = (f'{label} classifies {percent(accuracy.mean)} of held-out positives '
            'correctly.')
  else:
    text = f'The accuracy of {label} is not known.'
  chance = 1 / run['num_classes']  # 1: the number of classes is not known
  if accuracy and chance < 1 and accuracy.low <= chance <= accuracy.high:
    text += f' That is chance, 1 of {run["num_classes"]} classes.'
  by_words: dict[str, list[str]] = {}
  for name, one in _negatives(runs):
    unsure = len(one.values) == 1 and one.high - one.low > WIDE
    by_words.setdefault('' if unsure else refused(one.mean), []).append(name)
  unsure = by_words.pop('', [])
  if by_words:
    order = [words for _, words in REFUSED] + ['hardly any of']
    text += ' At a threshold that keeps 95 % of them it refuses ' + joined(
        [f'{words} {joined(by_words[words])}' for words in order if words in by_words]
    ) + '.'
  if unsure:
    text += (f' There are too few images to say so of {joined(unsure)}: test more of '
             'them, and more positives.')
  return text


def _negatives(runs) -> Iterator[tuple[str, Share]]:
  """The negative test sets, with the share that is still accepted."""
  for name in set_names(run['evals'] for run in runs)[1]:
    found = share(runs, name, ACCEPTED)
    if found:
      yield name, found


def _sentences(label, groups, rival) -> Iterator[str]:
  """The figures behind a headline, and what limits them."""
  runs = groups[label]
  accuracy = share(runs, runs[0]['reference'], 'accuracy')
  if accuracy:
    yield f'Accuracy{_of(accuracy)}: {accuracy}.'
  negatives = dict(_negatives(runs))
  if negatives:
    accepted = [f'{one} of {name}{_about(runs, name)}'
                for name, one in negatives.items()]
    yield ('Accepted at that threshold, although of none of the classes: '
           f'{joined(accepted)}.')
  else:
    yield ('No negatives were tested, so that nothing is known about pictures of none '
           'of the classes.')
  for name in negatives:
    figures = _first(runs, name)
    overlap = figures.get('overlap_with_training_negatives')
    if overlap and figures.get('n'):
      yield data.overlap_sentence(name, overlap, figures['n'])
  yield from _weak_classes(runs)
  yield from _corrupted(runs)
  if rival:
    yield from _comparison(label, runs, rival, groups[rival], negatives)
  elif negatives and not any(one['variant'].endswith('baseline') for one in runs):
    yield 'There is no plain classifier to compare with.'


def _of(one):
  images = '' if one.n is None else f' on {one.n:,} held-out positives'
  return images + (f', mean of {len(one.values)} seeds' if len(one.values) > 1 else '')


def _first(runs, name):
  """The figures of a set, of the first run that has it; {} if there is none."""
  return next((run['evals'][name] for run in runs if name in run['evals']), {})


def _about(runs, name):
  """' (102, seen in training)' of a negative set."""
  figures = _first(runs, name)
  counts = {run['evals'].get(name, {}).get('n') for run in runs} - {None}
  about = [f'n = {" or ".join(f"{n:,}" for n in sorted(counts))}'] if counts else []
  if figures.get('seen_in_training') is not None:
    about += ['a kind seen in training' if figures['seen_in_training'] else
              'unseen in training']
  return f' ({", ".join(about)})' if about else ''


def _weak_classes(runs) -> Iterator[str]:
  """The classes whose accuracy is below that of all, of one run.

  By one-sided binomial tests at 5 %, with Holm's correction over the classes.
  """
  run = runs[0]
  classes = run['evaluation'].get('classes')
  accuracy = share(runs, run['reference'], 'accuracy')
  if len(runs) > 1 or not classes or accuracy is None:
    return
  from scipy import stats  # half a second of imports

  known = [(value, n, name) for name, n, value in zip(
      run['class_names'], classes['n'], classes['accuracy'], strict=True) if n]
  found = claims.holm([
      stats.binomtest(round(value * n), n, accuracy.mean, 'less').pvalue
      for value, n, _ in known])
  weak = [f'{name} ({percent(value)} of {n})'
          for p, (value, n, name) in sorted(zip(found, known, strict=True),
                                            key=lambda one: one[1]) if p < 0.05]
  if weak:
    more = f', and {len(weak) - 5} more' if len(weak) > 5 else ''
    yield f'Less accurate than the rest: {", ".join(weak[:5])}{more}.'


def _corrupted(runs) -> Iterator[str]:
  """Accuracy and acceptance under the strongest corruption of each kind."""
  strongest: dict[str, tuple[int, str]] = {}
  for name, figures in runs[0]['evals'].items():
    if figures.get('type') == CORRUPTION:
      kind = figures['corruption']
      strongest[kind] = max(strongest.get(kind, (0, '')), (figures['strength'], name))
  texts = []
  for kind, (strength, name) in strongest.items():
    right, kept = (percent(share(runs, name, metric).mean)
                   for metric in ('accuracy', 'accepted'))
    texts.append(f'{kind} of strength {strength}: {right} right, {kept} accepted')
  if texts:
    yield f'Corrupted positives. {"; ".join(texts)}.'


def _comparison(label, runs, rival, others, negatives) -> Iterator[str]:
  """The figures of the group that these runs are compared with, and the differences."""
  pairs = {}
  for what, name, metric in (
      ('accuracy {}', runs[0]['reference'], 'accuracy'),
      *((f'{{}} of {name} accepted', name, ACCEPTED) for name in negatives)):
    both = share(runs, name, metric), share(others, name, metric)
    if all(both):
      pairs[what] = both
  if pairs:
    yield f'To compare, {rival}: ' + joined(
        [f'{what.format(percent(pairs[what][1].mean))} ({text})'
         for what, text in differences(label, pairs).items()]) + '.'


def differences(
    label: str, pairs: Mapping[str, tuple[Share, Share]]
) -> dict[str, str]:
  """In words, whether our shares differ from those of the baseline.

  One run each: they differ where their 95 % intervals do not overlap. Several seeds
  each: by `claims.verdicts`, one family of tests.

  Args:
    label: of our group.
    pairs: name -> (our share, that of the baseline).
  """
  tests = claims.verdicts({
      name: claims.Comparison(ours.values, theirs.values)
      for name, (ours, theirs) in pairs.items()})
  found = {}
  for name, (ours, theirs) in pairs.items():
    text = tests[name].replace('not shown', 'no difference shown')
    if len(ours.values) == len(theirs.values) == 1:
      text = ('lower' if ours.high < theirs.low else
              'higher' if ours.low > theirs.high else 'no difference shown')
    found[name] = f'{label} {text}' if text[0] in 'lh' else text
  return {name: 'one seed: not tested' if text == '-' else text
          for name, text in found.items()}
