"""Which images make up the batch of a step: a pure function of (seed, step).

    stream = make_stream(50_000, {'cifar100': 25_000}, {}, batch_size=128,
                         negatives_per_batch=(5, 25), inside=False, seed=0)
    batch = pool.gather(pool, stream.index(step))

Resuming needs no state, and a test no data set.
"""

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# What is drawn: default_rng((seed, purpose, block or epoch)). Set k of negatives has
# purpose _NEGATIVES + k.
_MIX, _POSITIVES, _NEGATIVES = 0, 1, 2
_BLOCK = 256  # steps whose mix is drawn at once: making a Generator takes 15 us


class Stream(NamedTuple):
  """Rows of the pool for every step.

  Attributes:
    num_slots: length of an index; the same for every step.
    index: step -> int32 `[num_slots]`, rows of the pool; -1 = empty slot. (Of `apart`
      a dict of two such arrays.)
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
  """Interleaves positives and negatives in static slots.

  Positives and every set of negatives run through epochs of their own, each a new
  permutation; a batch may straddle two. A batch takes on where the one before it left
  off, however many it takes: of n images taken from a set of m since step 0, each of
  the set is among them floor(n / m) or ceil(n / m) times. How many a step takes of each
  set is drawn, where it can differ; the positives of a step are `batch_size` or, with
  `inside`, what the negatives leave of it.

  Negative slots are spread evenly over the batch, so that the shards of any number of
  devices hold the same mix, to within one or two images.

  A step costs the same wherever it is. Only where the numbers can differ, the first
  step asked for pays for the draws before it: tens of milliseconds for 78,000 steps.

  Args:
    num_positives: rows 0..num_positives-1 of the pool.
    negatives: the size of each set, in the order of the pool.
    weights: how often a negative comes from each set, relative to the others; 1 where
      nothing is said.
    batch_size: positives in a batch; with `inside`, images in all.
    negatives_per_batch: a number, or (lowest, highest): drawn anew for each step, both
      ends included. Slots left over are empty or, with `inside`, positives.
    inside: negatives take the place of positives, instead of coming on top.
    seed: of everything drawn.
    multiple_of: round num_slots up to it with empty slots at the end (there they
      leave the numbers of the others as they are, whatever the number of devices).

  Returns:
    The stream.

  Raises:
    ValueError: numbers that make no batch.
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
  """Epochs in a row, each a permutation of its own.

  Args:
    seed: of the permutations.
    kept: how many of them stay in memory.

  Returns:
    window(purpose, length, start, num): `num` entries of the epochs of a set of
    `length`, from entry `start` on.
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
  """How many negatives each step takes, and of which sets.

  Args:
    seed: of what is drawn.
    low, high: the fewest and the most negatives of a step.
    weights: how often a negative comes from each of the k sets, unnormalised.

  Returns:
    mix(step): (the set of each negative `[high]`, -1 = none; how many the step takes of
    each set `[k]`; how many all steps before it took of each `[k]`).
  """
  shares = np.cumsum(weights)

  @functools.lru_cache(maxsize=2)
  def draw(block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each step of a block: its sets `[_BLOCK, high]`, how many it takes of each set
    and how many the steps before it in the block took, `[_BLOCK, k]`."""
    rng = np.random.default_rng((seed, _MIX, block))
    counts = rng.integers(low, high + 1, _BLOCK)
    sets = np.zeros((_BLOCK, high), int)
    if shares.size > 1:
      draws = rng.random((_BLOCK, high)) * shares[-1]
      # The minimum: a product rounded up would fall beyond the last set.
      sets = np.minimum(np.searchsorted(shares, draws, 'right'), shares.size - 1)
    sets[np.arange(high) >= counts[:, None]] = -1
    taken = np.stack([(sets == k).sum(1) for k in range(shares.size)], axis=1)
    return sets, taken, np.cumsum(taken, axis=0) - taken

  totals, extending = [np.zeros(shares.size, int)], threading.Lock()

  def taken_before(block: int) -> np.ndarray:
    """How many of each set all blocks before `block` take, `[k]`."""
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
  """Returns number of negatives -> (their slots, the slots of the positives)."""
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
  """The same rows with positives and negatives apart, as a GAN takes them.

  Args:
    stream: of `make_stream` with inside=False.
    num_positives: rows from this one on are negatives.
    batch_size: positives per batch.
    high: the most negatives in a batch.
    repeats: batches that make up one step (updates of the discriminator).
    multiple_of: negatives are padded up to it with empty slots.

  Returns:
    A stream whose index is {'positive': `[batch_size, repeats]`, 'negative':
    `[m, repeats]`}, the latter only if there are any; column j is batch
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
  """`num` of the places 0..size-1, evenly: the middles of `num` equal parts."""
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
        'negatives_per_batch must be a number of 0 or more, or (lowest, highest), got '
        f'{(low, high)}'
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
      raise ValueError(f'the negatives {name!r} are an empty set')
  for name, weight in weights.items():
    if name not in negatives or not weight > 0 or weight == float('inf'):
      raise ValueError(
          f'weights must be positive numbers for some of {list(negatives)}, got '
          f'{name!r}: {weight}'
      )
