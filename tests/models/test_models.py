"""Parameter counts, shapes, dtypes and masks of every model of the table."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import fft

from nat_jax import registry
from nat_jax.models import (
    MLP,
    MODELS,
    BottleneckResNet,
    EfficientNetLite,
    Fast,
    ResNet,
    SmallConv,
    ViT,
    WideResNet,
)
from nat_jax.models.fast import cosines, halve

# (spec, image shape, parameters at 10 outputs); the ResNet and WRN counts are those of
# the papers' own code.
COUNTS = [
    ({'name': 'small_conv'}, (8, 8, 1), 9 * 32 + 64 + 9 * 32 * 64 + 128 + 650),
    ({'name': 'mlp'}, (8, 8, 1), 64 * 128 + 128 + 128 * 128 + 128 + 1290),
    ({'name': 'resnet18'}, (32, 32, 3), 11_173_962),
    ({'name': 'resnet', 'blocks': (0, 1, 1), 'stem_stride': 2}, (32, 32, 3), 1_153_610),
    ({'name': 'resnet50'}, (64, 64, 3), 23_528_522),
    ({'name': 'vit_s16'}, (224, 224, 3), 21_669_514),
    ({'name': 'efficientnet_lite0'}, (224, 224, 3), 3_383_818),
    ({'name': 'fast'}, (32, 32, 3), 1_093_948),
    ({'name': 'fast', 'widths': (8,)}, (28, 28, 1), 26 + 234 * 8 + 576 + 32 + 90),
    ({'name': 'wide_resnet', 'depth': 16, 'widen': 1}, (32, 32, 3), 175_066),
    ({'name': 'wide_resnet', 'depth': 40, 'widen': 1}, (32, 32, 3), 563_930),
    ({'name': 'wide_resnet', 'depth': 40, 'widen': 2}, (32, 32, 3), 2_243_546),
]
SMALL = [
    {'name': 'small_conv', 'widths': [8, 16]},
    {'name': 'mlp', 'width': 16},
    {'name': 'resnet18', 'width': 4},
    {'name': 'resnet', 'blocks': [1], 'width': 4, 'stem_stride': 2},
    {'name': 'resnet50', 'width': 4},
    {'name': 'fast', 'widths': [4, 8]},
    {'name': 'wide_resnet', 'depth': 10},
]
# The same code, quick to compile.
TINY = {
    'small_conv': functools.partial(SmallConv, 5, widths=(4, 8)),
    'mlp': functools.partial(MLP, 5, width=16),
    'resnet': functools.partial(ResNet, 5, blocks=(1, 1), width=4),
    'bottleneck': functools.partial(BottleneckResNet, 5, blocks=(1,), width=4),
    'efficientnet': functools.partial(
        EfficientNetLite, 5, groups=((1, 3, 1, 1, 4), (2, 5, 2, 2, 4))),
    'vit': functools.partial(ViT, 5, patch=4, width=8, depth=1, heads=2),
    'fast': functools.partial(Fast, 5, widths=(4, 8)),
    'wide_resnet': functools.partial(WideResNet, 5, num_blocks=1),
}


def build(spec, num_outputs=10, axis_name=None):
  return registry.build(
      MODELS, spec, what='model', num_outputs=num_outputs, axis_name=axis_name)


def shapes(model, shape, **kwargs):
  """Abstract (variables, (logits, aux)) of a model on 4 images."""
  images = jax.ShapeDtypeStruct((4, *shape), jnp.float32)
  variables = jax.eval_shape(
      lambda key, x: model.init(key, x, train=False), jax.random.key(0), images)
  out = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images)
  return variables, out


def random_variables(model):
  """Variables for 8x8x3 images, drawn by numpy: init would have to be compiled."""
  rng = np.random.default_rng(0)
  def draw(path, leaf):
    if path[-1].key == 'kernel':
      return rng.normal(size=leaf.shape, scale=np.prod(leaf.shape[:-1]) ** -0.5)
    return rng.uniform(0.5, 1.5, leaf.shape)
  draws = jax.tree_util.tree_map_with_path(draw, shapes(model, (8, 8, 3))[0])
  return jax.tree.map(lambda x: x.astype(np.float32), draws)


def test_every_model_is_counted():
  assert {spec['name'] for spec, _, _ in COUNTS} == set(MODELS)
  # These have one size: tests/models/test_pretrained.py.
  assert ({spec['name'] for spec in SMALL} | {'efficientnet_lite0', 'vit_s16'}
          == set(MODELS))


@pytest.mark.parametrize('spec,shape,count', COUNTS)
def test_parameter_count(spec, shape, count):
  variables, (logits, aux) = shapes(build(spec), shape)
  assert sum(x.size for x in jax.tree.leaves(variables['params'])) == count
  assert logits.shape == (4, 10) and logits.dtype == jnp.float32
  assert aux['features'].ndim == 2


@pytest.mark.parametrize('spec,expected', [
    ({'name': 'resnet18'}, {
        'group1': (4, 32, 32, 64), 'group2': (4, 16, 16, 128), 'group3': (4, 8, 8, 256),
        'group4': (4, 4, 4, 512), 'features': (4, 512)}),
    ({'name': 'wide_resnet', 'depth': 10, 'widen': 2}, {
        'group1': (4, 32, 32, 32), 'group2': (4, 16, 16, 64), 'group3': (4, 8, 8, 128),
        'features': (4, 128)}),
    ({'name': 'fast', 'widths': (8, 12)}, {
        'group1': (4, 8, 8, 8), 'group2': (4, 4, 4, 12), 'features': (4, 12)}),
    ({'name': 'fast', 'widths': None}, {
        'group1': (4, 8, 8, 128), 'group2': (4, 4, 4, 256), 'features': (4, 256)}),
    ({'name': 'small_conv', 'widths': (8, 24)}, {
        'group1': (4, 16, 16, 8), 'group2': (4, 8, 8, 24), 'features': (4, 24)}),
    ({'name': 'mlp', 'width': 20, 'depth': 1}, {'features': (4, 20)}),
])
def test_aux_shapes(spec, expected):
  _, (_, aux) = shapes(build(spec), (32, 32, 3))
  assert {name: x.shape for name, x in aux.items()} == expected


@pytest.mark.parametrize('size, widths, last', [
    (20, [128, 256], 3), (63, [128, 256], 8), (64, [64, 128, 256], 4),
    (224, [32, 64, 128, 256], 7), (512, [32, 32, 32, 64, 128, 256], 4)])
def test_larger_images_get_more_groups(size, widths, last):
  _, (_, aux) = shapes(build({'name': 'fast', 'widths': None}), (size, size + 9, 3))
  groups = [aux[f'group{i}'].shape for i in range(1, len(aux))]
  assert [shape[3] for shape in groups] == widths and groups[-1][1] == last


@pytest.mark.parametrize('spec', SMALL)
@pytest.mark.parametrize('shape', [(8, 8, 1), (28, 28, 1), (15, 15, 3)])
def test_any_image_size(spec, shape):
  _, (logits, _) = shapes(build(spec, num_outputs=7), shape)
  assert logits.shape == (4, 7)


@pytest.mark.parametrize('make', TINY.values(), ids=TINY)
def test_bfloat16_computes_near_float32(make):
  images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
  wide, narrow = make(dtype='float32'), make(dtype='bfloat16')
  abstract = shapes(narrow, (8, 8, 3))[0]
  assert {x.dtype for x in jax.tree.leaves(abstract)} == {jnp.dtype('float32')}
  variables = random_variables(narrow)
  logits, exact = jax.device_get(jax.jit(lambda v, x: [
      model.apply(v, x, train=False)[0] for model in (narrow, wide)])(
          variables, images))
  assert logits.dtype == jnp.float32
  error = np.abs(logits - exact).max() / np.abs(exact).max()
  assert 0 < error < 0.05  # 0: the dtype was not used at all.


@pytest.mark.parametrize('spec', SMALL)
def test_other_dtypes_are_refused(spec):
  with pytest.raises(ValueError, match="dtype.*bfloat16.*float32.*'float16'"):
    shapes(build(dict(spec, dtype='float16')), (8, 8, 3))


@pytest.mark.parametrize('depth', [4, 17, 0])
def test_wide_resnet_depth(depth):
  with pytest.raises(ValueError, match=f'6 n \\+ 4.*{depth}'):
    build({'name': 'wide_resnet', 'depth': depth})


def test_projections_only_where_channels_change():
  def projections(spec):
    params = shapes(build(spec), (32, 32, 3))[0]['params']
    return [name for name, block in params.items() if 'conv_shortcut' in block]

  assert projections({'name': 'wide_resnet', 'widen': 1}) == [
      'group2_block1', 'group3_block1']
  assert projections({'name': 'wide_resnet', 'widen': 2}) == [
      'group1_block1', 'group2_block1', 'group3_block1']


@pytest.mark.parametrize('make', TINY.values(), ids=TINY)
def test_empty_slots_change_nothing(make):
  """Training logits and statistics are those of the filled slots alone."""
  model = make()
  variables = random_variables(model)
  images = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype(np.float32)
  filled = np.array([0, 2, 3, 5])

  def run(images, mask):
    (logits, _), updates = model.apply(
        variables, images, train=True, mask=mask, mutable=['batch_stats'])
    return logits, updates

  def both(images):
    slots = np.isin(np.arange(6), filled).astype(np.float32)
    return run(images, slots), run(images[filled], None)

  (logits, updates), (expected, expected_updates) = jax.device_get(
      jax.jit(both)(images))
  np.testing.assert_allclose(logits[filled], expected, rtol=1e-3, atol=1e-4)
  chex.assert_trees_all_close(updates, expected_updates, rtol=1e-4, atol=1e-5)
  assert bool(updates) == ('batch_stats' in variables)


@pytest.mark.parametrize('shape', [(8, 8, 1), (7, 9, 2), (8, 6, 3)])
def test_cosines_are_low_frequencies_of_those_of_scipy(shape):
  kept = [(u, v, s) for u in range(4) for v in range(4) for s in range(shape[2])
          if u + v <= (4 if s == 0 else 2)]
  images = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
  padded = np.pad(images, ((0, 0), (1, 4), (1, 4), (0, 0)))
  height, width = -(-shape[0] // 2), -(-shape[1] // 2)
  found = np.asarray(jax.jit(cosines)(images))
  assert found.shape == (2, height, width, len(kept))
  for y in range(height):
    for x in range(width):
      patch = padded[:, 2 * y:2 * y + 4, 2 * x:2 * x + 4]
      expected = fft.dctn(patch, axes=(1, 2, 3), norm='ortho')[:, *np.transpose(kept)]
      np.testing.assert_allclose(found[:, y, x], expected, atol=1e-5)


@pytest.mark.parametrize('side', [6, 7])
def test_halve_is_a_max_pool(side):
  x = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
  pool = functools.partial(
      nn.max_pool, window_shape=(2, 2), strides=(2, 2), padding='SAME')
  (y, grads), (expected, expected_grads) = jax.device_get(jax.jit(lambda x: [
      (fn(x), jax.grad(lambda x, fn=fn: jnp.square(fn(x)).sum())(x))
      for fn in (halve, pool)])(x))
  np.testing.assert_array_equal(y, expected)
  for found in (grads, expected_grads):
    np.testing.assert_allclose(
        np.square(found).sum(), 4 * np.square(expected).sum(), rtol=1e-5)
