"""Classifiers of other runs that adversarial pictures are made for or shown to.

    spec = resolve({'name': 'checkpoint', 'workdir': 'runs/digits'}, 'target', others)
    found = open_target(spec, 'target', config, image_shape, class_names, others)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nat_jax import registry
from nat_jax.names import listed
from nat_jax.runtime import results
from nat_jax.task import Others, Run
from nat_jax.tasks import checkpoints


def checkpoint(
    workdir: str, step: int | None = None, crc32: int | None = None, config: str = '',
    *, others: Others,
) -> Run:
  """A classifier that was trained with this program.

  Args:
    workdir: of the run.
    step: of its checkpoint; None: the newest, and after early stopping the best.
    crc32: checksum of the checkpoint, which the program adds; None: not known.
    config: of the run, FILE:VARIANT; --mode=train trains it if it is missing.
    others: restores the run.

  Raises:
    ValueError: the run is missing, is no classifier, or has changed.
  """
  del config
  found = others.restore(workdir, step, 'classify')
  if crc32 not in (None, found.crc32):
    raise ValueError(
        f'the classifier in {workdir} has changed since this run was started; put its '
        'checkpoint back, or start this run anew in another --workdir')
  nets = {name: net.replace(opt_state=()) for name, net in found.state.nets.items()}
  return found._replace(state=found.state.replace(nets=nets))


TARGETS = {'checkpoint': checkpoint}


def resolve(spec: Mapping[str, Any], key: str, others: Others) -> dict[str, Any]:
  """Returns a spec with the step and the checksum of its checkpoint.

  A run that is missing, and that `config` says how to train, is left as it is: it is
  trained before this function is called again.

  Args:
    spec: of a classifier, a name in `TARGETS`.
    key: of the spec in the config, for messages.
    others: reads the checkpoint.

  Raises:
    ValueError: no workdir, no run in it, or one whose training is not complete.
  """
  if not spec.get('workdir'):
    raise ValueError(
        f'{key} needs the workdir of a trained classifier: --config.{key}.workdir=DIR')
  workdir, step = spec['workdir'], spec.get('step')
  if step is None and spec.get('config') and not results.read_evaluation(workdir):
    return dict(spec)
  return {**spec, **checkpoints.identity(workdir, step, f'{key}.step', others)}


def open_target(
    spec: Mapping[str, Any], key: str, config: Mapping[str, Any],
    image_shape: Sequence[int], class_names: Sequence[str], others: Others,
) -> Run:
  """Restores a classifier that fits the pictures of an AdvGAN.

  Args:
    spec: a name in `TARGETS`.
    key: of the spec in the config, for messages.
    config: of the AdvGAN.
    image_shape: (height, width, channels) of its pictures.
    class_names: of its positives; (): not known, and not compared.
    others: restores the run.

  Returns:
    The `Run`, without the states of its optimisers.

  Raises:
    ValueError: another shape, other classes or another normalisation than those of the
      AdvGAN.
  """
  found = registry.build(TARGETS, spec, what=key, others=others)
  what = f'the classifier in {spec["workdir"]} ({key})'
  if found.shape != tuple(image_shape):
    raise ValueError(
        f'{what} takes pictures of shape {found.shape}, those of data.positives are '
        f'{tuple(image_shape)}; choose a classifier of such pictures, or set '
        'data.image_size to its size')
  classes = found.config['num_classes']
  if classes != config['num_classes']:
    raise ValueError(
        f'{what} has {classes} classes, the config num_classes={config["num_classes"]};'
        ' choose a classifier of the classes of data.positives')
  if class_names and found.class_names and (
      tuple(found.class_names) != tuple(class_names)):
    raise ValueError(
        f'{what} has the classes {listed(found.class_names, 10)}, data.positives has '
        f'{listed(class_names, 10)}; choose a classifier of these classes')
  for name in ('mean', 'std'):
    own, other = config['data'][name], found.config['data'][name]
    if list(own) != list(other):
      raise ValueError(
          f'{what} was trained with data.{name}={other}, the config has {own}; set '
          f'data.{name} to its value')
  return found
