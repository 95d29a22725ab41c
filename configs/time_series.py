"""Anomalies in time series of several sensors: MAD-GAN, and with negatives NAT.

    python -m nat_jax.main --config configs/time_series.py --workdir runs/series

A generated series: 4 sensors, mixtures of two sines and noise; 6,000 time steps of
training, 2,000 of validation, and a test series of 3,000 steps with 12 anomalies: a
stuck sensor, a wrong sign, a wrong frequency. Variants:

    madgan       an LSTM GAN on windows of normal data
    nat          also negatives: training windows with a stuck sensor, swapped sensors
                 or a warped time; of the test's kinds it has seen `stuck` alone
    nat_swapped  negatives with swapped sensors only, no kind of the test
    official     settings of the authors' code for KDD99: 100 cells, D with plain SGD,
                 3 updates of G, lambda 0.8, windows every 10 steps, 100 epochs

`nat:TRAIN.csv` or `nat:TRAIN.csv,TEST.csv` takes files in place of the generated series
(docs/time_series.md); with --config.data.time=NAME, and for a column of labels
--config.data.test.label=NAME --config.data.test.normal=LABEL.

Expected AUROC of the DR score, mean ± standard deviation of seeds 0 to 2: madgan .890 ±
.046, nat .910 ± .010, nat_swapped .888 ± .003; a PCA of windows has .954 ± .013
(docs/time_series.md). A run takes about a minute on two CPU cores; `nat` and
`nat_swapped` train `madgan` too, for comparison. `official` (several minutes; .572 with
seed 0) differs from the authors' code in scores, which are standardised, and has no PCA
before training.
"""

import os

from nat_jax import names
from nat_jax.schema import presets

NAT = dict(negative_share=1.0)
VARIANTS = {  # -> differences of the group `data`
    'madgan': {},
    'nat': NAT,
    'nat_swapped': {**NAT, 'negative_kinds': ('swapped',)},
    'official': dict(stride=10, batch_size=500),
}
OFFICIAL = dict(
    # 100 epochs of the 598 windows of the generated series.
    steps=presets.steps(100, 598, 500), latent=15, width=100, gen_updates=3,
    optimizer={'name': 'adam'},
    disc_optimizer={'name': 'sgd', 'momentum': 0.0, 'nesterov': False},
    disc_schedule={'name': 'constant', 'learning_rate': 0.1},
    measures=dict(disc_weight=0.8))


def files(text):
  """The series of 'TRAIN.csv' or 'TRAIN.csv,TEST.csv'; {} for ''."""
  paths = [os.path.abspath(os.path.expanduser(path))
           for path in text.split(',') if path]
  if len(paths) > 2:
    raise ValueError(f'expected TRAIN.csv or TRAIN.csv,TEST.csv, got {text}')
  specs = [{'name': 'csv', 'path': path, 'label': '', 'normal': 'Normal', 'header': 0}
           for path in paths]
  return {'series': specs[0], 'test': specs[1] if specs[1:] else {}} if specs else {}


def get_config(variant='nat'):
  """Returns the config of a variant; raises ValueError for an unknown variant."""
  method, _, paths = variant.partition(':')
  if method not in VARIANTS:
    raise ValueError(names.unknown('variant', method, VARIANTS))
  given = files(paths)
  return presets.experiment(
      task='time_series',
      name=os.path.splitext(os.path.basename(given['series']['path']))[0]
      if given else 'sines',
      variant=method,
      data={**VARIANTS[method], **given},
      compare_with=('madgan' + f':{paths}' * bool(paths)) * method.startswith('nat'),
      **(OFFICIAL if method == 'official' else {}),
  )
