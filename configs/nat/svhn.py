"""The paper's SVHN classifiers (Table 1); negatives: CIFAR-100 train.

    python -m nat_jax.main --config configs/nat/svhn.py:nat --workdir runs/svhn-nat-0

Variants as in configs/nat/cifar10.py. Full recipe: ResNet-18, 200 epochs; expected
(paper): NCR_0.4 on CIFAR-100 test .934 baseline, .003 NAT. Not measured here: it needs
a GPU. With `_small`: 1.1 million parameters, 6 epochs of 65,931 images (all 73,257 with
`_small_paper`); expected, from its 3,091 updates on 7,200 images, 15 minutes on one CPU
core (docs/results.md): accuracy .92 and .93, NCR_0.4 on CIFAR-100 test .88 baseline,
.001 NAT. With `_small01`, the small form of version 0.1: expected, from 1,200 updates
on 8,000 images, 7 minutes on one CPU core (docs/results.md): accuracy .93 for both,
NCR_0.4 on CIFAR-100 test .76 baseline, .04 NAT. Augmentation: crops but no flips, since
mirrored digits are not digits.
"""

from nat_jax.schema import presets, recipes


def get_config(variant='nat'):
  return recipes.classifier(
      'svhn',
      variant,
      num_examples=73_257,
      positives=presets.tfds('svhn_cropped', 'train'),
      negatives={'nat': {'cifar100': presets.negative('cifar100', 'train')}},
      evals={
          'test': presets.positive('svhn_cropped', 'test'),
          **presets.NEGATIVES_32,
          'cifar10_test': presets.negative('cifar10', 'test'),
      },
      normalisation=presets.NORMALISATION['svhn_cropped'],
      augment=[{'name': 'crop', 'pad': 4}],
  )
