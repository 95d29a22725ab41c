"""Streams: pure in the step, epochs that are permutations, even and exact mixes."""

from concurrent import futures

import numpy as np
import pytest

from nat_jax.data import apart, make_stream


def stream(num_positives=100, negatives=None, weights=None, **kwargs):
  kwargs = {
      'batch_size': 32, 'negatives_per_batch': (2, 8), 'inside': False, 'seed': 0,
      **kwargs,
  }
  negatives = {'a': 40} if negatives is None else negatives
  return make_stream(num_positives, negatives, weights or {}, **kwargs)


def drop_empty(rows):
  return rows[rows >= 0]


def positives(rows, num_positives=100):
  return rows[(rows >= 0) & (rows < num_positives)]


@pytest.mark.parametrize('inside', [False, True])
def test_pure_in_step_and_seed(inside):
  first = stream(negatives={'a': 40, 'b': 9}, inside=inside)
  again = stream(negatives={'a': 40, 'b': 9}, inside=inside)
  there = [first.index(step) for step in range(600)]
  back = {step: again.index(step) for step in reversed(range(600))}
  for step, rows in enumerate(there):
    assert rows.dtype == np.int32 and rows.shape == (first.num_slots,)
    np.testing.assert_array_equal(rows, back[step])
  np.testing.assert_array_equal(first.index(np.int64(7)), there[7])
  assert (stream(seed=1).index(0) != stream(seed=0).index(0)).any()


@pytest.mark.parametrize('batch_size', [32, 7, 100, 250])
def test_positives_run_through_epochs_that_are_permutations(batch_size):
  source = stream(batch_size=batch_size)
  rows = np.concatenate([positives(source.index(step)) for step in range(50)])
  epochs = rows[: len(rows) // 100 * 100].reshape(-1, 100)
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(100))
  assert (epochs[0] != epochs[1]).any()


def test_one_set_of_negatives_is_passed_through_evenly():
  source = stream(negatives_per_batch=8)  # 5 steps an epoch of 40
  rows = np.concatenate([source.index(step) for step in range(10)])
  first, second = rows[rows >= 100].reshape(2, 40)
  np.testing.assert_array_equal(np.sort(first), np.arange(100, 140))
  np.testing.assert_array_equal(np.sort(second), np.arange(100, 140))
  assert (first != second).any()


def test_numbers_on_top_reach_both_ends():
  source = stream()
  assert source.num_slots == 40
  counts = []
  for step in range(400):
    rows = source.index(step)
    counts.append(int((rows >= 100).sum()))
    assert len(positives(rows)) == 32
    assert (rows == -1).sum() == 8 - counts[-1]
  assert set(counts) == set(range(2, 9))
  np.testing.assert_allclose(np.mean(counts), 5, atol=0.3)


def test_numbers_inside_fill_the_batch_and_pass_over_no_positive():
  source = stream(num_positives=320, inside=True)
  assert source.num_slots == 32
  rows = np.stack([source.index(step) for step in range(300)])
  assert (rows >= 0).all()
  assert set((rows >= 320).sum(1)) == set(range(2, 9))
  own = rows[rows < 320]  # in the order in which they are taken
  epochs = own[: len(own) // 320 * 320].reshape(-1, 320)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(320), (25, 1)))
  assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize('inside', [False, True])
@pytest.mark.parametrize('count', [(2, 8), (0, 3), 6])
@pytest.mark.parametrize('negatives', [{'a': 40}, {'a': 40, 'b': 3, 'c': 111}])
def test_every_example_of_every_set_is_seen_in_each_epoch(inside, count, negatives):
  source = stream(
      negatives=negatives, weights={'a': 2.0}, negatives_per_batch=count, inside=inside)
  edges = 100 + np.cumsum([-100, 100, *negatives.values()])
  seen = np.zeros(edges[-1], int)
  for step in range(530):  # the numbers of a third block of steps are begun
    rows = source.index(step)
    np.add.at(seen, rows[rows >= 0], 1)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
      assert np.ptp(seen[low:high]) <= 1  # floor or ceil of their mean
  assert seen.min() >= 2


def test_a_fixed_number_of_one_set_keeps_its_rows():
  """Written down when README's figures were made: these must be the same rows."""
  source = stream(10, {'a': 7}, batch_size=4, negatives_per_batch=3, seed=5)
  for step, rows in {
      0: [6, 10, 7, 14, 4, 15, 2],
      1: [5, 13, 0, 11, 9, 12, 8],
      2: [3, 16, 1, 13, 7, 14, 3],
      300: [9, 14, 5, 16, 3, 11, 8],
      78_000: [2, 12, 0, 10, 9, 14, 3],
  }.items():
    np.testing.assert_array_equal(source.index(step), rows)
  rows = apart(source, 10, 4, 3, repeats=2).index(150)
  np.testing.assert_array_equal(rows['positive'].T, [[9, 5, 3, 8], [2, 4, 6, 1]])
  np.testing.assert_array_equal(rows['negative'].T, [[14, 16, 11], [14, 12, 13]])


def test_apart_holds_the_same_rows():
  source = stream(negatives={'a': 40, 'b': 9})
  split = apart(source, 100, 32, 8, repeats=2, multiple_of=3)
  for step in (0, 1, 200):
    rows = split.index(step)
    assert rows['positive'].shape == (32, 2) and rows['negative'].shape == (9, 2)
    for j in range(2):
      both = np.concatenate([rows['positive'][:, j], rows['negative'][:, j]])
      np.testing.assert_array_equal(
          np.sort(both[both >= 0]), np.sort(drop_empty(source.index(2 * step + j))))


def test_threads_share_a_stream():
  steps = np.random.default_rng(0).permutation(3000)[:400]
  shared, own = (stream(negatives={'a': 40, 'b': 9}, inside=True) for _ in range(2))
  with futures.ThreadPoolExecutor(8) as pool:
    found = list(pool.map(shared.index, steps))
  for step, rows in zip(steps, found, strict=True):
    np.testing.assert_array_equal(rows, own.index(step))


def test_no_negatives():
  for source in (
      stream(negatives={}, negatives_per_batch=0),
      stream(negatives_per_batch=(0, 0)),
      stream(negatives_per_batch=0, inside=True),
  ):
    assert source.num_slots == 32
    assert len(positives(source.index(3))) == 32
  empty = stream(negatives_per_batch=(0, 2))
  assert {int((empty.index(s) >= 100).sum()) for s in range(100)} == {0, 1, 2}


@pytest.mark.parametrize('inside', [False, True])
@pytest.mark.parametrize('high', [8, 16])
@pytest.mark.parametrize('devices', [2, 4, 8])
def test_shards_hold_the_same_mix(inside, high, devices):
  source = stream(
      num_positives=1000, batch_size=64, negatives_per_batch=(1, high), inside=inside
  )
  for step in range(200):
    shards = source.index(step).reshape(devices, -1)
    for kind in (shards >= 1000, (shards >= 0) & (shards < 1000)):
      assert np.ptp(kind.sum(1)) <= 1


def test_shards_of_any_number_of_negatives_stay_within_two_of_even():
  source = stream(batch_size=128, negatives_per_batch=(5, 25), num_positives=1000)
  for step in range(300):
    rows = source.index(step)
    for start in range(0, 153, 17):  # 9 shards
      part = (rows[start:start + 17] >= 1000).sum()
      assert abs(part - (rows >= 1000).sum() / 9) < 2


def test_rounding_up_adds_empty_slots_at_the_end_only():
  plain = stream(batch_size=128, negatives_per_batch=(5, 25))
  padded = stream(batch_size=128, negatives_per_batch=(5, 25), multiple_of=8)
  assert (plain.num_slots, padded.num_slots) == (153, 160)
  for step in range(20):
    np.testing.assert_array_equal(padded.index(step)[:153], plain.index(step))
    np.testing.assert_array_equal(padded.index(step)[153:], -1)


def test_weights_of_the_sets():
  source = stream(
      negatives={'a': 40, 'b': 5, 'c': 1000}, weights={'a': 3.0, 'c': 0.5},
      negatives_per_batch=16,
  )
  rows = np.concatenate([source.index(step) for step in range(1000)])
  rows = rows[rows >= 100]
  assert rows.max() < 1145 and len(rows) == 16000
  counts = np.histogram(rows, [100, 140, 145, 1145])[0]
  # Four standard deviations of a binomial with p near a half: 4 sqrt(1/4 / 16000).
  np.testing.assert_allclose(counts / 16000, np.array([3, 1, 0.5]) / 4.5, atol=0.016)
  assert len(np.unique(rows[rows < 145])) == 45


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'num_positives': 0}, r'num_positives.*\b1\b.*\b0\b'),
        ({'batch_size': 0}, r'batch_size.*\b1\b.*\b0\b'),
        ({'multiple_of': 0}, r'multiple_of.*\b1\b.*\b0\b'),
        ({'negatives_per_batch': (8, 2)}, r'negatives_per_batch.*\(8, 2\)'),
        ({'negatives_per_batch': -1}, 'negatives_per_batch.*-1'),
        ({'negatives': {}}, 'negatives_per_batch'),
        ({'negatives': {'a': 0}}, "'a'"),
        ({'inside': True, 'negatives_per_batch': 32},
         r'inside=True.*negatives_per_batch.*\b32\b'),
        ({'weights': {'a': 0}}, r"weights.*'a'.*\b0\b"),
        ({'weights': {'z': 1.0}}, "weights.*'a'.*'z'"),
    ],
)
def test_bad_numbers(change, message):
  with pytest.raises(ValueError, match=message):
    stream(**change)
