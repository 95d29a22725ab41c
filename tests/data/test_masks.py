"""Folders of pictures and masks: what is read, and the messages for mistakes."""

import numpy as np
import pytest
from PIL import Image

from nat_jax import data

SPEC = {'name': 'masks'}


def write(root, name, mask, image=None, mode=None):
  """A picture and its mask, which may be of another size."""
  for kind in ('images', 'masks'):
    (root / kind).mkdir(parents=True, exist_ok=True)
  if image is None:
    image = np.full((*mask.shape[:2], 3), 100, np.uint8)
  Image.fromarray(image).save(root / 'images' / f'{name}.png')
  made = Image.fromarray(mask)
  if mode == 'P':
    made = Image.fromarray(mask, 'P')
    made.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
  made.save(root / 'masks' / f'{name}.png')


def load(root, num_classes=3, void=255, **spec):
  return data.load_pairs(SPEC | {'path': str(root), **spec}, num_classes, void)


def make_mask(seed=0, shape=(4, 6), most=3):
  return np.random.default_rng(seed).integers(0, most, shape, np.uint8)


def test_pictures_and_masks_by_their_names(tmp_path):
  """Of palettes and of 16 bits, in the order of names; the void becomes 255."""
  masks = [make_mask(k) for k in range(3)]
  masks[0][0, 0] = 77
  images = [np.random.default_rng(9 + k).integers(0, 256, (4, 6, 3), np.uint8)
            for k in range(3)]
  write(tmp_path, 'b', masks[1], images[1], 'P')
  write(tmp_path, 'a', masks[0], images[0])
  write(tmp_path, 'c', masks[2].astype(np.uint16), images[2])
  (tmp_path / 'masks' / '.hidden.png').write_bytes(b'')
  (tmp_path / 'images' / 'notes.txt').write_text('none')
  found = load(tmp_path, void=77, names=('x', 'y', 'z'))
  np.testing.assert_array_equal(found.image, images)
  assert found.mask[0, 0, 0] == 255 and found.mask.dtype == np.uint8
  masks[0][0, 0] = 255
  np.testing.assert_array_equal(found.mask, masks)
  assert found.names == ('x', 'y', 'z')


def test_both_are_resized_and_cropped_alike(tmp_path):
  """A mask of two halves fits its picture of two halves after any change of size."""
  mask = np.zeros((8, 20), np.uint8)
  mask[:, 12:] = 1
  write(tmp_path, 'a', mask, np.repeat(255 * mask[..., None], 3, 2))
  write(tmp_path, 'b', mask[:, ::-1], np.repeat(255 * mask[:, ::-1, None], 3, 2))
  found = load(tmp_path, size=(4, 6), mode='L')
  assert found.image.shape == (2, 4, 6, 1)
  np.testing.assert_array_equal(found.mask, found.image[..., 0] > 127)
  assert set(np.unique(found.mask)) == {0, 1}


def test_splits_are_disjoint_and_complete(tmp_path):
  for k in range(10):
    write(tmp_path, f'{k}', np.full((2, 2), k, np.uint8))
  parts = [load(tmp_path, 10, split=split).mask[:, 0, 0].tolist()
           for split in ('all[:70%]', 'all[70%:]')]
  assert len(parts[0]) == 7 and sorted(sum(parts, [])) == list(range(10))


@pytest.mark.parametrize('change, spec, named', [
  ('lone', {}, ['7 pictures have no mask', 'p0.png, p1.png', 'and 2 more']),
  ('lone mask', {}, ['1 masks have no picture', 'lone.png']),
  ('size', {}, ['masks/a.png', 'images/a.png', '6 x 4', '5 x 4']),
  ('values', {}, ['masks/a.png', 'values 3, 9', '0..2', '255']),
  ('colours', {}, ['masks/a.png', 'colours', 'RGB', '0..2']),
  ('damaged', {}, ['masks/a.png', 'cannot be read']),
  ('none', {'void': 2}, ['data.void=2', '0..2']),
  ('none', {'num_classes': 256}, ['num_classes', '255', '256']),
  ('none', {'names': ('x', 'y')}, ['num_classes=3', '2 names']),
  ('none', {'path': 'nowhere'}, ['images/', 'masks/', 'nowhere']),
  ('none', {'mode': 'CMYK'}, ['mode', 'CMYK']),
  ('none', {'split': 'all[:0%]'}, ['split']),
  ('twice', {}, ['a.jpg', 'a.png']),
  ('shape', {}, ['one size', '(4, 6)', '(5, 5)', 'size=(height, width)'])])
def test_mistakes(tmp_path, change, spec, named):
  write(tmp_path, 'a', make_mask())
  write(tmp_path, 'b', make_mask(1))
  if change == 'lone':
    for k in range(7):
      Image.new('RGB', (6, 4)).save(tmp_path / 'images' / f'p{k}.png')
  if change == 'lone mask':
    Image.new('L', (6, 4)).save(tmp_path / 'masks' / 'lone.png')
  if change == 'size':
    write(tmp_path, 'a', make_mask(shape=(4, 5)), np.zeros((4, 6, 3), np.uint8))
  if change == 'values':
    wrong = make_mask()
    wrong[0, :2] = 9, 3
    write(tmp_path, 'a', wrong)
  if change == 'colours':
    Image.new('RGB', (6, 4)).save(tmp_path / 'masks' / 'a.png')
  if change == 'damaged':
    (tmp_path / 'masks' / 'a.png').write_bytes(b'no picture')
  if change == 'twice':
    Image.new('RGB', (6, 4)).save(tmp_path / 'images' / 'a.jpg')
  if change == 'shape':
    write(tmp_path, 'b', make_mask(shape=(5, 5)))
  with pytest.raises(ValueError) as error:
    load(**{'root': tmp_path, **spec})
  assert all(text in str(error.value) for text in named), error.value


def test_classes_that_no_training_mask_shows(tmp_path):
  write(tmp_path, 'a', make_mask(most=2))
  pairs = load(tmp_path, 4, names=('sky', 'road', 'car', 'tree'))
  with pytest.raises(ValueError, match='training masks.*none of car, tree'):
    data.check_training(pairs, 4)
  data.check_training(load(tmp_path, 2), 2)


def test_regions_are_the_connected_ones(monkeypatch):
  mask = np.zeros((1, 5, 5), np.uint8)
  mask[0, :2, :2] = mask[0, 3:, 3:] = 2
  mask[0, 4, 0] = 1
  pairs = data.Pairs(np.zeros((1, 5, 5, 3), np.uint8), mask)
  cut = data.regions(pairs, (1, 2))
  assert [(one != data.VOID).sum() for one in cut.mask] == [1, 4, 4]
  assert [sorted(set(one.ravel().tolist())) for one in cut.mask] == [
      [1, 255], [2, 255], [2, 255]]
  np.testing.assert_array_equal(
      np.where(mask == 0, data.VOID, mask)[0], cut.mask.min(0))
  with pytest.raises(ValueError, match=r'\[3\].*`rare`'):
    data.regions(pairs, (3,))
  monkeypatch.setattr(data.memory.os, 'sysconf', lambda name: 15)
  # Three of them, with three copies of 5 x 5 pixels with a mask, take 900 bytes.
  with pytest.raises(ValueError, match=r'the 3 regions .*\[1, 2\].*`rare`.*image_size'):
    data.regions(pairs, (1, 2))


def test_rare_classes_have_few_pixels():
  mask = np.zeros((1, 10, 10), np.uint8)
  mask[0, :4], mask[0, 9, :6], mask[0, 8] = 1, 2, data.VOID
  # 44, 40 and 6 pixels, 30 in the mean; the limit is 6.
  assert data.class_counts(mask, 3).tolist() == [44, 40, 6]
  assert data.rare_classes(mask, 3) == ()
  mask[0, 9, 5] = 0
  assert data.rare_classes(mask, 3) == (2,)


def test_scenes():
  """The numbers of rare scenes; a kind of void changes nothing but the void."""
  spec = {'name': 'scenes', 'num': 40, 'num_rare': 5, 'seed': 3}
  one, other, again = (data.load_pairs(spec | {'kinds': kinds}, 4, 255) for kinds in (
      ('blank',), ('stripes',), ('blank',)))
  np.testing.assert_array_equal(one.image, again.image)
  np.testing.assert_array_equal(one.mask, other.mask)
  assert one.image.shape == (40, 16, 16, 3) and one.mask.shape == (40, 16, 16)
  assert (one.mask == 3).any((1, 2)).sum() <= 5
  void = one.mask == data.VOID
  assert 10 < void.any((1, 2)).sum() < 30
  np.testing.assert_array_equal(one.image[~void], other.image[~void])
  assert set(np.unique(one.image[void])) == {0, 255}
  # The rare class has the mean colour of another one, and differs by its texture.
  many = data.load_pairs(spec | {'num': 200, 'num_rare': 200}, 4, 255)
  grey = many.image.mean(-1)
  leaf, gravel = (grey[many.mask == k] for k in (2, 3))
  assert abs(leaf.mean() - gravel.mean()) < 8 and gravel.std() > 2 * leaf.std()
  with pytest.raises(ValueError, match='num_rare.*40.*41'):
    data.load_pairs(spec | {'num_rare': 41}, 4, 255)
