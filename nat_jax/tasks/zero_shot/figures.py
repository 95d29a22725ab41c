"""The figures of zero-shot classifiers: accuracies of classes, features in a plane.

    figure = class_accuracies({'gdan': Bars({'ridge': values}, seen, names)})
    figure = projections({'gdan': arrays_of_features_npz}, evaluation)
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nat_jax.reports import figures

NAMED = 30  # most classes whose names are written
CLASSES = 5  # most classes in a projection
COLOURS = ('#0072B2', '#009E73', '#D55E00')  # of the methods


class Bars(NamedTuple):
  """The accuracies of all classes of a run.

  Attributes:
    accuracy: method -> float [k], of at most three methods, the same for all runs.
    seen: bool [k].
    names: of the classes.
  """

  accuracy: Mapping[str, np.ndarray]
  seen: Sequence[bool]
  names: Sequence[str]


def class_accuracies(of_runs: Mapping[str, Bars]) -> Any:
  """Draws the accuracy of every class, a panel per run.

  Args:
    of_runs: label -> `Bars`.
  """
  import matplotlib
  from matplotlib.figure import Figure

  with matplotlib.rc_context(figures.STYLE):
    figure = Figure(figsize=(7.6, 2.5 * len(of_runs) + 0.3), layout='constrained')
    axes = figure.subplots(len(of_runs), 1, squeeze=False).ravel()
    for ax, (label, bars) in zip(axes, of_runs.items(), strict=True):
      first = next(iter(bars.accuracy.values()))
      seen = np.array(bars.seen)
      order = np.lexsort((-np.nan_to_num(first), ~seen))
      width = 0.8 / len(bars.accuracy)
      for i, (method, values) in enumerate(bars.accuracy.items()):
        ax.bar(np.arange(len(order)) + (i + 0.5) * width - 0.4, values[order], width,
               color=COLOURS[i], label=method, alpha=0.85)
      ax.axvspan(seen.sum() - 0.5, len(order) - 0.5, color='#f3ead2', zorder=0)
      for place, text in ((seen.sum() / 2, 'seen'),
                          ((seen.sum() + len(order)) / 2, 'unseen')):
        ax.text(place - 0.5, 1.03, text, ha='center', fontsize=9, color='#555555')
      ax.set(title=label, ylabel='accuracy', ylim=(0, 1.12),
             xlim=(-0.5, len(order) - 0.5))
      if len(order) <= NAMED:
        ax.set_xticks(np.arange(len(order)), [bars.names[c] for c in order],
                      rotation=60, ha='right', fontsize=7.5)
      else:
        ax.set_xlabel(f'{len(order)} classes')
      ax.grid(axis='x', visible=False)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc='outside upper center', ncols=2, fontsize=8.5)
  return figure


def projections(
    of_runs: Mapping[str, Mapping[str, np.ndarray]], evaluation: Mapping[str, Any]
) -> Any:
  """Draws real and generated features of unseen classes, a panel per run.

  The plane is that of the first two principal components of the real ones.

  Args:
    of_runs: label -> 'feature' [n, d], 'label' [n] and 'generated' bool [n].
    evaluation: content of eval.json of one of the runs, for the names of the classes.
  """
  import matplotlib
  from matplotlib.figure import Figure
  from matplotlib.lines import Line2D

  first = next(iter(of_runs.values()))
  classes = np.unique(first['label'])[:CLASSES].tolist()
  unseen = [name for name, seen in zip(
      evaluation['class_names'], evaluation['seen'], strict=True) if not seen]
  with matplotlib.rc_context(figures.STYLE):
    columns = min(3, len(of_runs))
    rows = -(-len(of_runs) // columns)
    figure = Figure(
        figsize=(3.1 * max(columns, 2), 2.9 * rows + 0.7), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(of_runs):]:
      ax.remove()
    for ax, (label, found) in zip(axes, of_runs.items(), strict=False):
      real = found['feature'][~found['generated']].astype(np.float64)
      centre = real.mean(0)
      _, _, directions = np.linalg.svd(real - centre, full_matrices=False)
      place = (found['feature'] - centre) @ directions[:2].T
      for c, colour in zip(classes, figures.OTHER_COLOURS, strict=False):
        for generated, marker in ((False, 'o'), (True, 'x')):
          chosen = (found['label'] == c) & (found['generated'] == generated)
          ax.plot(*place[chosen].T, marker, ms=3.2, color=colour, alpha=0.6,
                  mew=0 if marker == 'o' else 0.9)
      ax.set(title=label, xticks=[], yticks=[])
    handles = [Line2D([], [], ls='', marker=marker, color='#444444', label=text)
               for marker, text in (('o', 'test rows'), ('x', 'generated'))]
    handles += [Line2D([], [], ls='', marker='s', color=colour, label=name)
                for _, colour, name in zip(
                    classes, figures.OTHER_COLOURS, unseen, strict=False)]
    figure.legend(handles=handles, loc='outside upper center', ncols=4)
  return figure
