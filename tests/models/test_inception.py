"""InceptionV3: shapes, count, resizing, pools, names, weight files, one real run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from nat_jax.models import inception

SHAPES = inception.weight_shapes()
# pool3's mean and features 0, 700, 1400, 2047; logits 0, 500, 1007.
POOL3 = 1.6429203, 0.7062292, 1.2185173, 1.3068726, 0.0
LOGITS = -2.1725495, 1.4615877, 7.3226967


@pytest.fixture(scope='module')
def variables():
  return random_variables()


def random_variables():
  """Keep the scale of activations; none is at its initial value."""
  rng, flat = np.random.default_rng(0), {}
  for name, x in sorted(SHAPES.items()):
    if name.endswith('kernel'):
      std = np.float32(np.sqrt(2 / np.prod(x.shape[:-1])))
      flat[name] = std * rng.standard_normal(x.shape, np.float32)
    else:  # scale, bias, mean, var
      flat[name] = rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
  return unflatten_dict(flat, sep='/')


resize = jax.jit(inception.resize, static_argnums=1)


def resized(rows, size):
  images = np.array(rows, np.float32)[None, :, :, None]
  return np.asarray(resize(images, size))[0, :, :, 0]


def test_resize_literal_cases():
  # 2 -> 4: sources 0, .5, 1, 1.5; there is nothing beyond the last pixel.
  np.testing.assert_array_equal(resized([[0, 8], [16, 24]], 4), [
      [0, 4, 8, 8], [8, 12, 16, 16], [16, 20, 24, 24], [16, 20, 24, 24]])
  # 4 -> 2: sources 0 and 2, no average. 3 -> 2: sources 0 and 1.5.
  grid = np.arange(16).reshape(4, 4)
  np.testing.assert_array_equal(resized(grid, 2), grid[::2, ::2])
  np.testing.assert_array_equal(resized(np.arange(9).reshape(3, 3), 2), [
      [0, 1.5], [4.5, 6]])
  np.testing.assert_array_equal(resized(grid, 4), grid)
  # Height and width of their own: 1 x 2 -> 4 x 4.
  np.testing.assert_array_equal(resized([[0, 8]], 4), [[0, 4, 8, 8]] * 4)


def test_average_pool_leaves_the_padding_out():
  x = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
  y = np.asarray(jax.jit(inception.POOLS['mean'])(x))[0, :, :, 0]
  # A corner averages four pixels: (0 + 1 + 3 + 4) / 4.
  np.testing.assert_allclose(y, [[2, 2.5, 3], [3.5, 4, 4.5], [5, 5.5, 6]], rtol=1e-6)
  assert [block['branch_pool'][0] for block in inception.BLOCKS.values()] == [
      *['mean'] * 3, 'halve', *['mean'] * 4, 'halve', 'mean', 'max']


def test_conv_norm_in_numbers():
  module = inception.ConvNorm(1, (1, 1))
  variables = {
      'params': {'conv': {'kernel': np.float32([[[[3]]]])},
                 'bn': {'scale': np.float32([2]), 'bias': np.float32([-1])}},
      'batch_stats': {'bn': {'mean': np.float32([1]), 'var': np.float32([0.003])}}}
  y = np.asarray(jax.jit(module.apply)(variables, np.float32([[[[1]], [[0]]]])))
  # (3 * 1 - 1) / sqrt(.003 + .001) * 2 - 1; the other is negative.
  np.testing.assert_allclose(y.ravel(), [4 / np.sqrt(0.004) - 1, 0], rtol=1e-5)


def test_shapes_of_every_block():
  images = jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.float32)
  variables = unflatten_dict(SHAPES, sep='/')
  (pool3, logits), state = jax.eval_shape(
      lambda v, x: inception.InceptionV3().apply(
          v, x, capture_intermediates=lambda m, _: isinstance(m, inception.Block)),
      variables, images)
  assert (pool3.shape, logits.shape) == ((2, 2048), (2, 1008))
  blocks = state['intermediates']
  assert {name: x['__call__'][0].shape[2:] for name, x in blocks.items()} == {
      'Mixed_5b': (35, 256), 'Mixed_5c': (35, 288), 'Mixed_5d': (35, 288),
      **{f'Mixed_6{x}': (17, 768) for x in 'abcde'},
      'Mixed_7a': (8, 1280), 'Mixed_7b': (8, 2048), 'Mixed_7c': (8, 2048)}


def test_number_of_parameters():
  """Keras counts 23,851,784 for its InceptionV3, which has no scale and 1000 classes.

  34,432 of these are the means and variances of 17,216 channels of BatchNorm. The
  scales of the 2015 file add 17,216, and 8 more classes 8 * (2048 + 1).
  """
  def count(collection):
    return sum(x.size for k, x in SHAPES.items() if k.startswith(collection))

  assert count('batch_stats/') == 2 * 17_216
  assert count('params/') == 23_851_784 - 34_432 + 17_216 + 8 * 2049 == 23_850_960
  assert sum(name.endswith('conv/kernel') for name in SHAPES) == 94


def test_names_are_those_of_the_pytorch_file():
  """Some of its names and shapes, converted as the docstring says."""
  rename = {
      'conv.weight': ('params', 'conv/kernel', (2, 3, 1, 0)),
      'bn.weight': ('params', 'bn/scale', (0,)),
      'bn.running_var': ('batch_stats', 'bn/var', (0,)),
      'fc.weight': ('params', 'fc/kernel', (1, 0)),
  }
  for name, shape in {
      'Conv2d_1a_3x3.conv.weight': (32, 3, 3, 3),
      'Conv2d_4a_3x3.conv.weight': (192, 80, 3, 3),
      'Mixed_5b.branch5x5_2.conv.weight': (64, 48, 5, 5),
      'Mixed_5d.branch_pool.bn.running_var': (64,),
      'Mixed_6a.branch3x3.conv.weight': (384, 288, 3, 3),
      'Mixed_6b.branch7x7_2.conv.weight': (128, 128, 1, 7),
      'Mixed_6e.branch7x7dbl_4.conv.weight': (192, 192, 7, 1),
      'Mixed_7a.branch7x7x3_4.bn.weight': (192,),
      'Mixed_7b.branch3x3_2a.conv.weight': (384, 384, 1, 3),
      'Mixed_7c.branch3x3dbl_3b.conv.weight': (384, 384, 3, 1),
      'Mixed_7c.branch_pool.conv.weight': (192, 2048, 1, 1),
      'fc.weight': (1008, 2048),
  }.items():
    *at, module, leaf = name.split('.')
    collection, end, order = rename[f'{module}.{leaf}']
    ours = '/'.join([collection, *at, end])
    assert SHAPES[ours].shape == tuple(shape[i] for i in order), name


def test_one_real_run(variables):
  """Against the same network written out in TensorFlow's operations, run once."""
  def run(variables, images):
    pool3, logits = inception.inception_features(variables, images)
    return pool3, logits, inception.inception_features(variables, images, bias=True)[1]

  image = (np.arange(64) * 37 % 256).astype(np.uint8).reshape(1, 8, 8, 1)
  pool3, logits, biased = jax.device_get(jax.jit(run)(variables, image))
  assert pool3.shape == (1, 2048) and logits.shape == (1, 1008)
  np.testing.assert_allclose(
      [pool3.mean(), *pool3[0, [0, 700, 1400, 2047]]], POOL3, rtol=1e-4)
  np.testing.assert_allclose(logits[0, [0, 500, 1007]], LOGITS, rtol=1e-3)
  np.testing.assert_allclose(
      (biased - logits)[0], variables['params']['fc']['bias'], atol=1e-4)


@pytest.mark.parametrize('channels', [1, 3])
def test_what_goes_in(channels, monkeypatch):
  class Recorder:
    def apply(self, variables, x):
      return x, jnp.zeros((1, 1))

  monkeypatch.setattr(inception, 'InceptionV3', Recorder)
  images = np.array([0, 128, 255, 64], np.uint8).reshape(1, 2, 2, 1)
  x, logits = jax.device_get(jax.jit(
      lambda images: inception.inception_features({}, images, bias=True))(
          np.repeat(images, channels, 3)))
  assert x.shape == (1, 299, 299, 3) and logits.shape == (1, 1)
  corners = x[0, ::298, ::298]
  np.testing.assert_array_equal(corners, np.repeat(
      [[[-1.0], [0.0]], [[127 / 128], [-0.5]]], 3, -1))


def test_images_must_be_uint8(variables):
  for shape, dtype in [((1, 8, 8, 3), np.float32), ((1, 8, 8, 2), np.uint8),
                       ((8, 8, 3), np.uint8)]:
    got = rf'{np.dtype(dtype)}.*\b8, 8'
    with pytest.raises(ValueError, match=rf'uint8.*\[n, h, w, 1 or 3\].*{got}'):
      inception.inception_features(variables, np.zeros(shape, dtype))


@pytest.mark.parametrize('suffix', ['msgpack', 'npz'])
def test_weights_survive_a_file(variables, suffix, tmp_path):
  path = str(tmp_path / f'weights.{suffix}')
  inception.save_weights(path, variables)
  loaded = inception.load_weights(path)
  assert isinstance(loaded['params']['fc']['bias'], jax.Array)
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_wrong_weights_are_named(variables, tmp_path):
  flat = flatten_dict(variables, sep='/')
  flat['params/fc/kernel'] = np.zeros((2048, 1000), np.float32)  # torchvision's
  flat['params/AuxLogits/conv0/conv/kernel'] = np.zeros((1, 1, 768, 128), np.float32)
  del flat['batch_stats/Mixed_7c/branch_pool/bn/var']
  np.savez(tmp_path / 'weights.npz', **flat)
  with pytest.raises(ValueError, match='(?s)' + '.*'.join([
      'weights.npz', r'batch_stats/Mixed_7c/branch_pool/bn/var.*\(192,\)',
      r'params/AuxLogits/conv0/conv/kernel.*\(1, 1, 768, 128\)',
      r'params/fc/kernel.*\(2048, 1008\).*\(2048, 1000\)'])):
    inception.load_weights(str(tmp_path / 'weights.npz'))
  with pytest.raises(ValueError, match='params/Conv2d_1a_3x3/bn/bias'):
    inception.save_weights(str(tmp_path / 'no.msgpack'), {
        'batch_stats': variables['batch_stats']})
  assert not (tmp_path / 'no.msgpack').exists()


@pytest.mark.parametrize('name', ['weights.npz', 'weights.msgpack', 'weights.pth'])
def test_files_of_another_kind(name, tmp_path):
  (tmp_path / name).write_bytes(b'PK\x03\x04 but not much more')
  with pytest.raises(ValueError, match=f'npz.*msgpack.*{name}'):
    inception.load_weights(str(tmp_path / name))
