"""The metrics of many runs as one pandas.DataFrame in long form, for tables and CSV.

    found = frame(group(runs))
    found[found.metric == 'auroc'].pivot_table('value', 'eval', 'group')

A row holds one number: a metric of one evaluation set of one run (at one threshold).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nat_jax import metrics
from nat_jax.reports import paper
from nat_jax.runtime import results
from nat_jax.schema import ACCURACY_NCR, TEST

if TYPE_CHECKING:
  import pandas  # not at run time: importing it takes 0.3 s, which slows --help

THRESHOLDS = tuple(map(str, metrics.THRESHOLDS))
COLUMNS = ('group', 'run', 'variant', 'seed', 'eval', 'type', 'part', 'positive',
           'seen', 'metric', 'threshold', 'value', 'low', 'high', 'n', 'paper')
OF_SAMPLES = (results.SAMPLES, 'quick', 'sheet')  # types of evaluations of a GAN
OF_POSITIVES = ('par', 'fpr95_ood_positive')  # of negative sets: shares of positives
ABOUT = ('type', 'part', 'positive', 'seen_in_training', 'n', 'corruption',
         'strength')  # no metrics

Groups = Mapping[str, Sequence[Mapping[str, Any]]]


def frame(groups: Groups) -> 'pandas.DataFrame':
  """The metrics of runs in long form.

  Args:
    groups: from `reports.group`: label -> runs of one experiment, one per seed.

  Returns:
    A data frame with a row for each number, in the order of eval.json. Columns:
    `group` (the label), `run`, `variant`, `seed`; of the evaluation set `eval` (its
    name), `type`, `part`, `positive`, `seen` (in training) and `n`, the number of
    images that the metric is of (of positives for `OF_POSITIVES`); `metric`;
    `threshold` (t as a string, or the index of a metric with a value per class or seed,
    or ''); `value`; `low` and `high`, the interval over the images of the set; `paper`,
    the value that the paper printed. Missing values are NaN.
  """
  import pandas

  rows = [row for label, runs in groups.items() for run in runs
          for row in _rows(label, run)]
  numbers = dict.fromkeys(('value', 'low', 'high', 'paper'), float)
  return pandas.DataFrame(rows, columns=COLUMNS).astype(
      numbers | {'positive': 'boolean', 'n': 'Int64'})


def _rows(label, run) -> Iterator[tuple]:
  for name, figures in run['evals'].items():
    seen, part = figures.get('seen_in_training'), part_of(name, figures)
    about = (label, run['label'], run['variant'], run['seed'], name,
             type_of(name, figures), part, is_positive(figures) if part else None, seen)
    for metric, value in figures.items():
      if metric in ABOUT or metric.endswith('_interval'):
        continue
      n = (_num_positives(run, part) if metric in OF_POSITIVES
           and not is_positive(figures) else figures.get('n'))
      interval = figures.get(f'{metric}_interval')
      if isinstance(value, list):
        value = dict(enumerate(value))
      for t, number in (value if isinstance(value, Mapping) else {'': value}).items():
        bounds = interval.get(t) if isinstance(interval, Mapping) else interval
        published = paper.published(run['name'], run['variant'], name, metric, t)
        yield (*about, metric, str(t), number, *(bounds or (None, None)), n, published)


def _num_positives(run, part):
  """The number of positives that negative sets of a part are compared with, or None."""
  names = set_names([run['evals']], part)[0]
  if run['reference'] in names:
    names = [run['reference']]
  return run['evals'][names[0]].get('n') if len(names) == 1 else None


def part_of(name: str, figures: Mapping[str, Any]) -> str:
  """The part of an evaluation set, by its name and metrics in eval.json.

  It is 'test' where it is not saved, as by version 0.1, and '' for samples of GANs.
  """
  of_samples = type_of(name, figures) in OF_SAMPLES
  return figures.get('part', '' if of_samples else TEST)


def type_of(name: str, figures: Mapping[str, Any]) -> str:
  """The type of an evaluation, which version 0.1 did not write into eval.json."""
  return figures.get('type', name if name == results.SAMPLES else ACCURACY_NCR)


def is_positive(figures: Mapping[str, Any]) -> bool:
  """Whether an evaluation set is one of positives, by its metrics in eval.json."""
  return figures.get('positive', 'ncr' not in figures)


def set_names(
    evals: Iterable[Mapping[str, Mapping[str, Any]]], part: str = TEST
) -> tuple[list[str], list[str]]:
  """The names of the positive and of the negative evaluation sets of a part, in order.

  Sets of another type of evaluation are left out.

  Args:
    evals: for several evaluations, name of a set -> its metrics.
    part: the part, such as 'test'.
  """
  found = {name: is_positive(figures)
           for sets in evals for name, figures in sets.items()
           if part_of(name, figures) == part
           and type_of(name, figures) == ACCURACY_NCR}
  return ([name for name, positive in found.items() if positive],
          [name for name, positive in found.items() if not positive])
