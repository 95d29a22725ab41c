"""GAN pairs: parameter counts, shapes, empty slots, an example's own randomness."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax import registry
from nat_jax.models import DISCRIMINATORS, GENERATORS, gan_layers

CIFAR, MNIST = (32, 32, 3), (28, 28, 1)
# (table, spec, image shape, other arguments, parameters). 100 latent dimensions.
DCGAN_G, DCGAN_D = {'name': 'dcgan_generator'}, {'name': 'dcgan_discriminator'}
COUNTS = [
    (GENERATORS, DCGAN_G, CIFAR, {}, 4_743_846),
    (GENERATORS, DCGAN_G, CIFAR, {'num_classes': 10}, 4_743_846 + 10 * 12_288),
    (GENERATORS, DCGAN_G, MNIST, {}, 4_743_846 - 2 * (9 * 96 + 2)),
    (GENERATORS, {'name': 'mlp_generator', 'widths': [16, 8]}, (8, 8, 1), {},
     (100 + 4) * 16 + (16 + 4) * 8 + (8 + 2) * 64),
    (GENERATORS, {'name': 'toy_generator', 'latent': 1}, (1,), {}, 4 * 2 + 5),
    (DISCRIMINATORS, DCGAN_D, CIFAR, {'num_outputs': 11}, 1_559_382),
    (DISCRIMINATORS, DCGAN_D, CIFAR, {'num_outputs': 10}, 1_558_868),
    (DISCRIMINATORS, DCGAN_D, MNIST, {'num_outputs': 10}, 1_558_868 - 2 * 9 * 64),
    (DISCRIMINATORS, {'name': 'mlp_discriminator', 'widths': [16, 8]}, (8, 8, 1),
     {'num_outputs': 6}, (64 + 2) * 16 + (16 + 2) * 8 + (8 + 2) * 6),
    (DISCRIMINATORS, {'name': 'toy_discriminator'}, (2,), {'num_outputs': 1},
     3 * 8 + 9 * 8 + 9 * 8 + 9),
]
# The same code, quick to compile.
SMALL = {
    'dcgan': ({'width': 4}, {'width': 4}, CIFAR),
    'mlp': ({'widths': [16, 8]}, {'widths': [16, 8], 'batch_norm': True}, (8, 8, 1)),
    'toy': ({'widths': [6]}, {'widths': [8, 8]}, (2,)),
}
MASK = np.array([1, 0, 1, 1, 0, 1], np.float32)
FILLED = MASK > 0
KEYS = np.random.default_rng(7).integers(2**32, size=(6, 2), dtype=np.uint32)


def new_keys(data=KEYS):
  """Six keys, equal in every call and yet new to the checker of reused ones."""
  return jax.random.wrap_key_data(data)


def generator(kind, shape=None, **kwargs):
  spec, _, own = SMALL[kind]
  return registry.build(
      GENERATORS, {'name': f'{kind}_generator', **spec, **kwargs},
      what='network', image_shape=shape or own, latent=5)


def discriminator(kind, shape=None, **kwargs):
  _, spec, own = SMALL[kind]
  return registry.build(
      DISCRIMINATORS, {'name': f'{kind}_discriminator', **spec, **kwargs},
      what='network', image_shape=shape or own, num_outputs=3)


def latents():
  return np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def inputs(kind):
  shape = (6, *SMALL[kind][2])
  return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def variables_of(model, *args):
  """Variables drawn by numpy, as init would have to be compiled; gains near 1."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key in ('g', 'scale'):
      return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    return rng.normal(size=leaf.shape, scale=0.3).astype(np.float32)

  return jax.tree_util.tree_map_with_path(
      draw, jax.eval_shape(model.init, jax.random.key(0), *args))


def test_every_network_is_counted():
  for table in (GENERATORS, DISCRIMINATORS):
    # 'stacked' makes copies of another: tests/tasks/test_contracts.py
    here = [name for name in table if name.partition('_')[0] not in (
        'stacked', 'resnet', 'biggan')]  # tests/models/test_gan_resnet.py
    assert {spec['name'] for t, spec, *_ in COUNTS if t is table} == set(here)
    assert {name.partition('_')[0] for name in here} == set(SMALL)


@pytest.mark.parametrize('table,spec,shape,kwargs,count', COUNTS)
def test_parameter_count(table, spec, shape, kwargs, count):
  latent = {} if table is DISCRIMINATORS else {'latent': spec.get('latent', 100)}
  model = registry.build(
      table, {**spec, **latent}, image_shape=list(shape), axis_name=None, **kwargs)
  x = np.zeros((4, *(latent.values() or shape)), np.float32)
  args = (x, np.zeros(4, int)) if 'num_classes' in kwargs else (x,)
  out, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), *args)
  assert set(variables) == {'params'}
  assert sum(x.size for x in jax.tree.leaves(variables)) == count
  if latent:
    assert out.shape == (4, *shape)
  else:
    assert out[0].shape == (4, kwargs['num_outputs'])
    assert out[1]['features'].ndim == 2


@pytest.mark.parametrize('shape', [(8, 8, 1), (5, 4, 3)])
def test_mlp_images_are_of_any_shape(shape):
  model, z = generator('mlp', shape), latents()
  images = jax.device_get(jax.jit(model.apply)(variables_of(model, z), z))
  assert images.shape == (6, *shape) and images.dtype == jnp.float32
  assert np.abs(images).max() <= 1 and np.median(images.std(0)) > 0.1


def test_28x28_is_the_middle_of_32x32():
  z = latents()
  wide, narrow = generator('dcgan', (32, 32, 1)), generator('dcgan', MNIST)
  variables = variables_of(wide, z)
  images, middle = jax.device_get(jax.jit(
      lambda z: [g.apply(variables, z) for g in (wide, narrow)])(z))
  assert images.shape == (6, 32, 32, 1) and images.dtype == jnp.float32
  assert np.abs(images).max() <= 1 and np.median(images.std(0)) > 0.1
  np.testing.assert_allclose(middle, images[:, 2:30, 2:30], atol=1e-6)
  padded = np.full(images.shape, -0.5, np.float32)
  padded[:, 2:30, 2:30] = middle
  wide, narrow = (
      discriminator('dcgan', shape, black=-0.5) for shape in ((32, 32, 1), MNIST))
  variables = variables_of(wide, padded)
  outputs, expected = jax.jit(lambda *xs: [
      d.apply(variables, x)[0] for d, x in zip((narrow, wide), xs, strict=True)])(
          middle, padded)
  np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('model,shape,match', [
    (generator('dcgan', (64, 64, 3)), (5,), '32x32.*28x28.*64'),
    (discriminator('dcgan', (8, 8, 1)), (8, 8, 1), '32x32.*28x28.*mlp_discriminator'),
    (generator('toy', (8, 8, 1)), (5,), 'points'),
    (generator('mlp'), (4,), r'z\b.*\[n, 5\].*\(2, 4\)'),
    (generator('toy', num_classes=3), (5,), r'\b3\b.*labels'),
    (generator('toy', activation='elu'), (5,), "relu.*softplus.*'elu'"),
    (discriminator('toy', norm='batch'), (2,), "weight, spectral, none.*'batch'"),
    (discriminator('toy', spectral_gain=2.0), (2,),
     "spectral_gain=2.0.*norm='spectral'.*'none'"),
    (generator('toy', batch_norm='layer'), (5,),
     "batch_norm.*none, batch, class, virtual.*'layer'"),
    (generator('mlp', batch_norm='class'), (5,), "batch_norm='class'.*predefined"),
])
def test_mistakes(model, shape, match):
  with pytest.raises(ValueError, match=match):
    jax.eval_shape(model.init, jax.random.key(0), np.zeros((2, *shape), np.float32))


def test_labels_choose_the_image():
  model = generator('toy', num_classes=3)
  z, labels = np.ones((3, 5), np.float32), np.arange(3)
  variables, apply = variables_of(model, z, labels), jax.jit(model.apply)
  points = np.asarray(apply(variables, z, labels))
  assert len(np.unique(points, axis=0)) == 3
  np.testing.assert_allclose(apply(variables, z, labels[::-1]), points[::-1])


@pytest.mark.parametrize('kind', ['toy', 'mlp'])
def test_a_generator_with_virtual_batch_norm_treats_each_example_alone(kind):
  model, z = generator(kind, batch_norm='virtual', num_classes=2), latents()
  labels = np.arange(6) % 2
  variables = variables_of(model, z, labels)
  points, alone = jax.device_get(jax.jit(lambda variables: [
      model.apply(variables, z[i], labels[i]) for i in (slice(6), slice(2, 4))])(
          variables))
  assert len(points) == 6
  np.testing.assert_allclose(alone, points[2:4], atol=1e-5)


def test_spectral_norm_of_a_generator_bounds_its_slope():
  """Each layer has slope 1 at most once u has settled, and ReLU too."""
  model, z = generator('toy', norm='spectral', activation='relu'), latents()
  step = np.random.default_rng(3).normal(size=z.shape).astype(np.float32)

  def settle(_, variables):
    return {**variables, **model.apply(variables, z, mutable=['batch_stats'])[1]}

  @jax.jit
  def run(key):
    variables = jax.lax.fori_loop(0, 30, settle, model.init(key, z))
    return model.apply(variables, z), model.apply(variables, z + step)

  points, moved = jax.device_get(run(jax.random.key(0)))
  slopes = np.linalg.norm(moved - points, axis=1) / np.linalg.norm(step, axis=1)
  assert 0 < slopes.max() <= 1.001


@pytest.mark.parametrize('kind', ['mlp', 'toy'])
def test_spectral_gain_multiplies_every_layer(kind):
  """Without biases three layers of gain 1.5 and (leaky) ReLU are 1.5^3 times as steep.
  """
  settings = {'norm': 'spectral', **({'batch_norm': False} if kind == 'mlp' else {})}
  x, plain = inputs(kind), discriminator(kind, **settings)
  variables = jax.tree_util.tree_map_with_path(
      lambda path, leaf: leaf * (path[-1].key != 'bias'), variables_of(plain, x))
  outputs, expected, same = jax.device_get(jax.jit(lambda: [
      discriminator(kind, **settings, **gain).apply(variables, x)[0]
      for gain in ({'spectral_gain': 1.5}, {}, {'spectral_gain': 1.0})])())
  np.testing.assert_allclose(outputs, 1.5 ** 3 * expected, rtol=1e-4)
  np.testing.assert_array_equal(same, expected)
  assert np.abs(expected).max() > 1e-2


@pytest.mark.parametrize('kind', SMALL)
def test_empty_slots_change_nothing(kind):
  z = latents()
  g, d = generator(kind), discriminator(kind)
  gv, dv = variables_of(g, z), variables_of(d, inputs(kind))

  @jax.jit
  def run(z, keys, mask):
    x = g.apply(gv, z, mask=mask)
    return x, d.apply(dv, x, keys, mask=mask)[0]

  filler = np.where(FILLED[:, None], z, np.float32(30))
  outputs, other, counted = (
      jax.device_get(run(z, new_keys(), mask)) for z, mask in (
          (z, MASK), (filler, MASK), (filler, np.ones_like(MASK))))
  for a, b, c in zip(outputs, other, counted, strict=True):
    np.testing.assert_allclose(a[FILLED], b[FILLED], atol=2e-5)
    # Where they do count, they change the others through BatchNorm.
    assert (np.abs(a[FILLED] - c[FILLED]).max() > 1e-2) == (kind != 'toy')


@pytest.mark.parametrize('kind', ['dcgan', 'mlp'])
def test_noise_is_of_the_example_alone(kind):
  """Without BatchNorm an output is a function of the example and its key."""
  d = discriminator(kind, batch_norm=False)
  quiet = discriminator(kind, batch_norm=False, noise=0.0, dropout=0.0)
  x = inputs(kind)
  variables = variables_of(d, x)
  compiled = jax.jit(lambda x, keys: [
      d.apply(variables, x, keys)[0], d.apply(variables, x)[0],
      quiet.apply(variables, x, jax.random.clone(keys))[0]])

  def run(x, data=KEYS):
    return jax.device_get(compiled(x, new_keys(data)))

  y, plain, silent = run(x)
  np.testing.assert_allclose(plain, silent, atol=1e-5)
  assert np.abs(y - plain).max(1).min() > 1e-3
  order = np.array([3, 1, 5, 0, 2, 4])
  np.testing.assert_allclose(run(x[order], KEYS[order])[0], y[order], atol=1e-5)
  third = np.arange(6)[:, None] == 2
  moved = np.abs(run(x, np.where(third, np.uint32(99), KEYS))[0] - y).max(1)
  assert moved[2] > 1e-3 and np.delete(moved, 2).max() < 1e-6
  same = run(np.repeat(x[:1], 6, 0))[0]
  assert np.abs(np.diff(same, axis=0)).max(1).min() > 1e-3


@pytest.mark.parametrize('kind', SMALL)
@pytest.mark.parametrize('norm', gan_layers.NORMS)
def test_state_of_discriminators(kind, norm):
  """Only spectral norm keeps a state: one u for each weight."""
  d = discriminator(kind, norm=norm)
  x = inputs(kind)
  variables = jax.eval_shape(lambda: d.init(jax.random.key(0), x))
  assert ('batch_stats' in variables) == (norm == 'spectral')
  weights = [p for p in jax.tree.leaves(variables['params']) if p.ndim > 1]
  assert len(jax.tree.leaves(variables.get('batch_stats', {}))) == (
      len(weights) if norm == 'spectral' else 0)
  (outputs, _), _ = jax.eval_shape(lambda v: d.apply(
      v, x, new_keys(), train=True, mutable=['batch_stats']), variables)
  assert outputs.shape == (6, 3)


@pytest.mark.parametrize('kind', ['dcgan', 'mlp'])
def test_bfloat16_computes_near_float32(kind):
  z, x = latents(), inputs(kind)
  gv = variables_of(generator(kind, dtype='bfloat16'), z)
  dv = variables_of(discriminator(kind, dtype='bfloat16'), x)
  assert {a.dtype for a in jax.tree.leaves((gv, dv))} == {np.dtype('float32')}

  def run(dtype):
    outputs, aux = discriminator(kind, dtype=dtype).apply(dv, x)
    return generator(kind, dtype=dtype).apply(gv, z), outputs, aux['features']

  both = jax.device_get(jax.jit(lambda: [run('float32'), run('bfloat16')])())
  for exact, narrow in zip(*both, strict=True):
    assert exact.dtype == narrow.dtype == jnp.float32
    assert 0 < np.abs(exact - narrow).max() / np.abs(exact).max() < 0.1


@pytest.mark.parametrize('kind', SMALL)
def test_gradients_reach_every_parameter(kind):
  z = latents()
  g, d = generator(kind), discriminator(kind)
  variables = variables_of(g, z), variables_of(d, inputs(kind))

  def loss(variables):
    fake = g.apply(variables[0], z)
    return jnp.square(d.apply(variables[1], fake, new_keys())[0]).mean()

  grads = jax.jit(jax.grad(loss))(variables)
  chex.assert_tree_all_finite(grads)
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    # A BatchNorm that follows takes the gradient of a bias away.
    assert path[-1].key == 'bias' or np.abs(leaf).max() > 0, path
