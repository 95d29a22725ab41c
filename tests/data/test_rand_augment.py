"""RandAugment: each operation beside Pillow's, and which of them are applied."""

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from nat_jax.data import make_augment
from nat_jax.data.rand_augment import COLOURS, GREY, MOVES, move

IMAGE = np.random.default_rng(0).integers(20, 200, (24, 24, 3)).astype(np.uint8)
PILLOW = {
    'brightness': lambda one, s: ImageEnhance.Brightness(one).enhance(1 + 0.9 * s),
    'colour': lambda one, s: ImageEnhance.Color(one).enhance(1 + 0.9 * s),
    'contrast': lambda one, s: ImageEnhance.Contrast(one).enhance(1 + 0.9 * s),
    'sharpness': lambda one, s: ImageEnhance.Sharpness(one).enhance(1 + 0.9 * s),
    'posterise': lambda one, s: ImageOps.posterize(one, 8 - round(4 * abs(s))),
    'solarise': lambda one, s: ImageOps.solarize(one, 256 * (1 - abs(s))),
    'autocontrast': lambda one, s: ImageOps.autocontrast(one),
    'equalise': lambda one, s: ImageOps.equalize(one),
}


@pytest.fixture(scope='module')
def changed():
  """All changes of colour, by (name, strength), and all moves."""
  strengths = -0.5, 0.0, 0.75

  @jax.jit
  def all_of(x):
    return ({(name, s): change(x, s) for name, change in COLOURS.items()
             for s in strengths},
            {name: move(x, k, 1.0) for k, name in enumerate((*MOVES, 'none'))})

  return jax.device_get(all_of(np.float32(IMAGE)))


def test_changes_of_colour_are_those_of_pillow(changed):
  assert PILLOW.keys() == COLOURS.keys()
  for (name, strength), out in changed[0].items():
    expected = np.asarray(PILLOW[name](Image.fromarray(IMAGE), strength), float)
    # Pillow rounds down, and the grey values that it blends with too.
    np.testing.assert_allclose(np.clip(out, 0, 255), expected, atol=2, err_msg=name)
    if name in ('posterise', 'solarise', 'equalise'):
      np.testing.assert_array_equal(out, expected)


def test_moves(changed):
  found = changed[1]
  np.testing.assert_array_equal(found['none'], IMAGE)
  # By 45 % of 24 pixels, 10.8: between pixels 10 and 11 further to the left, or up.
  middle = 0.2 * IMAGE[:, 1:-10] + 0.8 * IMAGE[:, :-11]
  np.testing.assert_allclose(found['shift_x'][:, 11:], middle, atol=1e-3)
  assert (found['shift_x'][:, :10] == GREY).all()
  middle = 0.2 * IMAGE[1:-10] + 0.8 * IMAGE[:-11]
  np.testing.assert_allclose(found['shift_y'][11:], middle, atol=1e-3)
  # Two rows near the middle move by 0.3 x 0.5 pixels, in opposite directions.
  for row, left in ((11, 1), (12, -1)):
    moved = 0.85 * IMAGE[row] + 0.15 * np.roll(IMAGE[row], -left, 0)
    np.testing.assert_allclose(found['shear_x'][row, 1:-1], moved[1:-1], atol=1e-3)
    moved = 0.85 * IMAGE[:, row] + 0.15 * np.roll(IMAGE[:, row], -left, 0)
    np.testing.assert_allclose(found['shear_y'][1:-1, row], moved[1:-1], atol=1e-3)
  turned = Image.fromarray(IMAGE).rotate(-30, Image.Resampling.BILINEAR)
  np.testing.assert_allclose(
      found['rotate'][5:-5, 5:-5], np.asarray(turned, float)[5:-5, 5:-5], atol=2)


def test_the_operations_are_drawn_evenly_for_each_image():
  data = np.stack([np.zeros(280), np.arange(280)], 1).astype(np.uint32)
  keys = jax.random.wrap_key_data(data)
  images = np.broadcast_to(IMAGE, (280, *IMAGE.shape))
  seen = {}
  for layers in (1, 2):
    augment = make_augment([{'name': 'rand_augment', 'layers': layers}])
    out = np.asarray(jax.jit(augment)(images, keys))
    assert out.dtype == np.uint8
    seen[layers] = np.unique(out.reshape(280, -1), axis=0, return_counts=True)[1]
  # Each but solarise, posterise, autocontrast, equalise and identity has two signs.
  assert len(seen[1]) == 9 * 2 + 5 and seen[1].max() < 50
  assert len(seen[2]) > 120
