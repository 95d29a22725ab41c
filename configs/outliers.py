"""Outliers among vectors, found against generated ones: SO-GAAL, MO-GAAL, AGPO.

    python -m nat_jax.main --config configs/outliers.py --workdir runs/outliers

Scikit-learn's breast cancer data without its labels: 357 benign examples and 10
malignant ones, which are the outliers. Variants:

    mo    10 generators with different targets (MO-GAAL)
    so    one generator (SO-GAAL)
    agpo  uniform noise in place of generated examples

`mo:FILE` takes the vectors of a file .npz or .csv (nat_jax/data/arrays_source.py) in
place of the breast cancer data; labels of the file, if it has any, are ignored.

Expected AUROC, mean ± standard deviation of seeds 0 to 4: mo .947 ± .015, so .847 ±
.101, agpo .874 ± .012; isolation forest .940 ± .010, LOF .968 (docs/outliers.md). A
few seconds on two CPU cores. Settings are those of the authors' code, with the
stop_epochs=200 of their version of this data (WDBC); the training continues for twice
as long without updates of the generators.
"""

import os

from nat_jax import names
from nat_jax.schema import presets

STOP = 200  # updates of the generators; a batch is the whole data set
VARIANTS = {  # -> number of generators, their number of updates
    'mo': (10, STOP),
    'so': (1, STOP),
    'agpo': (1, 0),
}


def get_config(variant='mo'):
  method, _, path = variant.partition(':')
  if method not in VARIANTS:
    raise ValueError(names.unknown('variant', method, VARIANTS))
  num_generators, freeze_after = VARIANTS[method]
  given = dict(
      examples={'name': 'arrays', 'path': os.path.abspath(os.path.expanduser(path)),
                'rows': 'all', 'keep_constant': True},
      outliers=()) if path else {}
  return presets.experiment(
      task='outliers',
      name=os.path.splitext(os.path.basename(path))[0] or 'breast_cancer',
      variant=method,
      steps=3 * STOP,
      num_generators=num_generators,
      freeze_after=freeze_after,
      data=given,
      run=dict(log_every=STOP, checkpoint_every=STOP),
  )
