"""Pictures of every kind in folders, and what is wrong with some of them."""

import logging
import os
import warnings

import numpy as np
import pytest
from PIL import Image

from nat_jax.data import list_pictures, load, picture_paths, read_pictures


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
  np.testing.assert_array_equal(out.label, [*(0, 1, 2) * 4, 0])  # they take turns
  some = read(tmp_path, size=2, classes=(2, 0))
  assert some.names == ('dog', 'ant')
  np.testing.assert_array_equal(some.label, [*(0, 1) * 4, 1])
  shown = some.image[:, 0, 0, [2, 1]].argmax(1)  # blue or green
  np.testing.assert_array_equal(shown, some.label)


def greys(path, **kwargs):
  """(greys of the pictures, class names of the same)."""
  out = read(path, mode='L', **kwargs)
  return out.image[:, 0, 0, 0].tolist(), [out.names[k] for k in out.label]


def test_folders_of_parts(tmp_path):
  """Labels are of the classes of train, whichever of them a part has."""
  held = {('Train', 'cat'): (1, 2), ('Train', 'dog'): (3, 4), ('Train', 'owl'): (5, 6),
          ('val', 'owl'): (7,), ('test', 'dog'): (8, 9), ('test', 'owl'): (10, 11)}
  for (part, name), values in held.items():
    for grey in values:
      save(tmp_path / part / name / f'{grey}.png', plain([grey] * 3))
  assert read(tmp_path).names == ('cat', 'dog', 'owl')
  assert sorted(greys(tmp_path)[0]) == list(range(1, 12))
  for split, (greys_, names) in {
      'train': ([1, 2, 3, 4, 5, 6], ['cat'] * 2 + ['dog'] * 2 + ['owl'] * 2),
      'validation': ([7], ['owl']),
      'test': ([8, 9, 10, 11], ['dog'] * 2 + ['owl'] * 2),
      'validation+test': ([7, 8, 9, 10, 11], ['owl', 'dog', 'dog', 'owl', 'owl'])
  }.items():
    found = sorted(zip(*greys(tmp_path, split=split), strict=True))
    assert found == list(zip(greys_, names, strict=True)), split
  halves = [greys(tmp_path, split=split)[0] for split in ('train[:50%]', 'train[50%:]')]
  assert [len(half) for half in halves] == [3, 3]
  assert sorted(sum(halves, [])) == [1, 2, 3, 4, 5, 6]
  some = read(tmp_path, split='test', classes=(2, 0))  # owls first; it has no cat
  assert some.names == ('owl', 'cat') and some.label.tolist() == [0, 0]
  with pytest.raises(ValueError, match="split 'val'.*all, test, train, validation"):
    read(tmp_path, split='val')


def test_flat_folders_of_parts_are_one_class(tmp_path):
  for part, grey in (('train', 1), ('test', 2)):
    save(tmp_path / part / '1.png', plain([grey] * 3))
    (tmp_path / part / '.hidden').mkdir()
  assert read(tmp_path).names == (tmp_path.name,)
  assert greys(tmp_path, split='test') == ([2], [tmp_path.name])


@pytest.mark.parametrize('extra, message', [
    ('test/cow/1.png', r"test holds cow, which .*train does not"),
    ('test/1.png', "test holds .*, which .*train does not"),
    ('1.png', r"folders of parts \(train, val\) and pictures outside of them \(1.png"),
    ('validation/cat/1.png', 'one folder for each part, got train, val, validation'),
    ('more/1.png', r'of parts \(.*got both: more, train, val; rename more if')])
def test_folders_that_are_no_parts(extra, message, tmp_path):
  for part in ('train', 'val'):
    save(tmp_path / part / 'cat' / '1.png', plain())
  save(tmp_path / extra, plain())
  with pytest.raises(ValueError, match=message):
    read(tmp_path)


@pytest.mark.parametrize('inner, names', [
    ('', ('car', 'train')), ('old/', ('car', 'train')), ('cat/', None)])
def test_a_class_may_be_called_train(inner, names, tmp_path):
  """Unless another folder holds folders of the same names."""
  save(tmp_path / 'train' / 'cat' / '1.png', plain())
  save(tmp_path / 'car' / f'{inner}1.png', plain())
  if names:
    assert read(tmp_path).names == names
  else:
    with pytest.raises(ValueError, match='got both: car, train; rename car if it is'):
      read(tmp_path)


def test_linked_folders_are_followed_once(tmp_path):
  """As class folders, inside them, and round in a circle."""
  for k, name in enumerate(('one/cat', 'two/dog', 'two/old')):
    save(tmp_path / name / '1.png', plain([k] * 3))
  (tmp_path / 'one' / 'dog').symlink_to(tmp_path / 'two' / 'dog')
  for name in ('more', 'same'):
    (tmp_path / 'one' / 'cat' / name).symlink_to(tmp_path / 'two' / 'old')
  (tmp_path / 'one' / 'cat' / 'round').symlink_to(tmp_path / 'one' / 'cat')
  found = sorted(zip(*greys(tmp_path / 'one'), strict=True))
  assert found == [(0, 'cat'), (1, 'dog'), (2, 'cat')]
  named = [os.path.relpath(path, tmp_path / 'one')
           for path in picture_paths.find([str(tmp_path / 'one')])]
  assert named == ['cat/1.png', 'cat/more/1.png', 'dog/1.png']


@pytest.mark.parametrize('lazy', [False, 'auto'])
def test_a_link_to_nothing_is_a_damaged_picture(lazy, tmp_path, monkeypatch):
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path / 'cache'))
  save(tmp_path / 'x' / 'cat' / '1.png', plain())
  (tmp_path / 'x' / 'cat' / '2.png').symlink_to(tmp_path / 'gone.png')
  with pytest.raises(ValueError, match='2.png cannot be read as a picture'):
    read(tmp_path / 'x', size=4, lazy=lazy)
  assert len(read(tmp_path / 'x', size=4, lazy=lazy, skip_unreadable=True).label) == 1


def test_a_folder_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
  for name in ('cat/1.png', 'dog/2.png'):
    save(tmp_path / name, plain())
  listed = os.scandir

  def scandir(path):
    if str(path).endswith('dog'):
      raise PermissionError(13, 'Permission denied', path)
    return listed(path)

  monkeypatch.setattr(os, 'scandir', scandir)
  with pytest.raises(PermissionError, match='dog'):
    list(picture_paths.find([str(tmp_path)]))


def test_malformed_exif_is_passed_over(tmp_path):
  Image.fromarray(plain()).save(tmp_path / 'x.png', exif=b'Exif\0\0no TIFF at all')
  np.testing.assert_array_equal(read(tmp_path).image[0], plain())


def test_flat_folder_is_one_class(tmp_path):
  for k in range(3):
    save(tmp_path / f'{k}.jpg', plain((10 * k, 0, 0)), quality=100)
  (tmp_path / 'empty').mkdir()
  out = read(tmp_path)
  assert out.image.shape == (3, 6, 8, 3)
  np.testing.assert_array_equal(out.label, [0, 0, 0])
  assert out.names == (tmp_path.name,)


def numbered(path, **counts):
  """Class folders of pictures of one pixel, each of a grey of its own, all shuffled."""
  for first, (name, count) in enumerate(counts.items()):
    for k in range(count):
      save(path / name / f'{k:03d}.png', np.full((1, 1), 80 * first + k, np.uint8))


def pixels_of(path, split, **kwargs):
  """label -> the greys of the pictures of a split, sorted."""
  out = read(path, split=split, mode='L', **kwargs)
  return {
      int(label): sorted(out.image[out.label == label].ravel().tolist())
      for label in np.unique(out.label)}


@pytest.mark.parametrize(
    'edges', [(0, 80, 100), (0, 60, 70, 85, 100), (0, 33, 67, 100)])
def test_slices_tile_every_class_in_proportion(tmp_path, edges):
  counts = {'a': 7, 'b': 60, 'c': 13, 'd': 10}
  numbered(tmp_path, **counts)
  parts = [
      pixels_of(tmp_path, f'all[{low}%:{high}%]')
      for low, high in zip(edges, edges[1:], strict=False)]
  for label, count in enumerate(counts.values()):
    together = sum((part[label] for part in parts), [])
    assert sorted(together) == [80 * label + k for k in range(count)]
    for part, share in zip(parts, np.diff(edges), strict=True):
      assert abs(len(part[label]) - count * share / 100) <= 1
    assert parts[0][label] != [80 * label + k for k in range(len(parts[0][label]))]
  sum_of_two = pixels_of(tmp_path, f'all[:{edges[1]}%]+all[{edges[1]}%:]')
  assert sum_of_two == pixels_of(tmp_path, 'all')


def test_a_small_class_is_in_every_part(tmp_path):
  numbered(tmp_path, few=4, many=60)
  for split, counts in (('all[:80%]', [3, 48]), ('all[80%:]', [1, 12])):
    out = read(tmp_path, split=split)
    np.testing.assert_array_equal(np.bincount(out.label), counts)


def test_a_class_without_a_picture_in_a_part_is_named(tmp_path):
  numbered(tmp_path, few=4, many=60)
  with pytest.raises(ValueError, match=r"'few'.*\b4\b.*'all\[90%:\]'"):
    read(tmp_path, split='all[90%:]')
  # Not where it is not asked for.
  assert read(tmp_path, split='all[90%:]', classes=(1,)).image.shape[0] == 6
  (tmp_path / 'many' / '007.png').write_text('no picture')
  for file in (tmp_path / 'few').iterdir():
    file.write_text('no picture')
  with pytest.raises(ValueError, match=r"\b4\b.*'few'.*'all'"):
    read(tmp_path, skip_unreadable=True)


def test_numbers_cut_a_flat_folder_only(tmp_path):
  numbered(tmp_path, one=9, other=9)
  for split in ('all[:5]', 'all[5:]', 'all[:50%]+all[-3:]'):
    with pytest.raises(ValueError, match=r'\b2 classes.*all.:80%'):
      read(tmp_path, split=split)
  parts = [pixels_of(tmp_path / 'one', s)[0] for s in ('all[:5]', 'all[5:]')]
  assert [len(part) for part in parts] == [5, 4]
  assert sorted(sum(parts, [])) == list(range(9))
  for split, message in ((
      ('train', "one: split 'train'.*all"),
      ('all[:99]', r"one: split 'all\[:99\]'.*all \(9\)"),
      ('all[70%:72%]', r"one: split 'all\[70%:72%\]' holds no example"))):
    with pytest.raises(ValueError, match=message):
      read(tmp_path / 'one', split=split)


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
  with pytest.raises(ValueError, match=r'\(6, [89]\).*\(6, [89]\).*size='):
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
  with pytest.raises(ValueError, match=f'{bad}'):
    read(tmp_path, size=4, skip_unreadable=True)


def test_too_large_pictures_are_unreadable_and_large_ones_are_not(
    tmp_path, monkeypatch):
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 40)  # Pillow refuses twice as many
  save(tmp_path / 'large.png', plain(size=(6, 8)))
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert read(tmp_path).image.shape == (1, 6, 8, 3)
    assert read_pictures([tmp_path / 'large.png'])[1] == {}
  bomb = tmp_path / 'bomb.png'
  save(bomb, plain(size=(9, 9)))
  with pytest.raises(ValueError, match=f'{bomb}.*81 pix'):
    read(tmp_path, size=4)
  assert read(tmp_path, size=4, skip_unreadable=True).image.shape == (1, 4, 4, 3)
  _, unreadable = read_pictures(
      [bomb, tmp_path / 'large.png'], 4, skip_unreadable=True)
  assert list(unreadable) == [0] and '81 pixels' in unreadable[0]


@pytest.mark.parametrize('error', [MemoryError(), KeyError('tag'), RecursionError('')])
def test_whatever_pillow_raises_is_an_unreadable_picture(tmp_path, monkeypatch, error):
  save(tmp_path / 'a.png', plain())
  save(tmp_path / 'b.png', plain())
  real = Image.open

  def broken(file):
    if file.name == 'b.png':
      raise error
    return real(file)

  monkeypatch.setattr(Image, 'open', broken)
  with pytest.raises(ValueError, match=r'b.png.*\(.+\).*skip_unreadable'):
    read(tmp_path)
  assert read(tmp_path, skip_unreadable=True).image.shape == (1, 6, 8, 3)


def test_damaged_bytes_of_every_format(tmp_path, monkeypatch):
  """Truncated, overwritten and shortened files are read or passed over."""
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10_000)  # little memory for a lie
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (24, 32, 3), np.uint8)
  save(tmp_path / 'good.png', noise)
  for suffix in ('png', 'jpg', 'gif', 'tif', 'webp', 'bmp'):
    save(tmp_path / f'whole.{suffix}', noise)
    whole = (tmp_path / f'whole.{suffix}').read_bytes()
    for k in range(50):
      data = bytearray(whole)
      where = int(rng.integers(len(data) if k % 2 else 64))
      if k < 10:
        del data[where:]
      elif k < 20:
        del data[where:where + int(rng.integers(1, 9))]
      else:
        for place in where + rng.integers(0, 6, int(rng.integers(1, 5))):
          data[min(place, len(data) - 1)] = rng.choice([0, 1, 127, 255])
      (tmp_path / f'{k}.{suffix}').write_bytes(data)
  lie = bytearray((tmp_path / 'whole.bmp').read_bytes())
  lie[18:26] = np.array([60_000, 60_000], np.int32).tobytes()  # width, height
  (tmp_path / 'lie.bmp').write_bytes(lie)
  files = list_pictures(tmp_path).image
  image, unreadable = read_pictures(files, 8, skip_unreadable=True)
  assert len(image) + len(unreadable) == len(files) == 6 * 51 + 2
  assert 50 < len(unreadable) < 300  # the decoders forgive more or less
  place = files.tolist().index(tmp_path / 'lie.bmp')
  assert 'decompression bomb' in unreadable[place]


def test_bad_folders(tmp_path):
  with pytest.raises(ValueError, match='nowhere'):
    read(tmp_path / 'nowhere')
  (tmp_path / 'a').mkdir()
  with pytest.raises(ValueError, match=f'{tmp_path}.*.png'):
    read(tmp_path)
  save(tmp_path / 'b' / 'x.png', plain())
  with pytest.raises(ValueError, match=r"'a'; remove it, or add files.*\.webp$"):
    read(tmp_path)
  (tmp_path / 'a' / 'x.HEIC').touch()
  (tmp_path / 'a' / '.hidden').touch()
  with pytest.raises(ValueError, match=r"'a'.*other files \(1 \.heic\) must be"):
    read(tmp_path)
  with pytest.raises(ValueError, match=r'other files \(1 \.heic\) must be'):
    read(tmp_path / 'a')
  save(tmp_path / 'x.png', plain())
  with pytest.raises(ValueError, match='x.png'):
    read(tmp_path)
  for bad in ({'mode': 'HSV'}, {'size': 0}, {'size': (4, 4, 3)}):
    with pytest.raises(ValueError, match=next(iter(bad))):
      read(tmp_path, **bad)


def test_names_of_classes_that_are_not_utf8_can_be_shown(tmp_path):
  try:
    os.mkdir(os.path.join(os.fsencode(tmp_path), b'caf\xe9'))
  except OSError:
    pytest.skip('a file system that takes UTF-8 only')
  (tmp_path / 'dog').mkdir()
  for name in (os.fsdecode(b'caf\xe9'), 'dog'):
    Image.new('L', (4, 4)).save(tmp_path / name / 'a.png')
  found = load({'name': 'folder', 'path': str(tmp_path)})
  assert found.names == ('caf\\xe9', 'dog')
