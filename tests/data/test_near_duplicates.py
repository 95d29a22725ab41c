"""Perceptual hashes beside those of the library imagehash; the nearest of many."""

import io

import numpy as np
from PIL import Image

from nat_jax.data import near_duplicates
from nat_jax.data.near_duplicates import FAR, NONE, nearest, perceptual_hashes

# imagehash 4.3.2: phash of the grey picture, resized to 32x32, of each of four seeds.
OF_IMAGEHASH = 0x9689a493b46f4b6c, 0xb3c6b9f44c03b30b, 0x9499f41395ec68ec, (
    0xd9d1a9c6b9384639)


def picture(seed, size=(40, 30)):
  """A smooth picture of few colours."""
  values = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
  return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


def hash_of(*pictures):
  return np.concatenate([perceptual_hashes(np.asarray(one)[None]) for one in pictures])


def test_hashes_are_those_of_imagehash():
  found = perceptual_hashes(np.stack([np.asarray(picture(k)) for k in range(4)]))
  assert found.dtype == np.uint64
  assert [hex(one) for one in found] == [hex(one) for one in OF_IMAGEHASH]


def test_copies_are_near_and_others_are_far():
  pictures = [picture(k, (160, 120)) for k in range(30)]
  copies = []
  for one in pictures:
    file = io.BytesIO()
    one.resize((100, 75)).point(lambda x: int(0.8 * x)).save(file, 'jpeg', quality=60)
    copies.append(Image.open(file))
  index, distance = nearest(hash_of(*copies), hash_of(*pictures))
  np.testing.assert_array_equal(index, np.arange(30))
  assert distance.max() <= 4
  _, distance = nearest(hash_of(*pictures[:15]), hash_of(*pictures[15:]))
  assert distance.min() > 10


def test_plain_pictures_have_no_hash():
  plain = np.full((3, 9, 8, 1), 200, np.uint8)
  plain[1, 4:] = 201
  plain[2, 4:] = 220
  found = perceptual_hashes(plain)
  assert list(found == NONE) == [True, True, False]
  index, distance = nearest(found, found)
  assert list(distance) == [FAR, FAR, 0] and index[2] == 2


def test_the_nearest_of_all_pairs_in_blocks(monkeypatch):
  monkeypatch.setattr(near_duplicates, '_BLOCK', (3, 4))
  rng = np.random.default_rng(0)
  some, others = (rng.integers(1, 2**63, n, np.uint64) for n in (10, 17))
  others[[5, 11]] = some[2]  # the first of equal ones
  others[3] = NONE
  bits = np.unpackbits((some[:, None] ^ others).view(np.uint8), axis=1)
  distances = bits.reshape(10, 17, 64).sum(2)
  distances[:, 3] = FAR
  index, distance = nearest(some, others)
  np.testing.assert_array_equal(index, distances.argmin(1))
  np.testing.assert_array_equal(distance, distances.min(1))
  assert index[2] == 5 and distance[2] == 0
  index, distance = nearest(some, others[:0])
  assert set(index) == {-1} and set(distance) == {FAR}
