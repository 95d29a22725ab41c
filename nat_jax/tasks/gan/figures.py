"""The figures of a report on GANs.

    figure = generator_losses({'am': [run], 'nat3': [run_0, run_1]})
    figures.save(figure, 'figures/generator_loss.png')

Each variant has one colour, a line for the mean over seeds and a band from the minimum
to the maximum. Functions return None if there is nothing to draw.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nat_jax import metrics
from nat_jax.reports import figures, paper, pictures
from nat_jax.runtime import results

Groups = Mapping[str, Sequence[Mapping[str, Any]]]

BATCH_METRICS = {  # training metric -> title
    'loss_disc': "discriminator's loss", 'accuracy': 'its accuracy on real images',
    'spread': 'spread of the samples (1: as real images)',
    'top_class': 'largest share of a class in the samples',
}
# Evaluation metrics.
MEASURES = ('inception_score', 'am_score', 'fid', 'cafd', 'precision', 'recall')
SHEET = 64  # images per variant


def generator_losses(groups: Groups) -> Any:
  """Draws the generator's loss against updates, and the paper's Figure 6, dotted."""
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
  # The vertical range ignores the first twentieth, whose losses are much larger.
  shown = [line[len(line) // 20:, 1] for line in lines]
  for label, (updates, losses) in dots.items():
    ax.plot(updates, losses, ':', color=figures.colours(groups)[label], linewidth=2)
    ends.append(updates[1])
    shown.append(losses)
  low, high = min(map(min, shown)), max(map(max, shown))
  span = (high - low) or 1.0
  ax.set(xlim=(0, max(ends) * 1.02), ylim=(low - 0.05 * span, high + 0.2 * span))
  figure.set_size_inches(6.6, 3.8)
  return figure


def training_curves(groups: Groups) -> Any:
  """Draws the other training metrics: of the discriminator, and signs of collapse."""
  return _figure(figures.curves(groups, [
      figures.Panel(title, _of_batches(key)) for key, title in BATCH_METRICS.items()],
      'updates'))


def measures(groups: Groups) -> Any:
  """Draws the metrics of the samples, of the evaluation that is made most often.

  Metrics that only the evaluation at the end makes are left out where others have a
  curve. The vertical axis is logarithmic where values differ more than tenfold.
  """
  from matplotlib import ticker
  runs = [run for same in groups.values() for run in same]
  names = [name for name in MEASURES
           if any(_measured(run, name).shape[-1] > 1 for run in runs)] or MEASURES
  known = {name: metrics.METRICS[name] for name in names}
  found = figures.curves(groups, [
      figures.Panel(f'{metric.title} ({metric.better} is better)', None,
                    lambda run, name=name: _measured(run, name))
      for name, metric in known.items()], 'updates')
  for ax in found[1] if found else ():
    low, high = ax.dataLim.intervaly
    if 0 < 10 * low < high:
      ax.set(yscale='log', ylim=(low / 1.3, high * 1.3))
      ax.yaxis.set(major_locator=ticker.LogLocator(subs=(1, 2, 5)),
                   major_formatter='{x:g}', minor_formatter=ticker.NullFormatter())
  return _figure(found)


def _measured(run, metric):
  """The values of a metric, of the evaluation that has made it most often."""
  names = dict.fromkeys((results.SAMPLES, *run['config'].get('evals', {})))
  counts = {name: sum(metric in evals.get(name, {})
                      for _, evals in run['history']['eval']) for name in names}
  return figures.series(run, 'eval', max(counts, key=counts.get), metric)


def _of_batches(key):
  return lambda run: figures.series(run, 'train', key)


def _figure(found):
  return found and found[0]


def samples(groups: Groups) -> Any:
  """Draws the first samples of each variant, from its first run with samples.npz."""
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
