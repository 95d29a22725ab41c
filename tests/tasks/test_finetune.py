"""Training that starts from pretrained weights, with a learning rate for each stage."""

import pathlib
import shutil

import jax
import numpy as np
import optax
import pytest
import toy
from flax import traverse_util

from nat_jax import runs, train
from nat_jax.models import weights
from nat_jax.runtime import optim
from nat_jax.schema import presets

RATE = 0.5


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
  """The MLP as a network with pretrained weights."""
  monkeypatch.setitem(
      weights.LAYERS, 'mlp', lambda: iter([('fc', 'Dense_0', weights.DENSE)]))
  monkeypatch.setitem(weights.STAGES, 'mlp', 2)


@pytest.fixture
def given(tmp_path):
  """(path, arrays) of the weights of the first layer, as PyTorch has them."""
  rng = np.random.default_rng(0)
  arrays = {'fc.weight': rng.normal(size=(4, 36)).astype(np.float32),
            'fc.bias': rng.normal(size=4).astype(np.float32)}
  np.savez(tmp_path / 'weights.npz', **arrays)
  return str(tmp_path / 'weights.npz'), arrays


def config(**changes):
  return presets.experiment(**toy.change(dict(
      steps=1, num_classes=4, model={'name': 'mlp', 'width': 4, 'depth': 1},
      loss={'name': 'cross_entropy'},
      optimizer={'name': 'sgd', 'momentum': 0.0, 'weight_decay': 0.1, 'decay': 'all'},
      schedule={'name': 'constant', 'learning_rate': RATE},
      data=dict(positives=toy.fake(), batch_size=48),
      evals={'test': {'source': toy.fake(1), 'positive': True}},
      run=dict(tensorboard=False, checkpoint_every=1)), **changes))


def params(workdir, step=None):
  state = runs.restore(str(workdir), step).state
  return traverse_util.flatten_dict(
      jax.tree.map(np.asarray, state.nets['model'].params), sep='/')


def test_training_starts_from_the_weights(given, tmp_path):
  """With a tiny rate the first layer is still that of the file, its average too."""
  path, arrays = given
  made = config(weights=path, ema_decay=0.5, schedule__learning_rate=1e-12)
  train.train(made, str(tmp_path / 'run'))
  run = runs.restore(str(tmp_path / 'run'))
  for found in (run.state.nets['model'].params, run.state.ema['model']['params']):
    np.testing.assert_allclose(found['Dense_0']['kernel'], arrays['fc.weight'].T)
    np.testing.assert_allclose(found['Dense_0']['bias'], arrays['fc.bias'])
  assert np.abs(run.state.nets['model'].params['head']['kernel']).max() > 0


def test_a_stage_learns_at_its_own_rate(given, tmp_path):
  """The first of two stages moves half as far in one update of SGD."""
  path, arrays = given
  for name, decay in (('one', 1.0), ('half', 0.5)):
    train.train(config(weights=path, layer_decay=decay), str(tmp_path / name))
  one, half = params(tmp_path / 'one'), params(tmp_path / 'half')
  start = {'Dense_0/kernel': arrays['fc.weight'].T, 'Dense_0/bias': arrays['fc.bias']}
  for key, value in start.items():
    assert np.abs(one[key] - value).max() > 1e-3
    np.testing.assert_allclose(half[key] - value, (one[key] - value) / 2, atol=1e-6)
  for key in ('head/kernel', 'head/bias'):
    np.testing.assert_allclose(half[key], one[key], atol=1e-7)


def test_a_run_goes_on_without_the_file(given, tmp_path):
  path, _ = given
  whole = config(weights=path, steps=2)
  train.train(whole, str(tmp_path / 'run'))
  expected = params(tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '2')
  pathlib.Path(path).unlink()
  # The config is the same one, so that there is nothing to overwrite.
  train.train(whole, str(tmp_path / 'run'), overwrite=True)
  for key, value in params(tmp_path / 'run').items():
    np.testing.assert_array_equal(value, expected[key])
  with pytest.raises(ValueError, match='no file of weights'):
    train.train(whole, str(tmp_path / 'new'))
  assert not (tmp_path / 'new').exists()


def test_frozen_stages_are_not_changed_even_by_weight_decay():
  tree = {'stem': {'kernel': np.ones((2, 2), np.float32)},
          'group2_block1': {'kernel': np.ones((2, 2), np.float32)},
          'head': {'bias': np.ones(2, np.float32)}}
  tx = optim.make_optimizer(
      {'name': 'adamw', 'weight_decay': 0.1}, optax.constant_schedule(1.0), 1.0,
      lambda path: weights.stage('resnet50', path), [0, 0, 0.25, 0, 0, 1])
  grads = jax.tree.map(lambda x: 2 * x, tree)

  @jax.jit
  def update(tree, grads):
    state = tx.init(tree)
    return state, tx.update(grads, state, tree)[0]

  state, updates = update(tree, grads)
  np.testing.assert_array_equal(updates['stem']['kernel'], 0)
  # Adam's first update is the sign of the gradient.
  np.testing.assert_allclose(updates['group2_block1']['kernel'], -0.25 * 1.1, rtol=1e-5)
  np.testing.assert_allclose(updates['head']['bias'], -1, rtol=1e-5)
  assert sum(x.size for x in jax.tree.leaves(state) if x.ndim) == 2 * (4 + 2)


@pytest.mark.parametrize('changes, message', [
    ({'model': {'name': 'small_conv'}, 'layer_decay': 0.5},
     "layer_decay=0.5 is for the networks .*, resnet50, vit_s16.*'small_conv'"),
    ({'model': {'name': 'resnet50', 'frozen': 6}}, 'frozen must leave the .*got 6'),
    ({'layer_decay': 0.0}, r'layer_decay must be a number in \(0, 1\]'),
])
def test_mistakes(changes, message):
  with pytest.raises(ValueError, match=message):
    runs.build_trainer(runs.resolve(config(**changes)), (32, 32, 3))


def test_weights_of_a_whole_network_are_checked_before_training(tmp_path):
  made = runs.resolve(config(
      model={'name': 'resnet50', 'frozen': 2}, weights=str(tmp_path / 'x.npz'),
      layer_decay=0.7))
  trainer = runs.build_trainer(made, (32, 32, 3))
  shapes = jax.eval_shape(trainer.init, jax.random.key(0))
  np.savez(tmp_path / 'x.npz', **{'conv1.weight': np.zeros((64, 3, 7, 7))})
  with pytest.raises(ValueError, match='do not hold bn1.weight'):
    trainer.start(shapes)
