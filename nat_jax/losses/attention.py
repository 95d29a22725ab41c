"""Attention maps of a network, and the attention-transfer loss between two networks.

    maps = [attention_map(aux[group]) for group in ('group1', 'group2', 'group3')]
    per_example = attention_loss(student_maps, teacher_maps)           # [b]

Reference: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017,
activation-based attention. As in the authors' code, the loss is a mean over positions.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

# A map whose sum of squares is below this counts as zero.
TINY = 1e-30


def attention_map(features: jax.Array) -> jax.Array:
  """The attention map of each image: the normalised strength of activation by position.

  A(x) = a / ||a||_2 with a_p = mean_c x_pc^2. The map of an image whose features are
  all zero is zero, with zero gradient. Scaling the features does not change the map.

  Args:
    features: [b, h, w, c], any float dtype; the output of a group of layers.

  Returns:
    [b, h * w] float32, each row of Euclidean norm 1 (or 0).
  """
  chex.assert_rank(features, 4)
  strength = jnp.square(features.astype(jnp.float32)).mean(-1)
  strength = strength.reshape(strength.shape[0], -1)
  # The maximum keeps the square root and its gradient finite where the map is 0.
  squares = jnp.square(strength).sum(-1, keepdims=True)
  return strength / jnp.sqrt(jnp.maximum(squares, TINY))


def attention_loss(
    student_maps: Sequence[jax.Array], teacher_maps: Sequence[jax.Array]
) -> jax.Array:
  """The sum over groups of the mean squared difference of two networks' maps.

  L_i = sum_j mean_p (S_jip - T_jip)^2. A group with fewer positions weighs more: an
  8x8 map weighs 16 times as much as a 32x32 map, as in the reference's code.

  Args:
    student_maps: for each group j, [b, positions of j], from `attention_map`.
    teacher_maps: of the same shapes as `student_maps`. Gradients are not stopped.

  Returns:
    [b] float32.

  Raises:
    ValueError: no groups, or unequal numbers of groups.
  """
  if not student_maps or len(student_maps) != len(teacher_maps):
    raise ValueError(
        'expected attention maps of the same groups, at least one, from student and '
        f'teacher; got {len(student_maps)} and {len(teacher_maps)} maps')
  chex.assert_rank([*student_maps, *teacher_maps], 2)
  chex.assert_trees_all_equal_shapes(list(student_maps), list(teacher_maps))
  return sum(
      jnp.square(s.astype(jnp.float32) - t.astype(jnp.float32)).mean(-1)
      for s, t in zip(student_maps, teacher_maps, strict=True))
