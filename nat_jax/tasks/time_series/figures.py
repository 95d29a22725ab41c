"""The figure of a test series with its scores, anomalies and what is flagged.

    figure = series(arrays, run)
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nat_jax.reports import figures
from nat_jax.tasks.time_series.evaluate import DR, PCA

MOST_STEPS, MOST_SENSORS = 3000, 12  # that are drawn, from the first on
ANOMALY, FLAGGED, LINE = '#999999', '#D55E00', '#0072B2'  # colours
TITLES = {DR: 'DR score', PCA: 'PCA of windows'}


def series(arrays: Mapping[str, np.ndarray], run: Mapping[str, Any]) -> Any:
  """Draws sensors, and below them the DR score and that of the PCA.

  Anomalies are shaded in grey; the spans that a score flags are shaded in red, with its
  threshold as a dotted line.

  Args:
    arrays: of scores/test.npz: 'values' [n, c], a score [n] of each name and, if the
      anomalies are known, 'label' [n].
    run: from `report.load_run`.
  """
  import matplotlib
  from matplotlib.figure import Figure

  values = arrays['values'][:MOST_STEPS, :MOST_SENSORS]
  time = np.arange(len(values))
  label = arrays.get('label', np.zeros(len(arrays['values'])))[:MOST_STEPS] > 0
  with matplotlib.rc_context(figures.STYLE):
    figure = Figure(figsize=(9.6, 6.0), layout='constrained')
    axes = figure.subplots(
        3, 1, sharex=True, height_ratios=[2, 1.2, 1.2])
    height = 2.5 * max(float(values.std(0).max()), 1e-6)
    axes[0].plot(time, values - height * np.arange(values.shape[1]), color='#333333',
                 linewidth=0.6)
    axes[0].set(title='sensors, scaled; grey: anomalies', yticks=[])
    for ax, (name, title) in zip(axes[1:], TITLES.items(), strict=True):
      score = arrays[name][:MOST_STEPS]
      threshold = run['evals'][name]['threshold']
      ax.plot(time, score, color=LINE, linewidth=0.8)
      ax.axhline(threshold, color='#333333', linewidth=0.9, linestyle=':')
      _shade(ax, score > threshold, FLAGGED, 0.35)
      ax.set(title=f'{title}; red: flagged, dotted: threshold')
    for ax in axes:
      _shade(ax, label, ANOMALY, 0.3)
    axes[-1].set(xlabel='time step', xlim=(0, max(len(values) - 1, 1)))
  return figure


def _shade(ax, where, colour, alpha):
  """Shades the spans of time steps [n] in which `where` is true."""
  edges = np.flatnonzero(np.diff(where.astype(int), prepend=0, append=0))
  for first, end in edges.reshape(-1, 2):
    ax.axvspan(first - 0.5, end - 0.5, color=colour, alpha=alpha, linewidth=0)
