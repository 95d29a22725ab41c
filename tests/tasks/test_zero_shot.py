"""Zero-shot classifiers: the update, what leaks, runs from their config to a report."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from scipy import io
from sklearn import linear_model

from nat_jax import data, metrics, models, runs, train
from nat_jax.commands import report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.runtime import optim
from nat_jax.schema import presets
from nat_jax.task import GLOBAL, Net
from nat_jax.tasks import zero_shot
from nat_jax.tasks.zero_shot import build, evaluate, step

D, A, LATENT, N = 5, 3, 2, 14
RATE, DECAY = 0.1, 0.2
SMALL = {'name': 'attributes', 'num_classes': 9, 'num_unseen': 3, 'num_held_out': 2,
         'num_attributes': 6, 'num_features': 12, 'per_class': 10}
WEIGHTS = dict(mismatch_weight=0.7, adversarial_weight=0.9, cycle_weight=0.3,
               regression_weight=0.2, dual_weight=0.4, kl_weight=0.5)
CLASSES = np.array([[True] * 4, [True, True, False, True]])


def make_config(source=SMALL, trainer=(), **changes):
  nets = {name: {'name': 'toy_discriminator', 'widths': (8,)} for name in (
      'encoder', 'decoder', 'regressor', 'discriminator')}
  return presets.experiment(**dict(
      task='zero_shot', name='toy', variant='gdan', steps=6, latent=LATENT,
      trainer={'name': 'gdan', **dict(trainer)}, num_generated=20, **nets,
      data=dict(source=dict(source), batch_size=16),
      run=dict(log_every=3, checkpoint_every=3, updates_per_call=3,
               tensorboard=False)) | changes)


def make_trainer(**settings):
  sizes = {'encoder': (D, 2 * LATENT), 'decoder': (A + LATENT, D), 'regressor': (D, A),
           'discriminator': (D + A, 1)}
  rate = optim.make_schedule({'name': 'constant', 'learning_rate': RATE}, 9)
  tx = optim.make_optimizer(
      {'name': 'sgd', 'momentum': 0.0, 'weight_decay': DECAY, 'decay': 'all'}, rate)
  embedding = np.random.default_rng(0).normal(size=(4, A)).astype(np.float32)
  return step.gdan(**{
      **{name: models.ToyDiscriminator(
          image_shape=(inputs,), num_outputs=outputs, widths=(6,))
         for name, (inputs, outputs) in sizes.items()},
      'tx': tx, 'disc_tx': tx, 'latent': LATENT, 'shape': (D, A), 'num_copies': 2,
      'frozen': lambda: {'embedding': embedding, 'classes': CLASSES}, 'pretrain': 1,
      **WEIGHTS, **settings})


def make_items(num, slots):
  """Batches of both copies, of which the last slots are empty."""
  rng, weight = np.random.default_rng(1), np.zeros((num, slots), np.float32)
  weight[:, :N] = 1
  label = rng.integers(4, size=(num, slots)).astype(np.int32)
  twin = np.where(label == 2, 3, label)
  return {name: {'image': rng.random((num, slots, D), np.float32),
                 'label': np.where(weight > 0, of, -1).astype(np.int32),
                 'weight': weight} for name, of in (('model', label), ('twin', twin))}


def test_other_classes_are_drawn_uniformly_from_those_of_the_copy():
  label = np.arange(3000) % 2
  found = np.asarray(jax.jit(lambda key: step.other_classes(
      jax.random.split(key, 3000), label, CLASSES[1]))(jax.random.key(0)))
  for own, others in ((0, (1, 3)), (1, (0, 3))):
    counts = np.bincount(found[label == own], minlength=4)
    assert counts[[own, 2]].tolist() == [0, 0]
    np.testing.assert_allclose(counts[list(others)], 750, atol=90)  # 4.6 sd


def dense(params, x):
  hidden, out = params['Dense_0'], params['Dense_1']
  x = jax.nn.relu(x @ hidden['kernel'] + hidden['bias'][None])
  return x @ out['kernel'] + out['bias'][None]


def descended(params, slope):
  params, slope = jax.device_get((params, slope))
  return jax.tree.map(lambda p, g: p - RATE * (g + DECAY * p), params, slope)


@pytest.fixture(scope='module')
def updated():
  """(the trainer, an initial state, the compiled step), pretrained in update 0."""
  trainer = make_trainer()
  return trainer, jax.jit(trainer.init)(jax.random.key(1)), jax.jit(trainer.step)


@functools.partial(jax.jit, static_argnums=1)
def copy_keys(state, copy):
  """The keys of a copy in the step after a state: of classes, D and the CVAE."""
  key = jax.random.split(jax.random.fold_in(state.key, state.step), 2)[copy]
  keys = jax.random.split(key, 3)
  return keys[0], keys[1], keys[2]


@pytest.mark.parametrize('at', [0, 1])
@pytest.mark.parametrize('copy, name', [*enumerate(step.COPIES)])
def test_an_update_is_that_of_the_formulas(updated, copy, name, at):
  """Update 0 is one of the CVAE alone: nothing else moves, not even by decay."""
  (trainer, before, update), w = updated, WEIGHTS
  batch = jax.tree.map(lambda x: x[0], make_items(1, 16))
  frozen = trainer.frozen()
  before = before.replace(step=np.int32(at))
  after, found = update(before, frozen, batch)
  one, moved = ({net: jax.tree.map(lambda x: x[copy], jax.device_get(nets[net].params))
                 for net in nets} for nets in (before.nets, after.nets))
  keys = copy_keys(before, copy)
  label, x = batch[name]['label'][:N], batch[name]['image'][:N]
  s = frozen['embedding'][label]
  t = frozen['embedding'][np.asarray(jax.jit(lambda key: step.other_classes(
      GLOBAL.keys(key, 16), batch[name]['label'], CLASSES[copy]))(keys[0]))[:N]]

  def made(nets, key):
    mean, log_variance = jnp.split(dense(nets['encoder'], x), 2, 1)
    noise = jax.vmap(lambda key: jax.random.normal(key, (LATENT,)))(
        step._keys(key, 16, GLOBAL)['code'])[:N]
    z = mean + jnp.exp(log_variance / 2) * noise
    return decoded(nets, s, z), z, mean, log_variance

  def decoded(nets, s, z):
    return jax.nn.relu(dense(nets['decoder'], jnp.concatenate([s, z], 1)))

  def score(params, x, s):
    return dense(params, jnp.concatenate([x, s], 1))[:, 0]

  def loss_disc(params):
    fake, regressed = made(one, keys[1])[0], dense(one['regressor'], x)
    return at * jnp.mean(
        (score(params, x, s) - 1) ** 2 + score(params, fake, s) ** 2
        + w['dual_weight'] * score(params, x, regressed) ** 2
        + w['mismatch_weight'] * score(params, x, t) ** 2)

  value, slope = jax.jit(jax.value_and_grad(loss_disc))(one['discriminator'])
  disc = descended(one['discriminator'], slope) if at else one['discriminator']

  def loss_gen(nets):
    fake, z, mean, log_variance = made(nets, keys[2])
    kl = (jnp.exp(log_variance) + mean ** 2 - 1 - log_variance).sum(1) / 2
    regressed = dense(nets['regressor'], x)
    cycles = (((dense(nets['regressor'], fake) - s) ** 2).mean(1)
              + ((decoded(nets, regressed, z) - x) ** 2).mean(1))
    return jnp.mean(
        ((x - fake) ** 2).sum(1) / 2 + w['kl_weight'] * kl
        + at * (w['adversarial_weight'] * (score(disc, fake, s) - 1) ** 2
                + w['cycle_weight'] * cycles
                + w['regression_weight'] * ((regressed - s) ** 2).mean(1)
                + w['dual_weight'] * (score(disc, x, regressed) - 1) ** 2))

  nets = {net: one[net] for net in step.GENERATORS}
  value_gen, slope = jax.jit(jax.value_and_grad(loss_gen))(nets)
  nets = descended(nets, slope) | ({} if at else {'regressor': one['regressor']})
  for net, expected in (nets | {'discriminator': disc}).items():
    toy.assert_trees_close(moved[net], expected, rtol=1e-4, atol=1e-6)
  if name == step.MODEL:
    figures = trainer.figures(found)
    np.testing.assert_allclose(
        [figures['loss_disc'], figures['loss_gen']], [value, value_gen], rtol=1e-5)
    assert figures['images'] == N


def test_before_its_first_update_an_optimiser_counts_nothing_but_the_schedule():
  tx = optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(lambda count: -0.1))
  params = {'w': np.ones(2, np.float32)}

  @jax.jit
  def update(params):
    before = Net(params, {}, tx.init(params))
    change, state = tx.update(params, before.opt_state)
    after = Net(optax.apply_updates(params, change), {}, state)
    return before, after, [step.once_started(jnp.asarray(started), after, before)
                           for started in (0.0, 1.0)]

  before, after, (held, gone) = update(params)
  toy.assert_trees_close(gone, after, atol=0)
  np.testing.assert_array_equal(held.params['w'], before.params['w'])
  toy.assert_trees_close(held.opt_state[0], before.opt_state[0], atol=0)
  assert held.opt_state[1].count == 1


# Under jit XLA itself sees to it that devices agree.
@pytest.mark.slow
@pytest.mark.parametrize('mode', ['jit', 'pmap'])
def test_devices_do_not_matter(updated, mode):
  (trainer, one, update), items, found = updated, make_items(2, 16), []
  other, more, _ = toy.run_on_devices(trainer, 8, mode, items)
  for at in range(2):
    batch = jax.tree.map(lambda x, at=at: x[at], items)
    one, metrics = update(one, trainer.frozen(), batch)
    found.append(metrics)
  toy.assert_trees_close(one.nets, other.nets, rtol=1e-4, atol=1e-6)
  toy.assert_figures_close(
      trainer.figures(found[0].merge(found[1])), trainer.figures(more), rtol=1e-4)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('zero_shot') / 'whole'
  return workdir, train.train(make_config(), str(workdir))


@pytest.mark.slow
def test_trained_resumed_evaluated_and_reported(whole, tmp_path):
  whole, evaluation = whole
  toy.assert_resumes(whole, tmp_path / 'cut', make_config(), 6)
  evaluate_run(str(whole))
  assert json.loads((whole / 'eval.json').read_text()) == evaluation
  text = report.tables([str(whole)])
  for words in ('ridge regression, nearest embedding, calibrated',
                '6 seen and 3 unseen', 'a baseline without any network', 'One seed'):
    assert words in text
  assert f'{evaluation["evals"]["ridge"]["accuracy_seen"]:.3f}' in text
  report.write([str(whole)], str(tmp_path / 'report'))
  assert '- Data: attributes\n' in (tmp_path / 'report' / 'report.md').read_text()
  for name in ('class_accuracies', 'features'):
    assert (tmp_path / 'report' / 'figures' / f'{name}.png').exists()


@pytest.mark.slow
def test_figures_are_those_of_the_scores(whole):
  workdir, evaluation = whole
  saved, examples = toy.arrays(workdir / 'scores' / 'test.npz'), data.ZERO_SHOT[
      'attributes'](**{key: value for key, value in SMALL.items() if key != 'name'})
  assert saved['candidate'].tolist() == list(range(9))
  np.testing.assert_array_equal(
      saved['row'], np.append(examples.test_seen, examples.test_unseen))
  seen = np.arange(9) < 6
  assert evaluation['seen'] == seen.tolist()
  for method in ('discriminator', 'regressor', 'generated', 'ridge'):
    for name in (method, f'{method}_calibrated'):
      figures = evaluation['evals'][name]
      found = metrics.generalised(
          saved[method], saved['label'], seen, figures.get('constant', 0.0))
      assert found == {key: figures[key] for key in found}, name
  # A score by hand: the nearest of all rows of a seen class that are not test rows.
  c, x = 4, examples.feature[saved['row']].astype(np.float64)
  known = np.append(examples.train, examples.validation)
  known = examples.feature[known[examples.label[known] == c]]
  distance = np.sqrt(np.square(x[:, None] - known[None]).sum(2)).min(1)
  np.testing.assert_allclose(saved['generated'][:, c], -distance, atol=1e-4)
  fits = [linear_model.Ridge(alpha=alpha).fit(
      examples.feature[rows], examples.embedding[examples.label[rows]])
          for rows in [np.append(examples.train, examples.validation)]
          for alpha in (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)]
  each = [-np.square(fit.predict(x)[:, None] - examples.embedding[None]).sum(2)
          for fit in fits]
  assert min(np.abs(one - saved['ridge']).max() for one in each) < 1e-4


@pytest.mark.slow
def test_new_rows_are_classified(whole):
  workdir, evaluation = whole
  run, saved = runs.restore(str(workdir)), toy.arrays(workdir / 'scores' / 'test.npz')
  examples = build.load_examples(run.config)
  x, seen = examples.feature[saved['row']], np.arange(9) < 6
  for method in ('discriminator', 'generated'):
    constant = evaluation['evals'][f'{method}_calibrated']['constant']
    found = zero_shot.predict(run, x, method, constant)
    np.testing.assert_array_equal(
        found, (saved[method] - constant * seen).argmax(1))
  assert run.class_names[found[0]] == f'class {found[0]}'
  with pytest.raises(ValueError, match=r'features \[n, 12\].*\[2, 3\]'):
    zero_shot.predict(run, np.zeros((2, 3)))
  with pytest.raises(ValueError, match="'ridge'.*discriminator, regressor"):
    zero_shot.predict(run, x, 'ridge')


def changed(monkeypatch, change):
  """Makes the source 'attributes' give other examples."""
  made = data.ZERO_SHOT['attributes']
  monkeypatch.setitem(
      data.ZERO_SHOT, 'attributes', lambda **spec: change(made(**spec)))


@pytest.mark.slow
def test_nothing_of_unseen_classes_and_of_test_rows_is_used(
    whole, tmp_path, monkeypatch):
  """With other embeddings and rows of unseen classes all that a step is given has the
  same bits, and with other test rows the constants that are chosen."""
  workdir, evaluation = whole
  run = runs.restore(str(workdir))

  def given(config):
    inputs = build.load(config)
    return config['num_attributes'], runs.build_trainer(
        config, inputs.shape).frozen(), [
            data.gather(inputs.pool, inputs.stream.index(at)) for at in range(6)]

  def change(examples):
    embedding, feature = examples.embedding.copy(), examples.feature.copy()
    embedding[6:] += np.arange(3, dtype=np.float32)[:, None] + 1
    rows = np.append(examples.test_seen, examples.test_unseen)
    feature[rows] = np.random.default_rng(0).permutation(feature[rows])
    return examples._replace(embedding=embedding, feature=feature)

  before = given(run.config)
  changed(monkeypatch, change)
  config = runs.resolve(make_config())
  assert config['data']['crc32'] != run.config['data']['crc32']
  jax.tree.map(np.testing.assert_array_equal, before, given(config))
  other, _ = evaluate.make_evaluator(
      config, str(tmp_path), None, run.trainer, run.mesh, None).run(
          run.state, ['discriminator'], True)
  for name, figures in evaluation['evals'].items():
    for key in ('constant', 'validation_harmonic_mean'):
      assert other[name].get(key) == figures.get(key), name
  assert other['ridge'] != evaluation['evals']['ridge']
  frozen = before[1]
  assert len(frozen['embedding']) == 6
  assert frozen['classes'].tolist() == [[True] * 6, [True] * 4 + [False] * 2]


def test_the_twin_has_neither_held_out_classes_nor_validation_rows():
  config = runs.resolve(make_config())
  examples, inputs = build.load_examples(config), build.load(config)
  index = [inputs.stream.index(i) for i in range(9)]
  twin, model = (np.concatenate([one[name] for one in index])
                 for name in ('twin', 'model'))
  expected = examples.train[examples.label[examples.train] < 4]
  np.testing.assert_array_equal(np.unique(twin), expected)
  np.testing.assert_array_equal(
      np.unique(model), np.sort(np.append(examples.train, examples.validation)))
  assert (inputs.pool.label >= 0).sum() == len(np.unique(model))


@pytest.mark.slow
def test_a_source_that_has_changed_is_refused(whole, monkeypatch):
  workdir, _ = whole
  changed(monkeypatch, lambda one: one._replace(feature=one.feature + 1))
  with pytest.raises(ValueError, match='has changed since the run was started'):
    evaluate_run(str(workdir))
  with pytest.raises(ValueError, match='crc32'):
    train.train(make_config(), str(workdir))


def test_settings_of_the_authors_fit_published_files(tmp_path):
  """configs/zero_shot.py:official:FOLDER: read, built and traced."""
  rng, label = np.random.default_rng(0), np.arange(120) % 6
  rows = np.arange(120)
  parts = {'trainval_loc': (label < 4) & (rows < 90), 'test_unseen_loc': label > 3,
           'test_seen_loc': (label < 4) & (rows >= 90)}
  io.savemat(tmp_path / 'res101.mat', {
      'features': rng.random((7, 120)), 'labels': label[:, None] + 1})
  io.savemat(tmp_path / 'att_splits.mat', {
      'att': rng.random((4, 6)),
      **{key: np.flatnonzero(one)[:, None] + 1 for key, one in parts.items()}})
  config = toy.config_file('zero_shot.py')(f'official:{tmp_path}')
  assert config.name == tmp_path.name
  assert config.encoder.widths == (1200, 600) and config.encoder.dropout == 0.3
  config = runs.resolve(config)
  assert config['num_attributes'] == 4
  inputs, trainer = build.load(config), runs.build_trainer(config, (7,))
  batch = data.gather(inputs.pool, inputs.stream.index(0))
  state = jax.eval_shape(trainer.init, jax.random.key(0))
  after, _ = jax.eval_shape(trainer.step, state, trainer.frozen(), batch)
  assert jax.tree.structure(after) == jax.tree.structure(state)
  assert state.nets['encoder'].params['Dense_0']['kernel'].shape == (2, 7, 1200)


@pytest.mark.parametrize('alone, known', [(0.8, True), (0.3, False), (None, False)])
def test_what_is_said_of_rows_that_are_not_recognised(alone, known):
  """They are taken for seen classes, and not for other unseen ones, if it is known."""
  figures = {'accuracy_unseen': 0.01, 'accuracy_seen': 0.9, 'harmonic_mean': 0.02}
  figures |= {} if alone is None else {'accuracy_unseen_only': alone}
  (_, sentences), = zero_shot.TASK.verdict({'toy': [{'evals': {
      'discriminator': figures}}]})
  text = ' '.join(sentences)
  assert 'hardly ever recognised' in text and ('seen classes.' in text) == known


def test_files_in_the_home_folder(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  config = toy.config_file('zero_shot.py')('official:~/cub')
  assert (config.data.source.path, config.name) == ('/home/me/cub', 'cub')


def test_every_variant_builds():
  get_config = toy.config_file('zero_shot.py')
  with pytest.raises(ValueError, match="'x'.*gdan, no_mismatch, cvae, official"):
    get_config('x')
  found = {name: get_config(name) for name in ('gdan', 'no_mismatch', 'cvae')}
  for config in found.values():
    config = runs.resolve(config)
    assert config['num_attributes'] == 16
    assert runs.build_trainer(config, (64,)).learning_rate(0) == 1e-3
  trainer = {name: config.trainer.to_dict() for name, config in found.items()}
  assert trainer['no_mismatch'] == trainer['gdan'] | {'mismatch_weight': 0.0}
  assert trainer['cvae'] == trainer['gdan'] | {
      'adversarial_weight': 0.0, 'cycle_weight': 0.0, 'dual_weight': 0.0}
  with pytest.raises(ValueError, match='no file .*res101.mat.*path'):
    runs.resolve(get_config('official'))


@pytest.mark.parametrize('changes, named', [
    (dict(source={'name': 'x'}), "zero-shot source 'x'.*attributes, mat"),
    (dict(source=SMALL | {'num_unseen': 6}), 'num_unseen=6'),
    (dict(source=SMALL | {'num_held_out': 0}), 'held out.*has none.*calibrate=False'),
    (dict(trainer={'output': 'tanh'}), "trainer.output 'tanh'.*relu, linear"),
    (dict(trainer={'mismatch_weight': -1.0}), 'trainer.mismatch_weight must be'),
    (dict(trainer={'theta': 1.0}), 'theta'),
    (dict(regressor={'name': 'mlp_discriminator', 'batch_norm': True}),
     'network regressor whose output .*batch_norm=False'),
    (dict(num_generated=0), 'num_generated')])
def test_mistakes(changes, named, tmp_path):
  with pytest.raises((ValueError, TypeError), match=named):
    train.train(make_config(**changes), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_negative_features_need_a_linear_decoder(updated, tmp_path, monkeypatch):
  changed(monkeypatch, lambda one: one._replace(feature=one.feature - 1))
  with pytest.raises(ValueError, match="smallest is -1.*trainer.output to 'linear'"):
    train.train(make_config(), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()
  config = runs.resolve(make_config(trainer={'output': 'linear'}))
  assert build.load(config).shape == (12,)
  trainer, state, _ = updated
  codes = np.random.default_rng(0).normal(size=(9, A + LATENT)).astype(np.float32)
  linear, made = (np.asarray(jax.jit(one.heads['made'], static_argnums=2)(
      state, codes, 1)) for one in (make_trainer(output='linear'), trainer))
  assert linear.min() < 0
  np.testing.assert_array_equal(made, np.maximum(linear, 0))


@pytest.mark.slow
def test_mismatched_negatives_beat_none():
  """Without them the classification by D is no better than chance, .05.

  Figures of argmax D(x, s) after 200 updates, of both weights in one program.
  """
  config = runs.resolve(make_config(
      {'name': 'attributes'}, calibrate=False, steps=200,
      **{net: {'name': 'toy_discriminator', 'widths': (64,)} for net in (
          'encoder', 'decoder', 'regressor', 'discriminator')}))
  inputs, trainer = build.load(config), build.build(config, (64,), None)
  items = data.gather(inputs.pool, jax.tree.map(
      lambda *rows: np.stack(rows), *map(inputs.stream.index, range(200))))
  examples = build.load_examples(config)
  view = evaluate.views_of(examples, False)['model']
  frozen, (setup,) = jax.tree.map(jnp.asarray, trainer.frozen()), trainer.step.args

  @jax.jit
  @jax.vmap
  def trained(weight):
    one = setup._replace(mismatch_weight=weight)
    state, _ = jax.lax.scan(
        lambda state, batch: (step.step(one, state, frozen, batch)[0], ()),
        step.init(one, jax.random.key(1)), items)
    return step.pairs(
        one, state, examples.feature[view.rows], examples.embedding, 0)

  without, found = (
      metrics.generalised(scores, examples.label[view.rows], np.arange(20) < 15)
      for scores in np.asarray(trained(jnp.array([0.0, 1.0]))))
  assert found['harmonic_mean'] > without['harmonic_mean'] + 0.2, (found, without)
  assert without['accuracy_unseen_only'] < 0.3, without  # of 5 classes


@pytest.mark.slow
def test_without_a_twin_nothing_is_calibrated(whole):
  workdir, evaluation = whole
  config = runs.resolve(make_config(calibrate=False))
  examples = build.load_examples(config)
  assert build.frozen(examples, False)['classes'].tolist() == [[True] * 6]
  assert set(build.load(config).stream.index(0)) == {'model'}
  views = evaluate.views_of(examples, False)
  saved = toy.arrays(workdir / 'scores' / 'test.npz')
  of_all = {'model': {'discriminator': saved['discriminator']}}
  assert evaluate.measure(of_all, examples, views) == {
      'discriminator': evaluation['evals']['discriminator']}
  assert set(evaluate.by_ridge(examples, views)) == {'model'}
  plain = {name: one for name, one in evaluation['evals'].items()
           if not name.endswith('_calibrated')}
  (headline, sentences), = zero_shot.TASK.verdict({'toy': [{'evals': plain}]})
  assert 'argmax D(x, s)' in headline
  assert 'Nothing is calibrated' in ' '.join(sentences)
