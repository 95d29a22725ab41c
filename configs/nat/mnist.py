r"""MNIST classifiers; negatives: Fashion-MNIST, EMNIST letters or notMNIST.

    python -m nat_jax.main --config configs/nat/mnist.py:letters_small --workdir ...

Variants as in configs/nat/cifar10.py, with Fashion-MNIST train as the negatives, and
  letters     negatives: the first half of the test split of EMNIST letters
  notmnist    negatives: the first half of notMNIST, which is not in the tfds catalogue:
              prepare a builder of this name or write it into the array cache
  generated   negatives: samples of the GAN runs/gan-mnist of which the classifier that
              its measures use has a largest probability below .9:
              python -m nat_jax.main --config configs/gan/mnist.py:am_small \
                --workdir runs/gan-mnist
Tested on MNIST test, Fashion-MNIST test, the second halves of EMNIST letters and
notMNIST, KMNIST and noise. The paper has no MNIST classifiers.

Full recipe: ResNet-18, 20 epochs; not measured here: it needs a GPU.
With `_small`: 2 epochs; expected (three seeds, docs/negatives.md): accuracy .993;
NCR_0.8 on KMNIST .47 for baseline, .02 for letters, .03 for shuffled and .10 for
generated, and on held-out letters .63, .004, .55 and .51.
With `_small01`, the small form of version 0.1: 2 epochs, 4 to 6 minutes on one CPU
core; expected (three seeds, `_small01_paper`): accuracy .993 for baseline and letters,
NCR_0.4 on held-out letters .97 for baseline, .04 for letters.
"""

from nat_jax.schema import presets, recipes


def get_config(variant='nat'):
  return recipes.classifier(
      'mnist',
      variant,
      num_examples=60_000,
      positives=presets.tfds('mnist', 'train'),
      negatives={
          'nat': {'fashion_mnist': presets.negative('fashion_mnist', 'train')},
          'letters': {'letters': presets.negative('emnist/letters', 'test[:50%]')},
          'notmnist': {'notmnist': presets.negative('notmnist', 'test[:50%]')},
          'generated': {'generated': {'source': {
              'name': 'run', 'workdir': 'runs/gan-mnist', 'num': 4000, 'seed': 0,
              'classifier': 'runs/classifiers/mnist', 'confidence': (0.0, 0.9)}}},
      },
      evals={
          'test': presets.positive('mnist', 'test'),
          'fashion_mnist': presets.negative('fashion_mnist', 'test'),
          'letters': presets.negative('emnist/letters', 'test[50%:]'),
          'notmnist': presets.unlisted('notmnist', 'test[50%:]'),
          'kmnist': presets.negative('kmnist', 'test'),
          'noise': presets.NOISE,
      },
      normalisation=presets.NORMALISATION['mnist'],
      augment=[{'name': 'crop', 'pad': 2}],
      epochs=(20, 2),
  )
