"""Residual GANs of 128x128 pictures, your own or of tfds: SN-GAN, SAGAN, BigGAN, NAT.

    python -m nat_jax.main --config configs/gan/pictures128.py:sagan:pets \
      --workdir runs/sagan
    python -m nat_jax.main --config configs/gan/pictures128.py:nat3:pets,others \
      --workdir runs/nat3

What follows the method is as for configs/pictures.py: `pets/` holds a folder of
pictures for each class (two classes or more), `others/` pictures that are of none of
them, the external negatives of `nat3`; without that folder these are positives with
shuffled patches. The other methods do not use it. `scans.csv` and `tfds/NAME` can stand
there too, without a colon. Pictures of any size are resized and cropped. 60 % are
trained on, and 20 % are held out, to count samples that repeat training pictures.

Methods, each also with `_small`, as in `sagan_small:pets`:

    hinge_sn    SN-GAN, without labels, with the settings of
                configs/gan/cifar10_resnet.py
    sagan       SAGAN, with attention at 32x32 and the settings of the authors' code for
                ImageNet, but with batches of 64 and not 256
    biggan      BigGAN, with attention at 64x64, z of 120 numbers and the settings of
                the script for batches of 2,048 in the code of its first author
                (ajbrock/BigGAN-PyTorch), but with batches of 64; orthogonal
                regularisation with weight 1e-4 is added
    nat3        NAT-GAN with SN-GAN's networks and settings and three external negatives
                per batch

`classifier:pets` is the evaluation classifier of all of them, `baseline` of
configs/pictures.py for pictures of this size. It is trained first if it is missing, in
runs/classifiers/pets128.

100,000 updates of the generator, on a GPU; the authors of SAGAN made a million. With
`_small` the networks have width 8 and there are 1,000 updates, for trials on CPUs.
Nothing was trained here; docs/gan_objectives.md has the sizes of the networks.
"""

from nat_jax import names
from nat_jax.commands import config_file
from nat_jax.schema import gan_recipes

SIDE = 128
FILE = 'configs/gan/pictures128.py'


def get_config(variant='sagan:pets'):
  method, _, pictures = variant.partition(':')
  if not pictures:
    raise ValueError(
        f"expected a method and pictures, such as 'sagan:pets', got {variant!r}")
  methods = gan_recipes.RESNETS
  if method != 'classifier' and method.removesuffix('_small') not in methods:
    raise ValueError(
        names.unknown('method', method, methods) + ', each also with _small')
  if ':' in pictures:
    raise ValueError(
        f'the place of the pictures must be without a colon, got {pictures!r}; name a '
        'link to that folder, or a data set of tfds without its version')
  if method == 'classifier':
    return classifier(pictures)
  given = config_file.load('pictures', f'nat:{pictures}').to_dict()
  name = f'{given["name"]}{SIDE}'
  config = gan_recipes.resnet(
      f'gan_{name}',
      method,
      side=SIDE,
      steps=100_000,
      small_steps=1000,
      num_classes=given['num_classes'],
      positives=given['data']['positives'],
      held_out=given['evals']['test']['source'],
      negatives=given['data']['negatives'],
      classifier=f'{FILE}:classifier:{pictures.partition(",")[0]}',
  )
  config.data.image_size = SIDE
  config.measures.features.workdir = f'runs/classifiers/{name}'
  config.measures.num_samples = min(config.measures.num_samples, 10_000)
  config.run.placement = 'streamed'
  config.run.updates_per_call = 10  # whose pictures are in memory at once
  return config


def classifier(pictures):
  """The config of the evaluation classifier, without sets of corrupted pictures."""
  config = config_file.load('pictures', f'baseline:{pictures}')
  config.data.image_size = SIDE
  config.evals = {
      name: entry for name, entry in config.evals.items() if 'corrupt' not in entry}
  return config
