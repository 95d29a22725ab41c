"""The figures of a report on GANs.

    figure = generator_losses({'am': [run], 'nat3': [run_0, run_1]})
    figures.save(figure, 'figures/generator_loss.png')

One colour for each variant: a line for the mean over seeds, a band from the lowest to
the highest of them. A figure for which there is nothing to draw is None.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nat_jax import metrics
from nat_jax.reports import figures, paper, pictures
from nat_jax.runtime import results

Groups = Mapping[str, Sequence[Mapping[str, Any]]]

LOOKS = {  # of the batches
    'loss_disc': "discriminator's loss", 'accuracy': 'its accuracy on real images',
    'spread': 'spread of the samples (1: as real images)',
    'top_class': 'largest share of a class in the samples',
}
# of the evaluations
MEASURES = ('inception_score', 'am_score', 'fid', 'cafd', 'precision', 'recall')
SHEET = 64  # images of a variant


def generator_losses(groups: Groups) -> Any:
  """The generator's loss against updates, the paper's as dots (its Figure 6)."""
  return _curves(groups, {'loss_gen': "generator's loss"}, ('train',), published=True)


def training_curves(groups: Groups) -> Any:
  """What else the batches tell: the discriminator, and the signs of a collapse."""
  return _curves(groups, LOOKS, ('train',))


def measures(groups: Groups) -> Any:
  """The measures of the samples at each evaluation."""
  known = {name: metrics.METRICS[name] for name in MEASURES}
  titles = {name: f'{metric.title} ({metric.better} is better)'
            for name, metric in known.items()}
  return _curves(groups, titles, ('eval', 'samples'), smooth=False)


def samples(groups: Groups) -> Any:
  """The first images of samples.npz of each variant's first run that has some."""
  import matplotlib
  from matplotlib.figure import Figure
  sheets = {}
  for label, runs in groups.items():
    for run in runs:
      found = results.read_arrays(
          run['workdir'], results.SAMPLES, run['step'], ['image'])
      if found:
        sheets[f'{label}, seed {run["seed"]}'] = found['image'][:SHEET]
        break
  if not sheets:
    return None
  columns = min(2, len(sheets))
  rows = -(-len(sheets) // columns)
  with matplotlib.rc_context(figures.STYLE):
    figure = Figure(figsize=(3.3 * columns, 3.5 * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
      ax.axis('off')
    for ax, (title, images) in zip(axes, sheets.items(), strict=False):
      ax.imshow(pictures.mosaic(images), cmap='gray', vmin=0, vmax=255,
                interpolation='nearest')
      ax.set_title(title)
  return figure


def over_seeds(
    runs: Sequence[Mapping[str, Any]], kind: str, *keys: str
) -> tuple[np.ndarray, np.ndarray]:
  """A figure of metrics.jsonl at the steps that all runs with it share.

  Returns:
    (steps [k], values [runs, k]); empty where no run has it. Values that are missing
    in a run, as NaN is, take their step from all.
  """
  found = [figures.series(run, kind, *keys) for run in runs]
  found = [dict(zip(*points, strict=True)) for points in found if points.size]
  if not found:
    return np.zeros(0), np.zeros((0, 0))
  steps = sorted(set(found[0]).intersection(*found[1:]))
  return np.array(steps), np.array([[one[s] for s in steps] for one in found])


def _curves(groups, titles, where, smooth=True, published=False):
  """A panel for each figure that any run has, or None."""
  drawn = {}
  for key, title in titles.items():
    kind, *keys = *where, key
    curves = {label: over_seeds(runs, kind, *keys) for label, runs in groups.items()}
    if any(len(steps) for steps, _ in curves.values()):
      drawn[title] = curves
  if not drawn:
    return None
  dots = {label: paper.gen_loss(runs[0]['name'], runs[0]['variant'])
          for label, runs in groups.items()} if published else {}
  dots = {label: curve for label, curve in dots.items() if curve}
  palette = figures.colours(groups)
  note = 'dotted: the paper, full size' if dots else None
  figure, axes = figures.grid(drawn, groups, note, xlabel='updates')
  for ax, curves in zip(axes, drawn.values(), strict=True):
    tops = []
    for label, (steps, values) in curves.items():
      if not len(steps):
        continue
      colour = palette[label]
      lines = np.array([figures.running_mean(v) if smooth else v for v in values])
      if len(values) > 1:
        ax.fill_between(steps, lines.min(0), lines.max(0), color=colour, alpha=0.2,
                        linewidth=0)
      elif smooth:
        ax.plot(steps, values[0], color=colour, alpha=0.2, linewidth=0.8)
      tops.append(lines[:, len(steps) // 20:].max())
      ax.plot(steps, lines.mean(0), '-' if smooth else 'o-', ms=3, color=colour)
    ends = [steps[-1] for steps, _ in curves.values() if len(steps)]
    for label, (updates, losses) in dots.items():
      ax.plot(updates, losses, ':', color=palette[label], linewidth=2)
      ends.append(updates[1])
      tops.append(losses[0])
    ax.set_xlim(0, max(ends) * 1.02)
    ax.locator_params(axis='x', nbins=5)
    low, high = ax.get_ylim()
    if not published:
      low, high = min(0, low), high + 0.05 * (high - min(0, low))
    else:  # without the first twentieth, which dwarfs the rest
      high = max(tops) + 0.2 * (max(tops) - low)
    ax.set_ylim(low, high)
  if len(drawn) == 1:
    figure.set_size_inches(6.6, 3.8)
  return figure
