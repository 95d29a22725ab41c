"""The value of training examples, against differences and true leave-one-out."""

import csv
import functools
import json
import pathlib

import jax
import numpy as np
import pytest
import toy
from scipy import special, stats

from nat_jax import data, influence, metrics, runs, train
from nat_jax.commands import influence as command
from nat_jax.influence import adjoint, gans, samples, targets
from nat_jax.schema import presets
from nat_jax.tasks import TASKS
from nat_jax.tasks.classify import inputs as inputs_lib
from nat_jax.tasks.points import measures

STEPS, POSITIVES, NEGATIVES = 30, 24, 12
NAMES = ('validation', 'others')
OF = {'loss': 'loss:validation', 'ncr': 'ncr@0.6:others',
      'accuracy': 'accuracy:validation'}
SGD = {'name': 'sgd', 'momentum': 0.9}


def make_config(**changes):
  """A NAT classifier of 24 positives and 12 negatives."""
  source = toy.fake(classes=(0, 1, 2), num=32)
  return presets.experiment(**toy.change(dict(
      steps=STEPS, num_classes=3, model={'name': 'mlp', 'width': 8, 'depth': 1},
      loss={'name': 'outlier_exposure'}, optimizer=SGD, ema_decay=0.5,
      schedule={'name': 'cosine', 'learning_rate': 0.03},
      data=dict(positives=source,
                negatives={'three': {'source': toy.fake(classes=(3,), num=48)}},
                batch_size=8, negatives_per_batch=(2, 4)),
      evals={'test': {'source': source | {'seed': 1}, 'positive': True},
             'validation': {'source': source | {'seed': 2}, 'positive': True,
                            'part': 'validation'},
             'others': {'source': toy.fake(5, classes=(3,), num=160),
                        'part': 'validation'}},
      run=dict(tensorboard=False, checkpoint_every=5, keep=20)), **changes))


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = str(tmp_path_factory.mktemp('influence') / 'run')
  train.train(make_config(), path)
  return path


@pytest.fixture(scope='module')
def found(workdir):
  return {name: influence.influence(workdir, of) for name, of in OF.items()}


@pytest.fixture(scope='module')
def retrain(workdir):
  """Weights of the examples [m, n] -> each metric after a training with them, [m]."""
  run = runs.restore(workdir, None, 'classify')
  inputs = TASKS['classify'].load(run.config)
  rows = np.stack([inputs.stream.index(step) for step in range(STEPS)])
  batches = data.gather(inputs.pool, rows)
  start = train.initial_state(run.config, run.trainer, run.mesh)

  def training(weights):
    weight = batches['weight'] * weights[rows]
    state, _ = jax.lax.scan(
        lambda state, batch: (run.trainer.step(state, {}, batch)[0], None), start,
        {**batches, 'weight': weight})
    return {name: run.trainer.heads['logits'](state, shown.arrays.image)
            for name, shown in sets.items()}

  sets = inputs_lib.load_evals(run.config, {}, ['validation'])
  trained = jax.jit(jax.vmap(training))

  goals = {name: targets.parse(of, run.config) for name, of in OF.items()}

  @jax.jit
  def means(logits):
    return {name: jax.vmap(lambda one, goal=goal: goal.terms(
        one, sets[goal.set].arrays.label).mean())(logits[goal.set])
            for name, goal in goals.items()}

  def values(weights):
    return jax.device_get(means(trained(np.asarray(weights, np.float32))))

  return values


def test_it_is_the_derivative_by_the_weights(found, retrain):
  """Against central differences; the sets are in the pool one after the other."""
  num = len(found['loss'].value)
  assert list(found['loss'].sets) == ['positives', 'three']
  assert [len(part.rows) for part in found['loss'].sets.values()] == [
      POSITIVES, NEGATIVES] and num == POSITIVES + NEGATIVES
  step = 2e-3 * np.eye(num)
  up, down = retrain(1 + step), retrain(1 - step)
  for name, one in found.items():
    sign = 1 if one.target.higher else -1
    slopes = sign * (up[name] - down[name]) / 4e-3
    near = np.isclose(one.value, slopes, rtol=0.02, atol=0.01 * np.abs(slopes).max())
    # A gradient jumps where a ReLU bends: there a difference says nothing.
    assert near.mean() >= 0.7, (name, one.value, slopes)
    assert one.difference == 0  # the bits of the training


def test_it_ranks_examples_as_true_leave_one_out(found, retrain):
  """Without its loss; numbers that means divide by stay: the weight is not quite 0."""
  num = len(found['loss'].value)
  left_out = retrain(np.where(np.eye(num), 1e-9, 1.0))
  whole = retrain(np.ones((1, num)))
  for name, one in found.items():
    worse = (1 if one.target.higher else -1) * (whole[name] - left_out[name])
    tau = stats.kendalltau(one.value, worse).statistic
    assert tau > 0.8, (name, tau)


def test_memory_is_a_budget(workdir, found):
  """The same derivative from the fewest states, and a refusal below them."""
  most, least = adjoint.plan(STEPS, 1, STEPS), adjoint.plan(STEPS, 1, 10)
  assert most == (STEPS, 1) and least == (2, 5)
  for num in (1, 2, 3, 30, 1000):
    for budget in (20, 64, 2000):
      width, levels = adjoint.plan(num, 1, budget)
      assert width**levels >= num and width * levels <= budget
  state = runs.restore(workdir).state
  num_bytes = sum(x.nbytes for x in jax.tree.leaves(state))
  again = influence.influence(workdir, OF['loss'], memory=10.5 * num_bytes / 1e9)
  np.testing.assert_allclose(again.value, found['loss'].value, rtol=1e-6, atol=1e-9)
  with pytest.raises(ValueError, match=r'30 updates needs at least 10.*--memory='):
    influence.influence(workdir, OF['loss'], memory=9.5 * num_bytes / 1e9)


def test_targets_become_the_metrics_as_the_width_goes_to_0(found):
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 2, (200, 4)).astype(np.float32)
  labels = rng.integers(0, 4, 200)
  scores = metrics.scores_from_logits(logits, 4)
  soft = np.mean(jax.jit(functools.partial(
      targets.soft_ncr, threshold=0.6, num_classes=4, width=1e-5))(logits, labels))
  assert soft == pytest.approx(
      metrics.negative_confidence_rate(scores['max_prob'], [0.6])['0.6'], abs=1e-4)
  soft = np.mean(jax.jit(functools.partial(
      targets.soft_accuracy, width=1e-5))(logits, labels))
  assert soft == pytest.approx(np.mean(scores['prediction'] == labels), abs=1e-4)
  config = make_config().to_dict()
  soft = np.mean(jax.jit(targets.parse('loss:test', config).terms)(logits, labels))
  hard = metrics.negative_log_likelihood(logits, labels)
  assert soft == pytest.approx(hard, rel=1e-5)
  assert found['loss'].soft == pytest.approx(found['loss'].hard, rel=1e-5)
  # A wide sigmoid is near the rate: each term is within 1/2 of the step.
  assert abs(found['accuracy'].soft - found['accuracy'].hard) < 0.5


@pytest.fixture(scope='module')
def mislabelled(tmp_path_factory):
  """A run whose file of vectors has a few wrong labels: (workdir, their rows)."""
  folder = tmp_path_factory.mktemp('mislabelled')
  rng = np.random.default_rng(0)
  label = np.arange(64) % 3
  vector = rng.normal(size=(64, 6)).astype(np.float32)
  vector[np.arange(64), label] += 4
  wrong = np.array([5, 20, 41])
  np.savez(folder / 'train.npz', vector=vector, label=np.where(
      np.isin(np.arange(64), wrong), (label + 1) % 3, label))
  held_out = rng.normal(size=(60, 6)).astype(np.float32)
  held_out[np.arange(60), np.arange(60) % 3] += 4
  np.savez(folder / 'test.npz', vector=held_out, label=np.arange(60) % 3)
  config = make_config(
      data__positives={'name': 'arrays', 'path': str(folder / 'train.npz')},
      data__mean=(), data__std=(),
      data__negatives={'noise': {'source': {'name': 'normal_noise', 'num': 20}}},
      data__batch_size=16,
      evals={'test': {'source': {'name': 'arrays', 'path': str(folder / 'test.npz')},
                      'positive': True}})
  train.train(config, str(folder / 'run'))
  loaded = data.load(config.data.positives.to_dict()).image  # in another order
  rows, = np.nonzero((loaded[:, None] == vector[wrong]).all(-1).any(-1))
  assert len(rows) == 3
  return str(folder / 'run'), rows


@pytest.mark.slow
@pytest.mark.parametrize('method', influence.METHODS)
def test_mislabelled_positives_are_the_most_harmful(mislabelled, method):
  workdir, wrong = mislabelled
  found = influence.influence(workdir, 'loss:test', method)
  value = found.value[found.sets['positives'].here]
  assert set(np.argsort(value)[:3]) == set(wrong) and (value[wrong] < 0).all()
  assert np.median(value) > 0


@pytest.mark.slow
def test_tracin_is_the_derivative_of_the_output_layer(tmp_path):
  """Where there is no other layer, no momentum, and one update per checkpoint, up to
  terms of second order."""
  weights = (4.0, 1.0, 0.25)
  for name, changes in (('run', {}), ('weighted', {'data__class_weights': weights})):
    config = make_config(
        model={'name': 'mlp', 'depth': 0}, steps=3, ema_decay=0.0,
        optimizer={'name': 'sgd', 'momentum': 0.0, 'nesterov': False},
        schedule={'name': 'constant', 'learning_rate': 1e-4}, run__checkpoint_every=1,
        **changes)
    train.train(config, str(tmp_path / name))
  label = TASKS['classify'].load(runs.resolve(config)).pool.label
  factor = np.where(label < 0, 1, np.array([*weights, 1])[label])
  for of in (OF['loss'], OF['accuracy']):
    exact, cheap = (influence.influence(str(tmp_path / 'run'), of, method)
                    for method in influence.METHODS)
    np.testing.assert_allclose(
        cheap.value, exact.value, rtol=0.05, atol=0.01 * np.abs(exact.value).max())
    assert cheap.soft == pytest.approx(exact.soft, rel=1e-5)
    assert cheap.hard == pytest.approx(exact.hard, abs=1e-6)
    assert cheap.checkpoints == [1, 2, 3]
    for one in (exact, cheap):  # what is left out is what the weight multiplies
      found = influence.influence(str(tmp_path / 'weighted'), of, one.method)
      np.testing.assert_allclose(found.value, factor * one.value, rtol=0.05,
                                 atol=0.01 * np.abs(found.value).max())


def test_the_command_writes_files_that_a_config_takes(workdir, monkeypatch, capsys):
  toy.run_main(monkeypatch, '--mode=influence', '--workdir', workdir, '--of', OF['ncr'],
               '--top=5')
  folder = pathlib.Path(workdir, 'influence', 'exact-ncr@0.6-others')
  content = json.loads((folder / 'influence.json').read_text())
  assert (content['of'], content['top'], content['step']) == (OF['ncr'], 5, STEPS)
  with open(folder / 'influence.csv') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == POSITIVES + NEGATIVES
  value = np.array([float(row['value']) for row in rows])
  assert (np.diff(value) <= 0).all() and value[0] > 0 > value[-1]
  assert {row['verdict'] for row in rows if float(row['value']) < 0} == {'harmful'}
  negatives = [row for row in rows if row['set'] == 'three']
  assert sorted(int(row['index']) for row in negatives) == list(range(NEGATIVES))
  drop = json.loads((folder / 'drop_three.json').read_text())['three']
  keep = json.loads((folder / 'keep_three.json').read_text())['three']
  assert drop['size'] == NEGATIVES
  assert drop['rows'] == sorted(
      int(row['index']) for row in negatives[-5:] if row['verdict'] == 'harmful')
  assert keep['rows'] == sorted(
      int(row['index']) for row in negatives[:5] if row['verdict'] == 'helpful')
  printed = capsys.readouterr().out
  assert 'has the bits of the checkpoint' in printed and 'Above 0: helpful' in printed
  assert (folder / 'influence.png').stat().st_size > 1000


def test_dropped_and_kept_rows_change_the_pool(tmp_path):
  def write(name, **sets):
    path = tmp_path / name
    path.write_text(json.dumps(sets))
    return str(path)

  def load(**changes):
    config = runs.resolve(make_config(**changes))
    return config, TASKS['classify'].load(config)

  _, whole = load()
  drop = write('drop.json', three={'size': NEGATIVES, 'rows': [0, 5]})
  keep = write('keep.json', positives={'size': POSITIVES, 'rows': [3, 1, 7]})
  config, some = load(data__drop=drop, data__keep=keep)
  expected = [1, 3, 7, *np.setdiff1d(np.arange(NEGATIVES), [0, 5]) + POSITIVES]
  np.testing.assert_array_equal(some.pool.image, whole.pool.image[expected])
  np.testing.assert_array_equal(some.pool.label, whole.pool.label[expected])
  parts = influence._parts(config, some)
  assert parts['positives'].rows.tolist() == [1, 3, 7]
  assert parts['three'].size == NEGATIVES and 5 not in parts['three'].rows
  both = write('both.json', three={'size': NEGATIVES, 'rows': list(range(NEGATIVES))})
  write('drop.json', three={'size': NEGATIVES, 'rows': [1]})
  for changes, message in (
      ({'data__drop': config['data']['drop']}, 'drop.json has changed'),
      ({'data__drop': both}, "leave no example of the set 'three'"),
      ({'data__drop': write('size.json', three={'size': 9, 'rows': [1]})},
       "for 9 examples of 'three'.*12"),
      ({'data__keep': write('name.json', tree={'size': 9, 'rows': [1]})},
       "unknown set 'tree'.*three"),
      ({'data__drop': write('rows.json', three={'size': 2, 'rows': [2]})},
       r"rows.json: expected .*'three'")):
    with pytest.raises(ValueError, match=message):
      load(**changes)
  with pytest.raises(ValueError, match='no file of rows .*missing.json'):
    load(data__drop=str(tmp_path / 'missing.json'))


BATCH_NORM = {'name': 'small_conv', 'widths': (4,)}
DEAD = {  # two examples do not reach all of 64 units
    'model__width': 64, 'data__batch_size': 1, 'data__negatives_per_batch': 1}


@pytest.mark.parametrize('changes, arguments, message', [
    ({'model': BATCH_NORM}, [], r"'small_conv' has BatchNorm.*not separable.*tracin"),
    ({'optimizer': {'name': 'adam'}, **DEAD}, [],
     "'adam' has no derivative.*eps_root"),
    ({}, ['--of=ncr@0.8'], r'--of must be ncr@T:SET.*accuracy:SET'),
    ({}, ['--of=loss:x'], "evaluation set 'x'.*validation"),
    ({}, ['--of=loss:others'], 'others.* holds negatives.*none of the classes.*test'),
    ({}, ['--of=ncr@0.8:test'], "'test' holds positives.*others"),
    ({}, ['--of=ncr@0.3:others'], r'above 1/3'),
    ({}, ['--memory=0'], '--memory must be'),
    ({}, ['--top=0'], '--top must be 1'),
    ({}, ['--step=7'], 'no checkpoint of step 7'),
])
def test_mistakes(changes, arguments, message, workdir, tmp_path, monkeypatch):
  path = workdir
  if changes:
    path = str(tmp_path / 'run')
    train.train(make_config(steps=2, **changes), path)

  def written():
    return {str(f): f.stat().st_mtime_ns for f in pathlib.Path(path).rglob('*')}

  before = written()
  with pytest.raises(SystemExit, match=message):
    toy.run_main(monkeypatch, '--mode=influence', '--workdir', path, *arguments)
  assert written() == before


@pytest.mark.slow
def test_tracin_takes_networks_with_batch_norm(tmp_path, monkeypatch, capsys):
  path = str(tmp_path / 'run')
  train.train(make_config(steps=6, model=BATCH_NORM), path)
  toy.run_main(monkeypatch, '--mode=influence', '--workdir', path, '--method=tracin')
  assert 'it ignores what BatchNorm' in ' '.join(capsys.readouterr().out.split())
  with open(f'{path}/influence/tracin-ncr@0.8-others/influence.csv') as file:
    value = np.array([float(row['value']) for row in csv.DictReader(file)])
  assert np.isfinite(value).all() and np.abs(value).max() > 0


def test_there_is_no_training_to_repeat(tmp_path, monkeypatch):
  with pytest.raises(SystemExit, match='no checkpoints.*train first'):
    toy.run_main(monkeypatch, '--mode=influence', '--workdir', str(tmp_path / 'none'))


def test_adam_with_eps_root_has_a_derivative(tmp_path):
  path = str(tmp_path / 'run')
  adam = {'name': 'adam', 'eps_root': 1e-8}
  train.train(make_config(steps=2, optimizer=adam, **DEAD), path)
  found = influence.influence(path, OF['loss'])
  assert np.isfinite(found.value).all() and np.abs(found.value).max() > 0


def test_log_likelihood_is_that_of_a_kernel_density():
  from sklearn import neighbors

  rng = np.random.default_rng(0)
  samples, points = rng.normal(size=(2, 30, 2)).astype(np.float32)
  density = neighbors.KernelDensity(bandwidth=0.4).fit(samples)
  np.testing.assert_allclose(
      jax.jit(functools.partial(targets.log_likelihood, bandwidth=0.4))(
          samples, points),
      density.score_samples(points), rtol=1e-4)


def test_metrics_of_samples_are_those_of_the_package():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(200, 4)).astype(np.float32) * 2
  features, real = rng.normal(size=(2, 200, 6)).astype(np.float32)
  real = metrics.gaussian_stats(real * 0.5 + 1)
  score = jax.jit(samples.inception_score)({'logits': logits})
  assert float(score) == pytest.approx(
      metrics.inception_score(special.softmax(logits, axis=1))[0], rel=1e-5)
  distance = jax.jit(lambda x: samples.frechet({'features': x}, real))(features)
  assert float(distance) == pytest.approx(metrics.fid(features, real), rel=1e-3)


@pytest.fixture(scope='module')
def gan(tmp_path_factory):
  """A GAN of images with external negatives, and the classifier of its metrics.

  With labels='dynamic' the metric would jump where a label does.
  """
  folder = tmp_path_factory.mktemp('gan')
  train.train(make_config(steps=20), str(folder / 'classifier'))
  train.train(presets.experiment(
      task='gan', num_classes=3, steps=6,
      trainer={'name': 'gan', 'labels': 'predefined'}, optimizer={'name': 'sgd'},
      schedule={'name': 'constant', 'learning_rate': 0.1},
      generator={'name': 'mlp_generator', 'latent': 3, 'widths': (8,)},
      discriminator={'name': 'mlp_discriminator', 'widths': (8,)},
      data=dict(positives=toy.fake(classes=(0, 1, 2), num=32),
                negatives={'three': {'source': toy.fake(classes=(3,), num=48)}},
                batch_size=8, negatives_per_batch=4),
      measures=dict(num_samples=20, batch_size=10, neighbours=2, features={
          'name': 'checkpoint', 'workdir': str(folder / 'classifier')}),
      run=dict(tensorboard=False)), str(folder / 'run'))
  return str(folder / 'run')


@pytest.mark.slow
@pytest.mark.parametrize('of', samples.METRICS)
def test_images_of_a_gan_against_differences(gan, of):
  """The metric after trainings whose examples have slightly other weights."""
  found = influence.influence(gan, of)
  assert found.difference == 0 and np.isfinite(found.value).all()
  assert found.soft == pytest.approx(found.hard, rel=0.05)
  assert {name: len(one.rows) for name, one in found.sets.items()} == {
      'positives': 24, 'three': 12}
  run = runs.restore(gan)
  inputs = TASKS['gan'].load(run.config)
  start = train.initial_state(run.config, run.trainer, run.mesh)
  step = jax.jit(run.trainer.step)
  measure = samples.make_measure(run, found.target, runs.OTHERS)

  def after(weights):
    state = start
    for i in range(6):
      index = inputs.stream.index(i)
      batch = data.gather(inputs.pool, index)
      state, _ = step(state, {}, {name: {
          **one, 'weight': one['weight'] * np.where(
              index[name] >= 0, weights[index[name]], 0).astype('f4')}
          for name, one in batch.items()})
    return measure(state)[0]

  towards = np.random.default_rng(1).choice([-1.0, 1.0], len(found.value))
  far = 1e-4  # between the jumps of the gradients of leaky ReLUs
  slope = (after(1 + far * towards) - after(1 - far * towards)) / (2 * far)
  sign = 1 if found.target.higher else -1
  assert sign * (found.value @ towards) == pytest.approx(slope, rel=0.03)
  assert abs(slope) > 1e-2


def test_mistakes_of_gans_of_images(gan, tmp_path, monkeypatch):
  def refused(message, path, *arguments):
    with pytest.raises(SystemExit, match=message):
      toy.run_main(monkeypatch, '--mode=influence', '--workdir', path, *arguments)

  refused("metric 'ncr@0.8:three'.*inception_score, fid", gan, '--of=ncr@0.8:three')
  refused('--method=tracin is for classifiers', gan, '--method=tracin')
  run = runs.restore(gan)
  config = {**run.config, 'measures': {
      **run.config['measures'], 'features': {'name': 'pixels'}}}
  with pytest.raises(ValueError, match="'checkpoint'.*'pixels'"):
    samples.check(config)
  net = run.state.nets['disc']
  coupled = net.replace(params={'BatchStatsNorm_0': net.params})
  for changes, message in (
      ({'trainer': {'name': 'gaan'}}, "'gaan'.*constants.*'gan'"),
      ({'loss': {'name': 'cat_gan'}}, "loss='cat_gan' compares.*not separable"),
      ({'discriminator': {'kernels': 3}}, 'kernels=3 compares.*kernels 0')):
    with pytest.raises(ValueError, match=message):
      gans.check_losses({**run.config, **changes})
  spectral = net.replace(batch_stats={'Dense_0': {'u': np.ones(3)}})
  with pytest.raises(ValueError, match='discriminator has spectral norm'):
    gans.check_networks(run._replace(state=run.state.replace(
        nets={**run.state.nets, 'disc': spectral})))
  run = run._replace(state=run.state.replace(
      nets={**run.state.nets, 'disc': coupled}))
  with pytest.raises(ValueError, match='discriminator.*BatchNorm.*not separable'):
    gans.check(run)


@pytest.mark.slow
def test_points_of_a_gan_against_true_leave_one_out(tmp_path, monkeypatch):
  """The mean over two seeds; alternating updates of two networks with momentum."""
  path, num, steps = str(tmp_path / 'run'), 50, 80
  train.train(presets.experiment(
      task='points', variant='nat', num_seeds=2, num_samples=60, steps=steps,
      data={'name': 'gaussian1d', 'num': num, 'negatives': [[8.0, 0.5]]},
      batch_size=25, negatives_per_batch=10,
      optimizer={'name': 'sgd', 'momentum': 0.5},
      generator={'name': 'toy_generator', 'latent': 1, 'widths': (8,)},
      discriminator={'name': 'toy_discriminator', 'widths': (16,)},
      schedule={'name': 'constant', 'learning_rate': 0.02},
      run=dict(tensorboard=False, eval_every=steps)), path)
  found = influence.influence(path)
  assert found.difference == 0 and found.value.shape == (2 * num,)
  assert {name: len(one.rows) for name, one in found.sets.items()} == {
      'positives': num, 'negatives': num}
  run = runs.restore(path)
  inputs = TASKS['points'].load(run.config)
  start = train.initial_state(run.config, run.trainer, run.mesh)
  index = [inputs.stream.index(step) for step in range(steps)]
  index = jax.tree.map(lambda *rows: np.stack(rows), *index)
  batches = data.gather(inputs.pool, index)
  held_out = measures.hold_out(run.config['data'], 60).points.astype('f4')
  z = np.random.default_rng(0).standard_normal((60, 1)).astype('f4')

  def training(weights):
    given = {name: {**one, 'weight': one['weight'] * weights[index[name]]}
             for name, one in batches.items()}
    state, _ = jax.lax.scan(
        lambda state, batch: (run.trainer.step(state, {}, batch)[0], None), start,
        given)
    return jax.numpy.stack([
        targets.log_likelihood(one, held_out, bandwidth=1.0).mean()
        for one in run.trainer.heads['samples'](state, {'z': z})]).mean()

  values = jax.jit(jax.vmap(training))(np.concatenate(
      [np.ones((1, 2 * num)), np.where(np.eye(2 * num), 1e-9, 1)]).astype('f4'))
  assert found.soft == pytest.approx(float(values[0]), rel=1e-4)
  assert stats.kendalltau(found.value, values[0] - values[1:]).statistic > 0.8
  printed = command.text(found, command.write(path, found), path)
  assert 'likelihood@1 (higher is better)' in printed and 'drop' not in printed
  folder = pathlib.Path(path, 'influence', 'exact-likelihood@1')
  assert sorted(f.name for f in folder.iterdir()) == ['influence.csv', 'influence.json']
  for argument, message in (('--method=tracin', 'for classifiers.*GANs of points'),
                            ('--of=ncr@0.8:test', 'must be likelihood@BANDWIDTH')):
    with pytest.raises(SystemExit, match=message):
      toy.run_main(monkeypatch, '--mode=influence', '--workdir', path, argument)
