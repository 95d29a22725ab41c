"""Image data sets of tensorflow_datasets (tfds), decoded once into the array cache.

    from_tfds('cifar10', split='train[:90%]', classes=(0, 1, 2))

Preparing a data set as ArrayRecord needs TensorFlow; reading and decoding it does not.
Cached splits (layout: nat_jax/data/cache.py) are used without comparing them with the
prepared data: after preparing another version, delete the cached folder.
"""

import re
from collections.abc import Sequence

import numpy as np
import tqdm
from absl import logging

from nat_jax.data import cache, sources

_CHUNK = 512  # records read at a time


def from_tfds(
    dataset: str,
    split: str = 'train',
    classes: Sequence[int] | None = None,
    data_dir: str | None = None,
    cache_dir: str | None = None,
) -> sources.Arrays:
  """Reads a data set of the tfds catalogue, or a prepared one under `data_dir`.

  Args:
    dataset: official tfds name, such as 'cifar10' or 'emnist/letters'.
    split: as in tfds: 'train[:80%]', 'train+test', ...
    classes: the labels to keep, renumbered by position; None: all.
    data_dir: folder of prepared data sets; None: the default of tfds.
    cache_dir: root of the array cache; None: the default.

  Returns:
    The images (memory-mapped where possible) and their labels.

  Raises:
    ValueError: unknown data set or split; a data set that is not prepared, or not as
      ArrayRecord (the message has the command that prepares it); no 'label', or no
      uint8 'image' of one fixed size; a damaged cache.
  """
  folder = cache.cache_folder(dataset, cache_dir)
  names = list(dict.fromkeys(re.findall(r'(?:^|\+)\s*([^\s\[+]+)', split)))
  if 'all' in names:
    raise ValueError(
        f"{dataset}: split 'all' is not valid for tfds; name the splits, as in "
        "'train+test'")
  for name in names:
    if not (folder / name).exists():
      _fill_cache(dataset, name, data_dir, cache_dir)
  splits = {name: cache.read_cache(folder / name) for name in names}
  return sources.take_classes(sources.take_split(splits, split), classes)


def _fill_cache(
    dataset: str, split: str, data_dir: str | None, cache_dir: str | None
) -> None:
  """Decodes one prepared split into the cache."""
  builder, records = _open(dataset, split, data_dir)
  features = builder.info.features
  image, label = _decode(dataset, features, records, f'{dataset} {split}')
  names = getattr(features['label'], 'names', None) or ()
  folder = cache.cache_folder(dataset, cache_dir) / split
  try:
    cache.write_cache(dataset, split, image, label, names, cache_dir)
  except (OSError, ValueError):
    if not folder.exists():  # else another process was first
      raise
  logging.info('%s %s: %d images cached in %s', dataset, split, len(label), folder)


def _open(dataset: str, split: str, data_dir: str | None):
  """Returns the builder of a prepared data set and the records of one split."""
  import tensorflow_datasets as tfds  # does not import TensorFlow

  try:
    builder = tfds.builder(dataset, data_dir=data_dir)
  except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
    # Only the hint is shown: the message itself lists hundreds of data sets.
    hint = re.search(r'Did you mean: .*', str(error))
    reason = hint[0] if hint else str(error).splitlines()[0]
    raise ValueError(
        f'expected a data set of tfds or one under data_dir={data_dir!r}, got '
        f'{dataset!r} ({reason}); see https://www.tensorflow.org/datasets/catalog'
    ) from None

  def command(where):
    return (
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{dataset}', data_dir='{where}', file_format='array_record')"
        '.download_and_prepare()"'
    )

  where = str(data_dir or builder.data_dir_root)
  if not builder.info.splits:
    raise ValueError(
        f'data set {dataset!r} is not prepared in {where}, nor is its split {split!r} '
        f'in the array cache; prepare it with:\n  {command(where)}'
    )
  if split not in builder.info.splits:
    raise ValueError(
        f'{dataset} has no split {split!r}; valid: {", ".join(builder.info.splits)}'
    )
  try:
    return builder, builder.as_data_source(split)
  except NotImplementedError:
    other = f'{where}-array_record'
    raise ValueError(
        f'data set {dataset!r} in {where} is prepared as '
        f'{builder.info.file_format.value}, but only ArrayRecord allows random access '
        f'without TensorFlow; prepare it again and set data_dir={other!r}:'
        f'\n  {command(other)}\nor, if tfds cannot prepare it again, write its arrays '
        'with nat_jax.data.write_cache'
    ) from None


def _decode(dataset, features, records, title):
  """Decodes every record into two arrays."""
  for key in ('image', 'label'):
    if key not in features:
      raise ValueError(
          f'expected an image classification data set, but {dataset} has no feature '
          f'{key!r}; it has: {", ".join(features)}'
      )
  shape, dtype = features['image'].shape, features['image'].np_dtype
  if None in shape or len(shape) != 3 or dtype != np.uint8:
    raise ValueError(
        f'{dataset}: expected uint8 images of one fixed size [h, w, c], got {dtype} '
        f"{shape}; save its images as files and use source {{'name': 'folder', "
        "'path': ..., 'size': ...}"
    )
  image = np.empty((len(records), *shape), np.uint8)
  label = np.empty(len(records), np.int32)
  bar = tqdm.tqdm(total=len(records), desc=title, unit=' images', disable=None)
  with bar:
    for start in range(0, len(records), _CHUNK):
      rows = list(range(start, min(start + _CHUNK, len(records))))
      for row, example in zip(rows, records.__getitems__(rows), strict=True):
        image[row], label[row] = example['image'], example['label']
      bar.update(len(rows))
  return image, label
