"""Attention transfer: a student matches its teacher's attention maps.

    trainer = attention_transfer(teacher=lambda: restored, beta=1000.0, model=..., ...)
    frozen = trainer.frozen()                 # loads the teacher, checks that it fits
    state, metrics = trainer.step(state, frozen, batch)

Only `frozen` and `step` use the teacher: a student is evaluated without it.

Reference: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nat_jax import losses, task
from nat_jax.tasks.classify import step as supervised

# loss_attention is beta * L_AT, the term that is added to the student's own loss.
Metrics = supervised.metrics_with('loss_attention')


def attention_transfer(
    *,
    teacher: Callable[[], Any],
    beta: float = 1000.0,
    groups: Sequence[str] = ('group1', 'group2', 'group3'),
    **student: Any,
) -> task.Trainer:
  """Returns the trainer of a student: `supervised` with an additional attention loss.

  J = J_student + beta * mean over the batch of sum_j mean_p (S_j - T_j)^2, where S_j
  and T_j are the attention maps of student and teacher for group j of feature maps, on
  the same images, and p runs over the positions of a map. The teacher is in evaluation
  mode and gets no gradient.

  Args:
    teacher: () -> the restored teacher, a `task.Run`. It is called once, by `frozen` or
      the first `step`.
    beta: weight of the attention loss.
    groups: names of the feature maps in the aux of both models.
    **student: the arguments of `supervised`.

  Returns:
    A `Trainer`. Its `frozen` raises ValueError if student and teacher differ in the
    shape of images or in the size of a map, or if one of them lacks a group.
  """
  teacher = functools.cache(teacher)

  def extra_loss(frozen, batch, aux):
    targets = teacher().trainer.heads['aux'](frozen, batch['image'])
    targets = jax.lax.stop_gradient(targets)
    return beta * losses.attention_loss(
        [losses.attention_map(aux[group]) for group in groups],
        [losses.attention_map(targets[group]) for group in groups])

  trainer = supervised.supervised(**student, extra_loss=extra_loss, metrics=Metrics)

  def frozen():
    found, shape = teacher(), tuple(student['image_shape'])
    if tuple(found.shape) != shape:
      raise ValueError(
          f'the teacher was trained on images of shape {tuple(found.shape)}, the '
          f"student's images have {shape}; choose a teacher of the same data")
    state = jax.eval_shape(trainer.init, jax.random.key(0))
    _check_groups(
        groups, _map_sizes(trainer, state, shape),
        _map_sizes(found.trainer, found.state, shape))
    # Without the states of optimisers, which the student's step does not read.
    nets = {name: net.replace(opt_state=()) for name, net in found.state.nets.items()}
    return found.state.replace(nets=nets)

  return trainer._replace(frozen=frozen)


def _map_sizes(trainer, state, image_shape):
  """{name: (height, width)} of the feature maps of a network."""
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  aux = jax.eval_shape(trainer.heads['aux'], state, images)
  return {name: x.shape[1:3] for name, x in aux.items() if x.ndim == 4}


def _check_groups(groups, student, teacher):
  if not groups:
    raise ValueError(
        'trainer.groups must name 1 feature map or more for attention transfer, got '
        "none; leave it out for ('group1', 'group2', 'group3')")
  for who, sizes in (('student', student), ('teacher', teacher)):
    missing = [group for group in groups if group not in sizes]
    if missing:
      raise ValueError(
          f'the {who} has no feature map {missing[0]!r}; it has: '
          f'{", ".join(sizes) or "none"}. Set trainer.groups to names that both have')
  for group in groups:
    if student[group] != teacher[group]:
      raise ValueError(
          f'the maps of {group!r} differ in size: {student[group]} in the student, '
          f'{teacher[group]} in the teacher; choose networks that halve the image in '
          'the same places, or other trainer.groups')
