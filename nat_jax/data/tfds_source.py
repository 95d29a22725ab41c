"""Any image data set of tfds, decoded once into the cache of arrays.

    from_tfds('cifar10', split='train[:90%]', classes=(0, 1, 2))

tfds prepares the data set as ArrayRecord; that needs TensorFlow, the extra `prepare` of
this package. Reading and decoding it does not. What is cached (see cache.py for the
layout) is used without a look at the prepared data: after preparing another version,
delete the cached folder.
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
  """Reads a data set by its official tfds name, or one that lies under `data_dir`.

  Args:
    dataset: 'cifar10', 'emnist/letters', ...
    split: as in tfds: 'train[:80%]', 'train+test', ...
    classes: the labels to keep, renumbered by position.
    data_dir: where tfds prepared it; None is tfds' own default.
    cache_dir: where the decoded arrays are kept.

  Returns:
    The images (mapped from disk where possible) and their labels as tfds has them.

  Raises:
    ValueError: unknown data set or split; not prepared, or not as ArrayRecord (with
      the command that prepares it); a broken cache; no fixed-size uint8 'image' or no
      'label'.
  """
  folder = cache.cache_folder(dataset, cache_dir)
  names = list(dict.fromkeys(re.findall(r'(?:^|\+)\s*([^\s\[+]+)', split)))
  if 'all' in names:
    raise ValueError(f"{dataset}: name the splits instead of 'all': 'train+test'")
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
    # Beyond the hint, the message lists all the hundreds of data sets.
    hint = re.search(r'Did you mean: .*', str(error))
    reason = hint[0] if hint else str(error).splitlines()[0]
    raise ValueError(
        f'expected a data set of tfds, or one under data_dir={data_dir!r}, got '
        f'{dataset!r} ({reason}); see https://www.tensorflow.org/datasets/catalog'
    ) from None

  def command(where):
    return (
        "pip install 'nat_jax[prepare]'\n  "  # TensorFlow
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{dataset}', data_dir='{where}', file_format='array_record')"
        '.download_and_prepare()"'
    )

  where = str(data_dir or builder.data_dir_root)
  if not builder.info.splits:
    raise ValueError(
        f'data set {dataset!r} is not prepared in {where} (nor is its split {split!r} '
        f'cached); prepare it with:\n  {command(where)}'
    )
  if split not in builder.info.splits:
    raise ValueError(
        f'{dataset} has no split {split!r}; there is: {", ".join(builder.info.splits)}'
    )
  try:
    return builder, builder.as_data_source(split)
  except NotImplementedError:
    other = f'{where}-array_record'
    raise ValueError(
        f'data set {dataset!r} in {where} is prepared as '
        f'{builder.info.file_format.value}, but only ArrayRecord can be read at random '
        f'and without TensorFlow; prepare it once more, and give data_dir={other!r}:'
        f'\n  {command(other)}\nor, where tfds cannot make it anew, hand its arrays to '
        'nat_jax.data.write_cache'
    ) from None


def _decode(dataset, features, records, title):
  """Decodes every record into two arrays."""
  for key in ('image', 'label'):
    if key not in features:
      raise ValueError(
          f'{dataset} has no feature {key!r}, so it is no image classification set; '
          f'it has: {", ".join(features)}'
      )
  shape, dtype = features['image'].shape, features['image'].np_dtype
  if None in shape or len(shape) != 3 or dtype != np.uint8:
    raise ValueError(
        f'{dataset}: expected uint8 images of one fixed size [h, w, c], got {dtype} '
        f'{shape}; save its pictures and use the source folder(size=...)'
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
