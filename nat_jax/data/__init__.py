"""Sources of images, streams of indices, augmentation on the device.

    >>> positives = load({'name': 'digits', 'classes': (0, 1, 2)})
    >>> noise = load({'name': 'normal_noise', 'num': 500}, like=positives)
    >>> noise.image.shape
    (500, 8, 8, 1)
"""

from collections.abc import Mapping
from typing import Any

from nat_jax import registry
from nat_jax.data import picture_paths
from nat_jax.data.arrays_source import (
    arrays,
    is_vectors,
    moments,
    read_header,
    standardise,
)
from nat_jax.data.augment import AUGMENTS, make_augment, normalise
from nat_jax.data.cache import cache_folder, cache_root, read_cache, write_cache
from nat_jax.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from nat_jax.data.folder_source import (
    decode_each,
    folder,
    list_pictures,
    read_pictures,
)
from nat_jax.data.masks import VOID, Pairs, check_training, check_void, class_counts
from nat_jax.data.memory import check_memory
from nat_jax.data.near_duplicates import nearest, perceptual_hashes
from nat_jax.data.negatives import (
    blobs,
    class_halves,
    normal_noise,
    patch_shuffle,
    photographs,
    pixel_permute,
    quantise,
    uniform_noise,
)
from nat_jax.data.overlap import count_overlaps, overlap_sentence
from nat_jax.data.pairs import PAIRS, load_pairs, rare_classes, regions
from nat_jax.data.points import POINTS, Modes, Points
from nat_jax.data.pool import Pool, class_weights, gather, make_pool
from nat_jax.data.rows import Images, Rows
from nat_jax.data.series import SERIES, Reading, Series, load_series, windows
from nat_jax.data.sources import (
    Arrays,
    breast_cancer,
    digits,
    fake,
    split_slices,
    take_classes,
    take_rows,
    take_split,
)
from nat_jax.data.stream import Stream, apart, make_stream
from nat_jax.data.table_source import table
from nat_jax.data.tfds_source import NotPrepared, from_tfds
from nat_jax.data.zero_shot import ZERO_SHOT, ZeroShot, check_zero_shot

__all__ = [
    'PAIRS', 'VOID', 'Pairs', 'check_training', 'check_void', 'class_counts',
    'load_pairs', 'rare_classes', 'regions',
    'AUGMENTS', 'CORRUPTIONS', 'POINTS', 'SOURCES', 'STRENGTHS', 'SYNTHETIC', 'Arrays',
    'Images', 'Modes', 'NotPrepared', 'Points', 'Pool', 'Rows', 'Stream', 'apart',
    'arrays', 'blobs', 'breast_cancer', 'cache_folder', 'cache_root', 'check_memory',
    'class_weights', 'corrupt', 'count_overlaps', 'decode_each', 'digits', 'fake',
    'folder', 'from_tfds', 'gather', 'is_vectors', 'list_pictures', 'load',
    'make_augment', 'make_pool', 'make_stream', 'moments', 'nearest', 'normal_noise',
    'normalise', 'overlap_sentence', 'patch_shuffle', 'perceptual_hashes',
    'picture_paths', 'pixel_permute', 'quantise', 'read_cache',
    'read_header', 'read_pictures', 'split_slices', 'standardise', 'table',
    'take_classes', 'take_rows', 'take_split', 'uniform_noise', 'write_cache',
    'SERIES', 'Reading', 'Series', 'load_series', 'windows',
    'ZERO_SHOT', 'ZeroShot', 'check_zero_shot',
]

# Called with the arguments of the spec.
SOURCES = {
    'arrays': arrays, 'breast_cancer': breast_cancer, 'digits': digits, 'fake': fake,
    'folder': folder, 'table': table, 'tfds': from_tfds}

# Called with the arguments of the spec and `like`, the positives that they imitate.
SYNTHETIC = {
    'blobs': blobs,
    'class_halves': class_halves,
    'normal_noise': normal_noise,
    'patch_shuffle': patch_shuffle,
    'photographs': photographs,
    'pixel_permute': pixel_permute,
    'uniform_noise': uniform_noise,
}
# Loaded by `tasks.images.load_source`, which can open other runs.
OF_RUNS = ('run',)
OF_VECTORS = ('normal_noise',)  # those that imitate vectors too


def load(spec: Mapping[str, Any], like: Arrays | None = None) -> Arrays:
  """Loads the data source that `spec` names.

  Args:
    spec: `{'name': ..., **kwargs}`, a name in SOURCES or SYNTHETIC.
    like: the positives, which synthetic negatives imitate.

  Returns:
    The images and labels.

  Raises:
    ValueError: an unknown name, synthetic negatives without `like`, or ones that are
      pictures while `like` are vectors; or an error of the source.
  """
  extra = {}
  if spec.get('name') in OF_RUNS:
    raise ValueError(
        f'{spec["name"]!r} draws examples from another run, so that it can be a source '
        'of negatives only: in data.negatives, or in evals for a negative set')
  if spec.get('name') in SYNTHETIC:
    if like is None:
      raise ValueError(
          f'{spec["name"]!r} imitates the positives, so that it can be a source of '
          'negatives only; from Python, pass them as like= to load()'
      )
    if is_vectors(like.image.shape[1:]) and spec['name'] not in OF_VECTORS:
      raise ValueError(
          f'{spec["name"]!r} makes pictures, and the positives are vectors, which '
          f'{" and ".join(OF_VECTORS)} imitates')
    extra = {'like': like}
  known = SOURCES | SYNTHETIC | dict.fromkeys(OF_RUNS)  # the latter to be listed
  return registry.build(known, spec, what='data source', **extra)
