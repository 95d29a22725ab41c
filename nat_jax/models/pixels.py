"""Networks from pictures to maps: a U-Net, and a discriminator of patches.

    model = UNet(num_outputs=4, widths=(16, 32))
    variables = model.init(key, images)
    maps = model.apply(variables, images)            # [n, h, w, 4]

No layer mixes examples, and there are no batch statistics.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from nat_jax.models import layers


class UNet(nn.Module):
  """Two 3x3 convolutions at each resolution, on the way down and on the way up.

  On the way down a maximum pool halves the picture; on the way up a transposed 2x2
  convolution doubles the map, which is cropped to the size of the map of the way down
  and joined with it. Pictures may have any size.

  The transposed convolution matters to a generator: without it the output of a constant
  input is constant, and only noise could make a regular texture.

  Attributes:
    num_outputs: channels of the output.
    widths: channels at each resolution, the full one first.

  Reference: Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015.
  """

  num_outputs: int
  widths: Sequence[int] = (16, 32)

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Pictures [n, h, w, c] to maps [n, h, w, num_outputs], float32."""
    x, seen = images, []
    for i, width in enumerate(self.widths):
      if i:
        x = nn.max_pool(x, (2, 2), (2, 2), 'SAME')
      x = _twice(x, width)
      seen.append(x)
    for width, skip in zip(self.widths[-2::-1], seen[-2::-1], strict=True):
      _, h, w, _ = skip.shape
      x = nn.ConvTranspose(width, (2, 2), (2, 2), kernel_init=layers.he_init)(x)
      x = x[:, :h, :w]
      x = _twice(jnp.concatenate([x, skip], -1), width)
    return nn.Conv(self.num_outputs, (1, 1), kernel_init=layers.torch_init)(x)


class PatchDiscriminator(nn.Module):
  """Convolutions whose outputs each judge a patch of the picture.

  Attributes:
    num_outputs: outputs for each patch.
    widths: channels of each convolution. The first has 3x3 pixels and stride 1, the
      others 4x4 and stride 2.

  Reference: Isola, Zhu, Zhou, Efros, "Image-to-Image Translation with Conditional
  Adversarial Networks" (PatchGAN), CVPR 2017.
  """

  num_outputs: int = 1
  widths: Sequence[int] = (32, 64)

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Pictures [n, h, w, c] to outputs [n, h', w', num_outputs], float32."""
    x = images
    for i, width in enumerate(self.widths):
      side, stride = (4, 2) if i else (3, 1)
      x = nn.Conv(width, (side, side), strides=stride, kernel_init=layers.he_init)(x)
      x = nn.leaky_relu(x, 0.2)
    return nn.Conv(self.num_outputs, (3, 3), kernel_init=layers.torch_init)(x)


def _twice(x, width):
  """Two convolutions with ReLU."""
  for _ in range(2):
    x = nn.relu(nn.Conv(width, (3, 3), kernel_init=layers.he_init)(x))
  return x
