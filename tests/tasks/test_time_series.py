"""Detectors of anomalies in time series: the update, scores, from config to report."""

import csv
import functools
import json
import pathlib
import re
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from sklearn import decomposition
from sklearn import metrics as sk

from nat_jax import data, models, runs, train
from nat_jax.commands import evaluate as evaluation_mode
from nat_jax.commands import report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.runtime import optim, writers
from nat_jax.schema import presets
from nat_jax.task import GLOBAL
from nat_jax.tasks import time_series
from nat_jax.tasks.time_series import anomalies, evaluate, inputs, score, step
from nat_jax.tasks.time_series import figures as plots
from nat_jax.tasks.time_series import report as report_lib

L, C, LATENT, N = 6, 3, 2, 14


def make_config(**changes):
  changes['data'] = dict(
      series={'name': 'sines', 'num': 300}, window=8, batch_size=16,
      negative_share=0.5, test={
          'name': 'sines', 'num': 200, 'segments': 3, 'start': 300},
  ) | changes.get('data', {})
  return presets.experiment(**dict(
      task='time_series', name='toy', variant='nat', steps=6, latent=2, width=4,
      measures=dict(stride=4, inversion_steps=5, pca_components=3),
      run=dict(log_every=3, checkpoint_every=3, eval_every=3, updates_per_call=3,
               tensorboard=False)) | changes)


def make_trainer(gen_updates=1, negative_weight=None, **settings):
  rate = optim.make_schedule({'name': 'constant', 'learning_rate': 0.1}, 9)
  tx = optim.make_optimizer({'name': 'sgd', 'momentum': 0.0}, rate)
  return step.mad_gan(**dict(
      generator=models.LSTM(4, C, bounded=True), discriminator=models.LSTM(5, 1),
      gen_tx=tx, disc_tx=tx, latent=LATENT, shape=(L, C), gen_updates=gen_updates,
      negative_weight=negative_weight, negative_kinds=('swapped', 'stuck'),
      inversion_steps=60, inversion_rate=0.1) | settings)


def make_items(num, rng):
  """`num` batches of windows, of which the last slots are empty."""
  def batch(slots, filled):
    weight = np.zeros((num, slots), np.float32)
    weight[:, :filled] = 1
    return {'image': rng.normal(size=(num, slots, L, C)).astype(np.float32),
            'label': np.zeros((num, slots), np.int32), 'weight': weight}

  return {'real': batch(16, N), 'negative': batch(8, 5)}


# Negatives.


@functools.partial(jax.jit, static_argnums=0)
def jitted(kinds, key, windows):
  return anomalies.corrupt(kinds, GLOBAL.keys(key, len(windows)), windows)


def corrupt(kinds, key, windows):
  return np.asarray(jitted(kinds, key, windows))


def changed_columns(window, other):
  return np.flatnonzero((window != other).any(0))


def test_windows_are_made_anomalous():
  windows = np.random.default_rng(0).normal(size=(60, L, C)).astype(np.float32)
  made = {name: corrupt((name,), jax.random.key(0), windows)
          for name in anomalies.ANOMALIES}
  columns, begins, pairs = set(), set(), set()
  for x, stuck, swapped in zip(
      np.asarray(windows), made['stuck'], made['swapped'], strict=True):
    column, = changed_columns(x, stuck)
    first = int(np.argmax((x != stuck)[:, column])) - 1
    np.testing.assert_array_equal(stuck[first:, column], x[first, column])
    columns.add(int(column))
    begins.add(first)
    one, other = changed_columns(x, swapped)
    np.testing.assert_array_equal(swapped[:, [one, other]], x[:, [other, one]])
    pairs.add((int(one), int(other)))
  assert columns == {0, 1, 2} and begins == set(range(L // 2 + 1))
  assert pairs == {(0, 1), (0, 2), (1, 2)}
  # A ramp shows the times: they increase, and both ends stay.
  ramp = np.broadcast_to(np.linspace(0, 1, L, dtype=np.float32)[:, None], (60, L, C))
  times = corrupt(('warped',), jax.random.key(0), ramp)[:, :, 0]
  np.testing.assert_allclose(times[:, [0, -1]], [[0, 1]] * 60, atol=1e-6)
  assert (np.diff(times) > 0).all()
  exponent = np.log(times[:, 1:-1]) / np.log(np.linspace(0, 1, L)[1:-1])
  np.testing.assert_allclose(exponent, exponent[:, :1] * np.ones(L - 2), rtol=1e-3)
  size = np.exp(np.abs(np.log(exponent[:, 0])))
  assert size.min() > 1.49 and size.max() < 3.01
  assert 10 < (exponent[:, 0] > 1).sum() < 50


def test_negatives_depend_on_the_key_of_their_own_position():
  windows = np.random.default_rng(0).normal(size=(60, L, C)).astype(np.float32)
  kinds = tuple(anomalies.ANOMALIES)
  found = corrupt(kinds, jax.random.key(3), windows)
  other = corrupt(kinds, jax.random.key(3), np.where(
      np.arange(60)[:, None, None] < 4, np.float32(0), windows))
  np.testing.assert_array_equal(found[4:], other[4:])
  again = corrupt(kinds, jax.random.key(4), windows)
  assert (found != again).any((1, 2)).sum() >= 50
  num = np.array([len(changed_columns(x, y)) for x, y in zip(
      np.asarray(windows), found, strict=True)])  # 1: stuck, 2: swapped, 3: warped
  assert (np.bincount(num, minlength=4)[1:] > 10).all()


# The update.


@functools.cache
def compiled(gen_updates, weight):
  """(a trainer, its initial state, its compiled step)."""
  trainer = make_trainer(gen_updates, weight)
  return trainer, jax.jit(trainer.init)(jax.random.key(1)), jax.jit(trainer.step)


@pytest.mark.parametrize('weight, gen_updates', [
    (0.3, 2), pytest.param(None, 1, marks=pytest.mark.slow)])
def test_an_update_is_that_of_the_formulas(weight, gen_updates):
  trainer, before, update = compiled(gen_updates, weight)
  batch = jax.tree.map(lambda x: x[0], make_items(1, np.random.default_rng(0)))
  batch['negative']['image'][0] = 0.5  # neither kind changes it: no negative
  generator, discriminator = models.LSTM(4, C, bounded=True), models.LSTM(5, 1)
  real, windows = batch['real']['image'][:N], batch['negative']['image']

  def make(params, key):
    z = jax.vmap(lambda k: jax.random.normal(k, (L, LATENT)))(GLOBAL.keys(key, 16))
    return generator.apply({'params': params}, z)[:N]

  def probability(params, x):
    return jax.nn.sigmoid(discriminator.apply({'params': params}, x))

  def descend(loss, params):
    value, slope = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, slope), value

  @jax.jit
  def expected(state):
    disc, gen = (state.nets[name].params for name in ('disc', 'gen'))
    disc_key, negative_key, *gen_keys = jax.random.split(
        jax.random.fold_in(state.key, 0), 2 + gen_updates)
    fake = make(gen, disc_key)
    bad = anomalies.corrupt(
        ('swapped', 'stuck'), GLOBAL.keys(negative_key, 8), windows)[1:5]

    def loss_disc(params):
      of_real = -jnp.log(probability(params, real)).mean((1, 2))
      of_fake, of_bad = (
          -jnp.log(1 - probability(params, x)).mean((1, 2)) for x in (fake, bad))
      if weight is None:
        return of_real.mean() + jnp.concatenate([of_fake, of_bad]).mean()
      return of_real.mean() + of_fake.mean() + weight * of_bad.mean()

    of_bad = probability(disc, bad).mean()
    disc, value = descend(loss_disc, disc)
    for key in gen_keys:
      gen, _ = descend(lambda params, key=key: -jnp.log(
          probability(disc, make(params, key))).mean(), gen)
    return disc, gen, value, of_bad

  after, found = update(before, {}, batch)
  disc, gen, value, of_bad = expected(before)
  figures = trainer.figures(found)
  np.testing.assert_allclose(figures['loss_disc'], value, rtol=1e-5)
  np.testing.assert_allclose(figures['negative'], of_bad, rtol=1e-4)
  assert figures['images'] == N
  for name, params in (('disc', disc), ('gen', gen)):
    toy.assert_trees_close(after.nets[name].params, params, rtol=1e-3, atol=1e-6)


# Under jit XLA itself sees to it that devices agree.
@pytest.mark.slow
@pytest.mark.parametrize('mode', ['jit', 'pmap'])
def test_devices_do_not_matter(mode):
  items, found = make_items(2, np.random.default_rng(1)), []
  trainer, one, update = compiled(1, None)
  other, more, _ = toy.run_on_devices(trainer, 8, mode, items)
  for at in range(2):
    one, metrics = update(one, {}, jax.tree.map(lambda x, at=at: x[at], items))
    found.append(metrics)
  toy.assert_trees_close(one.nets, other.nets, rtol=1e-4, atol=1e-6)
  toy.assert_figures_close(
      trainer.figures(found[0].merge(found[1])), trainer.figures(more), rtol=1e-4)


# Scores.


@pytest.mark.slow
def test_the_inversion_finds_windows_that_the_generator_makes():
  trainer = make_trainer(inversion_steps=200)
  state = jax.jit(trainer.init)(jax.random.key(0))
  generator = models.LSTM(4, C, bounded=True)
  gen = {'params': state.nets['gen'].params}
  z = np.random.default_rng(0).normal(size=(5, L, LATENT)).astype(np.float32)
  made = np.asarray(jax.jit(generator.apply)(gen, z))
  start = np.asarray(jax.jit(generator.apply)(gen, np.zeros_like(z)))
  others = np.random.default_rng(1).uniform(-1, 1, made.shape).astype(np.float32)
  head = jax.jit(trainer.heads['scores'])
  found = np.asarray(head(state, np.concatenate([made, others])))
  assert found.shape == (10, L, 2)
  assert (found[:5, :, 0].mean(1) < 0.1 * np.abs(made - start).mean((1, 2))).all()
  assert found[5:, :, 0].mean() > 10 * found[:5, :, 0].mean()
  # Other windows of a batch do not matter.
  alone = np.asarray(head(state, np.concatenate([made, 0 * others])))
  np.testing.assert_allclose(found[:5], alone[:5], atol=1e-4)
  logits = np.asarray(jax.jit(models.LSTM(5, 1).apply)(
      {'params': state.nets['disc'].params}, others))
  np.testing.assert_allclose(
      found[5:, :, 1], 1 / (1 + np.exp(logits[..., 0])), atol=1e-5)


@pytest.mark.parametrize('num, stride', [(20, 3), (20, 6), (7, 1), (6, 6)])
def test_scores_of_a_time_step_are_averages_over_its_windows(num, stride, monkeypatch):
  monkeypatch.setattr(score, 'CHUNK', 3)
  values = np.random.default_rng(0).normal(size=(num, 2))

  def of_windows(windows):  # differs between the windows of a time step
    return windows * np.arange(1, L + 1)[:, None] + windows[:, :1]

  found = score.average_windows(of_windows, values, L, stride)
  begins = sorted({*range(0, num - L + 1, stride), num - L})
  for t in range(num):
    mine = [values[t] * (t - b + 1) + values[b] for b in begins if b <= t < b + L]
    np.testing.assert_allclose(found[t], np.mean(mine, 0))


def test_the_rule_is_of_normal_data_alone():
  config = make_config(measures=dict(disc_weight=0.25, false_alarm_rate=0.1)).to_dict()
  parts = np.random.default_rng(0).normal(size=(1001, 2)) * [3, 0.1] + [5, 0.5]
  rule = score.fit_rule(parts, config)
  standard = (parts - parts.mean(0)) / parts.std(0)
  expected = 0.75 * standard[:, 0] + 0.25 * standard[:, 1]
  np.testing.assert_allclose(score.dr_score(parts, rule, 0.25), expected)
  assert (expected > rule['threshold']).sum() == 100
  constant = score.fit_rule(parts * [1, 0], config)  # D is 1 everywhere
  assert constant['std'][1] == 1 and np.isfinite(constant['threshold'])


def test_metrics_are_those_of_scikit_learn():
  config = make_config(data=dict(window=8)).to_dict()
  config['measures']['false_alarm_rate'] = 0.05
  rng = np.random.default_rng(0)
  label = np.zeros(300, np.int32)
  label[100:120], label[200:215] = 1, 2
  series = data.Series(
      rng.normal(size=(300, 2)), ('a', 'b'), label, ('ok', 'x', 'y'), None, None)
  normal, found = rng.normal(size=500), rng.normal(size=300) + 2 * (label > 0)
  figures = evaluate.measure([normal, found], series, config)
  flagged = found > np.quantile(normal, 0.95)
  bad = label > 0
  assert figures['auroc'] == pytest.approx(sk.roc_auc_score(bad, found))
  for name, of in (('f1', sk.f1_score), ('precision', sk.precision_score),
                   ('recall', sk.recall_score)):
    assert figures[name] == pytest.approx(of(bad, flagged)), name
  assert figures['false_alarms'] == pytest.approx(flagged[~bad].mean())
  far = np.array([not bad[max(t - 8, 0):t + 9].any() for t in range(300)])
  assert figures['false_alarms_apart'] == pytest.approx(flagged[far].mean())
  for kind, name in ((1, 'x'), (2, 'y')):
    chosen = (label == kind) | ~bad
    assert figures['kind_auroc'][name] == pytest.approx(
        sk.roc_auc_score(bad[chosen], found[chosen]))
  unknown = evaluate.measure([normal, found], series._replace(label=None), config)
  assert unknown == {'threshold': figures['threshold'], 'n': 300,
                     'flagged': pytest.approx(flagged.mean())}
  assert evaluate.measure([normal], None, config) == {
      'threshold': figures['threshold']}


def test_the_baseline_is_the_residual_of_a_pca():
  config = make_config(measures=dict(stride=8, pca_components=3)).to_dict()
  config['data']['stride'] = 2
  rng = np.random.default_rng(0)
  train_, test = rng.normal(size=(60, 2)), rng.normal(size=(16, 2))
  found = score.fit_pca(train_, config)(test)
  windows = np.stack([train_[k:k + 8].ravel() for k in range(0, 53, 2)])
  pca = decomposition.PCA(3, random_state=0).fit(windows)
  flat = test.reshape(2, 16)
  expected = np.abs(flat - pca.inverse_transform(pca.transform(flat)))
  np.testing.assert_allclose(found, expected.reshape(16, 2).mean(1))


# From a config to a report.


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('series') / 'whole'
  return workdir, train.train(make_config(), str(workdir))


@pytest.mark.slow
def test_trained_resumed_evaluated_and_reported(whole, tmp_path):
  whole, evaluation = whole
  toy.assert_resumes(whole, tmp_path / 'cut', make_config(), 6)
  evaluate_run(str(whole))
  assert json.loads((whole / 'eval.json').read_text()) == evaluation
  during = toy.evaluations(whole)
  assert during[6] == evaluation['evals']
  assert set(during[3]) == {'dr', 'residual', 'one_minus_d'}
  assert during[3]['dr'] != during[6]['dr']
  text = ' '.join(report.tables([str(whole)]).split())
  for name in ('dr', 'residual', 'one_minus_d', 'untrained_dr', 'pca'):
    assert f'{evaluation["evals"][name]["auroc"]:.3f}' in text
  for words in ('without point adjustment', 'PCA of windows', 'flip | frequency',
                'of these names, negatives in training have stuck'):
    assert words in text
  report.write([str(whole)], str(tmp_path / 'report'))
  page = (tmp_path / 'report' / 'report.md').read_text()
  assert 'figures/series.png' in page and '- Data: sines' in page


@pytest.mark.slow
def test_saved_scores_make_the_figures(whole):
  workdir, evaluation = whole
  arrays = toy.arrays(workdir / 'scores' / 'test.npz')
  rule, bad = evaluation['rule'], arrays['label'] > 0
  parts = np.stack([arrays['residual'], arrays['one_minus_d']], 1)
  np.testing.assert_allclose(score.dr_score(parts, rule, 0.5), arrays['dr'])
  assert evaluation['evals']['dr']['threshold'] == rule['threshold']
  for name, one in evaluation['evals'].items():
    assert one['auroc'] == pytest.approx(sk.roc_auc_score(bad, arrays[name])), name
    assert one['f1'] == pytest.approx(sk.f1_score(bad, arrays[name] > one['threshold']))
  assert evaluation['evals']['dr'] != evaluation['evals']['untrained_dr']


@pytest.mark.slow
def test_a_figure_says_that_it_shows_a_part(whole, monkeypatch):
  workdir, evaluation = whole
  run = {'workdir': str(workdir), 'step': 6, 'seed': 0, 'evals': evaluation['evals']}
  for most, part in ((200, ''), (50, ', the first 50 time steps')):
    monkeypatch.setattr(plots, 'MOST_STEPS', most)
    (name, caption, note, figure), = time_series.TASK.figures({'toy': [run]})
    assert (name, caption, note) == (
        'series', f'Test series and scores: toy, seed 0{part}', '')
    assert len(figure.axes[1].lines[0].get_xdata()) == most


def test_a_figure_says_that_it_shows_some_of_the_sensors(monkeypatch):
  monkeypatch.setattr(report_lib.results, 'read_arrays', lambda *args: {
      'values': np.zeros((9, 15))})
  monkeypatch.setattr(plots, 'series', lambda *args: 'drawn')
  run = {'workdir': 'w', 'step': 6, 'seed': 0}
  (_, caption, _, _), = time_series.TASK.figures({'toy': [run]})
  assert caption == 'Test series and scores: toy, seed 0, the first 12 sensors'


def test_a_verdict_says_what_false_alarms_are_shares_of():
  config = {'measures': {'false_alarm_rate': 0.05}, 'data': {'negative_share': 0}}
  run = {'config': config, 'evals': {'dr': {
      'auroc': 0.9, 'f1': 0.5, 'false_alarms': 0.059, 'false_alarms_apart': 0.011}}}
  (_, sentences), = time_series.TASK.verdict({'toy': [run]})
  assert ('false alarms are 5.9 % of all normal time steps, and 1.1 % of the normal '
          'time steps that are more than a window away from every anomaly.'
          ) in sentences[0]


def test_files_in_the_home_folder(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  config = toy.config_file('time_series.py')('nat:~/a.csv,~/b.csv')
  assert [config.data[key].path for key in ('series', 'test')] == [
      '/home/me/a.csv', '/home/me/b.csv']


def test_the_scale_is_of_the_training_part():
  config = runs.resolve(make_config(data=dict(validation=0.8)))
  series = data.load_series({'name': 'sines', 'num': 300}, data.Reading())
  part = series.values[:60]
  assert (series.values.max(0) > part.max(0)).any()
  np.testing.assert_allclose(config['data']['low'], part.min(0))
  np.testing.assert_allclose(config['data']['high'], part.max(0))
  assert config['data']['columns'] == ['s0', 's1', 's2', 's3']
  assert config['data']['time_step'] == 1
  scaled = inputs.load_parts(config)
  assert scaled.train.min() == pytest.approx(-1) and len(scaled.train) == 60
  assert scaled.train.max() == pytest.approx(1) and len(scaled.validation) == 240
  assert scaled.validation.max() > 1
  constant = inputs.scale(np.array([[3.0, 5.0]]), {'low': [3, 4], 'high': [3, 8]})
  np.testing.assert_allclose(constant, [[0, -0.5]])


@pytest.mark.slow
def test_labels_of_the_test_series_play_no_part(whole, tmp_path):
  """Equal scores and thresholds, and a report that says that they are not known."""
  workdir, evaluation = whole
  run, copy = runs.restore(str(workdir)), tmp_path / 'copy'
  shutil.copytree(workdir, copy)
  write_csv(tmp_path / 'test.csv', run.config['data']['test'])
  config = {**run.config, 'data': {
      **run.config['data'], 'test': {'name': 'csv', 'path': f'{tmp_path}/test.csv'}}}
  evaluator = time_series.TASK.evaluator(
      config, str(copy), None, run.trainer, run.mesh, None)
  other = evaluator.save(
      run.state, run.step, *evaluator.run(run.state, ['dr'], True))
  assert other['rule'] == evaluation['rule']
  for name, figures in other['evals'].items():
    assert set(figures) == {'threshold', 'n', 'flagged'}
    assert figures['threshold'] == evaluation['evals'][name]['threshold']
  np.testing.assert_allclose(*(toy.arrays(path / 'scores' / 'test.npz')['dr']
                               for path in (workdir, copy)), rtol=1e-4, atol=1e-4)
  assert 'not known' in report.tables([str(copy)])


def config_of(workdir):
  return json.loads((workdir / 'config.json').read_text())


def write_csv(path, spec, **columns):
  """A generated series as a CSV file, with further columns; returns the series."""
  series = data.load_series(spec, data.Reading())
  columns = {'time': series.time, **dict(zip(series.columns, series.values.T,
                                             strict=True)), **columns}
  with path.open('w', newline='') as file:
    out = csv.writer(file)
    out.writerow(columns)
    out.writerows(zip(*columns.values(), strict=True))
  return series


# Prediction.


@pytest.mark.slow
def test_a_file_is_predicted(whole, tmp_path, monkeypatch, capsys):
  """The scores of the test series, from a file with its sensors in another order."""
  workdir, evaluation = whole
  spec = config_of(workdir)['data']['test']
  series = data.load_series(spec, data.Reading())
  path, out = tmp_path / 'today.csv', tmp_path / 'found.csv'
  write_csv(path, spec, note=['x'] * 200, s0=series.values[:, 0])
  lines = path.read_text().splitlines()
  path.write_text('\n'.join(','.join(line.split(',')[::-1]) for line in lines))
  toy.run_main(monkeypatch, '--mode=predict', f'--workdir={workdir}', str(path),
               f'--out={out}')
  rows = list(csv.DictReader(out.open()))
  arrays = toy.arrays(workdir / 'scores' / 'test.npz')
  assert [row['time'] for row in rows] == [str(300 + k) for k in range(200)]
  for name, key in (('score', 'dr'), ('residual', 'residual'),
                    ('one_minus_d', 'one_minus_d')):
    np.testing.assert_allclose(
        [float(row[name]) for row in rows], arrays[key], rtol=1e-3, atol=1e-3)
  threshold = evaluation['rule']['threshold']
  flags = np.array([int(row['flag']) for row in rows])
  np.testing.assert_array_equal(
      flags, [float(row['score']) > threshold for row in rows])
  assert re.search(rf'{flags.sum()} of 200 time steps', capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize('change, flags, named', [
    (lambda text: text.replace('s2', 'pump'), (), 'missing: s2.*s0, s1, pump, s3'),
    (lambda text: text[:text.index('\n305,')], (), '5 time steps, fewer than the 8'),
    (lambda text: text.replace('\n310,', '\n310.5,'), (), 'line 13.*too short|line 13'),
    (lambda text: re.sub(r'\n(\d+),', lambda row: f'\n{2 * int(row[1])},', text), (),
     "1 time steps are missing.*'600' and '602'; a time step is 1"),
    (lambda text: re.sub(r'\n31[0-2],.*', '', text), (),
     "line 12: 3 time steps are missing between '309' and '313'.*data.fill=3"),
    (lambda text: text, ('--threshold=0.5',), 'has no --threshold'),
    (lambda text: text, ('--out=x.parquet',), 'file .csv'),
    (lambda text: text, ('other.csv',), 'one CSV file.*got 2'),
])
def test_files_that_cannot_be_predicted(
    whole, change, flags, named, tmp_path, monkeypatch):
  workdir, _ = whole
  path, before = tmp_path / 'today.csv', sorted(workdir.iterdir())
  write_csv(path, config_of(workdir)['data']['test'])
  path.write_text(change(path.read_text()))
  with pytest.raises(SystemExit, match=f'(?s){named}'):
    toy.run_main(
        monkeypatch, '--mode=predict', f'--workdir={workdir}', str(path), *flags)
  assert sorted(workdir.iterdir()) == before


@pytest.mark.slow
def test_the_progress_line_leaves_room_for_the_time_left(whole):
  record = {name: 0.5 for name in ('loss_disc', 'loss_gen', 'real', 'fake')}
  line = runs.restore(str(whole[0])).trainer.line(record)
  assert len(f'step 100000/100000  {line}  ETA 10:00:00') <= writers.WIDTH


@pytest.mark.slow
def test_prediction_needs_the_threshold_of_its_step(whole):
  workdir, _ = whole
  run = runs.restore(str(workdir), 3)
  with pytest.raises(ValueError, match=r'eval.json of step 3.*--mode=evaluate.*--step'):
    time_series.TASK.predict(run, str(workdir), ['x.csv'], None)


# Configs.


def test_variants_of_the_config():
  get_config = toy.config_file('time_series.py')
  assert get_config().variant == 'nat' and get_config().compare_with == 'madgan'
  own = get_config('nat:a.csv,b.csv')
  assert own.data.series.path == str(pathlib.Path('a.csv').absolute())
  assert own.data.test.path == str(pathlib.Path('b.csv').absolute())
  assert own.compare_with == 'madgan:a.csv,b.csv' and own.name == 'a'
  assert get_config('madgan:a.csv').data.test.to_dict() == {}
  with pytest.raises(ValueError, match=r'a.csv,b.csv,c.csv'):
    get_config('nat:a.csv,b.csv,c.csv')
  for variant in ('madgan', 'nat', 'nat_swapped', 'official'):
    config = runs.resolve(get_config(variant))
    trainer = runs.build_trainer(config, (30, 4))
    assert np.isfinite(trainer.learning_rate(config['steps'] - 1))


def fake(**changes):
  return dict(data=changes)


SINES = {'name': 'sines', 'num': 300}


@pytest.mark.parametrize('changes, named', [
    (fake(window=226), 'training part.*225 time steps.*data.window=226'),
    (fake(window=80), 'validation part.*75 time steps.*data.window=80'),
    (fake(series=SINES | {'segments': 3}), "must be normal.*'flip'"),
    (fake(test=SINES | {'num': 7}), 'data.test has 7 time steps.*the 8 of a window'),
    (fake(test=SINES), 'data.test must have normal time steps and anomalies'),
    (fake(negative_kinds=('stuk',)), "unknown data.negative_kinds 'stuk'.*'stuck'"),
    (fake(negative_kinds=()), 'must name a kind or more'),
    (fake(columns=('a',), low=(0.0,), high=(1.0,)), 'data.low.*each of the 4 sensors'),
    (fake(low=(0.0,) * 3), 'data.low must hold one number for each of the 4'),
    (fake(low=(9.0,) * 4), 'data.low must not exceed data.high.*sensor 0'),
    (fake(series={'name': 'csv', 'path': 'nothing.csv'}), 'nothing.csv'),
    (dict(measures=dict(stride=9)), 'measures.stride must be at most data.window=8'),
    (dict(measures=dict(stride=4, pca_components=32)), 'pca_components must be below 32'
     ),
    (dict(data=dict(stride=200), measures=dict(stride=4, pca_components=3)),
     'pca_components must be at most 2, as .* to 2 training windows'),
    (dict(measures=dict(disc_weight=1.5)), 'disc_weight'),
    (dict(gen_updates=0), 'gen_updates')])
def test_mistakes(changes, named, tmp_path):
  with pytest.raises((ValueError, OSError), match=named):
    train.train(make_config(**changes), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_a_config_of_evaluations_has_a_test_series_of_its_own():
  """Columns and scale are those of the run."""
  config = runs.resolve(make_config())
  other = make_config(data=dict(
      series={'name': 'sines', 'num': 400}, test={'name': 'sines', 'num': 90}))
  found = evaluation_mode._measured_as(types.SimpleNamespace(config=config), other)
  assert found['data'].pop('test') == {'name': 'sines', 'num': 90}
  assert found['data'] == {key: value for key, value in config['data'].items()
                           if key != 'test'}


def test_large_values_that_vary_little_are_kept_and_constants_refused(tmp_path):
  """Of 1e9 + sin(k / 5) float32 would make a constant."""
  path, expected = tmp_path / 'x.csv', np.sin(np.arange(300) / 5)

  def scaled(values):
    rows = (f'{k},{value:.3f},7' for k, value in enumerate(values))
    path.write_text('\n'.join(['time,a,b', *rows]))
    return inputs.load_parts(runs.resolve(make_config(data=dict(
        series={'name': 'csv', 'path': str(path)}, test={})))).train

  np.testing.assert_allclose(scaled(1e9 + expected)[:, 0], expected[:225], atol=2e-3)
  with pytest.raises(ValueError, match='only constant ones in its 225.*a, b.*columns'):
    scaled(np.full(300, 1e9))


def test_one_sensor_cannot_be_swapped():
  config = make_config().to_dict()
  with pytest.raises(ValueError, match="'swapped' exchanges two sensors"):
    time_series.TASK.build(config, (8, 1), None)


def test_batches_are_windows_of_the_training_part():
  config = runs.resolve(make_config(data=dict(stride=2)))
  loaded = inputs.load(config, 8)
  windows = inputs.load_parts(config).train
  assert len(loaded.pool.image) == (225 - 8) // 2 + 1 and loaded.shape == (8, 4)
  batch = data.gather(loaded.pool, loaded.stream.index(3))
  index = loaded.stream.index(3)
  assert {name: len(rows) for name, rows in index.items()} == {
      'real': 16, 'negative': 8}
  for name, rows in index.items():
    for row, image in zip(rows, batch[name]['image'], strict=True):
      np.testing.assert_array_equal(image, windows[2 * row:2 * row + 8])
  assert (index['real'][:8] != index['negative']).any()
  no = inputs.load(runs.resolve(make_config(data=dict(negative_share=0.0))), 1)
  assert set(no.stream.index(0)) == {'real'}


@pytest.mark.slow
def test_the_smallest_honest_experiment(tmp_path, as_users_compile):
  """Seed 0 of configs/time_series.py:madgan: what the parts of the score add."""
  config = toy.config_file('time_series.py')('madgan')
  found = train.train(config, str(tmp_path / 'run'))['evals']
  auroc = {name: one['auroc'] for name, one in found.items()}
  assert auroc['dr'] > auroc['one_minus_d']
  assert auroc['dr'] > auroc['residual'] - 0.01
  assert auroc['dr'] > auroc['untrained_dr'] + 0.15
