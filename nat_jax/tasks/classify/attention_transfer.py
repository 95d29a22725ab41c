"""A student that looks where its teacher looks; it need not see a negative for that.

    trainer = attention_transfer(teacher=lambda: restored, beta=1000.0, model=..., ...)
    frozen = trainer.frozen()                 # loads the teacher, checks that it fits
    state, metrics = trainer.step(state, frozen, batch)

Only `frozen` and `step` touch the teacher: a student is evaluated without it.

Reference: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics

from nat_jax import losses, task
from nat_jax.tasks.classify import step as supervised


def _loss_attention(extra, filled, **_):
  return dict(values=extra, mask=filled)


# loss_attention is beta * L_AT: what is added to the student's own loss.
Metrics = clu_metrics.Collection.create(
    **supervised.TrainMetrics.__annotations__,
    loss_attention=clu_metrics.Average.from_fun(_loss_attention),
)


def attention_transfer(
    *,
    teacher: Callable[[], Any],
    beta: float = 1000.0,
    groups: Sequence[str] = ('group1', 'group2', 'group3'),
    **student: Any,
) -> task.Trainer:
  """Returns the trainer of a student: `supervised` with one term more.

  J = J_student + beta * mean over the batch of sum_j mean_p (S_j - T_j)^2, with the
  attention maps S_j and T_j of group j of student and teacher on the same images.
  The teacher is in evaluation mode and gets no gradient.

  Args:
    teacher: () -> the restored teacher, which has `trainer`, `state`, `shape`
      and `config` (a `task.Run`). Not called before it is needed.
    beta: weight of the attention loss.
    groups: the feature maps that are compared, by their name in the model's aux.
    **student: what `supervised` takes.

  Returns:
    A `Trainer`. Its `frozen` raises a ValueError where student and teacher do not
    fit: another image shape, a group that one of them lacks, maps of unequal size.
  """
  teacher = functools.cache(teacher)

  def extra_loss(frozen, images, aux):
    targets = teacher().trainer.heads['aux'](frozen, images)
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
          f"student's are {shape}; choose a teacher of the same data")
    state = jax.eval_shape(trainer.init, jax.random.key(0))
    _check_groups(
        groups, _map_sizes(trainer, state, shape),
        _map_sizes(found.trainer, found.state, shape))
    # Without the optimiser's half, which nothing here reads.
    nets = {name: net.replace(opt_state=()) for name, net in found.state.nets.items()}
    return found.state.replace(nets=nets)

  return trainer._replace(frozen=frozen)


def _map_sizes(trainer, state, image_shape):
  """Name -> (height, width) of the feature maps of a network."""
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  aux = jax.eval_shape(trainer.heads['aux'], state, images)
  return {name: x.shape[1:3] for name, x in aux.items() if x.ndim == 4}


def _check_groups(groups, student, teacher):
  if not groups:
    raise ValueError('attention transfer needs groups to compare, got none')
  for who, sizes in (('student', student), ('teacher', teacher)):
    missing = [group for group in groups if group not in sizes]
    if missing:
      raise ValueError(
          f'the {who} has no feature map {missing[0]!r}; it has: '
          f'{", ".join(sizes) or "none"}. Name those of both in trainer.groups')
  for group in groups:
    if student[group] != teacher[group]:
      raise ValueError(
          f'the maps of {group!r} differ in size: {student[group]} in the student, '
          f'{teacher[group]} in the teacher; choose networks that halve the image in '
          'the same places, or other trainer.groups')
