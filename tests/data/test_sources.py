"""Splits and classes, digits, fake images, synthetic negatives."""

import numpy as np
import pytest
from sklearn import datasets

from nat_jax.data import (
    SYNTHETIC,
    Arrays,
    Rows,
    digits,
    fake,
    load,
    make_pool,
    quantise,
    split_slices,
    take_classes,
    take_split,
)


def ids(num, start=0):
  label = np.arange(start, start + num, dtype=np.int32)
  return Arrays(label.astype(np.uint8).reshape(-1, 1, 1, 1), label)


SPLITS = {'train': ids(50), 'test': ids(30, 50)}
ALL = np.arange(80)


@pytest.mark.parametrize(
    ('split', 'expected'),
    [
        ('train', ALL[:50]),
        ('train[:80%]', ALL[:40]),
        ('train[33%:]', ALL[16:50]),  # 16.5 rounds to even, as in tfds
        ('train[-10:]', ALL[40:50]),
        ('train[:-20%]', ALL[:40]),
        ('test[5:7]', ALL[55:57]),
        ('train[:50%]+test', np.r_[0:25, 50:80]),
        ('test[:3] + train[:2]', np.r_[50:53, 0:2]),
        ('all', ALL),
        ('all[40:60]', ALL[40:60]),
        ('all[60:]', ALL[60:]),
        ('all[:75%]', ALL[:60]),
        ('all[-90%:-50%]', ALL[8:40]),
    ],
)
def test_slicing_is_numpy_slicing(split, expected):
  out = take_split(SPLITS, split)
  np.testing.assert_array_equal(out.label, expected)
  np.testing.assert_array_equal(out.image.ravel(), expected)


def test_slicing_agrees_with_tfds():
  import tensorflow_datasets as tfds

  num = 1797
  info = tfds.core.SplitInfo(name='train', shard_lengths=[num], num_bytes=0)
  for spec in ('train[:33%]', 'train[12%:99%]', 'train[-7%:]', 'train[:1700]'):
    theirs = tfds.core.ReadInstruction.from_spec(spec).to_absolute({'train': info})
    [(name, rows)] = split_slices(spec, {'train': num})
    want = range(num)[slice(theirs[0].from_, theirs[0].to)]
    assert (name, range(num)[rows]) == ('train', want)


def test_one_slice_is_a_view():
  assert np.shares_memory(take_split(SPLITS, 'train[3:]').image, SPLITS['train'].image)


@pytest.mark.parametrize(
    'split',
    ['valid', 'train[', 'train[:51]', 'train[:2shard]', 'train[3]', 'train[::2]', ''],
)
def test_bad_splits_list_those_there(split):
  with pytest.raises(ValueError, match=r'train \(50\), test \(30\)'):
    take_split(SPLITS, split)


@pytest.mark.parametrize('split', ['train[:0]', 'train[20:10]', 'all[60:20]'])
def test_empty_splits(split):
  with pytest.raises(ValueError, match=r'train \(50\), test \(30\)') as error:
    take_split(SPLITS, split)
  assert repr(split) in str(error.value)


def test_classes_are_kept_and_renumbered_by_position():
  arrays = Arrays(
      np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1),
      np.array([0, 3, 1, 3, 2, 0], np.int32),
      ('a', 'b', 'c', 'd'),
  )
  out = take_classes(arrays, [3, 0])
  np.testing.assert_array_equal(out.image.ravel(), [0, 1, 3, 5])
  np.testing.assert_array_equal(out.label, [1, 0, 0, 1])
  assert out.names == ('d', 'a') and out.label.dtype == np.int32
  assert take_classes(arrays._replace(names=()), (1,)).names == ()
  for bad in ((0, 4), (1, 1), ()):
    with pytest.raises(ValueError, match=r'classes.*\[0, 1, 2, 3\]'):
      take_classes(arrays, bad)


def test_few_digits_of_each_class_are_chosen_by_the_seed_and_nested():
  two, five, other = (
      digits(classes=(3, 0, 8), per_class=n, seed=seed)
      for n, seed in ((2, 1), (5, 1), (5, 2)))
  np.testing.assert_array_equal(np.bincount(five.label), [5, 5, 5])
  whole = {image.tobytes(): label for image, label in zip(
      *digits(classes=(3, 0, 8))[:2], strict=True)}

  def content(arrays):
    for image, label in zip(arrays.image, arrays.label, strict=True):
      assert whole[image.tobytes()] == label
    return {image.tobytes() for image in arrays.image}

  assert content(two) < content(five) != content(other)
  for wrong in (0, 1000):
    with pytest.raises(ValueError, match=rf'per_class.*1\.\.1\d\d\b.*got {wrong}'):
      digits(per_class=wrong)


def test_digits():
  train, test, both = digits(), digits('test'), digits('all')
  assert train.image.shape == (1258, 8, 8, 1) and test.image.shape == (539, 8, 8, 1)
  assert train.image.dtype == np.uint8 and train.label.dtype == np.int32
  assert train.names == tuple('0123456789')
  np.testing.assert_array_equal(
      both.image, np.concatenate([train.image, test.image])
  )
  np.testing.assert_array_equal(
      digits('train[:50%]+test').label, np.concatenate([train.label[:629], test.label])
  )
  # Nothing is lost: the same images as scikit-learn's, 16 becoming 255.
  raw = datasets.load_digits()
  scaled = np.round(raw.images * 255 / 16)
  assert sorted(map(bytes, scaled.astype(np.uint8).reshape(-1, 64))) == sorted(
      map(bytes, both.image.reshape(-1, 64)))
  np.testing.assert_array_equal(np.bincount(both.label), np.bincount(raw.target))
  some = load({'name': 'digits', 'split': 'test', 'classes': (8, 9)})
  assert some.names == ('8', '9') and set(some.label) == {0, 1}
  np.testing.assert_array_equal(some.image, test.image[test.label >= 8])


def test_fake_images_can_be_learnt_across_seeds():
  train, test = fake(), fake(num=100, seed=1)
  again = fake()
  np.testing.assert_array_equal(train.image, again.image)
  assert train.image.shape == (256, 8, 8, 1) and train.image.dtype == np.uint8
  np.testing.assert_array_equal(np.bincount(train.label), [64] * 4)
  centres = np.stack([train.image[train.label == c].mean(0) for c in range(4)])
  distance = ((test.image[:, None] - centres) ** 2).sum((2, 3, 4))
  np.testing.assert_array_equal(distance.argmin(1), test.label)
  assert fake(classes=(3, 1)).names == ('pattern 3', 'pattern 1')


LIKE = fake(num=40, shape=(8, 12, 3))


@pytest.mark.parametrize('name', sorted(SYNTHETIC))
def test_synthetic_negatives_are_deterministic(name):
  def make(seed, num=70):
    return load({'name': name, 'num': num, 'seed': seed}, like=LIKE)

  out = make(0)
  assert out.image.shape == (70, 8, 12, 3)
  assert out.image.dtype == (np.float32 if name == 'normal_noise' else np.uint8)
  np.testing.assert_array_equal(out.label, np.zeros(70, np.int32))
  np.testing.assert_array_equal(out.image, make(0).image)
  assert (out.image != make(1).image).any()
  # A pair of positives may be drawn twice.
  repeated = 70 - len({image.tobytes() for image in out.image})
  assert repeated <= 3 * (name == 'class_halves')
  with pytest.raises(ValueError, match=f'{name}.*like='):
    load({'name': name})


def test_noise_has_its_distribution():
  normal = load({'name': 'normal_noise', 'num': 500}, like=LIKE).image
  assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02
  uniform = load({'name': 'uniform_noise', 'num': 500}, like=LIKE).image
  counts = np.bincount(uniform.ravel(), minlength=256)
  assert len(counts) == 256 and counts.min() > 0.8 * uniform.size / 256
  blobs = load({'name': 'blobs', 'num': 100}, like=LIKE).image
  assert blobs[blobs > 0].min() >= 191  # 0.75 x 255
  assert 0.1 < (blobs == 0).mean() < 0.9
  step = np.abs(np.diff(blobs.astype(int), axis=1)).mean()
  other = np.abs(blobs[:-1].astype(int) - blobs[1:]).mean()
  assert step < 0.7 * other  # smooth in space


def test_patches_change_places_and_keep_their_pixels():
  out = load({'name': 'patch_shuffle', 'num': 200, 'patches': 2}, like=LIKE).image

  def cut(image):
    return [image[y:y + 4, x:x + 6].tobytes() for y in (0, 4) for x in (0, 6)]

  originals = {tuple(sorted(cut(image))): cut(image) for image in LIKE.image}
  places = set()
  for image in out:
    original = originals[tuple(sorted(cut(image)))]
    places.add(tuple(original.index(patch) for patch in cut(image)))
  assert (0, 1, 2, 3) not in places and len(places) == 23  # 4! - 1
  with pytest.raises(ValueError, match=r'patches.*\b8\b.*\b12\b.*\b3\b'):
    load({'name': 'patch_shuffle', 'patches': 3}, like=LIKE)
  with pytest.raises(ValueError, match=r'patches.*\b2\b.*\b1$'):
    load({'name': 'patch_shuffle', 'patches': 1}, like=LIKE)


def test_halves_are_of_two_classes():
  label = np.arange(40, dtype=np.int32) % 3
  image = np.empty((40, 4, 6, 1), np.uint8)
  image[:] = np.arange(40)[:, None, None, None]  # the pixels tell the image
  out = load({'name': 'class_halves', 'num': 100}, Arrays(image, label, ('a',) * 3))
  ways = set()
  for one in out.image[..., 0]:
    across = one[0, 0] == one[-1, 0]
    ways.add(across)
    halves = (one[:, :3], one[:, 3:]) if across else (one[:2], one[2:])
    first, second = ({*half.ravel().tolist()} for half in halves)
    assert len(first) == len(second) == 1
    assert label[first.pop()] != label[second.pop()]
  assert ways == {True, False}
  with pytest.raises(ValueError, match=r'class_halves.* 2 classes .*\b1 class'):
    load({'name': 'class_halves'}, Arrays(image, label * 0, ('a',)))


def test_photographs_have_the_form_of_the_positives():
  coloured = load({'name': 'photographs', 'num': 30}, like=LIKE).image
  assert coloured.shape == (30, 8, 12, 3) and coloured.dtype == np.uint8
  assert (coloured[..., 0] != coloured[..., 2]).any()
  grey = LIKE._replace(image=LIKE.image[..., :1])
  train, test = (load({'name': 'photographs', 'num': 500, 'split': split}, grey).image
                 for split in ('train', 'test'))
  assert train.shape == (500, 8, 12, 1)
  assert abs(train.mean() - test.mean()) > 20  # a bright sky, and dark leaves
  assert len(np.unique(train, axis=0)) > 490
  with pytest.raises(ValueError, match=r'split.*train.*test'):
    load({'name': 'photographs', 'split': 'val'}, like=LIKE)
  with pytest.raises(ValueError, match=r'1 or 3 channels.*\b2\b'):
    load({'name': 'photographs'}, LIKE._replace(image=LIKE.image[..., :2]))


def test_negatives_of_positives_on_disk_are_made_when_they_are_read():
  asked = []
  def read(chosen):
    asked.extend(chosen)
    return LIKE.image[chosen]
  spec = {'name': 'patch_shuffle', 'num': 70, 'seed': 3}
  once = load(spec, like=LIKE)
  lazy = load(spec, like=LIKE._replace(image=Rows(read, 40, (8, 12, 3))))
  assert isinstance(lazy.image, Rows) and asked == []
  np.testing.assert_array_equal(lazy.image[[5, 69, 5]], once.image[[5, 69, 5]])
  assert len(asked) == 3
  np.testing.assert_array_equal(np.asarray(lazy.image), once.image)


def test_much_noise_is_made_when_it_is_read(monkeypatch):
  monkeypatch.setattr('nat_jax.data.negatives._LARGE', 70 * 8 * 12 * 3 * 4)
  spec = {'name': 'normal_noise', 'seed': 3}
  assert isinstance(load({**spec, 'num': 70}, like=LIKE).image, np.ndarray)
  noise = load({**spec, 'num': 200}, like=LIKE)
  assert isinstance(noise.image, Rows) and noise.image.dtype == np.float32
  whole = np.asarray(noise.image)
  assert whole.shape == (200, 8, 12, 3) and len(np.unique(whole[:, 0, 0, 0])) == 200
  assert abs(whole.mean()) < 0.02 and abs(whole.std() - 1) < 0.02
  np.testing.assert_array_equal(noise.image[[7, 150]], whole[[7, 150]])
  pool = make_pool(LIKE, {'noise': noise}, 4, (0.5,), (0.25,))
  assert pool.image.dtype == np.uint8
  np.testing.assert_array_equal(
      pool.image[[40 + 7]], quantise(whole[[7]], (0.5,), (0.25,)))


def test_pixels_change_places_as_wholes_and_anew_for_each_image():
  out = load({'name': 'pixel_permute', 'num': 80}, like=LIKE).image

  def pixels(image):
    return tuple(sorted(map(bytes, image.reshape(-1, 3))))

  originals = {pixels(image): image for image in LIKE.image}
  seen = {}
  for image in out:
    original = originals[pixels(image)]
    assert (image != original).any()
    seen.setdefault(original.tobytes(), []).append(image)
  # 80 out of 40: each twice, in two orders.
  assert {len(pair) for pair in seen.values()} == {2}
  assert all((a != b).any() for a, b in seen.values())


def test_unknown_names_list_all_sources():
  listed = "'cifar10'.*blobs, breast_cancer, class_halves, .*perm.*, run, "
  with pytest.raises(ValueError, match=listed):
    load({'name': 'cifar10'})


def test_breast_cancer_with_few_outliers():
  """The malignant examples that are kept are those of published figures."""
  whole, few = (load({'name': 'breast_cancer', 'outliers': n}) for n in (None, 10))
  assert np.bincount(whole.label).tolist() == [357, 212]
  assert np.bincount(few.label).tolist() == [357, 10]
  assert few.image.shape == (367, 30) and few.image.dtype == np.float32
  found = datasets.load_breast_cancer()
  rows = np.random.RandomState(0).permutation(np.flatnonzero(found.target == 0))[:10]
  expected = found.data[rows].astype(np.float32)
  np.testing.assert_array_equal(
      np.sort(few.image[few.label == 1], 0), np.sort(expected, 0))
  assert whole.names == ('benign', 'malignant')
  with pytest.raises(ValueError, match='0..212, got 213'):
    load({'name': 'breast_cancer', 'outliers': 213})
