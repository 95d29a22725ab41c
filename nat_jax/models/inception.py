"""InceptionV3 of the TensorFlow graph of 2015-12-05, the network of IS, FID and KID.

    variables = load_weights('inception.msgpack')          # your own file, or .npz
    pool3, logits = inception_features(variables, images)  # uint8 images; under jit

The weights are not part of this package. Other weights (torchvision's) or another
resizing give scores that are not comparable. To convert the PyTorch file
pt_inception-2015-12-05-6726825d.pth, rename and transpose its arrays as follows,
unflatten the names at '/', and call `save_weights`. <at> is the name of a convolution
of the stem, or of a block and a branch (see below), with '/' here and '.' in the file:

    PyTorch file             here                         converted array
    <at>.conv.weight         params/<at>/conv/kernel      w.transpose(2, 3, 1, 0)
    <at>.bn.weight           params/<at>/bn/scale         w
    <at>.bn.bias             params/<at>/bn/bias          w
    <at>.bn.running_mean     batch_stats/<at>/bn/mean     w
    <at>.bn.running_var      batch_stats/<at>/bn/var      w
    fc.weight                params/fc/kernel             w.T
    fc.bias                  params/fc/bias               w

Reference: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision",
CVPR 2016. The graph's average pools do not count padding; its last block max-pools.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import serialization
from flax.traverse_util import flatten_dict, unflatten_dict

from nat_jax.models import layers

SIZE, CLASSES = 299, 1008
POOLS = {
    'mean': lambda x: nn.avg_pool(x, (3, 3), (1, 1), 'SAME', count_include_pad=False),
    'max': lambda x: nn.max_pool(x, (3, 3), (1, 1), 'SAME'),
    'halve': lambda x: nn.max_pool(x, (3, 3), (2, 2), 'VALID'),
}
ONE, WIDE, TALL, THREE = (1, 1), (1, 7), (7, 1), (3, 3)  # kernels, (height, width)
HALVE = THREE, 2, 'VALID'
FORK = [(384, (1, 3)), (384, (3, 1))]

# Branches: name -> steps. A step is the arguments of a ConvNorm, (features, kernel,
# stride, padding), or the name of a pool, or a list of parallel convolutions. The only
# convolution of a branch has the branch's name; several are called name_1, name_2, ...,
# and parallel ones name_2a, name_2b.
STEM = {
    'Conv2d_1a_3x3': [(32, *HALVE)],
    'Conv2d_2a_3x3': [(32, THREE, 1, 'VALID')],
    'Conv2d_2b_3x3': [(64, THREE), 'halve'],
    'Conv2d_3b_1x1': [(80, ONE)],
    'Conv2d_4a_3x3': [(192, THREE, 1, 'VALID'), 'halve'],
}


def _block_a(pooled):
  return {
      'branch1x1': [(64, ONE)],
      'branch5x5': [(48, ONE), (64, (5, 5))],
      'branch3x3dbl': [(64, ONE), (96, THREE), (96, THREE)],
      'branch_pool': ['mean', (pooled, ONE)],
  }


def _block_c(c):
  return {
      'branch1x1': [(192, ONE)],
      'branch7x7': [(c, ONE), (c, WIDE), (192, TALL)],
      'branch7x7dbl': [(c, ONE), (c, TALL), (c, WIDE), (c, TALL), (192, WIDE)],
      'branch_pool': ['mean', (192, ONE)],
  }


def _block_e(pool):
  return {
      'branch1x1': [(320, ONE)],
      'branch3x3': [(384, ONE), FORK],
      'branch3x3dbl': [(448, ONE), (384, THREE), FORK],
      'branch_pool': [pool, (192, ONE)],
  }


BLOCKS = {
    'Mixed_5b': _block_a(32), 'Mixed_5c': _block_a(64), 'Mixed_5d': _block_a(64),
    'Mixed_6a': {
        'branch3x3': [(384, *HALVE)],
        'branch3x3dbl': [(64, ONE), (96, THREE), (96, *HALVE)],
        'branch_pool': ['halve'],
    },
    'Mixed_6b': _block_c(128), 'Mixed_6c': _block_c(160),
    'Mixed_6d': _block_c(160), 'Mixed_6e': _block_c(192),
    'Mixed_7a': {
        'branch3x3': [(192, ONE), (320, *HALVE)],
        'branch7x7x3': [(192, ONE), (192, WIDE), (192, TALL), (192, *HALVE)],
        'branch_pool': ['halve'],
    },
    'Mixed_7b': _block_e('mean'), 'Mixed_7c': _block_e('max'),
}


class ConvNorm(nn.Module):
  """A convolution without bias, BatchNorm with its running statistics, and ReLU."""

  features: int
  kernel: tuple[int, int]
  stride: int = 1
  padding: str = 'SAME'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    # Full float32, so that scores do not depend on an accelerator's default precision.
    x = nn.Conv(
        self.features, self.kernel, self.stride, self.padding, use_bias=False,
        precision='highest', name='conv')(x)
    x = layers.BatchNorm(epsilon=1e-3, name='bn')(x, use_running_average=True)
    return nn.relu(x)


def _branch(x, name, steps):
  """Applies the steps of a branch within the module that is being called."""
  chain = len(steps) > 1 and not any(isinstance(step, str) for step in steps)
  for i, step in enumerate(steps, 1):
    at = f'{name}_{i}' if chain else name
    if isinstance(step, str):
      x = POOLS[step](x)
    elif isinstance(step, list):
      parts = zip('ab', step, strict=True)
      x = jnp.concatenate([ConvNorm(*s, name=at + end)(x) for end, s in parts], -1)
    else:
      x = ConvNorm(*step, name=at)(x)
  return x


class Block(nn.Module):
  """The block of `BLOCKS` that has this module's name: its branches, concatenated."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return jnp.concatenate(
        [_branch(x, *branch) for branch in BLOCKS[self.name].items()], -1)


class InceptionV3(nn.Module):
  """Images [n, 299, 299, 3] within [-1, 1] to pool3 [n, 2048], logits [n, 1008]."""

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    for name, steps in STEM.items():
      x = _branch(x, name, steps)
    for name in BLOCKS:
      x = Block(name=name)(x)
    pool3 = x.mean((1, 2))
    return pool3, nn.Dense(CLASSES, precision='highest', name='fc')(pool3)


def resize(images: jax.Array, size: int) -> jax.Array:
  """Bilinear resizing as in TensorFlow 1: no aligned corners, no half-pixel centres.

  Output i is (1 - t) x[floor s] + t x[floor s + 1] with s = i * old / new and
  t = s - floor s; beyond the last pixel x is constant.

  Args:
    images: float [n, h, w, c].
    size: height and width of the result.

  Returns:
    [n, size, size, c].
  """
  for axis in (2, 1):  # TensorFlow's order
    old = images.shape[axis]
    source = np.arange(size, dtype=np.float32) * (np.float32(old) / np.float32(size))
    low = np.minimum(source.astype(np.int32), old - 1)
    t = np.expand_dims(source - low, [a for a in range(4) if a != axis])
    left = jnp.take(images, low, axis)
    right = jnp.take(images, np.minimum(low + 1, old - 1), axis)
    images = left + (right - left) * t
  return images


def inception_features(
    variables: Mapping[str, Any], images: jax.Array, bias: bool = False
) -> tuple[jax.Array, jax.Array]:
  """Features for FID and KID, and logits for IS; a pure function, to be called in jit.

  Args:
    variables: from `load_weights`.
    images: uint8 [n, h, w, 1 or 3]; a single channel is repeated three times.
    bias: whether logits include the bias of the output layer. The first IS code leaves
      it out; with it the IS is higher.

  Returns:
    pool3 [n, 2048] and logits [n, 1008], float32.

  Raises:
    ValueError: images of another dtype or shape.
  """
  if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != jnp.uint8:
    raise ValueError(
        f'expected images uint8 [n, h, w, 1 or 3], got {images.dtype} '
        f'{list(images.shape)}; scale them to 0..255, round, clip and cast')
  x = (resize(jnp.asarray(images, jnp.float32), SIZE) - 128) / 128
  x = jnp.broadcast_to(x, (*x.shape[:3], 3))
  pool3, logits = InceptionV3().apply(variables, x)
  if not bias:
    logits = jnp.dot(pool3, variables['params']['fc']['kernel'], precision='highest')
  return pool3, logits


def weight_shapes() -> dict[str, jax.ShapeDtypeStruct]:
  """The names in a weight file, joined with '/', and their shapes; computes nothing."""
  images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
  tree = jax.eval_shape(InceptionV3().init, jax.random.key(0), images)
  return flatten_dict(tree, sep='/')


def save_weights(path: str, variables: Mapping[str, Any]) -> None:
  """Writes the file that `load_weights` reads: .npz if `path` ends so, else msgpack.

  Raises:
    ValueError: arrays of `variables` are missing, unexpected or of a wrong shape.
  """
  flat = _checked(path, variables)
  with open(path, 'wb') as file:
    if path.endswith('.npz'):
      np.savez(file, **flat)
    else:
      file.write(serialization.msgpack_serialize(unflatten_dict(flat, sep='/')))


def load_weights(path: str) -> dict[str, Any]:
  """Reads variables from an .npz file (names joined with '/') or flax's msgpack.

  Raises:
    ValueError: the file is of neither format, or arrays in it are missing, unexpected
      or of a wrong shape.
  """
  with open(path, 'rb') as file:
    try:
      if path.endswith('.npz'):
        tree = unflatten_dict(dict(np.load(file)), sep='/')
      else:
        tree = dict(serialization.msgpack_restore(file.read()))
    except Exception as error:  # damaged files raise many kinds
      raise ValueError(
          f'expected an .npz or msgpack file as {__name__} describes, got {path}: '
          f'{error!r}') from error
  # Not jnp.asarray, which compiles a program for each shape.
  return unflatten_dict(jax.device_put(_checked(path, tree)), sep='/')


def _checked(path, tree):
  """The tree's arrays by name, float32; ValueError unless their shapes match."""
  flat = jax.tree.map(np.asarray, flatten_dict(tree, sep='/'))
  want, got = ({k: v.shape for k, v in d.items()} for d in (weight_shapes(), flat))
  faults = {
      'missing': want.keys() - got.keys(), 'unexpected': got.keys() - want.keys(),
      'misshaped': {k for k in want.keys() & got.keys() if want[k] != got[k]}}
  if any(faults.values()):
    raise ValueError(f'{path}: not InceptionV3 of 2015-12-05: ' + '; '.join(
        f'{len(names)} {fault}, first ' + ', '.join(
            f'{k}: expected {want.get(k)}, got {got.get(k)}' for k in sorted(names)[:3])
        for fault, names in faults.items() if names))
  return {name: flat[name].astype(np.float32) for name in want}
