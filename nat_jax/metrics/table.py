"""The table of all metrics: title, digits, and whether lower or higher is better.

    >>> METRICS['fid'].title
    'FID'
    >>> lower_is_better('validation/ncr/0.8')
    True
    >>> directions(['inception_score', 'fid'])
    'IS: higher is better; FID: lower is better.'
"""

from collections.abc import Iterable
from typing import NamedTuple


class Metric(NamedTuple):
  """How reports show a metric.

  Attributes:
    title: its name in tables and figures.
    digits: number of digits after the decimal point.
    better: 'lower', 'higher', or '' where neither is better.
    by_threshold: whether eval.json has a value for each threshold t.
  """

  title: str
  digits: int = 3
  better: str = ''
  by_threshold: bool = False


METRICS = {
    # Classifiers.
    'accuracy': Metric('accuracy', 4, 'higher'),
    'accepted': Metric('accepted', 3, 'higher'),
    'ece': Metric('ECE', 4, 'lower'),
    'ncr': Metric('NCR', 3, 'lower', True),
    'par': Metric('PAR', 3, 'higher', True),
    'auroc': Metric('AUROC', 3, 'higher'),
    'aupr_in': Metric('AUPR-in', 3, 'higher'),
    'aupr_out': Metric('AUPR-out', 3, 'higher'),
    'fpr95_id_positive': Metric('FPR95 (ID-positive)', 3, 'lower'),
    'fpr95_ood_positive': Metric('FPR95 (OOD-positive)', 3, 'lower'),
    'below_half': Metric('share with D < 1/2', 3),
    # Anomalies in time series; also precision and recall, below.
    'f1': Metric('F1', 3, 'higher'),
    'false_alarms': Metric('false alarms', 3, 'lower'),
    'false_alarms_apart': Metric('false alarms apart', 3, 'lower'),
    'kind_auroc': Metric('AUROC by kind', 3, 'higher'),
    # Classifiers of seen and unseen classes.
    'accuracy_unseen': Metric('U', 3, 'higher'),
    'accuracy_seen': Metric('S', 3, 'higher'),
    'harmonic_mean': Metric('H', 3, 'higher'),
    'accuracy_unseen_only': Metric('U, unseen candidates only', 3, 'higher'),
    'constant': Metric('constant', 3),
    'validation_harmonic_mean': Metric('H on validation', 3, 'higher'),
    # Attacks on classifiers, of pictures that were classified correctly.
    'success': Metric('success', 3),
    'confident_errors': Metric('confident errors', 3),
    'accepted_errors': Metric('accepted errors', 3),
    'change': Metric('mean change', 3),
    # Segmenters.
    'miou': Metric('mIoU', 3, 'higher'),
    'iou': Metric('IoU', 3, 'higher'),
    'rare_iou': Metric('rare IoU', 3, 'higher'),
    'pixel_accuracy': Metric('pixel accuracy', 3, 'higher'),
    'void_ncr': Metric('NCR of the void', 3, 'lower', True),
    # Generated images.
    'inception_score': Metric('IS', 2, 'higher'),
    'am_score': Metric('AM score', 3, 'lower'),
    'fid': Metric('FID', 2, 'lower'),
    'reference_inception_score': Metric('IS of real images', 2),
    'kid': Metric('KID', 4, 'lower'),
    'cafd': Metric('CAFD', 2, 'lower'),
    'cafd_left_out': Metric('classes left out', 0),
    'class_kl': Metric('class KL', 3, 'lower'),
    'diversity': Metric('diversity ratio', 3),
    'precision': Metric('precision', 3, 'higher'),
    'recall': Metric('recall', 3, 'higher'),
    'density': Metric('density', 3, 'higher'),
    'coverage': Metric('coverage', 3, 'higher'),
    'repeats': Metric('repeated training images', 3, 'lower'),
    'nearer_training': Metric('nearer to training images', 3, 'lower'),
    'label_fidelity': Metric('label fidelity', 3, 'higher'),
    'independent_inception_score': Metric('IS of samples', 2, 'higher'),
    'reference_independent_inception_score': Metric('IS of real images', 2),
    'class_shares': Metric('class shares', 3),
    'reference_class_shares': Metric('class shares of real images', 3),
    'spread': Metric('spread of samples / of data', 2),
    # Generated points.
    'distance': Metric('distance', 3, 'lower'),
    'distance_end': Metric('distance at the end', 3, 'lower'),
    'distance_late': Metric('distance, mean of the second half', 3, 'lower'),
    'fluctuation': Metric('fluctuation of the boundary', 4, 'lower'),
    'converged': Metric('share of seeds converged', 2, 'higher'),
    'within_5': Metric('share of seeds within 5 times the floor', 2, 'higher'),
    'within_2': Metric('share of seeds within twice the floor', 2, 'higher'),
    'modes': Metric('modes covered', 1, 'higher'),
    'modes_found': Metric('modes found', 1, 'higher'),
    'good': Metric('share of good samples', 3, 'higher'),
    'steps_converged': Metric('steps until converged (converged seeds)', 0, 'lower'),
}


def describe(name: str) -> Metric:
  """The row of a metric; of one that is not in the table, such as a user's own, its
  name is the title."""
  return METRICS.get(name, Metric(name.replace('_', ' ')))


def lower_is_better(figure: str) -> bool:
  """Whether lower is better for a figure named 'set/metric' or 'set/metric/t'."""
  _, _, name = figure.partition('/')
  metric = METRICS.get(name.partition('/')[0])
  return metric is not None and metric.better == 'lower'


def directions(names: Iterable[str]) -> str:
  """A sentence that says for which metrics lower, and for which higher, is better."""
  titles: dict[str, list[str]] = {}
  for name in names:
    titles.setdefault(METRICS[name].better, []).append(METRICS[name].title)
  titles.pop('', None)
  return '; '.join(f'{", ".join(group)}: {better} is better'
                   for better, group in titles.items()) + '.'
