"""The figures of GANs of points: density and boundary over time, and an animation.

    figure = overview({'gan': run, 'nat': run})
    moving = animation({'gan': run, 'nat': run})
    panels = last_samples({'gaussians8': {'gan': run, 'nat': run}})

A run is the content of its eval.json with the key 'arrays', the content of points.npz.
The first run is at the top, or on the left. Density and points are of the first seed,
boundaries of all seeds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nat_jax.reports import figures

Runs = Mapping[str, Mapping[str, Any]]

TIMES = (0.0, 0.1, 0.25, 0.5, 1.0)  # times of the snapshots, as shares of the run
DATA, NEGATIVE = '#333333', '#b9a36b'  # colours
BINS = 60
COLUMNS = 7  # panels in a row of `last_samples`
TALLEST = 1.2  # top of the density axis, in units of the tallest bar of the data


def overview(runs: Runs) -> Any:
  """Draws a row of snapshots per run, and below them curves against steps.

  The curves are the distance to the data and the change of D between snapshots.
  """
  import matplotlib
  from matplotlib.figure import Figure
  from matplotlib.ticker import LogFormatter

  plane = is_plane(runs)
  with matplotlib.rc_context(figures.STYLE):
    height = 2.3 if plane else 1.7
    figure = Figure(figsize=(9.6, height * len(runs) + 2.5), layout='constrained')
    figure.suptitle(
        'grey: data; brown: negatives; in colour: samples of the first seed, and '
        + ('where D = 0.5' if plane else 'D') + ' for all seeds', fontsize=10)
    *rows, last = figure.subfigures(
        len(runs) + 1, 1, height_ratios=[height] * len(runs) + [2.2])
    for row, (label, run) in zip(rows, runs.items(), strict=True):
      axes, steps = row.subplots(1, len(TIMES), sharey=True), run['arrays']['steps']
      for ax, share in zip(axes, TIMES, strict=True):
        t = _at(steps, share)
        _snapshot(ax, run, t, _colour(runs, label))
        ax.set_title(f'step {steps[t]}')
      axes[0].set_ylabel(label, fontweight='bold')
    ax, other = last.subplots(1, 2)
    for label, run in runs.items():
      _curve(ax, run['curve']['step'], np.array(run['curve']['distance'], float),
             _colour(runs, label), label)
      boundary = run['arrays']['boundary'].astype(np.float32)
      _curve(other, run['curve']['step'][1:], np.abs(np.diff(boundary, axis=0)).mean(2),
             _colour(runs, label), label)
    one = next(iter(runs.values()))
    ax.axhline(one['threshold'], color=DATA, lw=1, ls=':', label='converged below')
    ax.set(xlabel='step', title='distance (band: sd over seeds)')
    other.set(xlabel='step', title='change of D between snapshots')
    for panel in (ax, other):
      # A log axis needs a value; D of the objective mmd, for example, has none.
      if not any((np.asarray(line.get_ydata()) > 0).any() for line in panel.lines):
        continue
      panel.set_yscale('log')  # the powers of its default formatter are math text
      panel.yaxis.set_major_formatter(LogFormatter())
      panel.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
    ax.legend()
  return figure


def last_samples(experiments: Mapping[str, Runs]) -> Any:
  """Draws the last samples of the first seed: a small panel per run, over the data.

  Args:
    experiments: name -> runs of points in a plane, drawn in rows of their own.
  """
  import matplotlib
  from matplotlib.figure import Figure

  heights = [-(-len(runs) // COLUMNS) for runs in experiments.values()]
  with matplotlib.rc_context(figures.STYLE):
    figure = Figure(
        figsize=(9.6, 1.5 * sum(heights) + 0.3 * len(heights)), layout='constrained')
    parts = np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=heights))
    for part, height, (name, runs) in zip(
        parts, heights, experiments.items(), strict=True):
      part.suptitle(name, fontsize=10, fontweight='bold')
      axes = part.subplots(height, COLUMNS, squeeze=False).ravel()
      for ax in axes:
        ax.set_axis_off()
      for ax, (label, run) in zip(axes, runs.items(), strict=False):
        arrays = run['arrays']
        ax.plot(*arrays['data'].T, '.', ms=2.5, color='#bbbbbb', mew=0)
        samples = arrays['samples'][-1, 0].astype(np.float32)
        ax.plot(*samples.T, '.', ms=2, color=figures.COLOURS['nat'], mew=0)
        low, high = arrays['grid'].min(), arrays['grid'].max()
        ax.set(xlim=(low, high), ylim=(low, high), aspect='equal')
        ax.set_title(label, fontsize=8, pad=2)
  return figure


def animation(runs: Runs) -> Any:
  """Makes an animation with a panel per run and a frame per snapshot of the run that
  has most; in each frame all runs are equally far.
  """
  import matplotlib
  from matplotlib.animation import FuncAnimation
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  frames = max(len(run['arrays']['steps']) for run in runs.values())
  with matplotlib.rc_context(figures.STYLE):
    width = 3.0 if is_plane(runs) else 3.6
    figure = Figure(figsize=(width * len(runs), 3.0), layout='constrained')
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(1, len(runs), sharey=True))

    def draw(frame):
      for ax, (label, run) in zip(axes, runs.items(), strict=True):
        steps = run['arrays']['steps']
        t = _at(steps, frame / max(frames - 1, 1))
        ax.clear()
        _snapshot(ax, run, t, _colour(runs, label))
        ax.set_title(f'{label}, step {steps[t]}')

    return FuncAnimation(figure, draw, frames=frames, init_func=lambda: None)


def _at(steps, share):
  """The index of the snapshot after a share of the run."""
  return round(share * (len(steps) - 1))


def _snapshot(ax, run, t, colour):
  arrays = run['arrays']
  low, high = arrays['grid'].min(), arrays['grid'].max()
  draw = _plane if arrays['grid'].shape[1] == 2 else _line
  draw(ax, arrays, arrays['samples'][t, 0].astype(np.float32),
       arrays['boundary'][t].astype(np.float32), colour)
  ax.set_xlim(low, high)


def _line(ax, arrays, samples, boundary, colour):
  """Draws histograms, and D of all seeds as curves, that of the first seed thicker."""
  grid = arrays['grid'][:, 0]
  bins = np.linspace(grid[0], grid[-1], BINS + 1)
  data, _ = np.histogram(arrays['data'][:, 0], bins)
  top = data.max() / len(arrays['data'])
  for points, face, alpha in (
      (arrays['negative'], NEGATIVE, 0.6), (arrays['data'], DATA, 0.5),
      (samples, colour, 0.6)):
    height = np.histogram(points[:, 0], bins)[0] / len(points) / top
    ax.fill_between(bins, np.append(height, 0).clip(0, TALLEST), step='post',
                    color=face, alpha=alpha, lw=0)
  for curve in boundary[1:]:
    ax.plot(grid, curve, color=colour, lw=0.5, alpha=0.5)
  ax.plot(grid, boundary[0], color=colour, lw=1.8)
  ax.axhline(0.5, color=DATA, lw=0.6, ls=':')
  ax.set_ylim(0, TALLEST)


def _plane(ax, arrays, samples, boundary, colour):
  """Draws points and the line D = 0.5 of each seed; D > 0.5 of the first is shaded."""
  axis = np.unique(arrays['grid'][:, 0])
  fields = boundary.reshape(len(boundary), len(axis), len(axis))
  ax.contourf(axis, axis, fields[0], levels=[0.5, 1.01], colors=[colour], alpha=0.12)
  for field in fields[1:]:
    ax.contour(axis, axis, field, levels=[0.5], colors=[colour], linewidths=0.4,
               alpha=0.5)
  ax.contour(axis, axis, fields[0], levels=[0.5], colors=[colour], linewidths=1.6)
  for points, face in (
      (arrays['negative'], NEGATIVE), (arrays['data'], DATA), (samples, colour)):
    ax.plot(*points[:: max(1, len(points) // 200)].T, '.', ms=3, color=face, mew=0)
  ax.set_ylim(axis[0], axis[-1])
  ax.set_aspect('equal')
  ax.grid(False)


def _curve(ax, steps, values, colour, label):
  mean, spread = values.mean(1), values.std(1)
  ax.plot(steps, mean, color=colour, label=label)
  ax.fill_between(steps, np.maximum(mean - spread, mean / 10), mean + spread,
                  color=colour, alpha=0.2, lw=0)


def _colour(runs, label):
  return figures.colours({name: [run] for name, run in runs.items()})[label]


def is_plane(runs: Runs) -> bool:
  """Whether the points of the runs lie in a plane."""
  return next(iter(runs.values()))['arrays']['grid'].shape[1] == 2
