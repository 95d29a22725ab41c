"""tests/bench/scaling.py: its formulas, its counts, and the tables of the page."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module')
def scaling():
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / 'tests' / 'bench'))
    import scaling
    yield scaling


def test_page_has_the_tables_that_the_script_prints(scaling):
  page = (ROOT / 'docs' / 'scaling.md').read_text()
  tables = scaling.tables()
  assert [table for table in tables if table not in page] == []
  in_page = [block for block in page.split('\n\n') if block.startswith('| ')]
  assert in_page == tables
  assert '**Nothing on this page was measured' in page


def test_resnet18_is_counted(scaling):
  found = scaling.resnet18()
  assert found.params == 11_173_962 and found.norms == 20
  # Stem; four groups of four 3x3 convolutions and, in three of them, one of 1x1.
  channels = (64, 128, 256, 512)
  outputs = [channels[i] * (32 // 2**i)**2 for i in range(4)]
  assert found.activations == 5 * sum(outputs)
  macs = outputs[0] * 3 * 9 + 4 * outputs[0] * 64 * 9 + 512 * 10
  for i in (1, 2, 3):
    macs += outputs[i] * (channels[i - 1] * (9 + 1) + 3 * channels[i] * 9)
  assert found.macs == macs


def test_all_reduce(scaling):
  gpu = scaling.H100._replace(inner=100.0, outer=10.0, start=0.0, hop=0.0)
  assert scaling.all_reduce_seconds(800, gpu, 2) == pytest.approx(2 * 1 / 2 * 800 / 100)
  # In a host of 8, and then 1/8 of the bytes over 4 hosts.
  assert scaling.all_reduce_seconds(800, gpu, 32) == pytest.approx(
      2 * 7 / 8 * 800 / 100 + 2 * 3 / 4 * 100 / 10)
  tpu = scaling.V5E._replace(outer=10.0, start=0.0, hop=0.0)
  assert scaling.all_reduce_seconds(80, tpu, 4) == pytest.approx(2 * 3 / 4 * 80 / 10)


def test_latency_grows_with_hops(scaling):
  tpu = scaling.V5E._replace(start=5.0, hop=1.0)
  assert [scaling.latency(tpu, n) for n in (1, 8, 64, 256)] == [0, 11, 21, 37]
  gpu = scaling.H100._replace(start=15.0, hop=3.0)
  assert [scaling.latency(gpu, n) for n in (1, 8, 16, 64)] == [0, 15, 21, 33]


def test_estimate_is_the_larger_bound_and_what_is_not_hidden(scaling):
  chip = scaling.H100._replace(
      flops=1e3, hbm=1e3, inner=1.0, start=0.0, hop=0.5, per_host=2)
  network = scaling.Network('n', params=10, macs=50, activations=1, norms=3, pixels=1)
  assert scaling.update_seconds(network, chip, 10) == 2 * 3.0  # 3,000 FLOPs
  wide = network._replace(activations=1000)
  assert scaling.update_seconds(wide, chip, 10) == 2 * 240.0  # 240,000 bytes
  found = scaling.estimate(network, chip, 2, 10)
  assert found.gradients == 40 and found.exposed == pytest.approx(40 - 4)
  assert found.norms == 0 and found.rate == pytest.approx(20 / 42)
  assert found.efficiency == pytest.approx(6 / 42)
  alone = scaling.estimate(network, chip, 1, 10)
  assert (alone.gradients, alone.efficiency) == (0, 1)


def test_near_the_published_figures(scaling):
  """ResNet-50 in MLPerf 3.0: minutes on 8 and 64 H100, at 37 epochs of ImageNet."""
  for chips, minutes in ((8, 13.466), (64, 2.664)):
    published = 37 * 1_281_167 / (60 * minutes)
    found = scaling.estimate(scaling.RESNET50, scaling.H100, chips, scaling.IMAGES)
    assert found.rate == pytest.approx(published, rel=0.25)
