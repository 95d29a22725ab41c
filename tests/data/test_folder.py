"""Pictures of every kind in folders, and what is wrong with some of them."""

import logging

import numpy as np
import pytest
from PIL import Image

from nat_jax.data import load


def save(path, image, **kwargs):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(image).save(path, **kwargs)


def plain(colour=(200, 100, 50), size=(6, 8)):
  return np.full((*size, 3), colour, np.uint8)


def read(path, **kwargs):
  return load({'name': 'folder', 'path': str(path), **kwargs})


def test_class_folders(tmp_path):
  colours = {'cat': (250, 0, 0), 'ant': (0, 250, 0), 'dog': (0, 0, 250)}
  for name, colour in colours.items():
    for k in range(4):
      save(tmp_path / name / f'{k}.png', plain(colour, (8 + k, 20)))
  save(tmp_path / 'ant' / 'deeper' / '5.PNG', plain(colours['ant']), format='PNG')
  save(tmp_path / 'ant' / '.hidden.png', plain())
  save(tmp_path / '.cache' / 'thumb.png', plain())
  (tmp_path / 'cat' / 'notes.txt').write_text('no picture')
  out = read(tmp_path, size=(4, 6))
  assert out.names == ('ant', 'cat', 'dog')
  assert out.image.shape == (13, 4, 6, 3) and out.image.dtype == np.uint8
  assert out.label.dtype == np.int32
  np.testing.assert_array_equal(np.bincount(out.label), [5, 4, 4])
  for image, label in zip(out.image, out.label, strict=True):
    np.testing.assert_array_equal(image, plain(colours[out.names[label]], (4, 6)))
  # One fixed shuffle; slices and classes of it.
  assert (np.diff(out.label) < 0).any()
  again = [read(tmp_path, size=(4, 6), split=s) for s in ('all[:5]', 'all[5:]')]
  np.testing.assert_array_equal(np.concatenate([a.label for a in again]), out.label)
  some = read(tmp_path, size=2, classes=(2, 0))
  assert some.names == ('dog', 'ant')
  np.testing.assert_array_equal(some.label, (out.label[out.label != 1] == 0))


def test_flat_folder_is_one_class(tmp_path):
  for k in range(3):
    save(tmp_path / f'{k}.jpg', plain((10 * k, 0, 0)), quality=100)
  (tmp_path / 'empty').mkdir()
  out = read(tmp_path)
  assert out.image.shape == (3, 6, 8, 3)
  np.testing.assert_array_equal(out.label, [0, 0, 0])
  assert out.names == (tmp_path.name,)


def test_kinds_of_pictures(tmp_path):
  """Each becomes its colour, in RGB and in grey."""
  rgba = np.concatenate([plain(), np.zeros((6, 8, 1), np.uint8)], -1)  # transparent
  half = rgba.copy()
  half[..., 3] = 128
  grey = np.full((6, 8), 77, np.uint8)
  orange = (200, 100, 50)
  palette = Image.fromarray(plain()).quantize(4)
  see_through = palette.copy()
  cases = {
      'rgb.png': (plain(), orange),
      'rgb.jpeg': (plain(), orange),
      'rgb.BMP': (plain(), orange),
      'rgb.webp': (plain(), orange),
      'clear.png': (rgba, (255, 255, 255)),
      'half.png': (half, (227, 177, 152)),
      'grey.png': (grey, (77, 77, 77)),
      'grey_alpha.png': (np.stack([grey, 0 * grey], -1), (255, 255, 255)),
      'deep.png': (np.full((6, 8), 20_000, np.uint16), (78, 78, 78)),
      'deep.tif': (np.full((6, 8), 20_000, np.uint16), (78, 78, 78)),
      'bits.png': (np.full((6, 8), True), (255, 255, 255)),
  }
  expected = {}
  for name, (pixels, colour) in cases.items():
    save(tmp_path / name.replace('.', '_') / name, pixels)
    expected[name.replace('.', '_')] = colour
  palette.save(tmp_path / 'rgb.gif')
  for name, image, options, colour in (
      ('palette', palette, {}, orange),
      ('palette_clear', see_through, {'transparency': 0}, (255, 255, 255)),
      ('cmyk', Image.fromarray(plain()).convert('CMYK'), {}, orange),
  ):
    (tmp_path / name).mkdir()
    suffix = 'jpg' if name == 'cmyk' else 'png'
    image.save(tmp_path / name / f'x.{suffix}', **options)
    expected[name] = colour
  (tmp_path / 'rgb.gif').rename(tmp_path / 'palette' / 'x.gif')
  out = read(tmp_path)
  assert set(out.names) == set(expected)
  for image, label in zip(out.image.astype(int), out.label, strict=True):
    want = np.broadcast_to(expected[out.names[label]], image.shape)
    np.testing.assert_allclose(image, want, atol=3, err_msg=out.names[label])
  grey = read(tmp_path, mode='L')
  assert grey.image.shape == (*out.image.shape[:3], 1)
  luma = out.image @ np.array([0.299, 0.587, 0.114])
  np.testing.assert_allclose(grey.image[..., 0], luma, atol=2)


def test_exif_orientation(tmp_path):
  white, black = (plain((c, c, c), (4, 16)) for c in (255, 0))
  image = Image.fromarray(np.concatenate([white, black], 1))
  exif = Image.Exif()
  exif[0x0112] = 6  # to be turned clockwise: the left side comes to the top
  image.save(tmp_path / 'x.png', exif=exif)
  out = read(tmp_path).image[0]
  assert out.shape == (32, 4, 3)
  assert (out[:16] == 255).all() and (out[16:] == 0).all()


def test_resize_fits_the_short_side_and_crops_the_middle(tmp_path):
  # Three 8x8 squares side by side: the middle one remains.
  image = np.concatenate([plain((c, c, c), (8, 8)) for c in (0, 120, 240)], 1)
  save(tmp_path / 'x.png', image)
  np.testing.assert_array_equal(read(tmp_path, size=8).image[0], image[:, 8:16])
  wide = read(tmp_path, size=(2, 6)).image[0, :, :, 0]
  assert (wide[:, 0] < 30).all() and (wide[:, 5] > 210).all()
  np.testing.assert_allclose(wide[:, 2:4].astype(int), 120, atol=15)
  # Antialiased: stripes a pixel wide become grey, not black or white.
  stripes = np.tile(np.array([0, 255], np.uint8), (32, 16))
  save(tmp_path / 'x.png', stripes)
  np.testing.assert_allclose(read(tmp_path, size=4).image.astype(int), 127, atol=20)


def test_sizes_must_agree_where_none_is_given(tmp_path):
  save(tmp_path / 'a.png', plain(size=(6, 8)))
  save(tmp_path / 'b.png', plain(size=(6, 9)))
  with pytest.raises(ValueError, match=r'\(6, [89]\).*\(6, [89]\); set size='):
    read(tmp_path)


@pytest.mark.parametrize('damage', ['truncated', 'text', 'empty', 'float'])
def test_unreadable_picture_is_named(tmp_path, damage, caplog):
  save(tmp_path / 'good.png', plain())
  bad = tmp_path / 'bad.png'
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  if damage == 'truncated':
    save(bad, noise)
    bad.write_bytes(bad.read_bytes()[:2000])
  elif damage == 'float':
    bad = tmp_path / 'bad.tif'
    save(bad, np.full((6, 8), 0.5, np.float32))
  else:
    bad.write_text('hello' if damage == 'text' else '')
  with pytest.raises(ValueError, match=rf'{bad}.*skip_unreadable'):
    read(tmp_path, size=4)
  logging.getLogger('absl').propagate = True
  with caplog.at_level(logging.WARNING):
    out = read(tmp_path, size=4, skip_unreadable=True)
  assert out.image.shape == (1, 4, 4, 3) and str(bad) in caplog.text
  (tmp_path / 'good.png').unlink()
  with pytest.raises(ValueError, match='not one of the 1 pictures'):
    read(tmp_path, size=4, skip_unreadable=True)


def test_bad_folders(tmp_path):
  with pytest.raises(ValueError, match='nowhere is not a folder'):
    read(tmp_path / 'nowhere')
  (tmp_path / 'a').mkdir()
  with pytest.raises(ValueError, match='holds no picture'):
    read(tmp_path)
  save(tmp_path / 'b' / 'x.png', plain())
  with pytest.raises(ValueError, match="no picture in the class folder 'a'"):
    read(tmp_path)
  save(tmp_path / 'x.png', plain())
  with pytest.raises(ValueError, match='outside'):
    read(tmp_path)
  for bad in ({'mode': 'HSV'}, {'size': 0}, {'size': (4, 4, 3)}):
    with pytest.raises(ValueError, match=next(iter(bad))):
      read(tmp_path, **bad)
