"""ActiveGAN on few labels of scikit-learn's digits: no download, two CPU cores.

    python -m nat_jax.main --config configs/gan/active.py --workdir runs/active

A conditional GAN (AC-GAN) and a classifier learn from 5 digits of each of the classes
0-9; the generator is rewarded for digits that the classifier is not sure of. The seed
of the source chooses the labelled digits:

    --config.seed=3 --config.data.positives.seed=3

The samples are measured against all 1,258 training digits, and their label fidelity by
a classifier of these (configs/gan/classifier.py:digits10), which is trained first.

Variants, with the weight of the reward:
  active       0.5; the default
  strong       1
  excessive    2
  plain        0: AC-GAN*, whose class head learns from labelled digits alone
  learned      0.5, and the classifier learns from accepted samples with their class too
  acgan        0.5, with the original AC-GAN, whose class head learns from samples too
  acgan_plain  0, with the original AC-GAN

Measured: docs/active_gan.md. A run takes a minute on two CPU cores.
"""

from nat_jax import names
from nat_jax.schema import presets

TRAIN = {'name': 'digits', 'split': 'train'}
VARIANTS = {  # -> what differs in `trainer`, in `loss`
    'active': ({}, {}),
    'strong': ({'reward': 1.0}, {}),
    'excessive': ({'reward': 2.0}, {}),
    'plain': ({'reward': 0.0}, {}),
    'learned': ({'made_weight': 1.0}, {}),
    'acgan': ({}, {'fakes_labelled': True}),
    'acgan_plain': ({'reward': 0.0}, {'fakes_labelled': True}),
}


def get_config(variant='active'):
  """Returns the config of a variant; raises ValueError for an unknown variant."""
  if variant not in VARIANTS:
    raise ValueError(names.unknown('variant', variant, VARIANTS))
  trainer, loss = VARIANTS[variant]
  return presets.experiment(
      task='gan',
      name='active_digits',
      variant=variant,
      num_classes=10,
      steps=2000,
      generator={'name': 'mlp_generator', 'latent': 32, 'widths': (128, 128)},
      discriminator={'name': 'mlp_discriminator', 'widths': (128, 128)},
      loss={'name': 'ac_gan', 'fakes_labelled': False, **loss},
      trainer={
          'name': 'active', 'labels': 'predefined', 'reward': 0.5,
          'made_weight': 0.0,
          'classifier': {'name': 'mlp', 'width': 128, 'depth': 2}, **trainer},
      data=dict(positives={**TRAIN, 'per_class': 5, 'seed': 0}, batch_size=50),
      measures=dict(
          reference=TRAIN,
          num_samples=2000,
          batch_size=50,
          features={
              'name': 'checkpoint', 'config': 'configs/gan/classifier.py:digits10',
              'workdir': 'runs/classifiers/digits10'},
      ),
      run=dict(log_every=250, checkpoint_every=1000, eval_every=1000),
  )
