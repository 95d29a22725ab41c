"""The figures of a report on GANs.

    figure = generator_losses({'am': [run], 'nat3': [run_0, run_1]})
    figures.save(figure, 'figures/generator_loss.png')

One colour for each variant: a line for the mean over seeds, a band from the lowest to
the highest of them. A figure for which there is nothing to draw is None.
"""

from collections.abc import Mapping, Sequence
from typing import Any

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
  dots = {label: curve for label, runs in groups.items()
          if (curve := paper.gen_loss(runs[0]['name'], runs[0]['variant']))}
  found = figures.curves(
      groups, [figures.Panel("generator's loss", _of_batches('loss_gen'))], 'updates',
      'dotted: the paper, full size' if dots else None)
  if not found:
    return None
  figure, (ax,) = found
  lines = [line.get_xydata() for line in ax.lines if len(line.get_xydata())]
  ends = [line[-1, 0] for line in lines]
  # Without the first twentieth, which dwarfs the rest.
  shown = [line[len(line) // 20:, 1] for line in lines]
  for label, (updates, losses) in dots.items():
    ax.plot(updates, losses, ':', color=figures.colours(groups)[label], linewidth=2)
    ends.append(updates[1])
    shown.append(losses)
  low, high = min(map(min, shown)), max(map(max, shown))
  ax.set(xlim=(0, max(ends) * 1.02),
         ylim=(low - 0.05 * (high - low), high + 0.2 * (high - low)))
  figure.set_size_inches(6.6, 3.8)
  return figure


def training_curves(groups: Groups) -> Any:
  """What else the batches tell: the discriminator, and the signs of a collapse."""
  return _figure(figures.curves(groups, [
      figures.Panel(title, _of_batches(key)) for key, title in LOOKS.items()],
      'updates'))


def measures(groups: Groups) -> Any:
  """The measures of the samples at each evaluation."""
  known = {name: metrics.METRICS[name] for name in MEASURES}
  return _figure(figures.curves(groups, [
      figures.Panel(f'{metric.title} ({metric.better} is better)', None,
                    lambda run, name=name: figures.series(run, 'eval', 'samples', name))
      for name, metric in known.items()], 'updates'))


def _of_batches(key):
  return lambda run: figures.series(run, 'train', key)


def _figure(found):
  return found and found[0]


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
