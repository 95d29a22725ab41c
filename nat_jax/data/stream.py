"""Indices of the batch of each step: a pure function of (seed, step).

    stream = make_stream(50_000, {'cifar100': 25_000}, {}, batch_size=128,
                         negatives_per_batch=(5, 25), inside=False, seed=0)
    batch = pool.gather(pool, stream.index(step))

A resumed run needs no iterator state, and tests of a stream need no data set.
"""

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Random numbers come from default_rng((seed, purpose, block or epoch)). Permutations of
# set k of negatives have the purpose _NEGATIVES + k.
_MIX, _POSITIVES, _NEGATIVES = 0, 1, 2
_BLOCK = 256  # steps whose mix is drawn at once, since a new Generator takes 15 us


class Stream(NamedTuple):
  """The rows of the pool that each step takes.

  Attributes:
    num_slots: number of slots of a batch, equal for all steps.
    index: step -> rows of the pool, int32 `[num_slots]`, -1: an empty slot. A stream of
      `apart` returns a dict of two arrays, with `num_slots` entries in all.
  """

  num_slots: int
  index: Callable[[int], Any]


def make_stream(
    num_positives: int,
    negatives: Mapping[str, int],
    weights: Mapping[str, float],
    *,
    batch_size: int,
    negatives_per_batch: int | Sequence[int],
    inside: bool,
    seed: int,
    multiple_of: int = 1,
) -> Stream:
  """Returns the stream of batches with positives and negatives in constant slots.

  The positives and each set of negatives have their own epochs, and each epoch is a new
  permutation; a batch may contain the end of one epoch and the start of the next. Each
  batch continues a set where the previous batch stopped: among the first n images taken
  from a set of m images, each image occurs floor(n / m) or ceil(n / m) times. A step
  has `batch_size` positives; with `inside`, `batch_size` minus its number of negatives.

  Negative slots are spread evenly over the batch, so that the shards of all devices
  hold equal numbers of negatives, to within one or two images.

  The time of `index(step)` does not depend on `step`, except for the first call if the
  number of negatives or their set is random: it draws the numbers of all earlier steps,
  which takes tens of milliseconds for 78,000 steps.

  Args:
    num_positives: number of positives: rows 0..num_positives-1 of the pool.
    negatives: name -> size of each set, in the order of the pool.
    weights: name -> relative frequency of the set among the negatives; default 1.
    batch_size: positives per batch; with `inside`, positives and negatives per batch.
    negatives_per_batch: a number, or (lowest, highest), both included, from which a
      number is drawn for each step. Unused slots are empty; with `inside`, positives.
    inside: True: negatives replace positives; False: they are added to the positives.
    seed: of the permutations and of the numbers drawn.
    multiple_of: num_slots is rounded up to a multiple of it by empty slots at the end.
      The positions of the other slots, and so their random numbers, do not change.

  Raises:
    ValueError: numbers or weights out of range, an empty set, or no set of negatives
      although negatives are asked for.
  """
  low, high = map(int, np.broadcast_to(negatives_per_batch, 2))
  _check(num_positives, negatives, weights, batch_size, low, high, inside, multiple_of)
  offsets = num_positives + np.cumsum([0, *negatives.values()])
  size = batch_size if inside else batch_size + high
  num_slots = -(-size // multiple_of) * multiple_of
  window = _epochs(seed, 2 * (1 + len(negatives)))
  mix = _mixes(seed, low, high, [weights.get(name, 1.0) for name in negatives])
  slots = _layouts(size, high, inside)

  def index(step: int) -> np.ndarray:
    step = int(step)
    rows = np.full(num_slots, -1, np.int32)
    num, before = 0, 0
    if high:
      sets, taken, starts = mix(step)
      num, before = int(taken.sum()), int(starts.sum())
    chosen, others = slots(num)
    start = step * batch_size - (before if inside else 0)
    rows[others] = window(_POSITIVES, num_positives, start, len(others))
    if num:
      for k, length in enumerate(negatives.values()):
        part = window(_NEGATIVES + k, length, int(starts[k]), int(taken[k]))
        rows[chosen[sets[:num] == k]] = offsets[k] + part
    return rows

  return Stream(num_slots, index)


def _epochs(seed: int, kept: int) -> Callable[[int, int, int, int], np.ndarray]:
  """Returns a function that reads a window from a sequence of epochs.

  Args:
    seed: of the permutations.
    kept: number of permutations that are kept in memory.

  Returns:
    window(purpose, length, start, num): `num` entries, from entry `start` on, of the
    concatenated permutations of a set of `length` images.
  """
  @functools.lru_cache(maxsize=kept)
  def permutation(purpose: int, length: int, epoch: int) -> np.ndarray:
    rng = np.random.default_rng((seed, purpose, epoch))
    return rng.permutation(length).astype(np.int32)

  def window(purpose: int, length: int, start: int, num: int) -> np.ndarray:
    epoch, first = divmod(start, length)
    parts = []
    while num > 0 or not parts:
      parts.append(permutation(purpose, length, epoch)[first:first + num])
      num, epoch, first = num - len(parts[-1]), epoch + 1, 0
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

  return window


def _mixes(
    seed: int, low: int, high: int, weights: Sequence[float]
) -> Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Returns a function that gives the sets of the negatives of each step.

  Args:
    seed: of the random numbers.
    low, high: smallest and largest number of negatives per step.
    weights: relative frequency of each of the k sets, unnormalised.

  Returns:
    mix(step): (the set of each negative `[high]`, -1: none; the number of images that
    the step takes from each set `[k]`; the number that all earlier steps take from each
    set `[k]`).
  """
  shares = np.cumsum(weights)

  @functools.lru_cache(maxsize=2)
  def draw(block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The results of `mix` for the steps of a block, stacked; counts within the block.

    Returns:
      Sets `[_BLOCK, high]`; numbers per set of the step and of the earlier steps of the
      block, `[_BLOCK, k]` each.
    """
    rng = np.random.default_rng((seed, _MIX, block))
    counts = rng.integers(low, high + 1, _BLOCK)
    sets = np.zeros((_BLOCK, high), int)
    if shares.size > 1:
      draws = rng.random((_BLOCK, high)) * shares[-1]
      # The minimum, because a product that is rounded up would exceed the last set.
      sets = np.minimum(np.searchsorted(shares, draws, 'right'), shares.size - 1)
    sets[np.arange(high) >= counts[:, None]] = -1
    taken = np.stack([(sets == k).sum(1) for k in range(shares.size)], axis=1)
    return sets, taken, np.cumsum(taken, axis=0) - taken

  totals, extending = [np.zeros(shares.size, int)], threading.Lock()

  def taken_before(block: int) -> np.ndarray:
    """The number of images that all blocks before `block` take from each set, `[k]`."""
    if low == high and shares.size == 1:
      return np.array([block * _BLOCK * high])
    with extending:  # grain's threads share the stream
      while len(totals) <= block:
        totals.append(totals[-1] + draw(len(totals) - 1)[1].sum(axis=0))
      return totals[block]

  def mix(step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    block, place = divmod(step, _BLOCK)
    sets, taken, earlier = (drawn[place] for drawn in draw(block))
    return sets, taken, taken_before(block) + earlier

  return mix


def _layouts(
    size: int, high: int, inside: bool
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
  """Returns a function num -> (slots of num negatives, slots of the positives)."""
  negative_slots = _spread(high, size)
  positive_slots = np.setdiff1d(np.arange(size), negative_slots)

  @functools.lru_cache(maxsize=high + 1)
  def slots(num: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = negative_slots[_spread(num, high)]
    if not inside:
      return chosen, positive_slots
    return chosen, np.setdiff1d(np.arange(size), chosen)

  return slots


def apart(
    stream: Stream, num_positives: int, batch_size: int, high: int, *,
    repeats: int = 1, multiple_of: int = 1,
) -> Stream:
  """Returns a stream with separate indices of positives and negatives, for GANs.

  Args:
    stream: from `make_stream` with inside=False.
    num_positives: number of positives; rows from num_positives on are negatives.
    batch_size: positives per batch.
    high: largest number of negatives per batch.
    repeats: batches per step: the number of updates of the discriminator.
    multiple_of: the number of negative slots is rounded up to a multiple of it.

  Returns:
    A stream whose index is {'positive': int32 `[batch_size, repeats]`, 'negative':
    int32 `[m, repeats]`}, without 'negative' if `high` is 0; column j is batch
    step * repeats + j of `stream`.
  """
  num_negatives = -(-high // multiple_of) * multiple_of

  def index(step: int) -> dict[str, np.ndarray]:
    found = {
        'positive': np.empty((batch_size, repeats), np.int32),
        'negative': np.full((num_negatives, repeats), -1, np.int32),
    }
    for j in range(repeats):
      rows = stream.index(step * repeats + j)
      negatives = rows[rows >= num_positives]
      found['positive'][:, j] = rows[(rows >= 0) & (rows < num_positives)]
      found['negative'][: len(negatives), j] = negatives
    return found if high else {'positive': found['positive']}

  return Stream((batch_size + num_negatives) * repeats, index)


def _spread(num: int, size: int) -> np.ndarray:
  """Returns `num` evenly spread positions in 0..size-1: the middles of equal parts."""
  return (2 * np.arange(num) + 1) * size // (2 * num) if num else np.zeros(0, int)


def _check(
    num_positives, negatives, weights, batch_size, low, high, inside, multiple_of
) -> None:
  if num_positives < 1 or batch_size < 1 or multiple_of < 1:
    raise ValueError(
        'num_positives, batch_size and multiple_of must be 1 or more, got '
        f'{num_positives}, {batch_size} and {multiple_of}'
    )
  if not 0 <= low <= high:
    raise ValueError(
        'negatives_per_batch must be a number of 0 or more, or (lowest, highest) with '
        f'0 <= lowest <= highest, got {(low, high)}'
    )
  if high and not negatives:
    raise ValueError(
        f'{high} negatives per batch are asked for, but there is no set of negatives; '
        'add one, or set negatives_per_batch to 0'
    )
  if inside and high >= batch_size:
    raise ValueError(
        f'with inside=True a batch of {batch_size} must hold a positive, so '
        f'negatives_per_batch must stay below it, got {high}'
    )
  for name, num in negatives.items():
    if num < 1:
      raise ValueError(
          f'the set of negatives {name!r} must have 1 image or more, got {num}; choose '
          'another split or other classes of its source, or remove the set')
  for name, weight in weights.items():
    if name not in negatives or not weight > 0 or weight == float('inf'):
      raise ValueError(
          f'weights must be {{name: positive number}} with names of {list(negatives)}, '
          f'got {name!r}: {weight}'
      )
