"""Vision transformers: patches of an image and a class token, in pre-norm blocks.

    model = vit_s16(num_outputs=10)             # 21,669,514 parameters at 224 pixels
    logits, aux = model.apply(variables, images, train=False)

They are timm's, whose weights `models.weights` loads.

Reference: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; the width of
ViT-S is from Touvron et al., "Training data-efficient image transformers", ICML 2021.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from nat_jax.models import layers

_small = nn.initializers.truncated_normal(0.02)


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)); x is [n, tokens, width]."""

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    n, tokens, width = x.shape

    def norm(x, name):
      return nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name=name)(x)

    def dense(width, name):
      return nn.Dense(width, dtype=self.dtype, kernel_init=_small, name=name)

    y = dense(3 * width, 'qkv')(norm(x, 'norm_1'))
    query, key, value = jnp.moveaxis(
        y.reshape(n, tokens, 3, self.heads, width // self.heads), 2, 0)
    y = jax.nn.dot_product_attention(query, key, value)
    x = x + dense(width, 'out')(y.reshape(n, tokens, width))
    y = nn.gelu(dense(4 * width, 'mlp_1')(norm(x, 'norm_2')), approximate=False)
    return x + dense(width, 'mlp_2')(y)


class ViT(nn.Module):
  """A vision transformer without dropout, whose class token is classified.

  Attributes:
    num_outputs: width of the logits.
    patch: side of a patch, which divides height and width of the images.
    width: of a token.
    depth: number of blocks.
    heads: of attention; divides the width.
    frozen: number of stages (the embedding, then the blocks) that are not trained.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: not used; every model accepts it.
  """

  num_outputs: int
  patch: int = 16
  width: int = 384
  depth: int = 12
  heads: int = 6
  frozen: int = 0
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, images: jax.Array, train: bool, mask: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images [n, h, w, c] to logits [n, num_outputs] and {'features': [n, width]}.

    Raises:
      ValueError: images that patches do not cover, or a width that heads do not divide.
    """
    del train, mask  # No layer mixes examples.
    n, height, width, _ = images.shape
    if height % self.patch or width % self.patch or self.width % self.heads:
      raise ValueError(
          f'a vision transformer needs images of a multiple of {self.patch} pixels, '
          f'got {height} x {width}; set data.image_size; and a width that its '
          f'{self.heads} heads divide, got {self.width}')
    dtype = layers.compute_dtype(self.dtype)

    x = nn.Conv(
        self.width, (self.patch, self.patch), strides=self.patch, padding='VALID',
        dtype=dtype, kernel_init=_small, name='patches')(images.astype(dtype))
    x = x.reshape(n, -1, self.width)
    token = self.param('token', _small, (1, 1, self.width))
    positions = self.param('positions', _small, (1, 1 + x.shape[1], self.width))
    x = jnp.concatenate(
        [jnp.broadcast_to(token.astype(dtype), (n, 1, self.width)), x], axis=1)
    x = layers.end_of_stage(x + positions.astype(dtype), 0, self.frozen)
    for i in range(self.depth):
      x = Block(self.heads, dtype, name=f'block{i + 1}')(x)
      x = layers.end_of_stage(x, i + 1, self.frozen)
    x = nn.LayerNorm(epsilon=1e-6, dtype=dtype, name='norm')(x[:, 0])
    features = x.astype(jnp.float32)
    return layers.head(self.num_outputs)(features), {'features': features}


def vit_s16(
    num_outputs: int, dtype: str = 'float32', axis_name: str | None = None,
    frozen: int = 0,
) -> ViT:
  """ViT-S/16: patches of 16 pixels, 12 blocks of width 384 with 6 heads."""
  return ViT(num_outputs, frozen=frozen, dtype=dtype, axis_name=axis_name)
