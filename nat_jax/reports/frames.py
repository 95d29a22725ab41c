"""The figures of many runs as one long pandas.DataFrame, which the tables are made of.

    found = frame(group(runs))
    found[found.metric == 'auroc'].pivot_table('value', 'eval', 'group')

A row holds one number: a metric of one evaluation set of one run (at one threshold).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nat_jax import metrics
from nat_jax.reports import paper
from nat_jax.runtime import results

if TYPE_CHECKING:
  import pandas  # takes a third of a second to import, which --help should not

THRESHOLDS = tuple(map(str, metrics.THRESHOLDS))
TEST, VALIDATION = 'test', 'validation'  # parts that evaluation sets are of
ACCURACY_NCR = 'accuracy_ncr'  # the type of evaluation of most sets
COLUMNS = ('group', 'run', 'variant', 'seed', 'eval', 'type', 'part', 'positive',
           'seen', 'metric', 'threshold', 'value', 'low', 'high', 'n', 'paper')
ABOUT = ('type', 'part', 'positive', 'seen_in_training', 'n')  # not of the network

Groups = Mapping[str, Sequence[Mapping[str, Any]]]


def frame(groups: Groups) -> 'pandas.DataFrame':
  """The figures of runs in long form.

  Args:
    groups: of `reports.group`: label -> runs of one experiment, a seed each.

  Returns:
    A row for each number, in the order of eval.json: `group` (its label), `run`,
    `variant`, `seed`; `eval`, `type`, `part`, `positive`, `seen` (in training) and `n`
    of the evaluation set; `metric`, `threshold` (t as a string; the index where a
    metric has a value for each class or seed; else ''), `value`, the interval `low` to
    `high` over the images of the set, and `paper`, the value that the paper printed.
    NaN stands for what is missing.
  """
  import pandas

  rows = [row for label, runs in groups.items() for run in runs
          for row in _rows(label, run)]
  numbers = dict.fromkeys(('value', 'low', 'high', 'paper'), float)
  return pandas.DataFrame(rows, columns=COLUMNS).astype(
      numbers | {'positive': 'boolean', 'n': 'Int64'})


def _rows(label, run) -> Iterator[tuple]:
  for name, figures in run['evals'].items():
    seen, n = figures.get('seen_in_training'), figures.get('n')
    part = part_of(name, figures)
    about = (label, run['label'], run['variant'], run['seed'], name,
             type_of(name, figures), part, is_positive(figures) if part else None, seen)
    for metric, value in figures.items():
      if metric in ABOUT or metric.endswith('_interval'):
        continue
      interval = figures.get(f'{metric}_interval')
      if isinstance(value, list):
        value = dict(enumerate(value))
      for t, number in (value if isinstance(value, Mapping) else {'': value}).items():
        bounds = interval.get(t) if isinstance(interval, Mapping) else interval
        published = paper.published(run['name'], run['variant'], name, metric, t)
        yield (*about, metric, str(t), number, *(bounds or (None, None)), n, published)


def part_of(name: str, figures: Mapping[str, Any]) -> str:
  """The part of a set; version 0.1 evaluated the test only. Samples are of none."""
  return figures.get('part', '' if name == results.SAMPLES else TEST)


def type_of(name: str, figures: Mapping[str, Any]) -> str:
  """The type of an evaluation, which version 0.1 did not write into eval.json."""
  return figures.get('type', name if name == results.SAMPLES else ACCURACY_NCR)


def is_positive(figures: Mapping[str, Any]) -> bool:
  """Whether a set is of positives, by its figures."""
  return figures.get('positive', 'ncr' not in figures)


def set_names(
    evals: Iterable[Mapping[str, Mapping[str, Any]]], part: str = TEST
) -> tuple[list[str], list[str]]:
  """The names of the positive and of the negative sets of a part, in order.

  Sets of another type of evaluation are left out.

  Args:
    evals: figures by set, of several evaluations.
    part: of the sets.
  """
  found = {name: is_positive(figures) for one in evals for name, figures in one.items()
           if part_of(name, figures) == part and type_of(name, figures) == ACCURACY_NCR}
  return ([name for name, positive in found.items() if positive],
          [name for name, positive in found.items() if not positive])
