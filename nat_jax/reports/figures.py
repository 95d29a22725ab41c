"""The plots of reports on classifiers, and the plotting functions of all tasks.

    figure = training_curves({'baseline': [run], 'nat': [run_0, run_1]})
    save(figure, 'figures/training.png')

Runs are those of `report.load_run`, grouped by label. Each label has one colour in all
figures. Functions return None if there is nothing to draw. Figures are made without
pyplot, so that no backend or other global state is set.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nat_jax.reports.frames import THRESHOLDS, set_names
from nat_jax.runtime import files, results
from nat_jax.schema import VALIDATION

Groups = Mapping[str, Sequence[Mapping[str, Any]]]

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = {'baseline': '#D55E00', 'nat': '#0072B2', 'am': '#D55E00', 'nat0': '#0072B2',
           'gan': '#D55E00'}
OTHER_COLOURS = ('#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000', '#882255',
                 '#999933', '#888888')
STYLE = {
    'font.size': 10, 'axes.titlesize': 10, 'axes.labelsize': 9,
    'xtick.labelsize': 8.5, 'ytick.labelsize': 8.5, 'legend.fontsize': 9,
    'axes.spines.top': False, 'axes.spines.right': False,
    'axes.edgecolor': '#666666', 'xtick.color': '#444444', 'ytick.color': '#444444',
    'axes.grid': True, 'grid.color': '#e6e6e6', 'grid.linewidth': 0.7,
    'axes.axisbelow': True, 'lines.linewidth': 1.6, 'legend.frameon': False,
    'text.parse_math': False,  # names of classes and sets may contain a $
}


def save(figure: Any, path: str | Path) -> None:
  """Writes a figure as PNG, or an animation as GIF."""
  import matplotlib
  with matplotlib.rc_context(STYLE), files.replacing(path, 'wb') as file:
    if hasattr(figure, 'savefig'):
      figure.savefig(file, format='png', dpi=120, facecolor='white')
      return
    from matplotlib.animation import PillowWriter
    with tempfile.NamedTemporaryFile(suffix='.gif') as moving:  # Pillow needs a name
      figure.save(moving.name, writer=PillowWriter(fps=8), dpi=60)
      file.write(moving.read())


def missing(
    runs: Sequence[Mapping[str, Any]], what: str,
    has: Callable[[Mapping[str, Any]], bool],
) -> str:
  """A sentence that names the runs for which `has` is false; '' if there are none.

  Args:
    runs: from `report.load_run`.
    what: the data that a figure needs, for the sentence.
    has: whether a run has these data.
  """
  without = [run['label'] for run in runs if not has(run)]
  if len(without) == len(runs):
    return f'Left out: no run has {what}.'
  return f'Without {what}: {", ".join(without)}.' if without else ''


def has_history(run: Mapping[str, Any]) -> bool:
  """Whether a run has records in metrics.jsonl."""
  return any(run['history'].values())


def colours(groups: Groups) -> dict[str, str]:
  """Label -> colour: that of its variant in `COLOURS`, else the next free one."""
  taken, others = {}, iter(OTHER_COLOURS * len(groups))
  for label, runs in groups.items():
    fixed = COLOURS.get(runs[0]['variant'])
    taken[label] = fixed if fixed not in (None, *taken.values()) else next(others)
  return taken


class Panel(NamedTuple):
  """A panel of `curves`.

  Attributes:
    title: of the panel.
    batches: run -> [2, k], steps and values of a training metric, drawn as a line;
      None: no line.
    evals: run -> [2, k], steps and values of an evaluation metric, drawn with dots;
      None: no dots.
  """

  title: str
  batches: Callable[[Mapping[str, Any]], np.ndarray] | None = None
  evals: Callable[[Mapping[str, Any]], np.ndarray] | None = None


def curves(
    groups: Groups, panels: Sequence[Panel], xlabel: str, note: str | None = None
) -> tuple[Any, Sequence[Any]] | None:
  """Draws metrics against steps: the mean over seeds in a band from minimum to maximum.

  Args:
    groups: label -> runs, one per seed.
    panels: what to draw; panels without data are left out.
    xlabel: label of the horizontal axes.
    note: title of the legend.

  Returns:
    (figure, axes of the panels drawn); None if no panel has data.
  """
  runs = [run for runs in groups.values() for run in runs]
  panels = [panel for panel in panels if any(
      draw and draw(run).size for draw in panel[1:] for run in runs)]
  if not panels:
    return None
  pens = _pens(groups)
  figure, axes = grid([panel.title for panel in panels], groups, note, xlabel=xlabel)
  for ax, panel in zip(axes, panels, strict=True):
    for label, same in groups.items():
      if panel.batches:
        _line(ax, *over_seeds(map(panel.batches, same)), pens[label])
      if panel.evals:
        steps, values = over_seeds(map(panel.evals, same))
        _band(ax, steps, values, pens[label])
        ax.plot(steps, values.mean(0), 'o' if panel.batches else 'o-', ms=4,
                **pens[label])
    ax.set_xlim(left=0)
    ax.locator_params(axis='x', nbins=5)
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
  return figure, axes


def over_seeds(curves: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """Reduces curves to the steps that all of them have.

  Args:
    curves: from `series`, [2, k] each; empty ones are ignored.

  Returns:
    (steps [k], values [number of curves, k]); shapes [0] and [1, 0] without any curve.
  """
  found = [dict(curve.T.tolist()) for curve in curves if curve.size] or [{}]
  steps = sorted(set(found[0]).intersection(*found[1:]))
  return np.array(steps), np.array([[curve[s] for s in steps] for curve in found])


def _line(ax, steps, values, pen):
  """Draws the smoothed mean over seeds; for a single run, also its values, faintly."""
  lines = np.array([running_mean(x) for x in values])
  if len(values) == 1:
    ax.plot(steps, values[0], color=pen['color'], alpha=0.2, linewidth=0.8)
  _band(ax, steps, lines, pen)
  ax.plot(steps, lines.mean(0), 'o-' if len(steps) == 1 else '-', ms=4, **pen)


def _band(ax, steps, values, pen):
  """Fills the area between the minimum and the maximum over seeds."""
  if len(values) > 1:
    ax.fill_between(steps, values.min(0), values.max(0), color=pen['color'], alpha=0.2,
                    linewidth=0)


def training_curves(groups: Groups) -> Any:
  """Draws loss, accuracy and NCR of training batches and evaluations against steps."""
  runs = [run for runs in groups.values() for run in runs]
  negatives = dict.fromkeys(name for run in runs for name in _watched(run)[1])

  def of_batches(key):
    return lambda run: series(run, 'train', key)

  def rates_of(name, t):
    return lambda run: series(run, 'eval', name if name in _watched(run)[1] else '',
                              'ncr', t)

  found = curves(groups, [
      Panel('loss on positives', of_batches('loss_positive')),
      Panel('loss on negatives', of_batches('loss_negative')),
      Panel('NCR of the batches', of_batches('ncr')),
      Panel('accuracy (dots: evaluation)', of_batches('accuracy'),
            lambda run: series(run, 'eval', _watched(run)[0], 'accuracy')),
      *(Panel(f'NCR at t = {(t := _smallest_threshold(runs, name))}: {name}', None,
              rates_of(name, t)) for name in negatives)], 'step')
  if not found:
    return None
  for ax in found[1]:
    if 'loss' not in ax.get_title():
      ax.set_ylim(-0.03, 1.03)
  return found[0]


def _watched(run):
  """The positive set and the negative sets whose curves are drawn.

  They are those of part 'validation', or of part 'test' where there is no validation.
  """
  seen = [evals for _, evals in run['history']['eval']]
  positives, negatives = set_names(seen, VALIDATION)
  if positives:
    return positives[0], negatives
  return run['reference'], set_names(seen)[1]


def _smallest_threshold(runs, name):
  """The smallest threshold t for which all evaluations of a set have an NCR_t."""
  seen = [evals[name]['ncr'] for run in runs for _, evals in run['history']['eval']
          if 'ncr' in evals.get(name, {})]
  return next((t for t in THRESHOLDS if all(t in rates for rates in seen)),
              THRESHOLDS[-1])


def histograms(groups: Groups) -> Any:
  """Draws histograms of maximum probabilities for each set (the paper's Figure 4)."""
  names = _sets(groups)
  if not names:
    return None
  palette = colours(groups)
  figure, axes = grid(
      names.values(), groups, xlabel='maximum prediction', ylabel='share of images')
  bins = np.linspace(0, 1, 26)
  for ax, name in zip(axes, names, strict=True):
    for label, members in groups.items():
      scores = np.concatenate([[], *_scores(members, name)])
      if len(scores):
        share = np.histogram(scores, bins)[0] / len(scores)
        ax.stairs(share, bins, fill=True, color=palette[label], alpha=0.3)
        ax.stairs(share, bins, color=palette[label], linewidth=1.4)
    ax.set_xlim(0, 1)
  return figure


def rates(groups: Groups) -> Any:
  """Draws NCR_t of each negative set, and PAR_t, against t in [1 / num_classes, 1]."""
  names = _sets(groups)
  reference = next(iter(groups.values()))[0]['reference']
  par_title = names.pop(reference, None)
  if not names:
    return None
  pens = _pens(groups)
  figure, axes = grid(
      names.values(), groups, xlabel='threshold t', ylabel='share above t',
      note='solid: NCR_t, dashed: PAR_t' if par_title else 'NCR_t')
  low = min(1 / r['num_classes'] for members in groups.values() for r in members)
  thresholds = np.linspace(low, 1, 400)
  for ax, name in zip(axes, names, strict=True):
    for label, members in groups.items():
      for kind, style in ((name, '-'), (reference, '--')):
        curves = [share_above(s, thresholds) for s in _scores(members, kind)]
        if curves:
          ax.plot(thresholds, np.mean(curves, 0), style, **pens[label])
          ax.fill_between(thresholds, np.min(curves, 0), np.max(curves, 0), alpha=0.15,
                          color=pens[label]['color'], linewidth=0)
    ax.set(xlim=(low, 1), ylim=(-0.03, 1.03))
    ax.set_xticks([t for t in (0.2, 0.4, 0.6, 0.8, 0.9, 1) if t >= low])
  return figure


def share_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
  """The share of scores [n] that are strictly above each threshold [k], [k]."""
  return 1 - np.searchsorted(np.sort(scores), thresholds, side='right') / len(scores)


def _pens(groups):
  """Label -> line style; earlier lines are wider and stay visible under later ones."""
  widths = np.linspace(2.8 if len(groups) > 1 else 1.6, 1.4, len(groups))
  palette = colours(groups).items()
  return {label: {'color': colour, 'linewidth': width}
          for (label, colour), width in zip(palette, widths, strict=True)}


def grid(titles: Iterable[str], groups: Groups, note: str | None = None,
         **axis_labels: str) -> tuple[Any, Sequence[Any]]:
  """Makes an empty figure with up to two panels per row and one legend above them.

  Args:
    titles: of the panels.
    groups: label -> runs, for the legend.
    note: title of the legend.
    **axis_labels: of each panel, such as xlabel.

  Returns:
    (figure, axes of the panels).
  """
  import matplotlib
  from matplotlib.figure import Figure
  from matplotlib.lines import Line2D
  titles, palette = list(titles), colours(groups)
  with matplotlib.rc_context(STYLE):
    rows, columns = -(-len(titles) // 2), min(2, len(titles))
    figure = Figure(figsize=(6.6, 2.35 * rows + 0.4), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(titles):]:
      ax.remove()
    for ax, title in zip(axes, titles, strict=False):
      ax.set(title=title, **axis_labels)
    handles = [Line2D([], [], color=c, linewidth=3) for c in palette.values()]
    figure.legend(handles, list(palette), loc='outside upper center', title=note,
                  ncols=min(4, len(palette)))
  return figure, axes[:len(titles)]


def series(run: Mapping[str, Any], kind: str, *keys: str) -> np.ndarray:
  """Steps and values [2, k] of a metric in metrics.jsonl; k is 0 where it is missing.

  Args:
    run: from `report.load_run`.
    kind: 'train' or 'eval'.
    *keys: of the metric in the nested records, such as 'noise', 'ncr', '0.4'.
  """
  points = []
  for step, value in run['history'][kind]:
    for key in keys:
      value = value.get(key) if isinstance(value, Mapping) else None
    if value is not None:
      points.append((step, value))
  return np.array(points, float).reshape(-1, 2).T


def running_mean(values: np.ndarray) -> np.ndarray:
  """The moving average over a fortieth of the points; at the ends over fewer."""
  window = len(values) // 40
  if window < 2:
    return values
  total, count = (
      np.convolve(x, np.ones(window), 'same') for x in (values, np.ones(len(values))))
  return total / count


def _sets(groups) -> dict[str, str]:
  """{name: title} of the sets with scores: the negative sets, then the reference."""
  members = [run for runs in groups.values() for run in runs]
  names = {name: name for name in set_names(r['evals'] for r in members)[1]}
  names[members[0]['reference']] = f'{members[0]["reference"]} (positives)'
  return {name: title for name, title in names.items()
          if next(_scores(members, name), None) is not None}


def _scores(runs, name) -> Iterator[np.ndarray]:
  """Yields the maximum probabilities [n] of a set, for each run that has them."""
  for run in runs:
    found = results.read_arrays(
        run['workdir'], f'{results.SCORES}/{name}', run['step'], ['max_prob'])
    if found and len(found['max_prob']):
      yield found['max_prob']
