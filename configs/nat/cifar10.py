"""The paper's CIFAR-10 classifiers (Tables 1-3), and the rivals of negative training.

    python -m nat_jax.main --config configs/nat/cifar10.py:nat --workdir runs/nat-0
    python -m nat_jax.main --config configs/nat/cifar10.py:nat_small --workdir ...

Variants, positives CIFAR-10, negatives CIFAR-100 train unless said otherwise:
  baseline    the plain classifier
  nat         5 to 25 negatives on top of a batch of 128 (Table 1)
  nat8, nat32, nat64    so many negatives a batch (Table 2)
  ilsvrc      the first half of 731 ILSVRC samples as negatives (Table 3: few, unlike)
  background  negatives as an eleventh class
  oe          Outlier Exposure: 256 negatives to 128 positives, lambda 0.5
  energy      energy-regularised Outlier Exposure (Liu 2020)
  mixoe       MixOE: negatives mixed into positives with soft targets
  nat_mix     NAT on such mixes; nat_mine: NAT on the hardest quarter of 64 negatives
  nat_shuffle NAT on patch-shuffled positives alone: no negative images at all

Full recipe: ResNet-18, bfloat16, 200 epochs, pytorch-cifar's schedule. Expected
(paper): accuracy 95.5 baseline, 95.0 NAT; NCR_0.4 on CIFAR-100 test .971 and .072.
Not measured here: it needs a GPU.

With `_small` after the variant: a network of 1.2 million parameters that halves the
image at once, 6 epochs, about 8 minutes a run on two CPU cores. The README has what
it measured.
"""

from nat_jax import presets

NAT = {'name': 'nat'}
# variant -> (loss, negatives a batch)
VARIANTS = {
    'baseline': ({'name': 'cross_entropy'}, 0),
    'nat': (NAT, (5, 25)),
    'nat8': (NAT, 8),
    'nat32': (NAT, 32),
    'nat64': (NAT, 64),
    'ilsvrc': (NAT, (5, 25)),
    'background': ({'name': 'background'}, (5, 25)),
    'oe': ({'name': 'outlier_exposure', 'weight': 0.5}, 256),
    'energy': ({'name': 'energy'}, 256),
}


def get_config(variant='nat'):
  base, _, size = variant.partition('_small')
  small = variant.endswith('_small')
  if base not in VARIANTS or size:
    raise ValueError(
        f'unknown variant {variant!r}; valid: {", ".join(VARIANTS)}, each also with '
        '_small'
    )
  loss, count = VARIANTS[base]
  evals = {'test': presets.positive('cifar10', 'test'), **presets.NEGATIVES_32,
           'svhn': presets.negative('svhn_cropped', 'test')}
  negatives = {'cifar100': presets.negative('cifar100', 'train')}
  if base == 'ilsvrc':
    negatives = {'ilsvrc': presets.negative('ilsvrc_samples32', 'test[:50%]')}
    evals['ilsvrc'] = presets.negative('ilsvrc_samples32', 'test[50%:]')
    evals['ilsvrc_train'] = negatives['ilsvrc']
  steps = presets.steps(6 if small else 200, 50_000, 128)
  return presets.experiment(
      name='cifar10_small' if small else 'cifar10',
      variant=base,
      num_classes=10,
      steps=steps,
      model=(
          {'name': 'resnet', 'blocks': (0, 1, 1), 'width': 64, 'stem_stride': 2}
          if small else {'name': 'resnet18', 'dtype': 'bfloat16'}
      ),
      loss=loss,
      optimizer={'name': 'sgd', 'momentum': 0.9, 'nesterov': small,
                 'weight_decay': 5e-4, 'decay': 'all'},
      schedule={'name': 'cosine', 'learning_rate': 0.1,
                'warmup': 200 if small else 0},
      data=dict(
          positives=presets.tfds('cifar10', 'train'),
          negatives=negatives,
          **presets.NORMALISATION['cifar10'],
          batch_size=128,
          negatives_per_batch=count,
          augment=presets.CROP_FLIP,
      ),
      evals=evals,
      run=dict(log_every=50 if small else 391, eval_every=0,
               updates_per_call=10 if small else 100,
               checkpoint_every=400 if small else 391 * 20),
  )
