"""Detectors of outliers: the update, scikit-learn's conventions, from config to report.
"""

import csv
import functools
import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from sklearn import ensemble, neighbors

from nat_jax import data, metrics, models, runs, train
from nat_jax.commands import report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.runtime import optim
from nat_jax.schema import presets
from nat_jax.task import GLOBAL
from nat_jax.tasks import generated, outliers
from nat_jax.tasks.outliers import detector as detector_lib
from nat_jax.tasks.outliers import evaluate, step

ROOT = pathlib.Path(__file__).parents[2]
D, N = 3, 14
EXAMPLES = {'name': 'breast_cancer', 'outliers': 10}


def make_config(**changes):
  return presets.experiment(**dict(
      task='outliers', name='toy', variant='mo', steps=6, num_generators=3,
      freeze_after=4, data=dict(examples=EXAMPLES, batch_size=100),
      run=dict(log_every=3, checkpoint_every=3, updates_per_call=3,
               tensorboard=False)) | changes)


def make_trainer(num_generators=3, freeze_after=9):
  rate = optim.make_schedule({'name': 'constant', 'learning_rate': 0.1}, 9)
  return step.gaal(
      generator=models.IdentityGenerator(latent=D, image_shape=(D,)),
      discriminator=models.ToyDiscriminator(
          image_shape=(D,), num_outputs=1, widths=(5,)),
      gen_tx=optim.make_optimizer({'name': 'sgd', 'momentum': 0.0}, rate),
      disc_tx=optim.make_optimizer({'name': 'sgd', 'momentum': 0.0}, rate),
      num_generators=num_generators, freeze_after=freeze_after)


def make_items(num, slots, rng):
  """`num` batches of examples, of which the last slots are empty."""
  weight = np.zeros((num, slots), np.float32)
  weight[:, :N] = 1
  return {name: {
      'image': rng.random((num, slots, D), np.float32),
      'label': np.zeros((num, slots), np.int32), 'weight': weight}
          for name in ('real', 'all')}


def test_shares_and_owners():
  np.testing.assert_allclose(step.shares(3), [3 / 6, 2 / 6, 1 / 6])
  assert np.bincount(step.owners(3, 12, GLOBAL)).tolist() == [6, 4, 2]
  assert np.bincount(step.owners(10, 367, GLOBAL)).sum() == 367
  assert step.owners(1, 5, GLOBAL).tolist() == [0] * 5


def test_quantiles_leave_empty_slots_out():
  values = np.random.default_rng(0).random(11).astype(np.float32)
  weight = np.ones(11, np.float32)
  weight[[2, 7]] = 0
  quantiles = jax.jit(step.quantiles, static_argnums=(2, 3))
  found = quantiles(values, weight, 4, GLOBAL)
  np.testing.assert_allclose(
      found, np.quantile(values[weight > 0], [0, 0.25, 0.5, 0.75]), rtol=1e-6)
  one = quantiles(np.ones(3, np.float32), np.array([0, 1, 0], np.float32), 2, GLOBAL)
  np.testing.assert_array_equal(one, [1, 1])


def test_generators_begin_with_the_noise_itself():
  trainer = make_trainer()
  state = jax.jit(trainer.init)(jax.random.key(0))
  samples = jax.jit(trainer.heads['samples'])
  z = np.random.default_rng(0).random((7, D), np.float32)
  owner = np.arange(7, dtype=np.int32) % 3
  np.testing.assert_array_equal(samples(state, {'z': z, 'owner': owner}), z)
  gen = jax.device_get(state.nets['gen'])
  changed = jax.tree.map(  # generator i adds i to its output
      lambda x: x + np.arange(3, dtype=np.float32).reshape(3, *[1] * (x.ndim - 1))
      * (x.ndim == 2), gen.params)
  state = state.replace(nets=state.nets | {'gen': gen.replace(params={
      'Dense_0': gen.params['Dense_0'], 'Dense_1': changed['Dense_1']})})
  np.testing.assert_allclose(
      samples(state, {'z': z, 'owner': owner}), z + owner[:, None], rtol=1e-6)


@pytest.mark.parametrize('num_generators', [1, 3])
def test_an_update_is_that_of_the_formulas(num_generators):
  """D on data against noise; G_i towards the i/k quantile of the updated D, or 1."""
  trainer = make_trainer(num_generators)
  batch = jax.tree.map(lambda x: x[0], make_items(1, 16, np.random.default_rng(0)))
  before = jax.jit(trainer.init)(jax.random.key(0))
  after, found = jax.device_get(jax.jit(trainer.step)(before, {}, batch))
  disc, gen = (before.nets[name].params for name in ('disc', 'gen'))
  keys = jax.random.split(jax.random.fold_in(before.key, 0), 2)
  real, weight = batch['real']['image'], batch['real']['weight']
  net = models.ToyDiscriminator(image_shape=(D,), num_outputs=1, widths=(5,))

  def score(params, x):
    return net.apply({'params': params}, x)[0][:, 0]

  def loss_disc(params):
    fake = step.noise(keys[0], 16, (D,), GLOBAL)  # generators are still the identity
    p, q = (jax.nn.sigmoid(score(params, x)) for x in (real, fake))
    return -(weight * (jnp.log(p) + jnp.log(1 - q))).sum() / (2 * N)

  value, slope = jax.jit(jax.value_and_grad(loss_disc))(disc)
  np.testing.assert_allclose(trainer.figures(found)['loss_disc'], value, rtol=1e-5)
  toy.assert_descended(
      disc, after.nets['disc'].params, slope, 0.1, rtol=1e-4, atol=1e-6)
  disc = after.nets['disc'].params
  p = jax.jit(lambda x: jax.nn.sigmoid(score(disc, x)))(batch['all']['image'][:N])
  target = np.quantile(p, np.arange(3) / 3) if num_generators == 3 else np.ones(1)
  z = step.noise(keys[1], 16, (num_generators, D), GLOBAL)

  def loss_gen(params):
    total = 0.0
    for i in range(num_generators):
      x = z[:, i]
      for layer in ('Dense_0', 'Dense_1'):
        one = params[layer]
        x = jax.nn.relu(x @ one['kernel'][i] + one['bias'][i][None])
      q = jax.nn.sigmoid(score(disc, x))
      total -= (weight * (target[i] * jnp.log(q) + (1 - target[i]) * jnp.log(1 - q))
                ).sum() / N
    return total

  value, slope = jax.jit(jax.value_and_grad(loss_gen))(gen)
  np.testing.assert_allclose(
      trainer.figures(found)['loss_gen'], value / num_generators, rtol=1e-5)
  toy.assert_descended(
      gen, after.nets['gen'].params, slope, 0.1, rtol=1e-4, atol=1e-6)
  assert trainer.figures(found)['images'] == N


@pytest.fixture(scope='module')
def on_one():
  items = make_items(2, 16, np.random.default_rng(1))
  return items, toy.run_on_devices(make_trainer(freeze_after=1), 1, 'jit', items)


def test_frozen_generators_stay(on_one):
  """After the first of two updates; D goes on."""
  items, (state, _, _) = on_one
  first = jax.tree.map(lambda x: x[:1], items)
  once, _, before = toy.run_on_devices(
      make_trainer(freeze_after=1), 1, 'jit', first)
  for a, b, c in zip(*(jax.tree.leaves(nets['gen'].params) for nets in (
      before, once.nets, state.nets)), strict=True):
    assert (a != b).any()
    np.testing.assert_array_equal(b, c)
  assert any((a != b).any() for a, b in zip(*(jax.tree.leaves(
      one.nets['disc'].params) for one in (once, state)), strict=True))


@pytest.mark.parametrize('mode', ['jit', 'pmap'])
def test_devices_do_not_matter(on_one, mode):
  items, (one, figures, _) = on_one
  other, more, _ = toy.run_on_devices(make_trainer(freeze_after=1), 8, mode, items)
  toy.assert_trees_close(one.nets, other.nets, rtol=1e-4, atol=1e-6)
  read = make_trainer().figures
  toy.assert_figures_close(read(figures), read(more), rtol=1e-4)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('outliers') / 'whole'
  return workdir, train.train(make_config(), str(workdir))


def test_trained_resumed_evaluated_and_reported(whole, tmp_path):
  whole, evaluation = whole
  toy.assert_resumes(
      whole, tmp_path / 'cut', make_config(), 6, ('eval.json', 'outliers.csv'))
  evaluate_run(str(whole))
  assert json.loads((whole / 'eval.json').read_text()) == evaluation
  text = report.tables([str(whole)])
  for words in ('LOF', 'isolation forest', 'k nearest neighbours', '10 are outliers'):
    assert words in text
  assert f'{evaluation["evals"]["gaal"]["auroc"]:.3f}' in text
  assert report.write([str(whole)], str(tmp_path / 'report'))


def test_figures_are_those_of_the_scores_and_of_scikit_learn(whole):
  workdir, evaluation = whole
  arrays = data.load(EXAMPLES)
  low, high = arrays.image.min(0), arrays.image.max(0)
  x, bad = (arrays.image - low) / (high - low), arrays.label == 1
  config = json.loads((workdir / 'config.json').read_text())
  assert config['hidden'] == 20 and config['data']['low'] == low.tolist()
  score = toy.arrays(workdir / 'scores' / 'training.npz')['score']
  of_all = {
      'gaal': score,
      'lof': neighbors.LocalOutlierFactor(20).fit(x).negative_outlier_factor_,
      'knn': -neighbors.NearestNeighbors(n_neighbors=10).fit(x).kneighbors()[0][:, -1],
      'isolation_forest': ensemble.IsolationForest(random_state=0).fit(
          x.astype(np.float32)).score_samples(x.astype(np.float32))}
  assert set(evaluation['evals']) == set(of_all)
  for name, one in of_all.items():
    expected = metrics.detection_metrics(one[~bad], one[bad])['auroc']
    assert evaluation['evals'][name]['auroc'] == pytest.approx(expected, abs=1e-4), name
  # Published for this choice of the outliers.
  assert round(evaluation['evals']['lof']['auroc'], 3) == 0.968
  assert round(evaluation['evals']['knn']['auroc'], 3) == 0.945
  rows = list(csv.DictReader((workdir / 'outliers.csv').open()))
  assert [int(row['row']) for row in rows] == np.argsort(score, kind='stable').tolist()
  assert {row['label'] for row in rows} == {'benign', 'malignant'}


def test_labels_play_no_part(whole, tmp_path):
  """Outliers that are not known: the same scores, and no metrics of them."""
  config = make_config(data=dict(examples=EXAMPLES, batch_size=100, outliers=()))
  evaluation = train.train(config, str(tmp_path / 'run'))
  assert set(evaluation['evals']) == {'gaal'}
  assert set(evaluation['evals']['gaal']) == {'n', 'below_half'}
  one, other = (toy.arrays(path / 'scores' / 'training.npz')['score']
                for path in (whole[0], tmp_path / 'run'))
  np.testing.assert_array_equal(one, other)
  assert 'not known' in report.tables([str(tmp_path / 'run')])


def test_the_detector_makes_the_updates_of_a_run(whole):
  workdir, _ = whole
  arrays = data.load(EXAMPLES)
  detector = outliers.Detector(3, updates=6, freeze_after=4, batch_size=100)
  score = detector.fit(arrays.image).score_samples(arrays.image)
  np.testing.assert_allclose(
      score, toy.arrays(workdir / 'scores' / 'training.npz')['score'], atol=1e-5)


def test_updates_per_call_are_chosen_by_bytes(monkeypatch):
  """Batches of 5 + 6 rows; one update per call where one alone exceeds the limit."""
  x = np.random.default_rng(0).random((6, 4), np.float32)
  gather, calls = data.gather, []

  def recorded(pool, index):
    batches = gather(pool, index)
    calls.append(sum(batch['image'].nbytes for batch in batches.values()))
    return batches

  monkeypatch.setattr(data, 'gather', recorded)
  update, scores = (5 + 6) * 4 * 4, []
  for most, expected in (
      (3 * update - 1, [2 * update] * 2), (99 * update, [3 * update])):
    monkeypatch.setattr(detector_lib, 'MOST_BYTES', most)
    calls.clear()
    scores.append(outliers.Detector(
        2, updates=3, freeze_after=2, batch_size=5).fit(x).score_samples(x))
    assert calls == expected
  np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)
  monkeypatch.undo()
  wide = step.make_inputs(
      make_config(), np.broadcast_to(np.float32(0), (6000, 9000)), 1)
  assert detector_lib._per_call(wide, 600) == 1


def cluster(rng):
  """200 examples around a point, and 20 on a wide ring around them."""
  angle = 2 * np.pi * (np.arange(20) + rng.random(20)) / 20
  inside = 0.5 + 0.06 * rng.normal(size=(200, 2))
  far = 0.5 + 0.4 * np.stack([np.cos(angle), np.sin(angle)], 1)
  return inside * [100, 1], far * [100, 1]


@pytest.fixture(scope='module')
def fitted():
  """(detector, normal examples, outliers), in columns of different units."""
  inside, far = cluster(np.random.default_rng(0))
  detector = outliers.Detector(2, updates=1500, contamination=0.1)
  return detector.fit(np.concatenate([inside, far])), inside, far


def test_conventions_of_scikit_learn(fitted):
  detector, inside, far = fitted
  x = np.concatenate([inside, far])
  decision = detector.decision_function(x)
  np.testing.assert_allclose(
      decision, detector.score_samples(x) - detector.offset_, atol=1e-5)
  assert (decision < 0).mean() == pytest.approx(0.1, abs=0.006)
  np.testing.assert_array_equal(detector.predict(x), np.where(decision < 0, -1, 1))
  good, bad = detector.decision_function(inside), detector.decision_function(far)
  assert metrics.detection_metrics(good, bad)['auroc'] > 0.95
  # Unseen points.
  assert (detector.predict([[10, 0.9], [90, 0.1]]) == -1).all()
  assert detector.predict([[50, 0.5]]) == 1


def test_generated_outliers_are_in_the_units_of_the_data(fitted):
  detector, inside, _ = fitted
  found = detector.sample(300, seed=1)
  assert found.shape == (300, 2) and found.dtype == np.float32
  low, high = (detector.config_['data'][key] for key in ('low', 'high'))
  z = np.random.default_rng(1).random((300, 2), np.float32)
  np.testing.assert_allclose(  # at this learning rate they stay near the noise
      (found - low) / (np.array(high) - low), z, atol=0.5)
  np.testing.assert_array_equal(found, detector.sample(300, seed=1))
  assert (found != detector.sample(300, seed=2)).any()


def test_a_detector_is_a_source_of_negatives(whole):
  workdir, _ = whole
  like = data.Arrays(np.zeros((4, 30), np.float32), np.zeros(4, np.int32))
  mean, std = np.arange(30.0), np.arange(1.0, 31)
  found = generated.run(
      str(workdir), 50, seed=2, like=like, others=runs.OTHERS,
      settings={'mean': mean.tolist(), 'std': std.tolist()})
  run = runs.restore(str(workdir))
  rng = np.random.default_rng((2, 0))
  z, owner = rng.random((50, 30), np.float32), rng.choice(3, 50, p=step.shares(3))
  scaled = np.asarray(jax.jit(run.trainer.heads['samples'])(
      run.state, {'z': z, 'owner': owner.astype(np.int32)}))
  low, high = (np.array(run.config['data'][key]) for key in ('low', 'high'))
  np.testing.assert_allclose(
      found.image, (scaled * (high - low) + low - mean) / std, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('settings, named', [
    (dict(contamination=0.7), 'contamination.*0.7'),
    (dict(num_generators=0), 'num_generators.*0'),
    (dict(updates=0), 'updates must be.*0'), (dict(updates=np.bool_(1)), 'updates'),
    (dict(batch_size=0), '^batch_size must be.*0')])
def test_settings_of_the_detector(settings, named):
  with pytest.raises(ValueError, match=named):
    outliers.Detector(**settings)


def test_settings_may_be_numpy_scalars():
  settings = dict(
      num_generators=2, updates=5, freeze_after=1, hidden=3, batch_size=4, seed=6)
  plain = outliers.Detector(contamination=0.25, **settings)
  found = outliers.Detector(
      contamination=np.float32(0.25), **{k: np.int64(v) for k, v in settings.items()})
  assert json.dumps(vars(found)) == json.dumps(vars(plain))  # no NumPy scalar is left


def test_arrays_of_the_detector(fitted):
  detector, inside, _ = fitted
  with pytest.raises(ValueError, match='call fit'):
    outliers.Detector().predict(inside)
  with pytest.raises(ValueError, match='2 columns, as in fit, got 3'):
    detector.predict(np.zeros((4, 3)))
  for wrong, named in ((np.zeros(3), r'shape \[3\]'), ([['a']], 'numbers'),
                       ([[1.0, np.nan]], 'row 0, column 1'), (np.zeros((1, 2)), '2 rows'
                        )):
    with pytest.raises(ValueError, match=named):
      outliers.Detector().fit(wrong)


fake = functools.partial(dict, make_config().data.to_dict())


@pytest.mark.parametrize('changes, named', [
    (dict(data=fake(examples={'name': 'digits'})), r'digits.*pictures.*\[8, 8, 1\]'),
    (dict(data=fake(outliers=(5,))),
     r'data.outliers=\[5\].*\[0, 1\].*benign, malignant.*chooses none of them'),
    (dict(data=fake(outliers=(0, 1))),
     r'data.outliers=\[0, 1\].*not all.*chooses benign, malignant'),
    (dict(data=fake(outliers=('malign',))), "'malign' .*malignant"),
    (dict(data=fake(low=(0.0,), high=(1.0,)), hidden=3),
     'data.low.*each of the 30 columns.*got 1'),
    (dict(data=fake(low=(0.0,) * 30, high=(1.0,) * 2), hidden=3), 'data.high.*got 2'),
    (dict(data=fake(low=(0.0,) * 3)), 'data.low.*each of the 30 columns.*got 3'),
    (dict(data=fake(high=(1.0,))), 'data.high.*each of the 30 columns.*got 1'),
    (dict(data=fake(low=(0.0, 2.0, *[0.0] * 28), high=(1.0,) * 30)),
     'data.low must not exceed data.high.*2.0 and 1.0 in column 1'),
    (dict(neighbours=367), 'neighbours must be below 367.*set neighbours lower'),
    (dict(lof_neighbours=367), 'must be below 367.*set lof_neighbours lower'),
    (dict(num_generators=0), 'num_generators'),
    (dict(data=fake(examples={'name': 'breast_cancer', 'outliers': 213})), 'outliers')])
def test_mistakes(changes, named, tmp_path):
  with pytest.raises(ValueError, match=named):
    train.train(make_config(**changes), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('label, chosen, found', [
    ([1, 2, 3], (3,), [2]), ([1, 2, 3], ('1',), [0]), ([1, 2, 3], (3, '2'), [1, 2]),
    ([1, 2, 3], (0,), [0]), ([0, 1, 2], (1,), [1]), (['a', 'b', 'c'], (1,), [1]),
    (['a', 'b', 'c'], ('c',), [2]),
    ([1, 2, 3], (1,), r"1 may mean .* label 1.*number 1 .*label is 2.*'1' or '2'"),
    ([1, 2, 3], ('0',), "class in data.outliers, '0'")])
def test_outliers_are_named_by_the_labels_of_the_file(label, chosen, found, tmp_path):
  np.savez(tmp_path / 'x.npz', vector=np.random.default_rng(0).normal(size=(30, 2)),
           label=np.array(label * 10))
  arrays = data.load({'name': 'arrays', 'path': f'{tmp_path}/x.npz', 'rows': 'all'})
  settings = runs.resolve(make_config(data=fake(outliers=chosen)))['data']
  if isinstance(found, str):
    with pytest.raises(ValueError, match=found):
      evaluate.outliers_of(arrays, settings)
  else:
    np.testing.assert_array_equal(
        evaluate.outliers_of(arrays, settings), np.isin(arrays.label, found))


def test_a_file_in_the_home_folder(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  config = toy.config_file('outliers.py')('mo:~/x.npz')
  assert config.data.examples.path == '/home/me/x.npz'


def test_rows_of_a_file_of_ones_own(tmp_path):
  """configs/outliers.py:mo:FILE, with a constant column: rows are those of the file."""
  rng = np.random.default_rng(0)
  x = np.concatenate([rng.normal(size=(20, 2)), np.ones((20, 1))], 1)
  x[17, :2] = 40
  names = np.array(['a', 'b', ''])[rng.integers(3, size=20)]
  np.savez(tmp_path / 'own.npz', vector=x, label=names)
  config = toy.config_file('outliers.py')(f'mo:{tmp_path}/own.npz')
  config.steps = 12
  assert config.lof_neighbours == 20  # as many as rows, for baselines that do not run
  train.train(config, str(tmp_path / 'run'))
  rows = list(csv.DictReader((tmp_path / 'run' / 'outliers.csv').open()))
  assert sorted(int(row['row']) for row in rows) == list(range(20))
  assert all(row['label'] == (names[int(row['row'])] or 'unlabelled') for row in rows)
  run = runs.restore(str(tmp_path / 'run'))
  assert run.config['name'] == 'own' and not run.config['data']['outliers']
  score = np.asarray(jax.jit(run.trainer.heads['score'])(
      run.state, step.scale(x.astype(np.float32), run.config['data'])))
  written = [float(row['score']) for row in rows]
  assert written == sorted(written)
  np.testing.assert_allclose(
      written, score[[int(row['row']) for row in rows]], rtol=1e-4, atol=1e-5)


def test_the_bench_has_the_baselines_of_a_run(monkeypatch):
  """The AUROC of docs/outliers.md, which are exact for detectors without a seed."""
  monkeypatch.syspath_prepend(str(ROOT / 'tests' / 'bench'))
  bench = importlib.import_module('outliers')
  arrays = data.load(EXAMPLES)
  x = step.scale(
      arrays.image, {'low': arrays.image.min(0), 'high': arrays.image.max(0)})
  of_all, bad = bench.detectors([]), arrays.label == 1
  page = (ROOT / 'docs' / 'outliers.md').read_text()
  for name in ('LOF, 20 neighbours', '10 nearest neighbours'):
    score = of_all[name](x, 0)
    found = metrics.detection_metrics(score[~bad], score[bad])['auroc']
    assert f'| {name} | {found:.3f} |'.replace('0.', '.') in page


@pytest.mark.slow
def test_on_the_breast_cancer_data():
  """Five seeds: several generators beat one, uniform noise and an isolation forest."""
  arrays = data.load(EXAMPLES)
  bad = arrays.label == 1

  def mean(fit):
    found = []
    for seed in range(5):
      score = fit(seed)
      found.append(metrics.detection_metrics(score[~bad], score[bad])['auroc'])
    return np.mean(found)

  def gaal(**settings):
    return mean(lambda seed: outliers.Detector(seed=seed, **settings).fit(
        arrays.image).decision_function(arrays.image))

  mo = gaal()
  assert mo >= gaal(num_generators=1) + 0.05
  assert mo > gaal(num_generators=1, freeze_after=0)
  assert mo >= mean(lambda seed: ensemble.IsolationForest(random_state=seed).fit(
      arrays.image).score_samples(arrays.image))
