"""Series of several sensors at even time steps: generated, or from CSV files.

    series = load_series({'name': 'sines', 'segments': 12}, Reading())
    series.values.shape, series.kinds   # (8000, 4), ('normal', 'flip', ...)
    windows(series.values, length=30, stride=10)                 # a view [m, 30, 4]

Time steps that are missing in a file, and missing values, are refused, or interpolated
where a series may be `fill`ed.
"""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nat_jax import names as names_lib
from nat_jax import registry
from nat_jax.data.memory import check_memory

NORMAL = 'normal'
CHANNELS, PERIODS = 4, (25.0, 61.0)  # of the generated series
SEGMENT = 25  # time steps of a generated anomaly
FASTER = 2.0  # factor of the wrong frequency
# Cells of sensors that have no value. All but empty ones may be labels.
MISSING = (
    '', 'NA', 'N/A', 'n/a', '<NA>', '#NA', '#N/A', '#N/A N/A', 'nan', 'NaN', '-nan',
    '-NaN', 'null', 'NULL', 'None', '1.#IND', '-1.#IND', '1.#QNAN', '-1.#QNAN')
JITTER = 0.25  # most that a row may be off its time step, in time steps


class Reading(NamedTuple):
  """How CSV files are read.

  Attributes:
    time: name of the column of time.
    time_format: its format as in Python's strptime; '': numbers, or dates of ISO 8601.
    fill: most successive time steps without a row or a value that are interpolated.
    columns: names of the sensors; (): all columns but those of time and label.
    time_step: from one row to the next, in seconds, or in the unit of a column of
      numbers; 0: the median of the file.
  """

  time: str = 'time'
  time_format: str = ''
  fill: int = 0
  columns: Sequence[str] = ()
  time_step: float = 0.0


class Series(NamedTuple):
  """A series of c sensors at n even time steps.

  Attributes:
    values: [n, c]; float64 of a file, whose values may be large and vary little.
    columns: names of the sensors.
    label: int32 [n], 0: normal; otherwise the kind of anomaly. None: not known.
    kinds: names of the labels.
    time: the time of each step as the file has it, object [n]; '' where a row was
      missing.
    given: False where a row was missing, bool [n].
    time_step: from one row to the next, as in `Reading`.
  """

  values: np.ndarray
  columns: tuple[str, ...]
  label: np.ndarray | None
  kinds: tuple[str, ...]
  time: np.ndarray
  given: np.ndarray
  time_step: float = 1.0


def load_series(spec: Mapping[str, Any], reading: Reading) -> Series:
  """Loads the series that `spec` names.

  Args:
    spec: {'name': a name in `SERIES`, **arguments}.
    reading: how CSV files are read.

  Raises:
    ValueError: an unknown name, or a mistake in a file.
  """
  return registry.build(SERIES, spec, what='series', reading=reading)


def windows(values: np.ndarray, length: int, stride: int) -> np.ndarray:
  """The windows that begin at 0, stride, 2 stride, ...: a view [m, length, c].

  Args:
    values: [n, c], n >= length.
    length: time steps per window.
    stride: time steps from one beginning to the next.
  """
  view = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)
  return np.moveaxis(view, 2, 1)[::stride]


# Generated.


def sines(
    num: int = 8000, segments: int = 0, start: int = 0, noise: float = 0.1,
    seed: int = 0, *, reading: Reading,
) -> Series:
  """Four sensors, each a mixture of the same two sines and noise, with anomalies.

  x_c(t) = sum_k a_ck sin(2 pi t / P_k + phi_ck) + noise, P = 25 and 61 steps. In every
  segment of 25 steps one sensor is `stuck` at its first value, has the wrong sign
  (`flip`) or sines of half the periods (`frequency`), in turn.

  Args:
    num: time steps.
    segments: number of anomalies; one lies in each of as many equal parts.
    start: the first time step; with another start the noise is another one.
    noise: standard deviation.
    seed: of the mixture, the noise and the anomalies.
    reading: not used.

  Raises:
    ValueError: too many segments, or more time steps than fit in memory.
  """
  del reading
  check_memory(8 * CHANNELS * num, f'{num} time steps', 'lower num')
  if segments and num // segments < 2 * SEGMENT:
    raise ValueError(
        f'{segments} segments need num of {2 * SEGMENT * segments} time steps or more, '
        f'got {num}')
  mixture, rng = np.random.default_rng(seed), np.random.default_rng((seed, start, 1))
  size = CHANNELS, len(PERIODS)
  amplitude, phase = mixture.uniform(0.5, 1, size), mixture.uniform(0, 2 * np.pi, size)

  def clean(time, channel):
    angle = 2 * np.pi * time[:, None] / PERIODS + phase[channel]
    return (amplitude[channel] * np.sin(angle)).sum(1)

  time, noises = start + np.arange(num), noise * rng.normal(size=(num, CHANNELS))
  values = noises + np.stack([clean(time, c) for c in range(CHANNELS)], 1)
  kinds, label = (NORMAL, 'flip', 'frequency', 'stuck'), np.zeros(num, np.int32)
  for k in range(segments):
    part, kind, c = num // segments, 1 + k % 3, rng.integers(CHANNELS)
    first = k * part + rng.integers(part - SEGMENT)
    at = slice(first, first + SEGMENT)
    label[at] = kind
    values[at, c] = {
        'flip': -values[at, c], 'stuck': values[first, c],
        'frequency': noises[at, c] + clean(
            time[first] + FASTER * np.arange(SEGMENT), c)}[kinds[kind]]
  return Series(
      values.astype(np.float32), tuple(f's{c}' for c in range(CHANNELS)), label, kinds,
      time.astype(str).astype(object), np.ones(num, bool))


# From files.


def csv(
    path: str, label: str = '', normal: str = 'Normal', header: int = 0, *,
    reading: Reading,
) -> Series:
  """A series in a CSV file with a row for each time step and a column for each sensor.

  Spaces around the names of columns, and all spaces in labels, are removed.

  Args:
    path: of the file, in UTF-8.
    label: name of a column that says what is normal; '': it is not known.
    normal: the label of normal time steps; each other label is a kind of anomaly.
    header: number of lines before the names of the columns.
    reading: how the file is read.

  Raises:
    ValueError: no CSV file, a column that is missing, a cell that is no number, time
      steps that are not in order or uneven, or more than `fill` of them without a row
      or a value. The message names the first such line.
  """
  frame = _read(path, header, (reading.time, label))
  columns = tuple(reading.columns) or tuple(
      name for name in frame.columns if name not in (reading.time, label))
  _check_columns(path, frame, columns)
  lines = header + 2 + np.arange(len(frame))
  values = np.stack([_numbers(path, frame[name], lines) for name in columns], 1)
  steps, time_step = _time_steps(path, frame[reading.time], lines, reading)
  place = np.concatenate([[0], np.cumsum(steps)])  # of each row among the time steps
  given = np.zeros(place[-1] + 1, bool)
  given[place] = True
  row = np.cumsum(given) - 1  # of each time step; of one without a row, that before it
  values = np.where(given[:, None], values[row], np.nan)
  _check_missing(path, values, lines[row], columns, reading.fill)
  if np.isnan(values).any():
    import pandas

    values = pandas.DataFrame(values).interpolate(limit_direction='both').to_numpy()
  kinds, found = _labels(path, frame[label], lines, normal) if label else ((), None)
  time = np.where(given, frame[reading.time].to_numpy(object)[row], '')
  return Series(values, columns, None if found is None else found[row], kinds, time,
                given, time_step)


SERIES = {'csv': csv, 'sines': sines}


def _read(path, header, texts):
  """The data frame of a file, in which the columns `texts` are text, as written."""
  import pandas

  if not os.path.isfile(path):
    raise ValueError(f'{path} is not a file; expected a CSV file of a series')
  settings = dict(skiprows=header, encoding='utf-8-sig', skip_blank_lines=False,
                  index_col=False)
  errors = pandas.errors
  try:
    with warnings.catch_warnings():  # a warning where all rows have too many cells
      warnings.simplefilter('error', errors.ParserWarning)
      _check_names(path, pandas.read_csv(
          path, nrows=1, header=None, dtype=str, keep_default_na=False, **settings))
      given = list(pandas.read_csv(path, nrows=0, **settings).columns)
      is_text = {name: name.strip() in texts for name in given}
      frame = pandas.read_csv(
          path, low_memory=False, **settings, keep_default_na=False,
          dtype={name: str for name in given if is_text[name]},
          na_values={name: [''] if is_text[name] else MISSING for name in given})
  except (UnicodeDecodeError, errors.EmptyDataError, errors.ParserError,
          errors.ParserWarning) as error:
    raise ValueError(
        f'{path} must be a CSV file in UTF-8, with a line of column names and a row '
        f'for each time step ({str(error).strip()})') from None
  frame.columns = [str(name).strip() for name in given]
  for name in filter(None, texts):
    if name not in frame.columns:
      key = 'data.time' if name == texts[0] else 'label'
      raise ValueError(
          f'{path}: {names_lib.unknown("column", name, frame.columns)}. Set {key} to '
          'the name of the column')
  filled = np.flatnonzero(frame.notna().any(axis=1))
  frame = frame[:filled[-1] + 1 if len(filled) else 0].copy()  # no empty last lines
  if len(frame) < 2:
    raise ValueError(f'{path} must have 2 rows or more, got {len(frame)}')
  for name in filter(None, texts):
    frame[name] = frame[name].fillna('').str.strip()
  return frame


def _check_names(path, first):
  """Raises ValueError if two columns have one name, of which pandas renames one."""
  names = first.iloc[0].str.strip()
  twice = names[names.duplicated() & (names != '')]
  if len(twice):
    raise ValueError(f'{path} has two columns {twice.iloc[0]!r}; rename or remove one')


def _check_columns(path, frame, columns):
  missing = [name for name in columns if name not in frame.columns]
  if missing or not columns:
    raise ValueError(
        f'{path} must have the sensors {", ".join(columns) or "(at least one)"} as '
        f'columns; missing: {", ".join(missing) or "all"}; it has the columns '
        f'{", ".join(frame.columns)}')


def _numbers(path, column, lines):
  """float64 [n]; NaN where a cell is empty."""
  import pandas

  found = pandas.to_numeric(column, errors='coerce').to_numpy(np.float64)
  wrong = np.flatnonzero(np.isnan(found) & column.notna().to_numpy() | np.isinf(found))
  if len(wrong):
    raise ValueError(
        f'{path}, line {lines[wrong[0]]}: the column {column.name!r} must hold finite '
        f'numbers, got {column.iloc[wrong[0]]!r}. Correct the cell; or set label to '
        'the name of the column if it holds labels (--config.data.series.label, or '
        'data.test.label); or name the sensors in data.columns, to leave it out')
  return found


def _time_steps(path, column, lines, reading):
  """(Number of time steps from each row to the next, int [n - 1]; the time step)."""
  import pandas

  seconds = pandas.to_numeric(column, errors='coerce')
  if reading.time_format or seconds.isna().iloc[0]:
    dates = pandas.to_datetime(
        column, format=reading.time_format or 'ISO8601', errors='coerce', utc=True)
    seconds = (dates - dates.min()).dt.total_seconds()
  wrong = np.flatnonzero(seconds.isna())
  if len(wrong):
    expected = reading.time_format or 'numbers, or dates such as 2024-05-31 23:59:59'
    raise ValueError(
        f'{path}, line {lines[wrong[0]]}: the column of time {column.name!r} must hold '
        f'{expected}, got {column.iloc[wrong[0]]!r}. Correct the cell, or set '
        "data.time_format, such as '%d/%m/%Y %I:%M:%S %p'")
  seconds = seconds.to_numpy(np.float64)
  length = np.diff(seconds)
  time_step = reading.time_step or float(np.median(length))
  source = 'data.time_step' if reading.time_step else 'their median'

  def refuse(k, what, remedy):
    raise ValueError(
        f'{path}, line {lines[k + 1]}: {what} between {column.iloc[k]!r} and '
        f'{column.iloc[k + 1]!r}; a time step is {time_step:g} ({source}). {remedy}')

  if length.min() <= 0:
    refuse(int(np.argmax(length <= 0)), 'time does not increase',
           'Sort the rows by time, and remove repeated ones')
  steps = np.round(length / time_step).astype(int)
  if steps.min() < 1:
    refuse(int(np.argmin(steps)), 'the time step is too short',
           f'Resample the series to even time steps of {time_step:g}')
  uneven = np.abs(length / time_step - steps)
  if uneven.max() > JITTER:
    refuse(int(np.argmax(uneven > JITTER)), 'there is no whole number of time steps',
           f'Resample the series to even time steps of {time_step:g}')
  if steps.max() - 1 > reading.fill:
    k = int(np.argmax(steps - 1 > reading.fill))
    refuse(k, f'{steps[k] - 1} time steps are missing',
           f'Add the rows; or train with --config.data.fill={steps[k] - 1}, which '
           'interpolates gaps of up to so many steps; or split the file there')
  return steps, time_step


def _check_missing(path, values, lines, columns, fill):
  """Raises ValueError at the first run of more than `fill` missing values."""
  run = np.zeros(len(columns), int)
  for k in np.flatnonzero(np.isnan(values).any(1)):
    # A run goes on if the value of the time step before is missing too.
    run = np.where(np.isnan(values[k]), 1 + run * np.isnan(values[k - 1]) * (k > 0), 0)
    if run.max() > fill:
      c = int(np.argmax(run > fill))
      raise ValueError(
          f'{path}, line {lines[k]}: the column {columns[c]!r} has no value. Fill the '
          f'cell; or train with --config.data.fill={fill + 1} or more, which '
          'interpolates so many successive time steps')


def _labels(path, column, lines, normal):
  """(names of the labels, that of normal time steps first; int32 [n])."""
  text = column.map(lambda cell: re.sub(r'\s', '', cell)).to_numpy(object)
  known, normal = sorted(set(text)), re.sub(r'\s', '', normal)
  if '' in known:
    raise ValueError(
        f'{path}, line {lines[np.argmax(text == "")]}: the column {column.name!r} has '
        'no label; fill the cell')
  if normal not in known:
    raise ValueError(
        f'{path}: no row has the label {normal!r} in the column {column.name!r}, only '
        f'{", ".join(known[:20])}; set `normal` to that of normal time steps')
  kinds = (normal, *(name for name in known if name != normal))
  number = {name: k for k, name in enumerate(kinds)}
  return kinds, np.array([number[name] for name in text], np.int32)
