"""AdvGAN on scikit-learn's digits: no download, two CPU cores.

    python -m nat_jax.main --config configs/advgan.py --workdir runs/advgan

Attacks `baseline` of configs/digits.py, which is trained first if it is missing, with
changes of at most .15 of the range from black to white, and shows the pictures to `nat`
of that config too. The pictures that are changed are the training positives; all
figures are of held-out ones. `adversarial.npz` in the workdir holds the changed
training positives, for use as negatives (docs/adversarial.md).

Variants:
  white  with gradients of the target
  black  with predictions of the target alone, from which a student is distilled

The network, kappa and the weights were chosen by the success on the validation part of
one seed: .60, and .41 with width 256, depth 2, kappa 0 and gan_weight .1.

Measured: docs/adversarial.md. A run takes half a minute on two CPU cores.
"""

from nat_jax import names
from nat_jax.schema import presets, recipes

STUDENTS = {'white': {}, 'black': {'name': 'small_conv', 'widths': (32, 64)}}


def classifier(variant):
  return {'name': 'checkpoint', 'workdir': f'runs/classifiers/digits-{variant}',
          'config': f'configs/digits.py:{variant}'}


def get_config(variant='white'):
  """Returns the config of a variant; raises ValueError for an unknown variant."""
  if variant not in STUDENTS:
    raise ValueError(names.unknown('variant', variant, STUDENTS))
  positives, _, evals = recipes.digits()
  return presets.experiment(
      task='advgan',
      name='advgan_digits',
      variant=variant,
      target=classifier('baseline'),
      student=STUDENTS[variant],
      trainer={'name': 'advgan', 'budget': 0.15, 'kappa': 5.0, 'gan_weight': 1.0},
      num_classes=6,
      steps=2500,
      perturber={'name': 'mlp', 'width': 512, 'depth': 3},
      discriminator={'name': 'mlp_discriminator', 'widths': (64, 64)},
      data=dict(positives=positives, **presets.NORMALISATION['digits']),
      evals={
          'test': {'source': evals['test']['source']},
          'transfer_nat': {
              'source': evals['test']['source'], 'classifier': classifier('nat')}},
      run=dict(log_every=250, checkpoint_every=1000),
  )
