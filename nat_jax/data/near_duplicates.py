"""Near-duplicates among pictures, by the Hamming distance of perceptual hashes.

    hashes = perceptual_hashes(images)           # uint64 [n]
    index, distance = nearest(hashes, others)    # of the closest of `others`, [n] each

Copies of a picture in another size, format or quality, or with another brightness, have
hashes that differ in a few of their 64 bits; unrelated pictures differ in about 32.
"""

import numpy as np
from PIL import Image
from scipy import fft

from nat_jax.data import decode

NONE = 0  # the hash of a picture without structure, such as a plain colour
FAR = 65  # the distance from a picture without a hash; others are 0..64
SIDE, KEPT = 32, 8  # of the grey picture, and of the low frequencies that are kept
_FLAT = 2.0  # standard deviation of grey values 0..255, below which there is no hash
_BLOCK = 256, 8192  # hashes that are compared at a time


def perceptual_hashes(images: np.ndarray) -> np.ndarray:
  """Computes a perceptual hash of each picture (pHash).

  The bits say which of the 8x8 lowest frequencies of the discrete cosine transform of
  the grey picture, resized to 32x32, are above their median. The first row of
  frequencies has the highest bits. The bits of `imagehash.phash` of these images.

  Args:
    images: uint8 [n, h, w, c], with 1 or 3 channels.

  Returns:
    uint64 [n]; NONE for pictures without structure.

  Reference: https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html
  """
  small = np.stack([_small(image) for image in images])
  low = fft.dctn(small, axes=(1, 2))[:, :KEPT, :KEPT].reshape(len(small), -1)
  bits = low > np.median(low, axis=1, keepdims=True)
  hashes = np.packbits(bits, axis=1).view('>u8')[:, 0].astype(np.uint64)
  return np.where(small.std((1, 2)) < _FLAT, np.uint64(NONE), hashes)


def _small(image):
  """The grey picture, float64 [32, 32]."""
  picture = decode.to_image(image)
  return np.asarray(
      picture.convert('L').resize((SIDE, SIDE), Image.Resampling.LANCZOS), float)


def nearest(hashes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Finds the closest of `others` for each hash, by comparing all pairs in blocks.

  A pair takes about a nanosecond: 5 seconds for 50,000 and 100,000 hashes.

  Args:
    hashes: uint64 [n]; NONE is far from all.
    others: uint64 [m].

  Returns:
    (index int64 [n], the first of equally close ones, -1 if none of `others` is a hash;
    Hamming distance uint8 [n], FAR without a hash).
  """
  known = np.flatnonzero(others != NONE)
  index = np.full(len(hashes), -1)
  distance = np.full(len(hashes), FAR, np.uint8)
  high, wide = _BLOCK
  for start in range(0, len(hashes), high):
    mine = slice(start, start + high)
    for first in range(0, len(known), wide):
      theirs = known[first:first + wide]
      found = np.bitwise_count(hashes[mine, None] ^ others[None, theirs])
      closest = found.argmin(1)
      least = found[np.arange(len(closest)), closest]
      better = least < distance[mine]
      index[mine] = np.where(better, theirs[closest], index[mine])
      distance[mine] = np.where(better, least, distance[mine])
  distance[hashes == NONE] = FAR
  return index, distance
