"""Where a network looks, as maps, and how far two networks differ in it.

    maps = [attention_map(aux[group]) for group in ('group1', 'group2', 'group3')]
    per_example = attention_loss(student_maps, teacher_maps)           # [b]

Reference: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017,
activation-based; with the mean over positions that its code takes.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

# Below this the sum of the squares of a map counts as zero.
TINY = 1e-30


def attention_map(features: jax.Array) -> jax.Array:
  """The map of a group of layers: strength of activation by position.

  A(x) = a / ||a||_2 with a_p = mean_c x_pc^2; zero, with zero gradient, where all
  features are zero. Scaling the features changes nothing.

  Args:
    features: [b, h, w, c], of any float type.

  Returns:
    [b, h * w] float32, each row of length 1 (or 0).
  """
  chex.assert_rank(features, 4)
  strength = jnp.square(features.astype(jnp.float32)).mean(-1)
  strength = strength.reshape(strength.shape[0], -1)
  # The maximum keeps the root, and its gradient, away from 0.
  squares = jnp.square(strength).sum(-1, keepdims=True)
  return strength / jnp.sqrt(jnp.maximum(squares, TINY))


def attention_loss(
    student_maps: Sequence[jax.Array], teacher_maps: Sequence[jax.Array]
) -> jax.Array:
  """Sum over groups of the mean squared difference over positions.

  L_i = sum_j mean_p (S_jip - T_jip)^2. A group of fewer positions weighs more: 16
  times at 8x8 as at 32x32, as in the reference's code.

  Args:
    student_maps: for each group j, [b, positions of j], of `attention_map`.
    teacher_maps: the same shapes, group by group. No gradient is stopped here.

  Returns:
    [b] float32.

  Raises:
    ValueError: no groups, or unequal numbers of them.
  """
  if not student_maps or len(student_maps) != len(teacher_maps):
    raise ValueError(
        'expected maps of the same groups, at least one, from student and teacher; '
        f'got {len(student_maps)} and {len(teacher_maps)}')
  chex.assert_rank([*student_maps, *teacher_maps], 2)
  chex.assert_trees_all_equal_shapes(list(student_maps), list(teacher_maps))
  return sum(
      jnp.square(s.astype(jnp.float32) - t.astype(jnp.float32)).mean(-1)
      for s, t in zip(student_maps, teacher_maps, strict=True))
