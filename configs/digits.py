"""scikit-learn's digits: 1,797 real 8x8 images, no download, two CPU cores.

Positives: digits 0-5. Training negatives: digits 6-7. Tested on held-out 0-5
(accuracy), held-out 6-7 (seen negatives), all of 8-9 (unseen negatives) and noise. Of
the 70 % of 0-7 that are not in the test, 10 % are held out for validation and 10 % for
calibration (the threshold of --mode=predict).

    python -m nat_jax.main --config configs/digits.py --workdir runs/digits

Variants:
  nat         16 negatives on top of 128 positives; the default, which trains `baseline`
              too and prints both side by side
  baseline    the plain classifier
  background  negatives as a seventh class
  oe          Outlier Exposure: lambda 0.5
  energy      energy-regularised Outlier Exposure
  mixoe       MixOE: boxes of negatives cut into positives, soft targets
  nat_mix     NAT with half of 32 negatives mixed as in mixoe
  nat_mine    NAT on the hardest quarter of 64 negatives
  shuffled    NAT with patch-shuffled positives as the only negatives
  nat_general NAT on 6-7 and patch-shuffled positives, half of 32 mixed with positives

Recipes that need no negatives, each also with those of nat, as nat_logitnorm etc.:
  logitnorm   the loss of logits that are divided by their norm
  rotation    the rotation of the positives as an auxiliary task
  pixmix      images mixed with generated fractals
  adaptivemix mixed positives, whose features are mixed too; an orthogonal output layer
  mixup       mixed positives with mixed targets
  adversarial adversarial training by PGD; nat_adversarial: its pictures as negatives

Measured: docs/results.md, "Digits", "Negatives that generalise", "Recipes on digits";
with an MLP, docs/adversarial.md. A run takes a quarter of a minute on two CPU cores,
and with rotation or adversarial three quarters.
"""

from nat_jax import names
from nat_jax.schema import presets, recipes

NAT = {'name': 'nat'}
PLAIN = {'name': 'cross_entropy'}
CUTMIX = {'name': 'mix', 'mode': 'cutmix'}
HALF_CUTMIX = {**CUTMIX, 'portion': 0.5}
VARIANTS = {  # -> loss, negatives per batch, negative transform
    'nat': (NAT, 16, {}),
    'baseline': (PLAIN, 0, {}),
    'background': ({'name': 'background'}, 16, {}),
    'oe': ({'name': 'outlier_exposure', 'weight': 0.5}, 16, {}),
    'energy': ({'name': 'energy'}, 16, {}),
    'mixoe': ({'name': 'outlier_exposure', 'weight': 1.0}, 32, CUTMIX),
    'nat_mix': (NAT, 32, HALF_CUTMIX),
    'nat_mine': (NAT, 64, {'name': 'mine', 'keep': 0.25}),
    'shuffled': (NAT, 32, {}),
    'nat_general': (NAT, 32, HALF_CUTMIX),
    'logitnorm': ({**PLAIN, **recipes.LOGIT_NORM}, 0, {}),
    'nat_logitnorm': ({**NAT, **recipes.LOGIT_NORM}, 16, {}),
    'rotation': (PLAIN, 0, {}),
    'nat_rotation': (NAT, 16, {}),
    'pixmix': (PLAIN, 0, {}),
    'nat_pixmix': (NAT, 16, {}),
    'adaptivemix': (PLAIN, 0, {}),
    'nat_adaptivemix': (NAT, 16, {}),
    'mixup': (PLAIN, 0, {}),
    'nat_mixup': (NAT, 16, {}),
    'adversarial': (PLAIN, 0, {}),
    'nat_adversarial': (NAT, 16, {}),
}
# Variant -> what becomes of the positives that PGD changes.
ADVERSARIAL = {'adversarial': 'own', 'nat_adversarial': 'negative'}
SHUFFLED = {'source': {'name': 'patch_shuffle', 'num': 3000}}


def get_config(variant='nat'):
  if variant not in VARIANTS:
    raise ValueError(names.unknown('variant', variant, VARIANTS))
  loss, count, treatment = VARIANTS[variant]
  recipe = variant.removeprefix('nat_')
  trainer = recipes.TRAINERS.get(recipe, recipes.SUPERVISED)
  if variant in ADVERSARIAL:
    trainer = {'name': 'adversarial', 'budget': 0.15, 'labels': ADVERSARIAL[variant]}
  positives, negatives, evals = recipes.digits()
  if variant in ('shuffled', 'nat_general'):
    negatives['shuffled'] = SHUFFLED
  if variant == 'shuffled':
    del negatives['digits_6_7']
  return presets.experiment(
      name='digits',
      variant=variant,
      compare_with='baseline' if variant == 'nat' else '',
      num_classes=6,
      steps=1000,
      trainer=trainer,
      model={'name': 'small_conv'},
      loss=loss,
      optimizer={'name': 'sgd', 'momentum': 0.9, 'weight_decay': 5e-4},
      schedule={'name': 'cosine', 'learning_rate': 0.1},
      data=dict(
          positives=positives,
          negatives=negatives,
          **presets.NORMALISATION['digits'],
          batch_size=128,
          negatives_per_batch=count,
          augment=[recipes.PIXMIX] if recipe == 'pixmix' else [],
          treatment=treatment,
      ),
      evals=evals,
      run=dict(log_every=50, eval_every=250, checkpoint_every=500),
  )
