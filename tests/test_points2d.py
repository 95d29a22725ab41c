"""GAN objectives in a plane: sets of points, modes covered, rows of the config."""

import json
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from PIL import Image
from scipy import spatial, stats

from nat_jax import data, models, runs, train
from nat_jax.commands import report
from nat_jax.tasks import TASKS
from nat_jax.tasks.points import figures as plots
from nat_jax.tasks.points import measures, step

get_config = toy.config_file('gan/points2d.py')


def small(variant, **changes):
  """A row of the table with few points, tiny networks and four updates."""
  config = get_config(variant).to_dict()
  config['data']['num'] = 200
  config['generator']['widths'] = config['discriminator']['widths'] = (4,)
  config['run'] |= dict(
      eval_every=2, log_every=2, checkpoint_every=4, tensorboard=False)
  return toy.change(config, **dict(
      steps=4, num_seeds=2, num_samples=60, batch_size=8, negatives_per_batch=4
  ) | changes)


@pytest.mark.parametrize('name, num_modes, std, num_classes', [
    ('gaussians8', 8, 0.02, 8), ('gaussians25', 25, 0.05, 25),
    ('swiss_roll', 20, 0.02, 1)])
def test_sets_of_points_with_modes(name, num_modes, std, num_classes):
  points = data.POINTS[name](num=4000)
  modes = points.modes
  assert modes.num == num_modes and modes.radius == pytest.approx(4 * std)
  assert len(step.labels_of(points)) == 4000
  assert step.num_classes_of({'data': {'name': name}}) == num_classes
  distance, nearest = spatial.cKDTree(modes.centres).query(points.positive)
  # 4 standard deviations: all but exp(-8) of points of a normal distribution in 2-D.
  assert (distance <= modes.radius).mean() > 0.998
  counts = np.bincount(modes.mode[nearest], minlength=num_modes)
  np.testing.assert_allclose(counts, 4000 / num_modes, rtol=0.35)
  if num_classes > 1:
    np.testing.assert_array_equal(modes.mode[nearest], points.label)
    np.testing.assert_allclose(
        (points.positive - modes.centres[points.label]).std(0), std, rtol=0.05)
  else:  # the distance from the curve, not along it, is noise
    np.testing.assert_allclose(np.sqrt(np.square(distance).mean()), std, rtol=0.05)
  away, _ = spatial.cKDTree(modes.centres).query(points.negative)
  assert away.min() > 10 * std * 0.999 and len(points.negative) == 4000
  low, high = points.window
  assert low <= points.positive.min() and points.positive.max() <= high
  other = data.POINTS[name](num=4000, seed=1)
  assert np.isin(points.positive, other.positive).mean() < 0.05


def test_25_gaussians_of_another_size():
  large, unit = (data.POINTS['gaussians25'](num=500, **settings)
                 for settings in ({}, {'spacing': 0.25, 'std': 0.00625}))
  for name in ('positive', 'negative'):
    np.testing.assert_allclose(
        getattr(unit, name), getattr(large, name) / 8, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(unit.modes.centres, large.modes.centres / 8)
  assert unit.modes.radius == large.modes.radius / 8
  np.testing.assert_allclose(unit.window, np.divide(large.window, 8))


def test_bounded_points_of_uniform_noise():
  z = np.random.default_rng(0).normal(size=(4000, 2)).astype(np.float32)

  class Same:
    latent = 2

    def __call__(self, z, labels, mask):
      return z

  noise = np.asarray(jax.jit(step.UniformNoise(Same()))(z))
  np.testing.assert_allclose(
      np.quantile(noise, [0, 0.25, 0.5, 0.75, 1], axis=0),
      np.tile(np.array([[-1], [-0.5], [0], [0.5], [1]]), 2), atol=0.05)
  nets = {name: models.ToyGenerator(
      latent=2, image_shape=(2,), widths=(512,), activation='relu', **settings)
      for name, settings in {
          'plain': {}, 'he': {'initializer': 'he'},
          'bounded': {'initializer': 'he', 'bound': 0.5}}.items()}
  made = {name: np.asarray(jax.jit(
      lambda key, net=net: net.apply(net.init(key, z[:1]), z))(jax.random.key(0)))
          for name, net in nets.items()}
  np.testing.assert_allclose(made['bounded'], 1 / (1 + np.exp(-made['he'])) - 0.5,
                             atol=1e-5)
  # Two layers, each with twice the variance of its weights.
  np.testing.assert_allclose(made['he'], 2 * made['plain'], rtol=1e-3, atol=1e-4)
  with pytest.raises(ValueError, match="initializer.*'he', 'lecun'.*'x'"):
    models.ToyGenerator(latent=2, image_shape=(2,), initializer='x').init(
        jax.random.key(0), z)


@pytest.mark.parametrize('make, settings', [
    ('gaussians8', {'std': 0.35}), ('gaussians8', {'radius': 0.1}),
    ('gaussians25', {'std': 0.25}), ('swiss_roll', {'noise': 0.4})])
def test_no_room_for_negatives(make, settings):
  with pytest.raises(ValueError, match='no room for negatives.*lower std'):
    data.POINTS[make](num=10, **settings)


def test_mistakes_in_a_set_of_points():
  for name, wrong in (
      ('gaussians8', {'std': 0.0}), ('gaussians8', {'radius': -2.0}),
      ('gaussians25', {'num': 0}), ('gaussians25', {'spacing': 0.0}),
      ('swiss_roll', {'noise': -1.0})):
    with pytest.raises(ValueError, match='points need num'):
      data.POINTS[name](**wrong)


def test_coverage_of_samples_that_are_written_down():
  modes = data.Modes(np.array([[0.0, 0], [5, 0], [5.5, 0]]), np.array([0, 1, 1]), 0.5)
  samples = np.zeros((2, 200, 2))
  samples[0, :2] = [5.2, 0]  # 1 % in mode 1, at two centres
  samples[1, :1] = [5.9, 0]  # half of that
  samples[1, 1:51] = [0, 0.6]  # not good
  found = measures.coverage(samples, modes)
  np.testing.assert_array_equal(found['modes'], [2, 1])
  np.testing.assert_array_equal(found['modes_found'], [2, 2])
  np.testing.assert_allclose(found['good'], [1, 0.75])
  assert measures.coverage(samples, None) == {}
  samples[1, 1:51] = [[np.nan, 0], [np.inf, 0]] * 25  # not good, too
  overflown = measures.coverage(samples, modes)
  assert tuple(found) == measures.COVERAGE
  for name in measures.COVERAGE:
    np.testing.assert_array_equal(overflown[name], found[name])


def rows(points):
  with pytest.raises(ValueError) as error:
    get_config('g8')
  names = str(error.value).split('valid: ')[1].split(', ')
  return [name for name in names if name.startswith(f'{points}_')]


def test_every_row_is_built():
  """Each on the set that has all rows; the others have a part of them."""
  assert len(rows('swiss')) < len(rows('g8')) < len(rows('g25'))
  ends = {name.partition('_')[2] for name in rows('g25')}
  assert {name.partition('_')[2] for name in rows('g8') + rows('swiss')} < ends
  for variant in rows('g25') + rows('dist'):
    config = runs.resolve(small(variant, num_seeds=1))
    assert step.build(config, (2,), None).heads.keys() == {'samples', 'boundary'}


@pytest.mark.parametrize('row', [
    'g25_projection_cbn', 'g25_egan', 'g25_gaan_gp_5', 'dist_gaan_fake'])
def test_rows_with_more_than_a_loss_are_traced(row):
  config = runs.resolve(small(row, num_seeds=1))
  inputs = step.load(config)
  trainer = step.build(config, inputs.shape, None)
  batch = data.gather(inputs.pool, inputs.stream.index(0))
  state = jax.eval_shape(trainer.init, jax.random.key(0))
  after, _ = jax.eval_shape(trainer.step, state, {}, batch)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
      lambda x: (x.shape, x.dtype), state)


def test_codes_go_to_the_generator_as_they_are():
  """Not through the distribution that makes z uniform, of which they are no quantiles.
  """
  config = runs.resolve(small('dist_gaan_usual', num_seeds=1))
  trainer = step.build(config, (2,), None)
  state = jax.jit(trainer.init)(jax.random.key(0))
  gen = jax.tree.map(lambda x: x[0], state.nets['gen'])
  inner, _ = step._networks(config, (2,), 1, 1)
  assert not isinstance(inner, step.UniformNoise)
  z = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
  expected = inner.apply(gen.variables, 2 * stats.norm.cdf(z).astype(np.float32) - 1)
  np.testing.assert_allclose(
      trainer.heads['samples'](state, {'z': z})[0], expected, atol=1e-5)


def test_batch_statistics_of_samples_are_of_batches_as_in_training():
  config = runs.resolve(small('g8_bn', num_seeds=2, batch_size=8))
  trainer = step.build(config, (2,), None)
  state = jax.jit(trainer.init)(jax.random.key(0))
  z = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
  draw = jax.jit(lambda z: trainer.heads['samples'](state, {'z': z}))
  found = draw(z)
  assert found.shape == (2, 20, 2)
  np.testing.assert_allclose(found[:, :8], draw(z[:8]), atol=1e-5)
  np.testing.assert_allclose(found[:, 16:], draw(np.resize(
      np.concatenate([z[16:], z[:4]]), (8, 2)))[:, :4], atol=1e-5)
  assert np.abs(found[:, :8] - draw(np.concatenate([z[:4], z[8:12]]))).max() > 1e-3


def test_a_gan_with_an_encoder_takes_negatives_for_generated():
  found = []
  for weight in (None, 0.0):
    config = runs.resolve(small(
        'dist_gaan_usual', num_seeds=1, negatives=True, negative_weight=weight))
    inputs = step.load(config)
    trainer = step.build(config, inputs.shape, None)
    batch = data.gather(inputs.pool, inputs.stream.index(0))
    _, metrics = jax.jit(trainer.step)(
        jax.jit(trainer.init)(jax.random.key(0)), {}, batch)
    found.append(trainer.figures(metrics))
  both, without = found  # a mean over 8 generated points and 4 negatives, or over 8
  difference = (both['loss_negative'] - both['loss_fake']) / 3
  assert abs(difference) > 1e-4
  assert both['loss_disc'] - without['loss_disc'] == pytest.approx(difference, abs=1e-6)


def test_reconstructions_fade_over_the_training():
  """recon_weight is the whole one before half of the steps, and 0 after 3/4 of them."""
  found = {}
  for fade in ((), (0.5, 0.75)):
    config = runs.resolve(small('dist_gaan_usual', num_seeds=1, steps=40, trainer={
        'name': 'gaan', 'encoder': {'name': 'mlp', 'width': 4, 'depth': 1},
        'fade': fade}))
    inputs = step.load(config)
    trainer = step.build(config, inputs.shape, None)
    batch = data.gather(inputs.pool, inputs.stream.index(0))
    state = jax.jit(trainer.init)(jax.random.key(0))
    update = jax.jit(trainer.step)
    for at in (19, 31):
      _, metrics = update(state.replace(step=jnp.full_like(state.step, at)), {}, batch)
      found[fade, at] = trainer.figures(metrics)['loss_disc']
  assert found[(), 19] == found[(0.5, 0.75), 19]
  assert found[(), 31] != found[(0.5, 0.75), 31]


def test_classes_and_encoder_that_do_not_fit():
  for config, message in (
      (small('swiss_gan', loss={'name': 'am_gan'}), r'am_gan.*\b2\b.*\b1\b'),
      (small('g25_gaan_gp_5', loss={'name': 'hinge'}), "'gaan'.*'hinge'"),
      (small('g25_gaan_gp_5', noise={'name': 'grid'}), "'gaan'.*noise.*'unif.*'grid'"),
      (small('g8_mmd', loss={'name': 'mmd', 'bounds': (4, 0.25)}), 'bounds.*low.*high'),
      (small('g8_gan', trainer={'name': 'gan', 'labels': 'predefined'}),
       'predefined.*class logits'),
      (small('g8_wgan_gp_5', penalties=[]), 'wgan.*gradient'),
      (small('g8_gan', trainer={'name': 'gen'}), "trainer 'gen'.*egan")):
    with pytest.raises(ValueError, match=message):
      step.build(config, (2,), None)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Runs of two experiments, one of them conditional."""
  path = tmp_path_factory.mktemp('rows')
  for variant in ('g8_acgan', 'swiss_gan'):
    train.train(small(variant), str(path / variant))
  other = shutil.copytree(path / 'swiss_gan', path / 'swiss_hinge')
  for file in ('config.json', 'eval.json'):
    content = json.loads((other / file).read_text())
    (other / file).write_text(json.dumps(content | {'variant': 'hinge'}))
  return path


@pytest.mark.slow
def test_conditional_samples_are_of_all_classes_and_so_is_every_fifth(folder):
  run = runs.restore(str(folder / 'g8_acgan'))
  z = np.zeros((400, 2), np.float32)  # only the class tells samples apart
  samples = np.asarray(jax.jit(run.trainer.heads['samples'])(
      run.state, {'z': z}))[0].round(4)
  _, counts = np.unique(samples, axis=0, return_counts=True)
  np.testing.assert_array_equal(counts, [50] * 8)
  assert len(np.unique(samples[::5], axis=0)) == 8
  assert len(np.unique(samples[::8], axis=0)) == 8


@pytest.mark.slow
def test_one_report_on_several_experiments(folder):
  workdirs = [str(folder / name) for name in (
      'g8_acgan', 'swiss_gan', 'swiss_hinge')]
  text = report.tables(workdirs)
  found = json.loads((folder / 'g8_acgan' / 'eval.json').read_text())
  assert found['num_modes'] == 8 and len(found['evals']['samples']['modes']) == 2
  table = text[text.index('Modes covered'):]
  lines = [[cell.strip() for cell in line.split('|')] for line in table.splitlines()
           if line.startswith('|')]
  by_name = {line[1]: line for line in lines}
  assert by_name['variant'][2:10] == [
      'swiss_roll: modes of 20', 'found', 'good samples', 'distance',
      'gaussians8: modes of 8', 'found', 'good samples', 'distance']
  assert by_name['acgan'][2:6] == ['-'] * 4 and by_name['gan'][6] == '-'
  distance = np.mean(found['evals']['samples']['distance_end'])
  assert by_name['acgan'][9].startswith(f'{distance:.3f} ± ')
  assert 'swiss_roll, gan: ' in text and 'hinge against gan' in text
  page = report.write(workdirs, str(folder))
  figures = folder / 'figures'
  assert 'Modes covered' in open(page).read()
  assert Image.open(figures / 'last_samples.png').width > 500
  assert {path.name for path in figures.iterdir()} == {
      'last_samples.png', 'points_gaussians8.png', 'points_swiss_roll.png',
      'animation_gaussians8.gif', 'animation_swiss_roll.gif'}


@pytest.mark.slow
def test_modes_and_good_samples_are_tested(folder, tmp_path):
  names = ('swiss_gan', 'swiss_hinge')
  for name, modes in zip(names, ([5.0, 3, 8, 1, 5, 4, 2, 7, 6, 9], [20.0] * 10),
                         strict=True):
    shutil.copytree(folder / name, tmp_path / name)
    path = tmp_path / name / 'eval.json'
    content = json.loads(path.read_text()) | {'seeds': list(range(10))}
    merit = content['evals']['samples']
    merit |= {key: [0.5] * 10 for key in merit} | {'modes': modes}
    path.write_text(json.dumps(content))
  text = report.tables([str(tmp_path / name) for name in names])
  rows = {cells[1]: cells[-2] for cells in (
      [cell.strip() for cell in line.split('|')] for line in text.splitlines()
      if line.startswith('| '))}
  # All 10 pairs differ in one direction: p = 2 / 2^10, times 11 rows by Holm.
  assert rows['modes covered'] == f'higher (p {11 * 2 / 2**10:.1g})'
  for name in ('modes found', 'share of good samples'):
    assert rows[name] == 'not shown (p 1)'


def test_figures_of_a_discriminator_that_rates_no_single_points():
  rng = np.random.default_rng(0)
  grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 5)] * 2), -1).reshape(-1, 2)
  run = {'variant': 'mmd', 'seed': 0, 'threshold': 0.1,
         'curve': {'step': [0, 1], 'distance': rng.random((2, 2)).tolist()},
         'arrays': {'steps': np.arange(2), 'samples': rng.normal(size=(2, 2, 9, 2)),
                    'boundary': np.full((2, 2, 25), np.nan), 'grid': grid,
                    'data': rng.normal(size=(9, 2)),
                    'negative': rng.normal(size=(9, 2))}}
  figure = plots.overview({'mmd': run})
  figure.canvas.draw()
  distance, change = figure.subfigs[-1].axes
  assert (distance.get_yscale(), change.get_yscale()) == ('log', 'linear')


@pytest.mark.slow
def test_many_runs_of_an_experiment_share_one_table(
    folder, tmp_path, monkeypatch):
  from nat_jax.tasks.points import report as points_report

  monkeypatch.setattr(points_report, 'FEW', 1)
  text = report.tables([
      str(folder / name) for name in ('swiss_gan', 'swiss_hinge')])
  assert 'Modes covered' in text and '| distance at the end ' not in text
  for name in ('swiss_gan', 'swiss_hinge'):  # without modes it has no other table
    shutil.copytree(folder / name, tmp_path / name)
    path = tmp_path / name / 'eval.json'
    content = json.loads(path.read_text()) | {'num_modes': 0}
    for key in measures.COVERAGE:
      del content['evals']['samples'][key]
    path.write_text(json.dumps(content))
  text = report.tables([str(tmp_path / name) for name in ('swiss_gan', 'swiss_hinge')])
  assert 'Modes covered' not in text and '| distance at the end ' in text
  assert 'modes covered' not in text
  assert TASKS['points'].title == 'GANs of points'


def test_the_script_trains_every_row():
  script = str(toy.ROOT / 'launch' / 'gan_objectives.sh')
  ran = subprocess.run(
      ['bash', script, 'runs/x', '--config.steps=9'], capture_output=True, text=True,
      check=True, env=os.environ | {'DRY_RUN': '1'})
  words = ran.stdout.split()
  sources = [word for word in words if 'points2d' in word]
  assert words == [
      'python', '-m', 'nat_jax.main', '--mode=sweep', '--workdir', 'runs/x', *sources,
      '--config.steps=9']
  assert sorted(sources) == sorted(
      f'configs/gan/points2d.py:{name}' for points in ('g8', 'g25', 'swiss')
      for name in rows(points))
