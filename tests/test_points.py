"""GANs of points: the data, seeds side by side, figures of merit, files, mistakes."""

import json
import shutil

import flax.linen as nn
import jax
import numpy as np
import pytest
import toy
from PIL import Image
from scipy import stats

from nat_jax import data, runs, train
from nat_jax.commands import report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.runtime import checkpoint, results
from nat_jax.schema import presets
from nat_jax.tasks import TASKS
from nat_jax.tasks.points import evaluate, figures, measures, step


def make_config(run=None, **changes):
  settings = dict(
      name='toy', variant='nat', task='points', steps=200, num_seeds=2,
      num_samples=50, data={'name': 'gaussian1d', 'num': 200},
      noise={'name': 'grid'}, batch_size=16, negatives_per_batch=12,
      schedule={'name': 'constant', 'learning_rate': 0.01},
      run={'log_every': 100, 'eval_every': 10, 'tensorboard': False} | (run or {}))
  return presets.experiment(**settings | changes)


def plane(**changes):
  return make_config(**dict(
      data={'name': 'rings2d', 'num': 100}, noise={'name': 'normal'},
      generator={'name': 'toy_generator', 'latent': 2, 'widths': (4,)},
      discriminator={'name': 'toy_discriminator', 'widths': (4,)}, steps=4,
      run={'eval_every': 2, 'checkpoint_every': 2}) | changes)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """The run `nat` of a line: two seeds, a look every 10 steps."""
  path = tmp_path_factory.mktemp('points')
  train.train(make_config(), str(path / 'nat'))
  return path


@pytest.fixture(scope='module')
def in_the_plane(tmp_path_factory):
  """(workdir, evaluation) of a run in the plane that nothing disturbed."""
  workdir = tmp_path_factory.mktemp('plane') / 'nat'
  return workdir, train.train(plane(), str(workdir))


def arrays(workdir):
  return toy.arrays(workdir / f'{results.POINTS}.npz')


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


@pytest.mark.slow
def test_a_seed_is_the_same_alone_and_among_others(folder, tmp_path):
  both = arrays(folder / 'nat')
  train.train(make_config(seed=1, num_seeds=1, steps=20), str(tmp_path))
  alone = arrays(tmp_path)
  for name in ('samples', 'boundary'):
    np.testing.assert_allclose(both[name][:3, 1:], alone[name], atol=2e-3)  # float16
    assert np.abs(both[name][2, 0] - both[name][2, 1]).max() > 1e-2
    assert np.abs(both[name][0] - both[name][2]).max() > 1e-2  # it learns


@pytest.mark.slow
def test_negatives_are_pushed_below_one_half(folder):
  found = arrays(folder / 'nat')
  boundary = found['boundary'][-1].astype(float).mean(0)
  at = {x: boundary[np.abs(found['grid'][:, 0] - x).argmin()] for x in (4, 13, -6)}
  assert at[4] > 0.5 and at[13] < 0.3 and at[-6] < 0.3, at


def test_the_original_gan_has_no_negatives():
  """And each seed has batches of its own, which are passes through the points."""
  def batches(steps, **changes):
    given = step.load(runs.resolve(make_config(**changes)))
    rows = [given.stream.index(i) for i in range(steps)]
    return {name: np.stack([one[name] for one in rows]) for name in rows[0]}

  found = batches(12, negatives=False)
  assert found.keys() == {'positive'} and found['positive'].shape == (12, 16, 1, 2)
  assert (found['positive'][..., 0] != found['positive'][..., 1]).any()
  assert all(len(np.unique(found['positive'][..., i])) == 12 * 16 for i in (0, 1))
  found = batches(12)
  assert found['negative'].shape == (12, 12, 1, 2)
  assert found['positive'].max() < 200 <= found['negative'].min()
  one, other = (data.POINTS['gaussian1d'](num=9, negatives=n) for n in (
      ((1.0, 1.0),), ((2.0, 3.0), (1.0, 1.0))))
  np.testing.assert_array_equal(one.positive, other.positive)


class Identity(nn.Module):
  latent: int = 1

  def __call__(self, z, labels=None, mask=None):
    return z


def test_noise_is_a_jittered_grid():
  z = np.random.default_rng(0).normal(size=(9, 1)).astype(np.float32)
  noise = step.NOISES['grid'](Identity(), reach=8.0, jitter=0.5)
  found = jax.jit(lambda z: noise.apply({}, z))(z)
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
  with pytest.raises(ValueError, match=r'\(39, 2\).*\(40, 2\)'):
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
  assert found.keys() == expected.keys() == dict.fromkeys(measures.MERIT).keys()
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
  def run(variant, shift):
    values = (np.arange(10) + shift).tolist()
    figures = dict.fromkeys(measures.MERIT, values) | {
        'steps_converged': [None] * 10}  # of no pair: no test
    evaluation = {
        'name': 'toy', 'measure': 'distance', 'floor': 1.0, 'threshold': 2.0,
        'num_samples': 5, 'seeds': list(range(10)), 'evals': {'samples': figures},
        'curve': {'step': list(range(31)), 'distance': [values] * 31}}  # 11 are shown
    return {'name': 'toy', 'variant': variant, 'label': variant, 'seed': 0,
            'evals': evaluation['evals'], 'evaluation': evaluation}

  merit, distance = TASKS['points'].tables(
      {'gan': [run('gan', 0)], 'nat': [run('nat', 1)]})
  tests, p = len(measures.MERIT) - 1, 2 / 2**10
  assert merit.header[-1] == distance.header[-1] == 'nat against gan'
  assert [row[-1] for row in merit.rows] == [f'higher (p {tests * p:.1g})'] * tests + [
      '-']
  assert [row[0] for row in distance.rows] == [str(3 * i) for i in range(11)]
  assert [row[-1] for row in distance.rows] == [f'higher (p {11 * p:.1g})'] * 11
  assert merit.rows[0][:3] == ['distance at the end', '4.500 ± 3.028', '5.500 ± 3.028']
  for table in (merit, distance):
    assert "Holm's correction over the rows" in table.title


def times(workdir):
  """When each file was written; config.json is, with what it holds, by each start."""
  return {path: path.stat().st_mtime_ns for path in workdir.rglob('*')
          if path.name != 'config.json'}


def variant_beside(workdir, name):
  """A copy of a run that passes for another variant."""
  path = shutil.copytree(workdir, workdir.with_name(name))
  for file in ('config.json', 'eval.json'):
    content = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps(content | {'variant': name}))
  return str(path)


def assert_reported(workdir, other, num_frames):
  text = report.tables([other, str(workdir)])
  assert 'distance at the end' in text
  found = json.loads((workdir / 'eval.json').read_text())['evals']['samples']
  assert f'{np.mean(found["distance_end"]):.3f} ± ' in text
  page = report.write([other, str(workdir)], str(workdir))
  assert 'distance at the end' in open(page).read()
  assert Image.open(workdir / 'figures' / 'points.png').width > 500
  moving = Image.open(workdir / 'figures' / 'animation.gif')
  assert moving.n_frames == num_frames
  return text


@pytest.mark.slow
def test_a_run_in_the_plane_from_config_to_report(in_the_plane):
  workdir, found = in_the_plane
  assert np.shape(found['curve']['distance']) == (3, 2) and found['seeds'] == [0, 1]
  assert found['curve']['step'] == [0, 2, 4]
  text = assert_reported(workdir, variant_beside(workdir, 'gan'), 3)
  assert 'nat against gan' in text
  assert evaluate_run(str(workdir)) == found


@pytest.mark.slow
def test_a_stopped_run_ends_as_an_undisturbed_one(in_the_plane, tmp_path, monkeypatch):
  (whole, undisturbed), stopped = in_the_plane, tmp_path / 'stopped'
  advance = train.advance

  def stop(job, course, *args):
    if course.step >= 2:
      raise KeyboardInterrupt
    advance(job, course, *args)

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(train, 'advance', stop)
    train.train(plane(), str(stopped))
  assert checkpoint.list_steps(str(stopped)) == [2]
  assert train.train(plane(), str(stopped)) == undisturbed
  one, other = (arrays(path) for path in (whole, stopped))
  for name in one:
    np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.slow
def test_a_finished_run_is_kept(folder, capsys):
  workdir = folder / 'nat'
  other = variant_beside(workdir, '$_$')  # is no mathematics
  assert_reported(workdir, other, 21)
  first = json.loads((workdir / 'eval.json').read_text())
  before = times(workdir)
  assert train.train(make_config(), str(workdir)) == first
  with pytest.raises(ValueError, match='batch_size: 16 -> 5'):
    train.train(make_config(batch_size=5), str(workdir))
  assert before == times(workdir)


def test_looks_that_were_never_made_are_left_out(in_the_plane):
  """Where a run was resumed with a lower eval_every, or a checkpoint is between looks.
  """
  workdir = shutil.copytree(in_the_plane[0], in_the_plane[0].parent / 'fewer')
  (workdir / evaluate.SNAPSHOTS / f'{2:09d}.npz').unlink()
  found = evaluate_run(str(workdir))
  whole = in_the_plane[1]
  assert found['curve']['step'] == [0, 4] and whole['curve']['step'] == [0, 2, 4]
  assert found['curve']['distance'] == whole['curve']['distance'][::2]
  path = workdir / 'config.json'
  config = json.loads(path.read_text())
  config['run']['eval_every'] = 4
  path.write_text(json.dumps(config))
  found = evaluate_run(str(workdir), step=2)
  assert found['curve']['step'] == [0, 2]
  assert found['curve']['distance'][-1] == whole['curve']['distance'][1]


def test_figures_of_runs_of_different_lengths():
  def run(num):
    return {
        'variant': '', 'threshold': 0.1, 'curve': {'step': list(range(num)),
                                    'distance': [[0.5, 0.6]] * num},
        'arrays': {'steps': np.arange(num) * 10, 'samples': np.zeros((num, 2, 5, 2)),
                   'boundary': np.zeros((num, 2, 9)), 'data': np.zeros((5, 2)),
                   'negative': np.zeros((5, 2)),
                   'grid': np.stack(np.meshgrid(range(3), range(3)), -1).reshape(9, 2)}}

  both = {'short': run(3), 'long': run(9)}
  for runs_of in (both, dict(reversed(both.items()))):
    titles = [ax.get_title() for ax in figures.overview(runs_of).axes]
    assert titles.count('step 20') == 2 and 'step 80' in titles
    moving = figures.animation(runs_of)
    moving._func(8)
    assert [ax.get_title() for ax in moving._fig.axes] == [
        f'{name}, step {10 * (len(one["arrays"]["steps"]) - 1)}'
        for name, one in runs_of.items()]
    moving._draw_was_started = True  # nothing warns that it is not shown


def test_a_lost_look_is_told(folder):
  """What the report shows is made of the looks; none of them is made up."""
  workdir = shutil.copytree(folder / 'nat', folder / 'damaged')
  (workdir / evaluate.SNAPSHOTS / f'{10:09d}.npz').write_bytes(b'PK')
  with pytest.raises(ValueError, match=r'000000010\.npz.*train'):
    evaluate_run(str(workdir))
  (workdir / f'{results.POINTS}.npz').unlink()
  assert 'Left out: no run has points.npz' in open(report.write([str(workdir)])).read()


@pytest.mark.parametrize('changes, message', [
    (dict(steps=5, run={'eval_every': 2}),
     r'steps\b.*\b5\b.*run.eval_every.*\b2\b'),
    (dict(num_seeds=0), r'num_seeds.*\[1, 1e4\].*\b0$'),
    (dict(negative_weight=-1.0), r'negative_weight.*\[0, 1e6\].*-1'),
    (dict(data={'name': 'spiral'}), "'spiral'.*gaussian1d"),
    (dict(data={'name': 'gaussian1d', 'std': 0.0}),
     r'data.std.*\(0, 1e6\].*0\.0'),
    (dict(noise={'name': 'pink'}), "noise 'pink'.*grid, normal"),
    (dict(generator={'name': 'toy_generator', 'latent': 2}),
     r"noise.*'grid'.*latent.*\b1\b.*\b2\b"),
])
def test_a_mistake_is_told_before_anything_is_written(changes, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    train.train(make_config(**changes), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_a_run_that_diverges_stops(tmp_path):
  config = plane(schedule={'name': 'constant', 'learning_rate': 1e38})
  with pytest.raises(train.Diverged, match='gradient|loss'):
    train.train(config, str(tmp_path))
  assert not (tmp_path / 'eval.json').exists()
  assert TASKS['points'].title == 'GANs of points'
