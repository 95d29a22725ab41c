"""Post-hoc scores of a run, end to end on digits, and ODIN's step."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax import runs, train
from nat_jax.commands import posthoc
from nat_jax.metrics import confidences
from nat_jax.schema import presets
from nat_jax.task import Run
from nat_jax.tasks import TASKS


def head(state, images):
  """Two classes whose logits are quadratic in the sum of the image, and a third
  output that is no class."""
  s = images.sum((1, 2, 3))
  return jnp.stack([state * s**2, s, 100 + s], axis=1)


def test_odin_moves_towards_the_prediction():
  state, images = 0.5, jnp.array([[[[1.0], [3.0]]], [[[-1.0], [-1.0]]]])  # sums 4, -2
  args = dict(num_classes=2, normalise=lambda x: x, temperature=1000.0)
  moved = posthoc.odin_head(head, **args, epsilon=0.01)(state, images)
  # log p rises with 0.5 s^2 - s, whose slope is 3 at 4 and -3 at -2.
  np.testing.assert_allclose(
      moved, head(state, images + np.array([0.01, -0.01]).reshape(2, 1, 1, 1)),
      rtol=1e-6)
  still = posthoc.odin_head(head, **args, epsilon=0.0)(state, images)
  np.testing.assert_array_equal(still, head(state, images))


def test_odin_moves_images_in_float32():
  """A step of .0014 is below what bfloat16 can tell apart in most pixels."""
  config = runs.resolve(presets.experiment(
      num_classes=3, model={'name': 'small_conv', 'widths': [4], 'dtype': 'bfloat16'}))
  build = TASKS['classify'].build
  trainer = build(config, (8, 8, 1), runs.OTHERS)
  exact = build({**config, 'model': {**config['model'], 'dtype': 'float32'}}, (8, 8, 1),
                runs.OTHERS)
  state = trainer.init(jax.random.key(0))
  images = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
  restored = Run(config, (8, 8, 1), (), trainer, state, 1, None)
  found, expected, rounded = (head(state, images) for head in (
      posthoc._float32_logits(restored), exact.heads['logits'],
      trainer.heads['logits']))
  np.testing.assert_array_equal(found, expected)
  assert not np.allclose(found, rounded, rtol=1e-5)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  digits = lambda split, classes: {  # noqa: E731
      'name': 'digits', 'split': split, 'classes': classes}
  config = presets.experiment(
      name='posthoc', num_classes=3, steps=60, loss={'name': 'background'},
      schedule={'name': 'constant', 'learning_rate': 0.05}, ema_decay=0.5,
      data=dict(
          positives=digits('train', (0, 1, 2)), batch_size=32, negatives_per_batch=8,
          negatives={'seven': {'source': digits('train', (7,))}}),
      evals={
          'test': {'source': digits('test', (0, 1, 2)), 'positive': True},
          'seven': {'source': digits('test', (7,))},
          'noise': {'source': {'name': 'normal_noise', 'num': 100}}},
      run=dict(tensorboard=False, log_every=60, checkpoint_every=0))
  path = str(tmp_path_factory.mktemp('run'))
  train.train(config, path)
  return path


def test_posthoc_of_a_run(workdir, monkeypatch):
  monkeypatch.setattr(posthoc, 'NUM_TRAIN', 100)
  found = posthoc.posthoc(workdir)
  with open(f'{workdir}/posthoc.json') as file:
    assert json.load(file) == found
  assert (found['step'], found['reference'], found['num_train']) == (60, 'test', 100)
  assert found['neighbours'] == 3  # a tenth of a class
  assert found['seen_in_training'] == {'seven': True, 'noise': False}
  assert set(found['scores']) == {
      'max_softmax', 'max_logit', 'energy', 'odin', 'knn', 'vim', 'ash'}
  for score, figures in found['scores'].items():
    assert set(figures) == {'seven', 'noise'}
    assert figures['seven']['auroc'] > 0.6, score
    assert set(figures['seven']) == {
        'auroc', 'aupr_in', 'aupr_out', 'fpr95_id_positive', 'fpr95_ood_positive'}
  # By hand, from the run's own logits without the background output.
  logits = {name: np.load(f'{workdir}/scores/{name}.npz')['logits'][:, :3]
            for name in ('test', 'seven')}
  pos, neg = (confidences.energy(logits[name]) for name in ('test', 'seven'))
  above = (pos[:, None] > neg).mean() + (pos[:, None] == neg).mean() / 2
  assert found['scores']['energy']['seven']['auroc'] == pytest.approx(above, abs=1e-4)
  text = posthoc.text(found)
  assert 'seven (seen)' in text and 'noise (unseen)' in text
  assert 'AUROC (higher is better)' in text
  assert 'FPR95 (ID-positive) (lower is better)' in text
  assert f'{found["scores"]["knn"]["noise"]["fpr95_id_positive"]:.3f}' in text
  with pytest.raises(ValueError, match=r'step 7\b.*\[60\]'):
    posthoc.posthoc(workdir, step=7)


def test_output_layer_is_the_one_evaluation_uses(workdir):
  restored = runs.restore(workdir)
  images = np.zeros((2, 8, 8, 1), np.uint8)
  features, logits = (np.asarray(restored.trainer.heads[name](restored.state, images))
                      for name in ('features', 'logits'))
  kernel, bias = posthoc._output_layer(restored.state, features, logits)
  params = restored.state.ema['model']['params']
  np.testing.assert_array_equal(kernel, params['head']['kernel'])
  assert bias.shape == (4,)
  with pytest.raises(ValueError, match="'head'.*head/kernel"):
    posthoc._output_layer(restored.state, features, logits + 1)
  # Without the average it is the trained layer itself, which is another one.
  raw = restored.state.replace(ema={})
  logits = np.asarray(restored.trainer.heads['logits'](raw, images))
  features = np.asarray(restored.trainer.heads['features'](raw, images))
  kernel, _ = posthoc._output_layer(raw, features, logits)
  np.testing.assert_array_equal(kernel, raw.nets['model'].params['head']['kernel'])
