"""A GAN with an encoder (GAAN) on scikit-learn's digits: no download, two CPU cores.

    python -m nat_jax.main --config configs/gan/gaan.py --workdir runs/gaan-digits

Positives: digits 0-5; external negatives: 6-9. Networks and number of updates are those
of configs/gan/digits.py; the encoder has the size of the discriminator.

Variants: gaan (the default) or gaan with a number of negatives per batch, such as
gaan3, which the discriminator takes for generated; each also with
  _gp          a gradient penalty of weight 1 on the discriminator
  _dist        the settings of the authors' code for images (tntrung/gaan, folder
               distgan_image, its DCGAN): uniform z, reconstructions whose weight .05
               falls to 0 between 1/2 and 3/4 of the training, a gradient penalty, Adam
               with a constant learning rate of 2e-4 and b2 = .9, batches of 64
  _dist_hinge  _dist with the hinge form of the discriminator's loss

What still differs from that code: networks (convolutions with BatchNorm there, also in
the encoder), z of 32 numbers (100), 5,000 updates (100,000 to 300,000), and one batch
for the three players of a step (one each). For MNIST the encoder's loss updates the
generator too, here with trainer.updates_generator=True. The hinge form there subtracts
the penalty, presumably by a slip, where we add it; with the networks of SN-GAN and with
residual ones their hinge loss is of probabilities and not of logits, a form that we do
not have.
"""

import re

from nat_jax import names
from nat_jax.schema import defaults, gan_recipes, presets

# The penalty there is (sqrt(mean of g^2) - 1)^2, g the derivatives by d pixels in
# [0, 1]; by our pixels in [-1, 1] it is 4 / d (|gradient| - sqrt(d) / 2)^2, and d = 64.
DIST = dict(
    trainer={**defaults.GAAN['trainer'], 'fade': (0.5, 0.75), 'prior': 'uniform'},
    penalties=[{'name': 'gradient', 'weight': 1 / 16, 'target': 4.0}],
    optimizer={'name': 'adam', 'b1': 0.5, 'b2': 0.9},
    schedule={'name': 'constant', 'learning_rate': 2e-4},
)
FORMS = {
    '': {},
    '_gp': dict(penalties=[{'name': 'gradient', 'weight': 1.0}]),
    '_dist': DIST,
    '_dist_hinge': {**DIST, 'trainer': {**DIST['trainer'], 'form': 'hinge'}},
}


def get_config(variant='gaan'):
  """Returns the config of a variant; raises ValueError for an unknown variant."""
  found = re.fullmatch(rf'gaan(\d*)({"|".join(FORMS)})', variant)
  if not found:
    raise ValueError(names.unknown(
        'variant', variant, [f'gaan{count}{form}' for count in ('', 3)
                             for form in FORMS]))
  count, form = int(found[1] or 0), found[2]
  return presets.experiment(
      task='gaan',
      name='gaan_digits',
      variant=variant,
      encoder={'name': 'mlp', 'width': 128, 'depth': 2},
      **gan_recipes.digits(count, batch_size=64 if form.startswith('_dist') else 100),
      **FORMS[form],
  )
