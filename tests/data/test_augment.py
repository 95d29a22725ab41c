"""Augmentations: their values, and an image's fate hangs on its own key only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from nat_jax.data import make_augment, normalise
from nat_jax.data.augment import resized_crop

SPECS = [{'name': 'crop', 'pad': 2}, {'name': 'flip'}, {'name': 'cutout', 'size': 3}]


def images(num=6, shape=(8, 10, 3)):
  return np.random.default_rng(0).integers(1, 256, (num, *shape), np.uint8)


def keys(num=6, chosen=slice(None)):
  """jax.random.key(i) of i = 0 to num - 1, or of those chosen."""
  data = np.stack([np.zeros(num), np.arange(num)], 1).astype(np.uint32)
  return jax.random.wrap_key_data(data[chosen])


def jitted(*specs):
  augment = jax.jit(make_augment(specs))
  return lambda images, keys: np.asarray(augment(images, keys))


def test_independent_of_the_batch_around():
  augment = jitted(*SPECS)
  whole = augment(images(), keys())
  assert whole.shape == images().shape and whole.dtype == jnp.uint8
  part = augment(images()[[4, 1]], keys(chosen=[4, 1]))
  np.testing.assert_array_equal(part, whole[[4, 1]])
  eager = make_augment(SPECS)(jax.device_put(images()), keys())
  np.testing.assert_array_equal(eager, whole)
  # Other keys, another outcome; equal keys, equal outcome.
  same = augment(images()[:1].repeat(2, 0), keys(chosen=[0, 0]))
  np.testing.assert_array_equal(same[0], same[1])
  spread = augment(images()[:1].repeat(6, 0), keys())
  assert len({image.tobytes() for image in spread}) > 3


def test_no_augmentation_is_the_identity():
  np.testing.assert_array_equal(make_augment([])(images(), keys()), images())


def test_an_augmentation_repeated_has_a_key_of_its_own():
  # Were the keys equal, two flips would always cancel.
  twice = jitted({'name': 'flip'}, {'name': 'flip'})
  out = twice(images(1).repeat(64, 0), keys(64))
  changed = (out != images(1)).any((1, 2, 3)).mean()
  assert 0.25 < changed < 0.75


def test_flip_mirrors_about_half():
  image = images(1)
  out = jitted({'name': 'flip'})(image.repeat(200, 0), keys(200))
  plain = (out == image).all((1, 2, 3))
  mirrored = (out == image[:, :, ::-1]).all((1, 2, 3))
  assert (plain ^ mirrored).all()
  assert 70 < plain.sum() < 130


@pytest.mark.parametrize('mode', ['constant', 'reflect'])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_crop_takes_every_window_of_the_padded_image(mode, dtype):
  image = images(1, (4, 5, 2)).astype(dtype)
  crop = jitted({'name': 'crop', 'pad': 1, 'mode': mode})
  out = crop(image.repeat(200, 0), keys(200))
  assert out.dtype == dtype
  padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)), mode)
  windows = {
      padded[y:y + 4, x:x + 5].tobytes() for y in range(3) for x in range(3)
  }
  assert {o.tobytes() for o in out} == windows


def test_cutout_blackens_one_square():
  image = images(1, (8, 8, 1))
  out = jitted({'name': 'cutout', 'size': 3})(image.repeat(300, 0), keys(300))
  black = (out == 0)[..., 0]
  kept = np.where(black, 0, image[..., 0])
  np.testing.assert_array_equal(out[..., 0], kept)
  sides = set()
  for mask in black:
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    assert mask.sum() == len(rows) * len(columns)
    assert np.ptp(rows) < len(rows) and np.ptp(columns) < len(columns)
    sides.add((len(rows), len(columns)))
  assert sides == {(2, 2), (2, 3), (3, 2), (3, 3)}


def test_resized_crop_is_a_crop_that_is_resized():
  """By 2 and by 1: the rectangle itself is resized, but for pixels at its edge."""
  image = images(1, (8, 12, 3))[0]
  crop = jax.jit(resized_crop)
  np.testing.assert_array_equal(
      crop(image, np.zeros(2, np.float32), np.ones(2, np.float32)), image)
  out = crop(image, np.float32([0.25, 0.5]), np.float32([0.5, 0.5]))
  expected = jax.jit(lambda x: jax.image.resize(x, (8, 12, 3), 'linear'))(
      np.float32(image[2:6, 6:12]))
  assert out.dtype == jnp.uint8 and out.shape == image.shape
  np.testing.assert_allclose(
      np.asarray(out, int)[1:-1, 1:-1], np.asarray(expected)[1:-1, 1:-1], atol=0.51)


def test_random_resized_crops_have_the_areas_and_shapes_that_are_asked_for():
  """Seen in ramps along both sides, whose range over a crop is the crop's side."""
  height, width = 16, 24
  ramps = np.zeros((height, width, 2), np.float32)
  ramps[..., 0] = (np.arange(height) + 0.5)[:, None] / height
  ramps[..., 1] = (np.arange(width) + 0.5) / width
  crop = jitted({'name': 'random_resized_crop', 'area': (0.2, 0.5), 'ratio': (0.5, 2)})
  out = crop(ramps[None].repeat(300, 0), keys(300))
  # From inner rows and columns: at the edge of an image its last pixel is repeated.
  high = (out[:, -3, 0, 0] - out[:, 2, 0, 0]) / (height - 5) * height
  wide = (out[:, 0, -3, 1] - out[:, 0, 2, 1]) / (width - 5) * width
  area, ratio = high * wide, wide / high
  assert 0.19 < area.min() < 0.22 and 0.47 < area.max() < 0.51
  assert 0.49 < ratio.min() < 0.55 and 1.8 < ratio.max() < 2.02
  assert abs(area.mean() - 0.35) < 0.02 and abs(np.log(ratio).mean()) < 0.1
  middle = out[:, 7:9, 0, 0].mean(1)
  assert middle.min() > 0 and middle.max() < 1 and abs(middle.mean() - 0.5) < 0.03
  whole = jitted({'name': 'random_resized_crop', 'area': (1, 1), 'ratio': (1, 1)})
  np.testing.assert_array_equal(whole(images(), keys()), images())


def test_colours_are_those_of_pillow():
  """At the strengths whose factors are known: 0 leaves all as it is."""
  image = images(1, (6, 7, 3))
  none = dict(brightness=0, contrast=0, saturation=0)
  np.testing.assert_array_equal(
      jitted({'name': 'colour', **none})(image, keys(1)), image)
  enhancers = {'brightness': ImageEnhance.Brightness, 'contrast': ImageEnhance.Contrast,
               'saturation': ImageEnhance.Color}
  for name, enhancer in enhancers.items():
    out = jitted({'name': 'colour', **none, name: 0.5})(image.repeat(40, 0), keys(40))
    enhance, factors = enhancer(Image.fromarray(image[0])), []
    tried = np.linspace(0.5, 1.5, 201)
    known = [np.asarray(enhance.enhance(factor), float) for factor in tried]
    for one in out.astype(float):
      errors = [np.abs(one - other).max() for other in known]
      assert min(errors) <= 2.5, name  # Pillow rounds down, and the grey values too
      factors.append(tried[np.argmin(errors)])
    assert min(factors) < 0.6 and max(factors) > 1.4, name
  grey = images(2, (6, 7, 1))
  same = jitted({'name': 'colour', **none, 'saturation': 1.0})(grey, keys(2))
  np.testing.assert_array_equal(same, grey)


@pytest.mark.parametrize('side, steps', [
    (63, ('crop', 'flip')), (64, ('random_resized_crop', 'flip', 'colour'))])
def test_the_standard_augmentation_goes_by_the_size(side, steps):
  image = images(2, (side, 70, 3))
  augment, parts = (make_augment([{'name': name} for name in names])
                    for names in (['standard'], steps))

  @jax.jit
  def both(image, keys):
    inner = jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys)
    return augment(image, keys), parts(image, inner)

  np.testing.assert_array_equal(*both(image, keys(2)))


def test_normalise_literals():
  colours, white = jax.device_put((
      np.uint8([[[[0, 51, 255]]]]), np.full((2, 4, 4, 1), 255, np.uint8)))
  out = normalise(colours, (0.5, 0.2, 0.0), (0.25, 0.5, 2.0))
  assert out.dtype == jnp.float32
  np.testing.assert_allclose(np.ravel(out), [-2, 0, 0.5], atol=1e-7)
  grey = normalise(white, (0.5,), (0.25,))
  np.testing.assert_allclose(grey, np.full((2, 4, 4, 1), 2.0))
  done = jax.device_put(np.float32([[[[7]]]]))
  assert normalise(done, (0.5,), (0.25,)) is done
  with pytest.raises(ValueError, match='uint8.*float32.*int32'):
    normalise(np.zeros((1, 2, 2, 1), np.int32), (0.5,), (0.25,))


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ({'name': 'rotate'}, "'rotate'.*crop, cutout, flip, pixmix, rand_aug"),
        ({'name': 'crop', 'mode': 'wrap'}, "crop.*mode.*'constant'.*'reflect'.*'wrap'"),
        ({'name': 'crop', 'pad': -1}, 'crop.*pad.*-1'),
        ({'name': 'cutout', 'size': 0}, 'cutout.*size.*0'),
        ({'name': 'random_resized_crop', 'area': (0.5, 0.2)}, r'area.*\(0.5, 0.2\)'),
        ({'name': 'random_resized_crop', 'ratio': (0, 1)}, r'ratio.*above 0.*\(0, 1\)'),
        ({'name': 'rand_augment', 'magnitude': 31}, r'0..30, got layers 2.*31'),
        ({'name': 'colour', 'contrast': 2}, r'\[0, 1\], got \(0.2, 2, 0.2\)'),
    ],
)
def test_bad_specs(spec, message):
  with pytest.raises(ValueError, match=message):
    make_augment([spec])


@pytest.mark.parametrize('name', ['colour', 'rand_augment'])
def test_changes_of_colour_need_bytes(name):
  with pytest.raises(ValueError, match=f"'{name}'.*uint8, got float32.*data.augment"):
    make_augment([{'name': name}])(images().astype(np.float32), keys())
