"""A small residual network for few epochs on a CPU, behind fixed, whitened patches.

    model = Fast(num_outputs=10)                               # 1,093,948 parameters
    logits, aux = model.apply(variables, images, train=False)
    aux['group1'], aux['group2'], aux['features']

The stem takes overlapping patches of 4x4 pixels, two apart, to their discrete cosine
transform, of which the low frequencies are kept. Its coefficients are nearly
uncorrelated in natural images, so that a BatchNorm of them whitens the patches: the
layers behind it learn faster. It is not trained, and no gradient goes back into it.
Nothing is trained at full or half the resolution: there are wide 3x3 convolutions
alone, which XLA's CPU backend does well.

Reference: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (frozen
whitening of patches, by the principal components of training images); Ahmed,
Natarajan, Rao, "Discrete Cosine Transform", IEEE Trans. Computers, 1974 (it comes near
to them).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nat_jax.models import layers

PATCH = 4  # pixels on a side; patches lie half of it apart
# The highest sums of the frequencies along both sides that are kept of the mean over
# the channels and of what differs between them. Natural images have little of the
# rest, which whitening would amplify.
KEPT_OF_MEAN, KEPT_OF_DIFFERENCES = 4, 2


class Fast(nn.Module):
  """The stem, then two convolutions per group, the second with a shortcut.

  Attributes:
    num_outputs: width of the logits.
    widths: channels of the groups; each group halves the image before it. None: by
      the size of the images, see `widths_of`.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  num_outputs: int
  widths: Sequence[int] | None = (128, 256)
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, images: jax.Array, train: bool, mask: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images [n, h, w, c] to logits [n, num_outputs] and the named feature maps.

    'group1' [n, h/4, w/4, widths[0]], 'group2' [n, h/8, w/8, widths[1]] and so on, and
    'features' [n, widths[-1]].
    """
    dtype = layers.compute_dtype(self.dtype)

    def norm(x, name):
      return layers.BatchNorm(dtype=dtype, axis_name=self.axis_name, name=name)(
          x, use_running_average=not train, mask=mask)

    x = jax.lax.stop_gradient(norm(cosines(images.astype(dtype)), 'stem_norm'))
    x = nn.relu(jnp.concatenate([x, -x], axis=-1))
    aux = {}
    widths = widths_of(min(images.shape[1:3])) if self.widths is None else self.widths
    for i, width in enumerate(widths, 1):
      x = layers.conv(width, dtype=dtype, name=f'group{i}_conv1')(halve(x))
      x = nn.relu(norm(x, f'group{i}_norm1'))
      y = layers.conv(width, dtype=dtype, name=f'group{i}_conv2')(x)
      x = x + nn.relu(norm(y, f'group{i}_norm2'))
      aux[f'group{i}'] = x
    aux['features'] = x.astype(jnp.float32).mean((1, 2))
    return layers.head(self.num_outputs)(aux['features']), aux


def widths_of(size: int) -> tuple[int, ...]:
  """Channels of the groups for images of a size: from 64 pixels on narrower ones first.

  The last group has 256 channels and a side of 4 to 7 pixels, and each group before it
  half the channels, at least 32.

  Args:
    size: the shorter side, in pixels.

  Returns:
    (128, 256) below 64 pixels, (64, 128, 256) below 128, (32, 64, 128, 256) below 256.
  """
  groups = max(2, size.bit_length() - 4)
  return tuple(max(32, 256 >> i) for i in reversed(range(groups)))


def cosines(images: jax.Array) -> jax.Array:
  """Low frequencies of overlapping patches, along both sides and over the channels.

  Args:
    images: [n, h, w, c].

  Returns:
    [n, ceil(h/2), ceil(w/2), 13 + 6 (c - 1)] of the type of the images: those
    coefficients of the orthonormal transform of each patch, [4, 4, c] flattened, with
    u + v of at most 4 at channel frequency 0, and at most 2 at others. Patches hang
    over the edge by a pixel, where there are zeros.
  """
  c = images.shape[-1]
  basis = np.einsum('yu,xv,cs->yxcuvs', _dct(PATCH), _dct(PATCH), _dct(c))
  u, v, channel = np.indices((PATCH, PATCH, c))
  kept = u + v <= np.where(channel == 0, KEPT_OF_MEAN, KEPT_OF_DIFFERENCES)
  basis = basis[..., kept]
  pads = [(1, 1 + side % 2) for side in images.shape[1:3]]
  return jax.lax.conv_general_dilated(
      images, jnp.asarray(basis, images.dtype), (PATCH // 2, PATCH // 2), pads,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def halve(x: jax.Array) -> jax.Array:
  """The largest value of each 2x2 positions, [n, h, w, c] -> [n, h/2, w/2, c] (up).

  By a reshape: the gradient of a window reduction is slow on XLA's CPU backend.
  """
  n, height, width, c = x.shape
  x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode='edge')
  return x.reshape(n, -(-height // 2), 2, -(-width // 2), 2, c).max((2, 4))


def _dct(length):
  """The orthonormal DCT-II; its columns are the cosines, the constant first."""
  places, waves = np.arange(length)[:, None] + 0.5, np.arange(length)
  basis = np.cos(np.pi * places * waves / length)
  return basis / np.linalg.norm(basis, axis=0)
