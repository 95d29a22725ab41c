"""Properties of samplers, splits, masks and configs, for any input (hypothesis)."""

import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from nat_jax import losses, models, schema
from nat_jax.data import Arrays, apart, make_stream, sources
from nat_jax.models import gan_layers
from nat_jax.schema import bounds

# The same examples in every run, on every machine, however busy it is.
hypothesis.settings.register_profile(
    'properties', derandomize=True, deadline=None, database=None, max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.too_slow])
PROPERTIES = hypothesis.settings.get_profile('properties')


# Samplers.


@st.composite
def mixes(draw, inside=None, least=0):
  """Arguments of make_stream that make a batch, with at least so many sets."""
  sizes = draw(st.lists(st.integers(1, 40), min_size=least, max_size=3))
  names = 'abc'[:len(sizes)]
  inside = draw(st.booleans()) if inside is None else inside
  batch_size = draw(st.integers(1, 30))
  most = min(20, batch_size - 1) if inside else 20
  low, high = sorted(draw(st.tuples(*[st.integers(0, most if sizes else 0)] * 2)))
  weighted = draw(st.sets(st.sampled_from(names))) if names else ()
  return dict(
      num_positives=draw(st.integers(1, 60)),
      negatives=dict(zip(names, sizes, strict=True)),
      weights={name: draw(st.floats(1e-3, 1e3)) for name in sorted(weighted)},
      batch_size=batch_size, inside=inside, seed=draw(st.integers(0, 2**32 - 1)),
      negatives_per_batch=draw(st.sampled_from(
          [(low, high), high] if low == high else [(low, high)])),
      multiple_of=draw(st.integers(1, 9)))


def at_most(mix):
  return int(np.max(mix['negatives_per_batch']))


def at_least(mix):
  return int(np.min(mix['negatives_per_batch']))


@PROPERTIES
@hypothesis.given(mix=mixes(), num_steps=st.sampled_from([1, 7, 40, 600]))
def test_every_example_is_seen_as_often_as_the_others(mix, num_steps):
  stream = make_stream(**mix)
  rows = np.stack([stream.index(step) for step in range(num_steps)])
  ends = np.cumsum([0, mix['num_positives'], *mix['negatives'].values()])
  assert rows.dtype == np.int32 and rows.min() >= -1 and rows.max() < ends[-1]
  seen = np.bincount(rows[rows >= 0], minlength=ends[-1])
  for first, end in zip(ends, ends[1:], strict=False):
    each = seen[first:end].sum() / (end - first)
    assert set(seen[first:end]) <= {math.floor(each), math.ceil(each)}


@PROPERTIES
@hypothesis.given(mix=mixes(), steps=st.lists(st.integers(0, 2000), min_size=1))
def test_slots_are_static_and_filled_as_asked(mix, steps):
  stream = make_stream(**mix)
  size = mix['batch_size'] + (0 if mix['inside'] else at_most(mix))
  assert size <= stream.num_slots < size + mix['multiple_of']
  assert stream.num_slots % mix['multiple_of'] == 0
  for step in steps:
    rows = stream.index(step)
    assert rows.shape == (stream.num_slots,)
    assert (rows[size:] == -1).all()
    num_negatives = int((rows >= mix['num_positives']).sum())
    assert at_least(mix) <= num_negatives <= at_most(mix)
    positives = (rows >= 0) & (rows < mix['num_positives'])
    assert positives.sum() == mix['batch_size'] - mix['inside'] * num_negatives


@PROPERTIES
@hypothesis.given(mix=mixes(), steps=st.lists(st.integers(0, 2000), min_size=1))
def test_the_index_depends_on_the_step_alone(mix, steps):
  stream = make_stream(**mix)
  for step in steps:
    asked_first = make_stream(**mix).index(step)
    np.testing.assert_array_equal(stream.index(step), asked_first)
    np.testing.assert_array_equal(stream.index(np.int64(step)), asked_first)


@PROPERTIES
@hypothesis.given(
    mix=mixes(least=1), step=st.integers(0, 2000), num_devices=st.integers(1, 9))
def test_negatives_are_spread_evenly_over_devices(mix, step, num_devices):
  stream = make_stream(**{**mix, 'multiple_of': num_devices})
  size = mix['batch_size'] + (0 if mix['inside'] else at_most(mix))
  negative = stream.index(step) >= mix['num_positives']
  shards = negative.reshape(num_devices, -1)
  slots = (np.arange(stream.num_slots) < size).reshape(num_devices, -1)
  expected = slots.sum(1) / size * negative.sum()
  assert np.abs(shards.sum(1) - expected).max() < 2


@PROPERTIES
@hypothesis.given(
    mix=mixes(inside=False), steps=st.lists(st.integers(0, 500), min_size=1),
    repeats=st.integers(1, 4), multiple_of=st.integers(1, 9))
def test_apart_holds_the_rows_of_the_stream(mix, steps, repeats, multiple_of):
  stream, num, high = make_stream(**mix), mix['num_positives'], at_most(mix)
  separate = apart(
      stream, num, mix['batch_size'], high, repeats=repeats, multiple_of=multiple_of)
  num_negatives = math.ceil(high / multiple_of) * multiple_of
  shapes = {'positive': (mix['batch_size'], repeats)}
  if high:
    shapes['negative'] = (num_negatives, repeats)
  assert separate.num_slots == repeats * (mix['batch_size'] + num_negatives)
  for step in steps:
    sets = separate.index(step)
    assert {name: rows.shape for name, rows in sets.items()} == shapes
    for j in range(repeats):
      rows = stream.index(step * repeats + j)
      np.testing.assert_array_equal(
          sets['positive'][:, j], rows[(rows >= 0) & (rows < num)])
      if high:
        column = sets['negative'][:, j]
        np.testing.assert_array_equal(column[column >= 0], rows[rows >= num])


# Splits.

EDGES = st.sets(st.integers(1, 99)).map(lambda edges: [0, *sorted(edges), 100])
COUNTS = st.dictionaries(
    st.sampled_from(['train', 'test', 'validation']), st.integers(1, 300), min_size=1)
# Pieces of the syntax of splits, right and wrong, and anything else.
PIECES = st.sampled_from([
    'train', 'test', 'all', '_all', '[', ']', ':', '%', '+', '-', ' ', '0', '7', '50',
    '999', '0.5', '1e3', 'shard', '(', ')', 'pct1_dropremainder', 'closest', ',', '\n'])
TEXTS = st.one_of(
    st.lists(PIECES, max_size=8).map(''.join), st.text(max_size=20),
    st.builds('{}[{}:{}]'.format, st.sampled_from(['train', 'all', 'x']),
              *[st.builds('{}{}'.format, st.just('') | st.integers(-150, 350),
                          st.sampled_from(['', '%', '%', 'shard']))] * 2))


def rows_of(split, counts):
  """(name, row) of each example of a split; none where it is empty."""
  try:
    return [(name, row) for name, part in sources.split_slices(split, counts)
            for row in range(counts[name])[part]]
  except ValueError as error:
    assert repr(split) in str(error)
    return []


@PROPERTIES
@hypothesis.given(counts=COUNTS, edges=EDGES, data=st.data())
def test_consecutive_slices_tile_a_split(counts, edges, data):
  name = data.draw(st.sampled_from(['all', *counts]))
  parts = [
      rows_of(f'{name}[{low}%:{high}%]', counts)
      for low, high in zip(edges, edges[1:], strict=False)]
  whole = [(key, row) for key, num in counts.items() for row in range(num)
           if name in ('all', key)]
  assert sum(parts, []) == whole == rows_of(name, counts)
  for part, share in zip(parts, np.diff(edges), strict=True):
    assert abs(len(part) - len(whole) * share / 100) <= 1


@PROPERTIES
@hypothesis.given(counts=COUNTS, one=TEXTS, other=TEXTS)
def test_a_split_is_its_parts_or_a_value_error(counts, one, other):
  def rows(split):
    try:
      slices = sources.split_slices(split, counts)
    except ValueError:
      return None
    assert all(0 <= part.start < part.stop <= counts[name] for name, part in slices)
    return [(name, row) for name, part in slices for row in range(counts[name])[part]]

  both = rows(f'{one}+{other}')
  if rows(one) is not None and rows(other) is not None:
    assert both == rows(one) + rows(other)


@PROPERTIES
@hypothesis.given(counts=COUNTS, split=TEXTS)
def test_examples_are_those_of_the_slices(counts, split):
  ends = np.cumsum([0, *counts.values()])
  splits = {
      name: Arrays(
          np.arange(first, first + num, dtype=np.int32).reshape(-1, 1, 1, 1),
          np.arange(first, first + num, dtype=np.int32))
      for (name, num), first in zip(counts.items(), ends, strict=False)}
  try:
    slices = sources.split_slices(split, counts)
  except ValueError:
    with pytest.raises(ValueError):
      sources.take_split(splits, split)
    return
  taken = sources.take_split(splits, split)
  expected = np.concatenate([splits[name].label[part] for name, part in slices])
  np.testing.assert_array_equal(taken.label, expected)
  np.testing.assert_array_equal(taken.image.ravel(), expected)


def listing(sizes):
  """As list_pictures gives it, of class folders with so many pictures."""
  files = [f'{k}/{i}.png' for k, size in enumerate(sizes) for i in range(size)]
  label = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
  return Arrays(np.array(files, object), label, tuple(map(str, range(len(sizes)))))


SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=4)


@PROPERTIES
@hypothesis.given(sizes=SIZES, edges=EDGES)
def test_slices_of_a_folder_tile_every_class(sizes, edges):
  pictures = listing(sizes)
  found = {k: [] for k in range(len(sizes))}
  for low, high in zip(edges, edges[1:], strict=False):
    for k, size in enumerate(sizes):  # a class may be too small to be in every part
      own = listing([size])
      try:
        rows = sources.split_classes(own, f'all[{low}%:{high}%]', 'pictures', 'picture')
      except ValueError as error:
        assert f"'all[{low}%:{high}%]'" in str(error)
        rows = np.zeros(0, int)
      assert abs(len(rows) - size * (high - low) / 100) <= 1
      found[k].append(rows)
    # All classes at once hold what each of them holds by itself.
    try:
      rows = sources.split_classes(
          pictures, f'all[{low}%:{high}%]', 'pictures', 'picture')
    except ValueError:
      assert not all(len(found[k][-1]) for k in found)
      continue
    for k, first in enumerate(np.cumsum([0, *sizes[:-1]])):
      own = rows[pictures.label[rows] == k] - first
      assert sorted(own) == sorted(found[k][-1])
  for k, size in enumerate(sizes):
    assert sorted(np.concatenate(found[k])) == list(range(size))


@PROPERTIES
@hypothesis.given(sizes=SIZES, split=TEXTS)
def test_a_split_of_a_folder_has_every_class_or_is_a_value_error(sizes, split):
  pictures = listing(sizes)
  try:
    rows = sources.split_classes(pictures, split, 'pictures', 'picture')
  except ValueError:
    return
  assert set(pictures.label[rows]) == set(range(len(sizes)))


# Masks. The shapes are fixed, so that each function is compiled once.

N = 6
MASKS = st.lists(
    st.one_of(st.just(0.0), st.floats(0.125, 8, width=32)), min_size=N, max_size=N
).map(lambda mask: np.array(mask, np.float32))
SEEDS = st.integers(0, 2**32 - 1)


def values(seed, *shape):
  return np.random.default_rng(seed).normal(1, 2, shape).astype(np.float32)


def apply_norm(norm):
  return jax.jit(lambda variables, x, mask: norm.apply(
      variables, x, use_running_average=False, mask=mask, mutable='batch_stats'))


BATCH_NORM = apply_norm(models.BatchNorm())
BATCH_STATS_NORM = jax.jit(gan_layers.BatchStatsNorm().apply)


@PROPERTIES
@hypothesis.given(mask=MASKS, seed=SEEDS, boolean=st.booleans(),
                  filler=st.sampled_from([0.0, 1e30, math.inf, math.nan]))
def test_batch_norm_sees_filled_slots_alone(mask, seed, boolean, filler):
  x, filled = values(seed, N, 2, 2, 3), mask > 0
  x[~filled] = filler
  mask = filled if boolean else mask
  scale, bias = values(seed + 1, 2, 3)
  mean, var = np.array([1, 0, -1], np.float32), np.array([1, 2, 3], np.float32)
  params = {'scale': scale, 'bias': bias}
  y, changed = jax.device_get(BATCH_NORM(
      {'params': params, 'batch_stats': {'mean': mean, 'var': var}}, x, mask))
  alone = np.asarray(BATCH_STATS_NORM({'params': params}, x, mask))
  real = x[filled].astype(np.float64).reshape(-1, 3)
  if filled.any():
    own = real.mean(0), real.var(0)
    for got, epsilon in ((y, 1e-5), (alone, 1e-3)):
      expected = (x[filled] - own[0]) / np.sqrt(own[1] + epsilon) * scale + bias
      np.testing.assert_allclose(got[filled], expected, rtol=1e-4, atol=1e-4)
  else:
    own = mean, var
    if filler == 0:
      assert np.isfinite(y).all() and np.isfinite(alone).all()
  stats = changed['batch_stats']
  np.testing.assert_allclose(stats['mean'], 0.9 * mean + 0.1 * own[0], atol=1e-5)
  np.testing.assert_allclose(stats['var'], 0.9 * var + 0.1 * own[1], rtol=1e-5)
  if not filled.any():
    np.testing.assert_array_equal(stats['mean'], mean)
    np.testing.assert_array_equal(stats['var'], var)


MODEL = models.SmallConv(3, widths=(2,))
OBJECTIVES = {
    weight: losses.make_objective(
        {'name': 'outlier_exposure', 'weight': weight} if weight else {'name': 'nat'},
        num_classes=3)
    for weight in (None, 0.5)}


@jax.jit
def both_steps(variables, images, labels, weight):
  """{weighting: (loss, gradient, statistics)} of a batch, as a step has it."""
  def loss(params, objective):
    (logits, _), changed = MODEL.apply(
        {**variables, 'params': params}, images, train=True, mask=weight,
        mutable='batch_stats')
    each = objective.per_example(logits, labels)
    share = losses.example_weights(labels, weight, objective)
    return jnp.sum(jnp.where(share > 0, each, 0) * share), changed

  return {
      str(key): jax.value_and_grad(loss, has_aux=True)(variables['params'], objective)
      for key, objective in OBJECTIVES.items()}


@pytest.fixture(scope='module')
def variables():
  return jax.device_get(jax.jit(MODEL.init, static_argnames='train')(
      jax.random.key(0), np.zeros((N, 4, 4, 1), np.float32), train=False))


LABELS = st.lists(st.integers(-1, 2), min_size=N, max_size=N).map(
    lambda labels: np.array(labels, np.int32))


@PROPERTIES
@hypothesis.given(mask=MASKS, labels=LABELS, seed=SEEDS)
def test_empty_slots_change_no_update(variables, mask, labels, seed):
  filled = mask > 0
  images, other = values(seed, 2, N, 4, 4, 1)
  other[filled] = images[filled]
  others = np.where(filled, labels, labels[::-1])
  got, again = jax.device_get((
      both_steps(variables, images, labels, mask),
      both_steps(variables, other, others, mask)))
  for x, y in zip(*map(jax.tree.leaves, (got, again)), strict=True):
    assert np.isfinite(x).all()
    np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)
  if filled.any():
    return
  for (loss, changed), slope in got.values():
    assert loss == 0 and not any(x.any() for x in jax.tree.leaves(slope))
    jax.tree.map(
        np.testing.assert_array_equal, changed['batch_stats'],
        variables['batch_stats'])


EXAMPLE_WEIGHTS = jax.jit(losses.example_weights, static_argnums=2)
DISC_WEIGHTS = jax.jit(losses.disc_weights, static_argnums=1)


def mean_over(weight, chosen):
  """The coefficients of a mean over the chosen filled slots; 0 if there are none."""
  weight = weight.astype(np.float64) * chosen
  return weight / max((weight > 0).sum(), 1)


@PROPERTIES
@hypothesis.given(mask=MASKS, labels=LABELS)
def test_example_weights_are_means_over_filled_slots(mask, labels):
  one_mean = EXAMPLE_WEIGHTS(labels, mask, OBJECTIVES[None])
  np.testing.assert_allclose(one_mean, mean_over(mask, True), rtol=1e-6)
  two_means = EXAMPLE_WEIGHTS(labels, mask, OBJECTIVES[0.5])
  np.testing.assert_allclose(
      two_means, mean_over(mask, labels >= 0) + 0.5 * mean_over(mask, labels < 0),
      rtol=1e-6)


@PROPERTIES
@hypothesis.given(real=MASKS, fake=MASKS, negative=st.one_of(st.none(), MASKS),
                  weight=st.sampled_from([None, 0.0, 0.5]))
def test_disc_weights_are_means_over_filled_slots(real, fake, negative, weight):
  weights = {'real': real, 'fake': fake}
  expected = {name: mean_over(mask, True) for name, mask in weights.items()}
  if negative is not None:
    weights['negative'] = negative
    expected['negative'] = (weight or 0) * mean_over(negative, True)
    if weight is None:
      unreal = mean_over(np.concatenate([fake, negative]), True)
      expected['fake'], expected['negative'] = np.split(unreal, 2)
  got = DISC_WEIGHTS(weights, weight)
  assert set(got) == set(expected)
  for name, coefficients in got.items():
    np.testing.assert_allclose(coefficients, expected[name], rtol=1e-6, err_msg=name)


# Configs.

# Lone surrogates, too: JSON has them.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=10)
WORDS = st.sampled_from(sorted({key.split('.')[-1] for key in bounds.BOUNDS}))
NAMES = st.one_of(ANY_TEXT, WORDS, st.just('name'))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ANY_TEXT,
              st.sampled_from([0, 1, -1, 2**32, 10**400, -0.0, 1e-320, 'digits'])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4),
        st.dictionaries(NAMES, inner, max_size=3).map(lambda x: {**x, 'name': 'x'})),
    max_leaves=8)


@PROPERTIES
@hypothesis.given(value=JSON)
@hypothesis.example(value='\ud800')
@hypothesis.example(value=[10**400, math.nan])
@hypothesis.example(value={'name': 'x', 'generator': {'name': []}})
def test_any_value_in_any_place_fits_or_is_a_value_error(value):
  for key in [*bounds.BOUNDS, *bounds.SPECS]:
    try:
      bounds.check('there', key, value)
    except ValueError as error:
      assert str(error).startswith('there')


def places(base):
  """The paths of all keys of a config."""
  inner = schema.groups(base)
  return [(key,) for key in base] + [(key, k) for key in inner for k in base[key]]


PLACES = [(task, path) for task, base in schema.DEFAULTS.items()
          for path in places(base)]


@hypothesis.settings(PROPERTIES, max_examples=200)
@hypothesis.given(place=st.sampled_from(PLACES), value=JSON, rest=st.sampled_from(
    [(), ('here',), ('here', 'source'), ('here', 'source', 'split'), ('name',)]))
def test_a_config_with_any_value_is_taken_or_a_value_error(place, value, rest):
  task, path = place
  for key in reversed(rest):
    value = {key: value}
  config = dict(schema.DEFAULTS[task])
  if len(path) == 2:
    value = {**config[path[0]], path[1]: value}
  config[path[0]] = value
  try:
    plain = schema.plain(config)
  except ValueError:
    return
  assert repr(schema.plain(plain)) == repr(plain)  # repr: NaN is not NaN


def test_a_config_nested_without_end_is_a_value_error():
  generator = {'name': 'stacked'}
  for _ in range(900):  # Python's own limit is 1000 calls
    generator = {'name': 'stacked', 'generator': generator}
  with pytest.raises(ValueError, match='config'):
    schema.plain({**schema.defaults.GAN, 'generator': generator})
