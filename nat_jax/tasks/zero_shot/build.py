"""The examples of a config, the batches of the model and of its twin, and the trainer.

    config = resolve(config, others)                  # with the content of its source
    inputs = load(config, num_devices=1)
    trainer = build(config, inputs.shape, others)
"""

import functools
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import data, models, names, registry, task
from nat_jax.runtime import optim
from nat_jax.task import Inputs, Others
from nat_jax.tasks.zero_shot import step as steps


def load_examples(config: Mapping[str, Any]) -> data.ZeroShot:
  """Loads and checks the examples of a config.

  Raises:
    ValueError: a mistake in the source; features that the decoder cannot make; no
      held-out classes to calibrate with; or other content than when the config was
      resolved.
  """
  settings = config['data']
  examples = registry.build(
      data.ZERO_SHOT, settings['source'], what='zero-shot source')
  data.check_zero_shot(examples)
  if config['calibrate'] and not len(examples.held_out):
    raise ValueError(
        'calibrate=True needs seen classes that are held out, and the source '
        f'{settings["source"]} has none; set its num_held_out or held_out, or '
        'calibrate=False')
  lowest, output = examples.feature.min(), config['trainer'].get('output', 'relu')
  if lowest < 0 and output == 'relu':
    raise ValueError(
        'the decoder ends in a ReLU, so that features must not be negative, and the '
        f"smallest is {lowest:.3g}; set trainer.output to 'linear', or take features "
        'from behind a ReLU')
  if settings['crc32'] not in (None, checksum(examples)):
    raise ValueError(
        f'the source {settings["source"]} has changed since the run was started, which '
        'its results would be mixed with; restore the files, or train another run')
  return examples


def checksum(examples: data.ZeroShot) -> int:
  """CRC32 of the features, labels, embeddings and parts of the examples."""
  found = 0
  for one in examples:
    if isinstance(one, np.ndarray):
      found = zlib.crc32(np.ascontiguousarray(one).view(np.uint8).data, found)
  return found


def resolve(config: dict[str, Any], others: Others) -> dict[str, Any]:
  """Returns the config with the number of attributes and the checksum of its source.

  Args:
    config: of the task 'zero_shot'.
    others: not used.

  Raises:
    ValueError: see `load_examples`.
  """
  del others
  if config['data']['crc32'] is not None and config['num_attributes']:
    return config
  examples = load_examples(config)
  return {**config, 'num_attributes': examples.embedding.shape[1],
          'data': {**config['data'], 'crc32': checksum(examples)}}


def trained_rows(
    examples: data.ZeroShot, calibrate: bool = True
) -> dict[str, np.ndarray]:
  """The rows that each copy of the networks is trained on: name of a copy -> int [m].

  Args:
    examples: of a source.
    calibrate: whether there is a twin. It is trained on the part train without the
      held-out classes; the model on the parts train and validation.
  """
  found = {steps.MODEL: np.sort(np.append(examples.train, examples.validation))}
  if calibrate:
    held_out = np.isin(examples.label[examples.train], examples.held_out)
    found[steps.TWIN] = examples.train[~held_out]
  return found


def load(
    config: Mapping[str, Any], num_devices: int = 1, others: Others | None = None
) -> Inputs:
  """Loads the examples and makes the streams of batches.

  Labels in the pool are places in the list of seen classes; -1: a test row.

  Args:
    config: of the task 'zero_shot', from `resolve`.
    num_devices: number of devices that share a batch.
    others: not used.

  Raises:
    ValueError: see `load_examples`.
  """
  del others
  examples = load_examples(config)
  rows = trained_rows(examples, config['calibrate'])
  size = min(config['data']['batch_size'], *map(len, rows.values()))
  streams = {name: data.make_stream(
      len(one), {}, {}, batch_size=size, negatives_per_batch=0, inside=False,
      seed=config['seed'], multiple_of=num_devices) for name, one in rows.items()}

  def index(step):
    places = {name: stream.index(step) for name, stream in streams.items()}
    return {name: np.where(one >= 0, rows[name][one], -1).astype(np.int32)
            for name, one in places.items()}

  label = np.full(len(examples.label), -1, np.int32)  # of rows that are in no batch
  known = rows[steps.MODEL]
  label[known] = np.searchsorted(examples.seen, examples.label[known])
  return Inputs(
      data.Pool(examples.feature, label),
      data.Stream(sum(one.num_slots for one in streams.values()), index),
      examples.feature.shape[1:], examples.names)


def build(
    config: Mapping[str, Any], shape: tuple[int, ...], others: Others
) -> task.Trainer:
  """Builds the trainer of a config.

  Args:
    config: of the task 'zero_shot', from `resolve`.
    shape: (d,) of one feature vector.
    others: not used.

  Raises:
    ValueError: an unknown name, or settings that are not valid.
    TypeError: an unknown or a missing argument of a spec.
  """
  del others
  d, a, latent = *shape, config['num_attributes'], config['latent']
  output = config['trainer'].get('output', 'relu')
  if output not in steps.OUTPUTS:
    raise ValueError(names.unknown('trainer.output', output, steps.OUTPUTS))
  sizes = {'encoder': (d, 2 * latent), 'decoder': (a + latent, d), 'regressor': (d, a),
           'discriminator': (d + a, 1)}
  nets = {name: _network(name, config[name], *size) for name, size in sizes.items()}
  rate, disc_rate = (
      optim.make_schedule(spec or config['schedule'], config['steps'])
      for spec in (config['schedule'], config['disc_schedule']))
  trainer = registry.build(
      steps.TRAINERS, config['trainer'], what='trainer', **nets,
      tx=optim.make_optimizer(config['optimizer'], rate),
      disc_tx=optim.make_optimizer(config['optimizer'], disc_rate), latent=latent,
      shape=(d, a), num_copies=1 + config['calibrate'],
      frozen=functools.cache(
          lambda: frozen(load_examples(config), config['calibrate'])))
  return trainer._replace(learning_rate=rate)


def frozen(examples: data.ZeroShot, calibrate: bool) -> dict[str, np.ndarray]:
  """What a step knows of the classes: see `step.Setup`. Unseen ones have no part."""
  label = examples.label
  return {
      'embedding': examples.embedding[examples.seen],
      'classes': np.stack([np.isin(examples.seen, label[rows]) for rows in trained_rows(
          examples, calibrate).values()])}


def _network(name, spec, inputs, num_outputs):
  """A network [n, inputs] -> [n, num_outputs]; ValueError if it has batch statistics.
  """
  net = registry.build(models.DISCRIMINATORS, spec, what=name, image_shape=(inputs,),
                       num_outputs=num_outputs)
  variables = jax.eval_shape(
      lambda key: net.init(key, jnp.zeros((2, inputs))), jax.random.key(0))
  if set(variables) != {'params'} or getattr(net, 'mixes', False):
    raise ValueError(
        f'expected a network {name} whose output for an example depends on that '
        f'example alone, got {spec}; set batch_norm=False, kernels=0 and another norm '
        'than spectral')
  return net
