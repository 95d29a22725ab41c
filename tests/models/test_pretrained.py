"""Pretrained networks with weights of PyTorch: timm's features, and what is refused.

The golden arrays are of timm itself (tests/golden/make_pretrained.py).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax import traverse_util

from nat_jax import models
from nat_jax.models import efficientnet_lite, weights

GOLDEN = toy.ROOT / 'tests' / 'golden'
SCRIPT = toy.module_of(GOLDEN / 'make_pretrained.py')
given = toy.timm_weights


def abstract(name, size, num_outputs=7, **kwargs):
  """(model, variables of the right shapes, which are zeros)."""
  model = models.MODELS[name](num_outputs=num_outputs, **kwargs)
  shapes = jax.eval_shape(
      lambda key: model.init(key, jnp.zeros((1, size, size, 3)), train=False),
      jax.random.key(0))
  return model, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


@pytest.mark.parametrize('name', SCRIPT.NETWORKS)
def test_features_are_those_of_timm(name):
  """All weights are used, each once, and all of ours but the output layer are given."""
  size = SCRIPT.NETWORKS[name][1]
  model, variables = abstract(name, size)
  arrays, used = given(name), []

  class Watched(dict):
    def __getitem__(self, key):
      used.append(key)
      return super().__getitem__(key)

  found = weights.from_torch(name, Watched(arrays), variables)
  assert sorted(used) == sorted(arrays)
  flat = traverse_util.flatten_dict(found, sep='/')
  assert {key for key, x in flat.items() if not np.any(x)} == {
      'params/head/kernel', 'params/head/bias'}
  images = SCRIPT.images_of(name, size)
  _, aux = jax.jit(lambda v, x: model.apply(v, x, train=False))(found, images)
  with np.load(GOLDEN / 'pretrained.npz') as file:
    expected = file[f'{name}/features']
  assert 0.1 < expected.std() < 100
  np.testing.assert_allclose(
      aux['features'], expected, atol=1e-5 * np.abs(expected).max())


def test_stages_rise_from_the_input_to_the_output():
  """Each parameter has one, and the first layers have the first."""
  for name, last in (('efficientnet_lite0', 8), ('resnet50', 5), ('vit_s16', 13)):
    _, variables = abstract(name, 32)
    stages = {path: weights.stage(name, path) for path in traverse_util.flatten_dict(
        variables['params'], sep='/')}
    assert set(stages.values()) == set(range(last + 1))
    assert stages['head/kernel'] == last
    for layer, ours, _ in weights.LAYERS[name]():
      first = layer.startswith(
          ('conv1', 'conv_stem', 'bn1', 'cls_', 'pos_', 'patch_'))
      assert (stages[next(p for p in stages if f'{p}/'.startswith(f'{ours}/'))]
              == 0) == first, layer


@pytest.mark.parametrize('name, model, frozen', [
    ('efficientnet_lite0', models.EfficientNetLite(
        2, ((1, 3, 1, 1, 4), (1, 5, 2, 2, 4), (1, 3, 2, 2, 4)), frozen=2), 2),
    ('resnet50', models.BottleneckResNet(2, (1, 1), width=4, frozen=2), 2),
    ('vit_s16', models.ViT(2, width=12, depth=2, heads=2, frozen=1), 1),
])
def test_frozen_stages_get_no_gradient_and_keep_their_statistics(name, model, frozen):
  images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)

  @jax.jit
  def run(key):
    variables = model.init(key, images, train=False)
    rest = {key: x for key, x in variables.items() if key != 'params'}

    def loss(params):
      (logits, aux), changed = model.apply(
          {'params': params, **rest}, images, train=True, mutable=['batch_stats'])
      made = aux['features'] @ params['head']['kernel'] + params['head']['bias'][None]
      return jnp.square(logits - 1).sum(), (changed, logits, made)

    grads, (changed, logits, made) = jax.grad(loss, has_aux=True)(variables['params'])
    return logits, made, (
        grads, rest.get('batch_stats', {}), changed.get('batch_stats', {}))

  logits, made, trees = jax.device_get(run(jax.random.key(0)))
  np.testing.assert_allclose(made, logits, rtol=1e-4, atol=1e-5)  # for post-hoc scores
  grads, before, after = (traverse_util.flatten_dict(x, sep='/') for x in trees)
  for path, grad in grads.items():
    trained = weights.stage(name, path) >= frozen
    assert np.any(grad) == trained, path
  for path in before:
    assert np.any(before[path] != after[path]) == (
        weights.stage(name, path) >= frozen), path


@pytest.mark.parametrize('change, message', [
    (lambda arrays: arrays.pop('bn1.weight'), r'do not hold bn1.weight: are they of'),
    (lambda arrays: arrays.update({'conv1.weight': np.zeros((8, 3, 7, 7))}),
     r'conv1.weight .*\[7, 7, 3, 8\].*needs \[7, 7, 3, 64\]'),
])
def test_weights_that_do_not_go(change, message):
  arrays = given('resnet50')
  change(arrays)
  with pytest.raises(ValueError, match=message):
    weights.from_torch('resnet50', arrays, abstract('resnet50', 32)[1])


@pytest.mark.parametrize('side', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('height, width', [(8, 9), (2, 1)])
def test_depthwise_convolutions(side, stride, height, width):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, height, width, 4)).astype(np.float32)
  layer = efficientnet_lite.Depthwise(side, stride, jnp.float32)
  variables = layer.init(jax.random.key(0), x)
  expected = jax.lax.conv_general_dilated(
      x, variables['params']['kernel'], (stride, stride), 'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=4)
  np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-5)


def test_positions_belong_to_a_size():
  with pytest.raises(ValueError, match=r'pos_embed .*1, 5, 384.*1, 17, 384.*_size'):
    weights.from_torch('vit_s16', given('vit_s16'), abstract('vit_s16', 64)[1])
  with pytest.raises(ValueError, match='of 16 pixels, got 40 x 40.*image_size'):
    abstract('vit_s16', 40)


def test_files_of_weights(tmp_path):
  arrays = {'conv1.weight': np.arange(6, dtype=np.float32).reshape(2, 3)}
  np.savez(tmp_path / 'x.npz', **arrays)
  np.testing.assert_array_equal(
      weights.read(str(tmp_path / 'x.npz'))['conv1.weight'], arrays['conv1.weight'])
  with pytest.raises(ValueError, match='no file of weights.*model.safetensors from '
                     'https://huggingface.co/timm/resnet50'):
    weights.read(str(tmp_path / 'y.safetensors'), 'resnet50')
  (tmp_path / 'bad.npz').write_bytes(b'no weights')
  with pytest.raises(ValueError, match='bad.npz cannot be read as weights'):
    weights.read(str(tmp_path / 'bad.npz'))
  with pytest.raises(ValueError, match="resnet50, vit_s16, got the network 'fast'"):
    weights.from_torch('fast', {}, {})


def test_safetensors(tmp_path):
  numpy = pytest.importorskip('safetensors.numpy')
  arrays = {'a': np.arange(6, dtype=np.float32).reshape(2, 3)}
  numpy.save_file(arrays, tmp_path / 'x.safetensors')
  np.testing.assert_array_equal(weights.read(str(tmp_path / 'x.safetensors'))['a'],
                                arrays['a'])
  (tmp_path / 'bad.safetensors').write_bytes(b'no weights')
  with pytest.raises(ValueError, match='bad.safetensors cannot be read as weights'):
    weights.read(str(tmp_path / 'bad.safetensors'))
