"""GANs of points: the data, seeds side by side, figures of merit, files, mistakes."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from nat_jax import data, experiment, presets, registry, schema
from nat_jax.points import measures, training
from nat_jax.points import run as points
from nat_jax.runtime import parallel

pytestmark = pytest.mark.usefixtures('quick_compilation')


def make_config(**changes):
  settings = dict(
      name='toy', trainer={'name': 'points'}, steps=200, snapshots=50, num_seeds=2,
      num_samples=50, data={'name': 'gaussian1d', 'num': 200},
      noise={'name': 'grid'}, batch_size=16, negatives_per_batch=12,
      schedule={'name': 'constant', 'learning_rate': 0.01})
  return presets.experiment(**settings | changes)


def plane(**changes):
  return make_config(
      data={'name': 'rings2d', 'num': 100}, noise={'name': 'normal'},
      generator={'name': 'toy_generator', 'latent': 2}, steps=4, snapshots=2, **changes)


def run(config):
  config = experiment.plain(config)
  return training.run_seeds(config, registry.build(data.POINTS, config['data']))


def test_normal_data_and_negatives_on_both_sides():
  one = data.POINTS['gaussian1d'](num=20_000)
  assert one.positive.shape == (20_000, 1) and one.negative.shape == (40_000, 1)
  assert one.positive.dtype == one.negative.dtype == np.float32
  for points_, mean, std in ((one.positive, 4, 0.5), (one.negative[:20_000], 13, 1),
                             (one.negative[20_000:], -6, 2)):
    np.testing.assert_allclose([points_.mean(), points_.std()], [mean, std], atol=0.05)
  other = data.POINTS['gaussian1d'](num=20_000, seed=1)
  assert not np.isin(one.positive, other.positive).mean() > 0.01


def test_rings_have_their_radius_and_noise():
  one = data.POINTS['rings2d']()
  assert one.positive.shape == (1000, 2) and one.negative.shape == (2000, 2)
  for xy, radius, noise in ((one.positive, 4, 0.08), (one.negative[:1000], 8, 0.08)):
    found = np.hypot(*xy.T)
    np.testing.assert_allclose(found.mean(), radius, rtol=0.01)
    np.testing.assert_allclose(found.std(), radius * noise, rtol=0.1)
  blob = one.negative[1000:]  # a circle of radius .7 with noise of .35 on each axis
  np.testing.assert_allclose(
      np.square(blob).sum(1).mean(), 0.7**2 + 2 * 0.35**2, rtol=0.1)


@functools.cache
def trained():
  """Two seeds of a line, 4 steps between snapshots."""
  return run(make_config())


def test_a_seed_is_the_same_alone_and_among_others():
  both = trained()
  alone = run(make_config(seed=1, num_seeds=1, steps=8, snapshots=2))
  for name in ('samples', 'boundary'):
    np.testing.assert_allclose(both[name][:3, 1:], alone[name], atol=1e-5)
    assert np.abs(both[name][2, 0] - both[name][2, 1]).max() > 1e-2
    assert np.abs(both[name][0] - both[name][2]).max() > 1e-4  # it learns


def test_negatives_are_pushed_below_one_half():
  boundary = trained()['boundary'][-1].mean(0)
  axis = training.grid(data.POINTS['gaussian1d'](num=1))[:, 0]
  at = {x: boundary[np.abs(axis - x).argmin()] for x in (4, 13, -6)}
  assert at[4] > 0.5 and at[13] < 0.3 and at[-6] < 0.3, at


def test_the_original_gan_has_no_negatives():
  config = make_config(negatives=False).to_dict()
  pools = {'positive': np.zeros((5, 1), np.float32), 'negative': np.ones((9, 1))}
  batch = training.make_batch(config, jax.random.key(0), pools)
  assert batch.keys() == {'positive'} and batch['positive']['image'].shape == (16, 1, 1)
  config['negatives'] = True
  batch = training.make_batch(config, jax.random.key(0), pools)
  assert batch['negative']['image'].shape == (12, 1, 1)
  assert (batch['negative']['image'] == 1).all()
  assert (batch['negative']['label'] == -1).all()
  one, other = (data.POINTS['gaussian1d'](num=9, negatives=n) for n in (
      ((1.0, 1.0),), ((2.0, 3.0), (1.0, 1.0))))
  np.testing.assert_array_equal(one.positive, other.positive)


class Identity(training.nn.Module):
  latent: int = 1

  def __call__(self, z, labels=None, mask=None):
    return z


def test_noise_is_a_jittered_grid():
  z = jax.random.normal(jax.random.key(0), (9, 1))
  found = training.NOISES['grid'](Identity(), reach=8.0, jitter=0.5).apply({}, z)
  rest = np.asarray(found)[:, 0] - np.arange(-8, 9, 2)
  np.testing.assert_allclose(rest, 0.5 * stats.norm.cdf(z[:, 0]), atol=1e-5)


def test_wasserstein_distance_of_known_cases():
  rng = np.random.default_rng(0)
  one, other = rng.normal(size=(2, 3, 40, 1))
  found = measures.wasserstein(one, other[0])
  np.testing.assert_allclose(
      found, [stats.wasserstein_distance(x[:, 0], other[0, :, 0]) for x in one])
  xy = rng.normal(size=(40, 2))
  assert measures.wasserstein(xy[::-1], xy) == 0
  # Moved by a vector of length 5: the mean of 5 |cos| over directions, 10 / pi.
  np.testing.assert_allclose(
      measures.wasserstein(xy + [[3.0, 4.0]], xy), 10 / np.pi, rtol=1e-3)
  with pytest.raises(ValueError, match='as many points'):
    measures.wasserstein(xy[1:], xy)


def test_figures_of_merit_of_a_drawn_up_case():
  held_out = measures.HeldOut(np.array([[1.0], [-1.0]]), 0.1)
  distances = np.array([[5.0, 5], [0.5, 0.1], [2, 0.9], [0.4, 1.5]])
  boundaries = np.zeros((4, 2, 3))
  boundaries[3, 1] = 0.6
  found = measures.measure(
      np.arange(0, 40, 10), distances, boundaries,
      np.array([[[2.0], [-2.0]], [[3.0], [3.0]]]), held_out, 1.0)
  expected = dict(
      distance_end=[0.4, 1.5], distance_late=[1.2, 1.2], fluctuation=[0, 0.6],
      spread=[2, 0], converged=[1, 0], within_5=[1, 0], within_2=[0, 0],
      steps_converged=[30, np.nan])
  assert found.keys() == expected.keys() == measures.ROWS.keys()
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, err_msg=name, rtol=1e-6)


def test_paired_test():
  one = np.arange(10.0)
  assert measures.paired_test(one, one) == 1
  # All ten differ alike: two of the 2^10 ways to choose signs are as extreme.
  np.testing.assert_allclose(measures.paired_test(one, one + 1), 2 / 2**10)
  assert measures.paired_test(one, one + np.resize([1, -1], 10)) == 1
  assert np.isnan(measures.paired_test(one[:2], np.array([np.nan, 1])))


def test_the_rows_of_a_table_are_one_family_of_tests():
  """Ten seeds that all differ alike: p = 2 / 2^10 each, times the number of tests."""
  def evaluation(shift):
    values = (np.arange(10) + shift).tolist()
    return {
        'name': 'toy', 'measure': 'distance', 'floor': 1.0, 'threshold': 2.0,
        'num_samples': 5, 'seeds': list(range(10)),
        'figures': {name: values for name in measures.ROWS} | {
            'steps_converged': [None] * 10},  # of no pair: no test
        'curve': {'step': [0, 1, 2], 'distance': [values] * 3}}

  merit, distance = measures.compare({'gan': evaluation(0), 'nat': evaluation(1)})
  tests = len(measures.ROWS) - 1
  assert [row[-1] for row in merit.rows] == [f'{tests * 2 / 2**10:.2g}'] * tests + ['-']
  assert [row[-1] for row in distance.rows] == [f'{3 * 2 / 2**10:.2g}'] * 3
  for table in (merit, distance):
    assert "Holm's correction over the rows" in table.title


class Recorder(dict):
  def __init__(self, config, read):
    super().__init__(config)
    self.read = read

  def __getitem__(self, key):
    self.read.add(key)
    return super().__getitem__(key)


def variant_beside(workdir, name):
  """A copy of a run that passes for another variant."""
  path = shutil.copytree(workdir, workdir.with_name(name)) / 'eval.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'variant': name}))
  return str(path.parent)


def assert_reported(workdir, num_frames):
  text = points.report([str(workdir), variant_beside(workdir, 'gan')])
  assert 'p (nat = gan)' in text and 'distance at the end' in text
  figures = json.loads((workdir / 'eval.json').read_text())['figures']
  assert f'{np.mean(figures["distance_end"]):.3f} +- ' in text
  assert Image.open(workdir / 'figure.png').width > 500
  assert Image.open(workdir / 'animation.gif').n_frames == num_frames
  assert (workdir / 'report.md').read_text() in text
  assert points.owns(str(workdir)) and not points.owns(str(workdir.parent))
  with pytest.raises(ValueError, match='different variants'):
    points.report([str(workdir), str(workdir)])


def test_a_run_in_the_plane_from_config_to_report(tmp_path, monkeypatch):
  read, plain = set(), experiment.plain
  monkeypatch.setattr(experiment, 'plain', lambda c: Recorder(plain(c), read))
  found = points.train(plane(), str(tmp_path / 'nat'))
  assert np.shape(found['curve']['distance']) == (3, 2) and found['seeds'] == [0, 1]
  assert set(schema.POINTS) - read == {'trainer', 'compare_with'}  # main.py reads them
  assert_reported(tmp_path / 'nat', 3)


def test_a_finished_run_is_kept(tmp_path, monkeypatch, capsys):
  seen = {name: values[:3] for name, values in trained().items()}
  monkeypatch.setattr(training, 'run_seeds', lambda *args: seen)
  workdir = tmp_path / 'nat'
  first = points.train(make_config(), str(workdir))
  assert_reported(workdir, 3)
  points.report([str(workdir), variant_beside(workdir, '$_$')])  # is no mathematics
  before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
  assert points.train(make_config(), str(workdir)) == first
  assert 'nothing to do' in capsys.readouterr().out
  with pytest.raises(ValueError, match='batch_size: 16 -> 5'):
    points.train(make_config(batch_size=5), str(workdir))
  assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}


@pytest.mark.parametrize('file, content', [
    ('eval.json', b'{"step": 200}'), ('eval.json', b'[]'), ('points.npz', b'PK'),
    ('points.npz', None)])
def test_a_damaged_run_is_trained_again(file, content, tmp_path, monkeypatch):
  seen = {name: values[:3] for name, values in trained().items()}
  monkeypatch.setattr(training, 'run_seeds', lambda *args: seen)
  points.train(make_config(), str(tmp_path / 'nat'))
  before = {name: (tmp_path / 'nat' / name).read_bytes()
            for name in ('eval.json', 'points.npz')}
  if content is None:
    (tmp_path / 'nat' / file).unlink()
    with pytest.raises(OSError, match='nat holds no finished run.*train it first'):
      points.report([str(tmp_path / 'nat')])
  else:
    (tmp_path / 'nat' / file).write_bytes(content)
    with pytest.raises(ValueError, match=f'{file} cannot be read.*train the run again'):
      points.report([str(tmp_path / 'nat')])
  again = points.train(make_config(), str(tmp_path / 'nat'))
  same = [key for key in again if key != 'seconds']
  first = json.loads(before['eval.json'])
  assert {k: again[k] for k in same} == {k: first[k] for k in same}
  assert (tmp_path / 'nat' / 'points.npz').read_bytes() == before['points.npz']


@pytest.mark.parametrize('changes, message', [
    (dict(steps=5), 'steps 5 must be a multiple of snapshots 50'),
    (dict(num_seeds=0), r'num_seeds must be a whole number in \[1, 1e4\]'),
    (dict(negative_weight=-1.0), r'negative_weight must be a number in \[0, 1e6\]'),
    (dict(data={'name': 'spiral'}), 'unknown set of points .*valid names: gaussian1d'),
    (dict(data={'name': 'gaussian1d', 'std': 0.0}),
     r'data.std must be a number in \(0, 1e6\], got 0.0'),
    (dict(noise={'name': 'pink'}), "unknown noise 'pink'; valid names: grid, normal"),
    (dict(generator={'name': 'toy_generator', 'latent': 2}), 'with latent 1, got 2'),
])
def test_a_mistake_is_told_before_anything_is_written(changes, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    points.train(make_config(**changes), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_a_seed_that_diverges_is_named(tmp_path, monkeypatch):
  def wrap(fn, mesh):
    samples = np.ones((2, 50, 1), np.float32)
    if fn.__name__ == 'look':
      return lambda state, given: (samples, samples)
    samples[1, 3] = np.nan
    return lambda state, given: (state, (samples, samples))

  monkeypatch.setattr(parallel, 'wrap_head', wrap)
  monkeypatch.setattr(parallel, 'init_state', lambda *args: None)
  with pytest.raises(ValueError, match='seed 8 diverged by step 4:'):
    points.train(make_config(seed=7), str(tmp_path))
  assert not (tmp_path / 'eval.json').exists()
