"""Series of a config: scaled, cut into windows, divided into training and validation.

    config = resolve(config, others)        # with the sensors and their ranges
    parts = load_parts(config)              # Parts: train, validation, test
    inputs = load(config, num_devices=1)
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from nat_jax import data, models, names, task
from nat_jax.names import listed
from nat_jax.runtime import optim
from nat_jax.task import Inputs, Others
from nat_jax.tasks.time_series import anomalies, step

FURTHER = 2**32  # added to the seed of the negatives' windows; larger than any seed


class Parts(NamedTuple):
  """Scaled series.

  Attributes:
    train, validation: normal values, float32 [n, c].
    test: with labels, if they are known; None: there is none.
  """

  train: np.ndarray
  validation: np.ndarray
  test: data.Series | None


def reading(settings: Mapping[str, Any]) -> data.Reading:
  """How files are read, by `config['data']`."""
  return data.Reading(*(settings[key] for key in data.Reading._fields))


def resolve(config: dict[str, Any], others: Others) -> dict[str, Any]:
  """Returns the config with the time step, the names of the sensors and their ranges.

  The ranges are those of the training part, without the validation part.

  Args:
    config: of the task 'time_series'.
    others: not used.

  Raises:
    ValueError: a mistake in the series, or settings that do not fit it.
  """
  del others
  settings = config['data']
  if all(settings[key] for key in ('columns', 'low', 'high', 'time_step')):
    return config
  series = data.load_series(settings['series'], reading(settings))
  train = series.values[:_num_train(config, series.values)]
  settings = {**settings, 'columns': list(series.columns),
              'time_step': series.time_step}
  for key, values in (('low', train.min(0)), ('high', train.max(0))):
    settings[key] = settings[key] or values.tolist()
  scale(train[:1], settings)
  return {**config, 'data': settings}


def _num_train(config, values):
  """The number of time steps that are trained on; ValueError if a part is too short."""
  settings, length = config['data'], config['data']['window']
  num = len(values) - round(settings['validation'] * len(values))
  for part, steps in (('training', num), ('validation', len(values) - num)):
    if steps < length:
      raise ValueError(
          f'the {part} part of data.series has {steps} time steps, fewer than '
          f'data.window={length}; use a longer series, a smaller data.window or '
          f'another share data.validation={settings["validation"]}')
  return num


def scale(values: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
  """Returns 2 (x - low) / (high - low) - 1 of values [n, c], float32.

  A sensor that is constant in the training part becomes x - low.

  Args:
    values: [n, c].
    settings: `config['data']` with 'low' and 'high', [c].

  Raises:
    ValueError: another number of sensors, or a low that exceeds its high.
  """
  for key in ('low', 'high'):
    if len(settings[key]) != values.shape[1]:
      raise ValueError(
          f'data.{key} must hold one number for each of the {values.shape[1]} sensors, '
          f'got {len(settings[key])}; () takes the range of the training part')
  low, high = (np.asarray(settings[key], np.float64) for key in ('low', 'high'))
  if (low > high).any():
    k = int(np.argmax(low > high))
    raise ValueError(
        f'data.low must not exceed data.high, got {low[k]} and {high[k]} for sensor '
        f'{k}; give both, or () for the range of the training part')
  half = np.where(high > low, (high - low) / 2, 1.0)
  return ((values - (low + high) / 2) / half).astype(np.float32)


def load_parts(config: Mapping[str, Any]) -> Parts:
  """Loads and scales the series of a resolved config.

  Raises:
    ValueError: a mistake in a series, an anomaly in the normal one, no sensor that
      varies, or a test series that is shorter than a window.
  """
  settings = config['data']
  series = data.load_series(settings['series'], reading(settings))
  if series.label is not None and series.label.any():
    k = int(np.argmax(series.label > 0))
    raise ValueError(
        'data.series must be normal, but the label of its time step '
        f'{series.time[k] or k} is {series.kinds[series.label[k]]!r}; remove the '
        'anomalies, with the time steps around them, into another file')
  num = _num_train(config, series.values)
  values, test = scale(series.values, settings), None
  if (values[:num] == values[0]).all():
    raise ValueError(
        'data.series must have a sensor that varies, got only constant ones in its '
        f'{num} time steps of training ({listed(series.columns)}); name other '
        'data.columns, or use a longer series')
  if settings['test']:
    test = data.load_series(settings['test'], reading(settings))
    test = test._replace(values=scale(test.values, settings))
    check_length(test, config, 'data.test')
    if test.label is not None and not 0 < (test.label > 0).sum() < len(test.label):
      raise ValueError(
          'data.test must have normal time steps and anomalies, got one of both only; '
          'leave its label out if the anomalies are not known')
  return Parts(values[:num], values[num:], test)


def check_length(series: data.Series, config: Mapping[str, Any], what: str) -> None:
  """Raises ValueError if a series is shorter than a window.

  Args:
    series: to be checked.
    config: of the task 'time_series'.
    what: the series, for the message.
  """
  length = config['data']['window']
  if len(series.values) < length:
    raise ValueError(
        f'{what} has {len(series.values)} time steps, fewer than the {length} of a '
        'window (data.window); use a longer series')


def load(
    config: Mapping[str, Any], num_devices: int = 1, others: Others | None = None
) -> Inputs:
  """Loads the training windows and makes the stream of batches.

  Args:
    config: of the task 'time_series', resolved.
    num_devices: number of devices that share a batch.
    others: not used.

  Raises:
    ValueError: a mistake in the series.
  """
  del others
  settings = config['data']
  series = load_parts(config).train
  windows = data.windows(series, settings['window'], settings['stride'])
  num = len(windows)
  size = min(settings['batch_size'], num)
  sets = {'real': (size, 0),
          'negative': (math.ceil(settings['negative_share'] * size), FURTHER)}
  streams = {
      name: data.make_stream(
          num, {}, {}, batch_size=size, negatives_per_batch=0, inside=False,
          seed=config['seed'] + further, multiple_of=num_devices)
      for name, (size, further) in sets.items() if size}
  return Inputs(
      data.Pool(windows, np.zeros(num, np.int32)),
      data.Stream(
          sum(one.num_slots for one in streams.values()),
          lambda at: {name: one.index(at) for name, one in streams.items()}),
      windows.shape[1:],
      positives=data.Arrays(series, np.zeros(len(series), np.int32)))


def build(
    config: Mapping[str, Any], shape: tuple[int, ...], others: Others
) -> task.Trainer:
  """Builds the trainer of a config.

  Args:
    config: of the task 'time_series'.
    shape: (l, c) of a window.
    others: not used.

  Raises:
    ValueError: an unknown name, or settings that are not valid.
    TypeError: an unknown or a missing argument of a spec.
  """
  del others
  kinds, measures = config['data']['negative_kinds'], config['measures']
  for kind in kinds:
    if kind not in anomalies.ANOMALIES:
      raise ValueError(
          names.unknown('data.negative_kinds', kind, anomalies.ANOMALIES))
  if config['data']['negative_share'] and not kinds:
    raise ValueError(
        'data.negative_kinds must name a kind or more for data.negative_share above 0; '
        f'valid: {", ".join(anomalies.ANOMALIES)}')
  if 'swapped' in kinds and shape[1] < 2:
    raise ValueError(
        "'swapped' exchanges two sensors, and the series has one; leave it out of "
        'data.negative_kinds')
  schedule, disc_schedule = (
      optim.make_schedule(spec or config['schedule'], config['steps'])
      for spec in (config['schedule'], config['disc_schedule']))
  trainer = step.mad_gan(
      generator=models.LSTM(config['width'], shape[1], bounded=True),
      discriminator=models.LSTM(config['width'], 1),
      gen_tx=optim.make_optimizer(config['optimizer'], schedule),
      disc_tx=optim.make_optimizer(
          config['disc_optimizer'] or config['optimizer'], disc_schedule),
      latent=config['latent'], shape=tuple(shape), gen_updates=config['gen_updates'],
      negative_weight=config['negative_weight'], negative_kinds=tuple(kinds),
      inversion_steps=measures['inversion_steps'],
      inversion_rate=measures['inversion_rate'])
  return trainer._replace(learning_rate=disc_schedule)
