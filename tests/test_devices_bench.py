"""The bench of several devices: what it compares, and with what."""

import importlib
import pathlib

import numpy as np
import pytest
import toy

from nat_jax import runs
from nat_jax.schema import presets

BENCH = pathlib.Path(__file__).parent / 'bench'


@pytest.fixture(scope='module')
def devices():
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCH))
    yield importlib.import_module('devices')


def test_difference_is_of_the_array_where_it_is_largest(devices):
  one = {'a': np.array([1.0, -4.0]), 'b': np.zeros(2), 'c': np.array([1e-3])}
  other = {**one, 'a': np.array([1.5, -4.0]), 'c': np.array([2e-3])}
  assert devices.difference(one, one) == 0
  assert devices.difference(other, one) == pytest.approx(1)
  assert devices.difference({**other, 'c': one['c']}, one) == 0.125


@pytest.mark.slow
def test_all_numbers_of_devices_end_with_the_same_parameters(devices):
  config = runs.resolve(presets.experiment(
      name='bench', steps=5, num_classes=4, model={'name': 'small_conv', 'widths': [4]},
      data=dict(positives=toy.fake(), batch_size=8, negatives_per_batch=(2, 3),
                negatives={'other': {'source': toy.fake(1)}}),
      evals={'test': {'source': toy.fake(), 'positive': True}}))
  found = list(devices.measure(config, (1, 2, 8), updates=3, rounds=1))
  assert [row[:2] for row in found] == [
      (mode, num) for mode in ('jit', 'pmap') for num in (1, 2, 8)]
  assert found[0][3] == 0 and max(row[3] for row in found) < 1e-4
  assert all(row[2] > 0 for row in found)
