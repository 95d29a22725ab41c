"""The networks against arrays that PyTorch computed (tests/golden/make_golden.py)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from nat_jax.models import DCGANDiscriminator, DCGANGenerator, resnet18, wide_resnet

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
UNIT = 32  # what is given are whole multiples of 1/32

# What PyTorch calls a parameter of each kind of layer, what flax calls it, and the
# layout of its axes.
NORM = {'weight': ('scale', 'vector'), 'bias': ('bias', 'vector')}
STATS = {'running_mean': ('mean', 'vector'), 'running_var': ('var', 'vector')}
CONV = {'weight': ('kernel', 'conv')}
DENSE = {'weight': ('kernel', 'dense'), 'bias': ('bias', 'vector')}


def weight_norm(layout):
  return {
      'parametrizations.weight.original0': ('g', 'vector'),
      'parametrizations.weight.original1': ('v', layout),
      'bias': ('bias', 'vector')}


# PyTorch's axes to flax's, and back.
LAYOUTS = {
    'vector': (np.ravel, np.ravel),
    'dense': (np.transpose, np.transpose),
    'conv': (lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1)),
    # PyTorch's and TensorFlow's kernel is that of the convolution whose transpose is
    # taken; lax.conv_transpose slides over the image a kernel that is not turned round.
    'deconv': (
        lambda w: w[:, :, ::-1, ::-1].transpose(2, 3, 0, 1),
        lambda w: w.transpose(2, 3, 0, 1)[:, :, ::-1, ::-1]),
}


def resnet_layers():
  """(PyTorch's name, flax's path, the kind) of every layer."""
  yield from [('conv1', 'stem', CONV), ('bn1', 'stem_norm', NORM)]
  for group in range(1, 5):
    for block in range(2):
      ours, theirs = f'group{group}_block{block + 1}', f'layer{group}.{block}'
      for i in (1, 2):
        yield f'{theirs}.conv{i}', f'{ours}/conv_{i}', CONV
        yield f'{theirs}.bn{i}', f'{ours}/norm_{i}', NORM
      if group > 1 and block == 0:
        yield f'{theirs}.shortcut.0', f'{ours}/conv_shortcut', CONV
        yield f'{theirs}.shortcut.1', f'{ours}/norm_shortcut', NORM
  yield 'linear', 'head', DENSE


def wide_resnet_layers():
  yield 'conv0', 'stem', CONV
  for group in range(3):
    for block in range(2):
      ours, theirs = f'group{group + 1}_block{block + 1}', f'group{group}.{block}'
      for i in (1, 2):
        yield f'{theirs}.conv{i}', f'{ours}/conv_{i}', CONV
        yield f'{theirs}.bn{i}', f'{ours}/norm_{i}', NORM
      if group and block == 0:
        yield f'{theirs}.convdim', f'{ours}/conv_shortcut', CONV
  yield from [('bn', 'norm', NORM), ('fc', 'head', DENSE)]


def pair_layers():
  yield 'generator.linear', 'generator/Dense_0', weight_norm('dense')
  for i in range(4):
    yield f'generator.norms.{i}', f'generator/BatchStatsNorm_{i}', NORM
  for i in range(3):
    yield f'generator.deconvs.{i}', f'generator/Conv_{i}', weight_norm('deconv')
  yield 'generator.last', 'generator/Conv_3', weight_norm('deconv')
  for i in range(4):
    yield f'discriminator.convs.{i}', f'discriminator/Conv_{i}', weight_norm('conv')
  for i in range(3):
    yield f'discriminator.norms.{i}', f'discriminator/BatchStatsNorm_{i}', NORM
  yield 'discriminator.linear', 'discriminator/Dense_0', weight_norm('dense')


def table(layers, norm=NORM):
  """{PyTorch's name of an array: (flax's path, layout)}; STATS for the statistics."""
  rows = {}
  for theirs, ours, kind in layers:
    if norm is STATS:
      kind = STATS if kind is NORM else {}
    for name, (leaf, layout) in kind.items():
      rows[f'{theirs}.{name}'] = (f'{ours}/{leaf}', layout)
  return rows


def load(name):
  with np.load(GOLDEN / f'{name}.npz') as file:
    arrays = {key: file[key] for key in file.files}
  given = {
      key.removeprefix('given/'): (
          value.astype(np.float32) / UNIT if value.dtype == np.int8 else value)
      for key, value in arrays.items() if key.startswith('given/')}
  return given, {
      key.removeprefix('found/'): value
      for key, value in arrays.items() if key.startswith('found/')}


def to_flax(rows, given):
  return traverse_util.unflatten_dict({
      path: LAYOUTS[layout][0](given[name])
      for name, (path, layout) in rows.items()}, sep='/')


def to_torch(rows, tree):
  flat = traverse_util.flatten_dict(tree, sep='/')
  assert set(flat) == {path for path, _ in rows.values()}
  return {
      name: LAYOUTS[layout][1](np.asarray(flat[path]))
      for name, (path, layout) in rows.items()}


def channels_last(x):
  return x.transpose(0, 2, 3, 1)


def channels_first(x):
  x = np.asarray(x)
  return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


def near(got, expected, name, scale=0.0):
  """Asserts |got - expected| <= 1e-4 max(|expected|, scale), element by element.

  PyTorch's arrays were computed in float64. Ours are off by the rounding of float32,
  6e-8, which long sums, divisions by the spread of a batch and 18 layers make 1e-6 to
  3e-5 of the largest element (measured on a CPU).
  """
  got = np.asarray(got, np.float64)
  if got.size > expected.size:  # make_golden.py kept the sketch alone
    signs = np.random.RandomState(0).randint(0, 2, (expected.size, got.size)) * 2 - 1
    got = signs @ got.ravel() / expected.size**0.5
  assert got.size == expected.size, name
  np.testing.assert_allclose(
      got.ravel(), expected.ravel(), rtol=0, err_msg=name,
      atol=1e-4 * max(np.abs(expected).max(), scale))


@pytest.mark.parametrize('name,model,layers', [
    ('resnet18', resnet18(5, width=2), resnet_layers),
    ('wrn16', wide_resnet(5, depth=16, widen=1), wide_resnet_layers),
])
def test_classifiers(name, model, layers):
  given, found = load(name)
  weights, stats = table(layers()), table(layers(), STATS)
  assert {*weights, *stats, 'input', 'cotangent'} == {
      key for key in given if not key.startswith('count/')}
  x = channels_last(given['input'])
  variables = {
      'params': to_flax(weights, given), 'batch_stats': to_flax(stats, given)}

  @jax.jit
  def passes(variables, x):
    def loss(params, x):
      (logits, aux), changed = model.apply(
          {**variables, 'params': params}, x, train=True, mutable='batch_stats')
      return jnp.sum(logits * given['cotangent']), (logits, aux, changed)

    (_, seen), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(
        variables['params'], x)
    return *seen, grads, model.apply(variables, x, train=False)[0]

  logits, aux, changed, (grads, slope), evaluated = passes(variables, x)
  near(evaluated, found.pop('eval/outputs'), 'evaluation')
  for key, value in {'outputs': logits, **aux}.items():
    near(channels_first(value), found.pop(f'train/{key}'), key)
  near(channels_first(slope), found.pop('grad/input'), 'input')
  for key, value in to_torch(weights, grads).items():
    near(value, found.pop(f'grad/{key}'), key)
  for key, value in to_torch(stats, changed['batch_stats']).items():
    expected = found.pop(f'stats/{key}')
    layer, kind = key.rsplit('.', 1)
    if kind == 'running_var':  # PyTorch adds the unbiased variance, flax the biased
      n, before = given[f'count/{layer}'], 0.9 * given[key]
      expected = before + (expected - before) * (n - 1) / n
    near(value, expected, key)
  assert not found


@pytest.mark.parametrize('name,shape,num_classes', [
    ('dcgan32', (32, 32, 3), 0), ('dcgan28', (28, 28, 1), 4)])
def test_am_gan_pair(name, shape, num_classes):
  given, found = load(name)
  rows = table(pair_layers())
  assert {*rows, 'input', 'cotangent'} == set(given)
  generator = DCGANGenerator(6, shape, num_classes, width=2)
  discriminator = DCGANDiscriminator(shape, 5, width=2)
  z = given['input'][:, :6]
  labels = None
  if num_classes:  # PyTorch was given their one-hot vectors
    labels = given['input'][:, 6:].argmax(1)
    np.testing.assert_array_equal(given['input'][:, 6:], np.eye(4))

  @jax.jit
  def passes(params, z):
    def loss(params, z):
      images = generator.apply({'params': params['generator']}, z, labels)
      outputs, aux = discriminator.apply({'params': params['discriminator']}, images)
      return jnp.sum(outputs * given['cotangent']), {
          'outputs': outputs, 'images': images, **aux}

    (_, seen), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, z)
    return seen, grads

  seen, (grads, slope) = passes(to_flax(rows, given), z)
  for key, value in seen.items():
    near(channels_first(value), found.pop(f'train/{key}'), key)
  near(slope, found.pop('grad/input')[:, :6], 'input')
  for key, value in to_torch(rows, grads).items():
    # In front of a BatchNorm the gradient of a bias is 0, and that of a gain nearly:
    # what float32 leaves of them is measured by the gradients of the others.
    near(value, found.pop(f'grad/{key}'), key, scale=0.5)
  assert not found
