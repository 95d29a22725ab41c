"""Residual GAN pairs: sizes by hand, attention, spectral norm, devices, empty slots."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax import registry
from nat_jax.models import DISCRIMINATORS, GENERATORS, gan_resnet

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'gan_objectives.md'
SHAPE, WIDE_SHAPE = (32, 32, 3), (128, 128, 3)
K = 3
# The pairs as small as they can be.
SAGAN = (
    {'name': 'resnet_generator', 'latent': 4, 'width': 2, 'norm': 'spectral',
     'batch_norm': 'class', 'attention': 16, 'num_classes': K},
    {'name': 'resnet_discriminator', 'width': 2, 'attention': 16, 'wide': True,
     'projection': K, 'num_outputs': 1})
BIGGAN = (
    {'name': 'biggan_generator', 'latent': 8, 'width': 2, 'shared': 3, 'attention': 16,
     'num_classes': K},
    {**SAGAN[1], 'initializer': 'orthogonal'})
SNGAN = (
    {'name': 'resnet_generator', 'latent': 4, 'width': 2},
    {'name': 'resnet_discriminator', 'width': 2, 'num_outputs': 1})


def build(spec, shape=SHAPE):
  table = GENERATORS if 'latent' in spec else DISCRIMINATORS
  return registry.build(table, spec, what='network', image_shape=shape)


def inputs_of(spec, shape, num=2):
  if 'latent' not in spec:
    return (np.zeros((num, *shape), np.float32),)
  labels = (np.zeros(num, int),) if spec.get('num_classes') else ()
  return (np.zeros((num, spec['latent']), np.float32), *labels)


def conv(kernel, inputs, outputs):
  """Parameters of a convolution with a bias."""
  return kernel ** 2 * inputs * outputs + outputs


def attention(c):
  """Parameters of SAGAN's block: four 1x1 convolutions without biases, gamma."""
  return 2 * c * (c // 8) + 2 * c * (c // 2) + 1


def of_generator(channels, classes=0):
  """Parameters of a generator with channels at 4x4 and after each block, z of 128."""
  norm = 2 * max(classes, 1)
  return sum(
      norm * (c + d) + conv(3, c, d) + conv(3, d, d) + conv(1, c, d)
      for c, d in zip(channels, channels[1:], strict=False)
  ) + 129 * 16 * channels[0] + 2 * channels[-1] + conv(3, channels[-1], 3)


def of_discriminator(channels, wide=False, classes=0):
  """Parameters of a discriminator with channels after each block."""
  total = conv(3, 3, channels[0]) + conv(3, channels[0], channels[0]) + conv(
      1, 3, channels[0])
  for i, (c, d) in enumerate(zip(channels, channels[1:], strict=False), 1):
    hidden = d if wide else c
    total += conv(3, c, hidden) + conv(3, hidden, d)
    if c != d or (len(channels) == 4 and i == 1):  # the blocks that halve the image
      total += conv(1, c, d)
  return total + channels[-1] + 1 + classes * channels[-1]


def of_biggan(channels, latent, classes, shared=128):
  """Parameters of BigGAN's generator with channels at 4x4 and after each block."""
  part = latent // len(channels)
  return sum(
      2 * (shared + part) * (c + d) + conv(3, c, d) + conv(3, d, d) + conv(1, c, d)
      for c, d in zip(channels, channels[1:], strict=False)
  ) + (part + 1) * 16 * channels[0] + 2 * channels[-1] + conv(3, channels[-1], 3) + (
      classes * shared)


# Channels of the authors' networks for 128x128 images.
UP, DOWN = [1024, 1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024, 1024]
SIZES = [  # (pair, image, width, classes, latent, attention, parameters)
    (SNGAN, SHAPE, 64, 0, 128, 0, (
        of_generator([256] * 4), of_discriminator([128] * 4))),
    (SNGAN, WIDE_SHAPE, 64, 0, 128, 0, (of_generator(UP), of_discriminator(DOWN))),
    (SAGAN, SHAPE, 64, 10, 128, 16, (
        of_generator([256] * 4, 10) + attention(256),
        of_discriminator([128] * 4, True, 10) + attention(128))),
    (SAGAN, WIDE_SHAPE, 64, 1000, 128, 32, (
        of_generator(UP, 1000) + attention(256),
        of_discriminator(DOWN, True, 1000) + attention(128))),
    (BIGGAN, SHAPE, 96, 10, 80, 16, (
        of_biggan([384] * 4, 80, 10) + attention(384),
        of_discriminator([192] * 4, True, 10) + attention(192))),
    # The numbers that the test of google/compare_gan's BigGAN expects.
    (BIGGAN, WIDE_SHAPE, 96, 1000, 120, 64, (70_433_988, 87_982_370)),
]


@pytest.mark.parametrize('pair, shape, width, classes, latent, side, counts', SIZES)
def test_sizes_are_those_of_the_authors_layers(
    pair, shape, width, classes, latent, side, counts):
  """The authors' D for 32x32 has one parameter less, as its output has no bias."""
  assert '| {} | {:,} | {:,} |'.format(f'{width}, {width}', *counts) in PAGE.read_text()
  there = {'latent': latent, 'num_classes': classes, 'projection': classes,
           'attention': side, 'shared': 128}
  for spec, count in zip(pair, counts, strict=True):
    spec = {key: there.get(key, spec[key]) for key in spec} | {'width': width}
    out, variables = jax.eval_shape(
        build(spec, shape).init_with_output, jax.random.key(0), *inputs_of(spec, shape))
    assert sum(x.size for x in jax.tree.leaves(variables['params'])) == count
    if 'latent' in spec:
      assert out.shape == (2, *shape) and out.dtype == jnp.float32
    else:
      assert out[0].shape == (2, 1)
      assert out[1]['features'].shape == (2, width * (2 if shape == SHAPE else 16))


def test_biggan_for_32x32_has_the_published_size():
  """PyTorch-StudioGAN: 9.42 and 2.42 million parameters."""
  counts = next(counts for pair, shape, *_, counts in SIZES
                if pair is BIGGAN and shape == SHAPE)
  assert [round(count / 1e6, 2) for count in counts] == [9.42, 2.42]


@pytest.fixture(scope='module')
def attended():
  """(x, its variables, attention with gamma = 0, with gamma = 0.5, x doubled)."""
  x = np.random.default_rng(0).normal(size=(2, 4, 6, 16)).astype(np.float32)
  layer = gan_resnet.SelfAttention(norm='none')

  @jax.jit
  def run(key):
    params = layer.init(key, x)['params']
    return params, *(layer.apply({'params': {**params, 'gamma': gamma}}, x)
                     for gamma in (params['gamma'], jnp.float32(0.5)))

  return x, *jax.device_get(run(jax.random.key(0)))


def test_attention_is_the_identity_at_the_start(attended):
  x, params, start, other = attended
  assert params['gamma'] == 0
  np.testing.assert_array_equal(start, x)
  assert np.abs(other - x).max() > 1e-2


def test_attention_against_loops(attended):
  x, params, _, found = attended
  f, g, h, v = (np.asarray(params[f'Conv_{i}']['kernel'])[0, 0] for i in range(4))
  assert f.shape == g.shape == (16, 2) and h.shape == (16, 8) and v.shape == (8, 16)

  def pooled(image):
    return np.array([image[i:i + 2, j:j + 2].max((0, 1))
                     for i in range(0, 4, 2) for j in range(0, 6, 2)])

  for image, expected in zip(x, found, strict=True):
    keys, values = pooled(image @ g), pooled(image @ h)
    for i in range(4):
      for j in range(6):
        scores = np.exp(keys @ (image[i, j] @ f))
        o = scores / scores.sum() @ values @ v
        np.testing.assert_allclose(expected[i, j], image[i, j] + 0.5 * o, atol=1e-5)


@functools.cache
def networks():
  """SAGAN's pair and BigGAN's generator, and variables as after some training.

  That is, gamma is not 0 and the scales of classes differ.
  """
  def trained(path, x):
    if path[-1].key == 'scale' and x.ndim == 2:
      return x * (1 + jnp.arange(len(x)))[:, None]
    return x + 0.5 if path[-1].key == 'gamma' else x

  specs = *SAGAN, BIGGAN[0]
  models, found = [build(spec) for spec in specs], []
  for model, spec in zip(models, specs, strict=True):
    variables = jax.jit(model.init)(jax.random.key(0), *inputs_of(spec, SHAPE))
    found.append(jax.tree_util.tree_map_with_path(trained, variables))
  return models, found


def forward(variables, z, labels, mask, axis_name=None):
  """Images of both generators, outputs, and the updated u of the three networks."""
  sagan, discriminator, biggan = (
      model.clone(axis_name=axis_name) for model in networks()[0])
  images, of_sagan = sagan.apply(
      variables[0], z[:, :4], labels, mask, mutable=['batch_stats'])
  (outputs, _), of_disc = discriminator.apply(
      variables[1], images, mask=mask, train=True, labels=labels,
      mutable=['batch_stats'])
  others, of_biggan = biggan.apply(
      variables[2], z, labels, mask, mutable=['batch_stats'])
  images = jnp.concatenate([images, others], -1)
  return images, outputs, [
      each['batch_stats'] for each in (of_sagan, of_disc, of_biggan)]


def batch():
  rng = np.random.default_rng(0)
  z = rng.normal(size=(8, 8)).astype(np.float32)
  return z, np.arange(8) % K, np.array([1, 1, 1, 0, 1, 0, 1, 1], np.float32)


jitted = functools.cache(lambda: jax.jit(forward))


@pytest.mark.slow
def test_every_layer_has_spectral_norm_1_after_enough_updates():
  """Each kernel has its u, and |W u| ends at the largest singular value of W."""
  variables = networks()[1]
  u = None
  for _ in range(30):
    _, _, u = jitted()(variables, *batch())
    variables = [{**v, 'batch_stats': s} for v, s in zip(variables, u, strict=True)]
  nums = 1 + 3 * 3 + 4 + 1, 3 + 3 + 2 * 2 + 4 + 2, 1 + 3 * (3 + 4) + 4 + 1
  for v, num in zip(variables, nums, strict=True):
    kernels = {path[:-1]: np.asarray(x) for path, x in (
        jax.tree_util.tree_leaves_with_path(v['params'])) if path[-1].key == 'kernel'}
    vectors = {path[:-1]: np.asarray(x) for path, x in (
        jax.tree_util.tree_leaves_with_path(v['batch_stats']))}
    assert set(kernels) == set(vectors) and len(kernels) == num
    for path, kernel in kernels.items():
      matrix = kernel.reshape(-1, kernel.shape[-1])
      used = matrix / np.linalg.norm(matrix @ vectors[path])
      np.testing.assert_allclose(np.linalg.norm(used, 2), 1, rtol=0.01, err_msg=path)


@pytest.mark.slow
def test_devices_and_empty_slots():
  """pmap over 4 devices is jit on one; empty slots change nothing; classes do."""
  variables = networks()[1]
  z, labels, mask = batch()
  images, outputs, u = jitted()(variables, z, labels, mask)
  assert np.abs(images).max() <= 1 and images.std(0).max() > 0.05
  many = jax.pmap(
      functools.partial(forward, axis_name='data'), 'data', in_axes=(None, 0, 0, 0),
      devices=jax.devices()[:4])
  split = [x.reshape(4, 2, *x.shape[1:]) for x in (z, labels, mask)]
  there, outputs_there, u_there = many(variables, *split)
  np.testing.assert_allclose(np.reshape(there, images.shape), images, atol=1e-4)
  np.testing.assert_allclose(np.reshape(outputs_there, (8, 1)), outputs, rtol=1e-3,
                             atol=1e-4)
  for a, b in zip(jax.tree.leaves(u_there), jax.tree.leaves(u), strict=True):
    np.testing.assert_allclose(a, np.broadcast_to(b, a.shape), atol=1e-5)
  filled = mask > 0
  filler = np.where(filled[:, None], z, np.float32(30))
  other, other_outputs, _ = jitted()(variables, filler, labels, mask)
  np.testing.assert_allclose(other[filled], images[filled], atol=1e-5)
  np.testing.assert_allclose(other_outputs[filled], outputs[filled], rtol=1e-4,
                             atol=1e-5)
  counted, _, _ = jitted()(variables, filler, labels, np.ones_like(mask))
  # Where they do count, they change the others through BatchNorm of each generator.
  assert (np.abs(counted[filled] - images[filled]).max((0, 1, 2)) > 1e-2).all()


@pytest.mark.slow
def test_the_class_and_each_part_of_z_change_the_images():
  variables, (z, labels, mask) = networks()[1], batch()
  images, _, _ = jitted()(variables, z, labels, mask)
  other, _, _ = jitted()(variables, z, (labels + 1) % K, mask)
  assert (np.abs(other - images).max((0, 1, 2)) > 1e-2).all()
  for part in range(4):
    moved = z + np.repeat(np.arange(4) == part, 2).astype(np.float32) * 3 * z
    other, _, _ = jitted()(variables, moved, labels, mask)
    assert (np.abs(other - images)[..., 3:].max((0, 1, 2)) > 1e-3).all(), part


@pytest.mark.parametrize('spec, shape, match', [
    (SNGAN[0], (64, 64, 3), '32x32 or 128x128.*64.*mlp_generator'),
    (SNGAN[1], (28, 28, 1), '32x32 or 128x128.*28'),
    ({**SNGAN[0], 'attention': 4}, SHAPE, r'0 \(none\) or 8 or 16.*got 4'),
    ({**SNGAN[1], 'attention': True}, WIDE_SHAPE, '8 or 16 or 32 or 64.*True'),
    ({**SNGAN[1], 'initializer': 'glorrot'}, SHAPE, "'glorrot'.*glorot, orthogonal"),
    ({**BIGGAN[0], 'latent': 10}, SHAPE, 'multiple of 4.*3 blocks.*got 10'),
    ({**SNGAN[0], 'batch_norm': 'class'}, SHAPE, "batch_norm='class'.*predefined"),
    ({**SNGAN[1], 'norm': 'batch'}, SHAPE, "weight, spectral, none.*'batch'"),
    ({**SNGAN[1], 'dtype': 'float16'}, SHAPE, 'float16'),
])
def test_mistakes(spec, shape, match):
  with pytest.raises(ValueError, match=match):
    jax.eval_shape(
        build(spec, shape).init, jax.random.key(0), *inputs_of(spec, shape))
