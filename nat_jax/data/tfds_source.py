"""Image data sets of tensorflow_datasets (tfds), read from the array cache or records.

    from_tfds('cifar10', split='train[:90%]', classes=(0, 1, 2))
    from_tfds('imagenet2012', size=224, lazy=True)    # no decoded images on disk

Preparing a data set as ArrayRecord needs TensorFlow, the extra `prepare` of this
package; reading and decoding it does not. Cached splits (layout: nat_jax/data/cache.py)
are not compared with the prepared data: after preparing another version, delete the
cached folder and those of its resized images, NAME@HxWRGB. With an explicit `data_dir`
the folders are NAME@DIGEST and NAME@DIGEST@HxWRGB, with a digest of its path; those of
the bare name, as `write_cache` makes them, are used only if nothing is prepared there.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tqdm
from absl import logging
from PIL import Image

from nat_jax import names as names_lib
from nat_jax import registry
from nat_jax.data import cache, decode, folder_source, rows, sources

EXTRA = "pip install 'nat_jax[prepare]'"  # TensorFlow
_CHUNK = 512  # records read at a time


class NotPrepared(ValueError):
  """A data set is neither in the array cache nor prepared by tfds."""


def from_tfds(
    dataset: str,
    split: str = 'train',
    classes: Sequence[int] | None = None,
    data_dir: str | None = None,
    cache_dir: str | None = None,
    size: int | Sequence[int] | None = None,
    mode: str = 'RGB',
    lazy: bool = False,
) -> sources.Arrays:
  """Reads a data set of the tfds catalogue, or a prepared data set in `data_dir`.

  The images of a split are decoded once into the array cache on disk, from which they
  are read row by row. With `size`, images that are in the cache already are resized,
  and no prepared data set is needed. With `lazy` each image is decoded from its record
  on access.

  Args:
    dataset: name in tfds, such as 'cifar10' or 'emnist/letters'.
    split: expression of tfds, such as 'train[:80%]' or 'train+test'.
    classes: the labels to keep, renumbered by position; None: all.
    data_dir: folder of prepared data sets; None: the default of tfds.
    cache_dir: root of the array cache; None: `data.cache_root()`.
    size: side, or (h, w), in pixels, to which images are resized and cropped, see
      `decode.fit`; None: all images must have one size already.
    mode: used with `size`: 'RGB' (three channels) or 'L' (one channel, grey).
    lazy: whether to decode an image on every access; only labels are cached then.

  Returns:
    The images, which stay on disk, and their labels.

  Raises:
    NotPrepared: an unknown data set, or one that is not prepared.
    ValueError: an unknown split; a data set that is not prepared as ArrayRecord (this
      message and that before contain the command that prepares it); no feature
      'label', or no uint8 feature 'image' of one size; a damaged cache.

  Reference: https://www.tensorflow.org/datasets/catalog
  """
  size = folder_source.checked(size, mode)
  splits = {}
  for name in _split_names(dataset, split):
    if lazy:
      folder = cache.cache_folder(_kept_as(dataset, data_dir), cache_dir)
      splits[name] = _records(dataset, name, data_dir, size, mode, folder)
    else:
      splits[name] = _decoded(dataset, name, data_dir, cache_dir, size, mode)
  return sources.take_classes(sources.take_split(splits, split), classes)


def is_ready(spec: Mapping[str, Any]) -> bool:
  """Whether the data of a source of tfds are at hand: cached, or as ArrayRecord.

  Args:
    spec: of the source, {'name': 'tfds', 'dataset': ..., ...}.

  Raises:
    ValueError: a split that is not valid, or data in another format.
    TypeError: an argument of `from_tfds` is unknown or missing.
  """
  return registry.build({'tfds': _is_ready}, spec, what='data source')


@registry.arguments(from_tfds)
def _is_ready(**spec):
  dataset, data_dir = spec['dataset'], spec.get('data_dir')
  mode = spec.get('mode', 'RGB')
  size = folder_source.checked(spec.get('size'), mode)
  for name in _split_names(dataset, spec.get('split', 'train')):
    if spec.get('lazy') or not any(
        _has_cached(dataset, name, where, spec.get('cache_dir'), size, mode)
        for where in (data_dir, None)):
      try:
        _open(dataset, name, data_dir)
      except NotPrepared:
        return False
  return True


def prepared_root() -> str:
  """The folder in which tfds looks for prepared data sets by default."""
  import tensorflow_datasets as tfds

  return str(tfds.core.constants.DATA_DIR)


def prepare(dataset: str, data_dir: str | None = None) -> None:
  """Downloads a data set of the catalogue and prepares it as ArrayRecord.

  Args:
    dataset, data_dir: see `from_tfds`.

  Raises:
    NotPrepared: the catalogue has no such data set.
    ValueError: TensorFlow is not installed.
  """
  builder = _builder(dataset, data_dir, file_format='array_record')
  if not importlib.util.find_spec('tensorflow'):
    raise ValueError(f'preparing {dataset!r} needs TensorFlow: {EXTRA}')
  builder.download_and_prepare()


def _kept_as(dataset, data_dir) -> str:
  """The name of a data set in the cache; one in a `data_dir` may be another of it."""
  if not data_dir:
    return dataset
  path = os.fspath(data_dir)
  if '://' not in path:
    path = os.path.abspath(os.path.expanduser(path))
  return f'{dataset}@{hashlib.blake2b(os.fsencode(path), digest_size=4).hexdigest()}'


def _has_cached(dataset, split, data_dir, cache_dir, size, mode) -> bool:
  """Whether the cache has a split, resized or as it is."""
  kept = _kept_as(dataset, data_dir)
  return any((cache.cache_folder(name, cache_dir) / split).exists()
             for name in (kept, kept + _form(size, mode)))


def _decoded(dataset, split, data_dir, cache_dir, size, mode) -> sources.Arrays:
  """Reads one split from the cache, into which it is decoded first."""
  kept = _kept_as(dataset, data_dir) + _form(size, mode)
  folder = cache.cache_folder(kept, cache_dir) / split
  if not folder.exists():
    try:
      _fill_cache(dataset, split, data_dir, cache_dir, size, mode)
    except NotPrepared:
      if not (data_dir and _has_cached(dataset, split, None, cache_dir, size, mode)):
        raise
      logging.warning(
          '%s %s is not prepared in data_dir=%s; the split that the array cache has '
          'under its bare name is used.', dataset, split, data_dir)
      return _decoded(dataset, split, None, cache_dir, size, mode)
  return cache.read_cache(folder)


def _fill_cache(dataset, split, data_dir, cache_dir, size, mode) -> None:
  """Decodes one prepared split into the cache.

  With a size, images that the cache has in their own size are resized instead.
  """
  whole, form = _kept_as(dataset, data_dir), _form(size, mode)
  folder = cache.cache_folder(whole, cache_dir) / split
  arrays = (_resized(cache.read_cache(folder), size, mode) if form and folder.exists()
            else _records(dataset, split, data_dir, size, mode))
  folder = cache.cache_folder(whole + form, cache_dir) / split
  num = len(arrays.label)
  with tqdm.tqdm(
      total=num, desc=f'{dataset} {split}', unit=' images', disable=None) as bar:
    try:
      cache.write_cache(
          whole + form, split, arrays.image, arrays.label, arrays.names, cache_dir,
          bar.update)
    except (OSError, ValueError):
      if not folder.exists():  # if it exists, another process has written it
        raise
  logging.info('%s %s: %d images cached in %s', dataset, split, num, folder)


def _resized(arrays, size, mode) -> sources.Arrays:
  """Arrays whose images are resized on access."""
  def read(chosen):
    return np.stack([decode.fit(Image.fromarray(image.squeeze()), size, mode)
                     for image in arrays.image[chosen]])

  return arrays._replace(
      image=rows.Rows(read, len(arrays.label), (*size, len(mode))))


def _records(dataset, split, data_dir, size, mode, folder=None) -> sources.Arrays:
  """Returns a prepared split whose images are decoded on access.

  The labels are cached in `folder`, if that is not None.
  """
  builder, records = _open(dataset, split, data_dir)
  features = builder.info.features
  _check_features(dataset, features, size)

  def read(rows):
    found = records.__getitems__([int(row) for row in rows])
    images = [example['image'] for example in found]
    if size is not None:
      images = [decode.fit(Image.fromarray(image.squeeze()), size, mode)
                for image in images]
    return np.stack(images)

  shape = features['image'].shape if size is None else (*size, len(mode))
  names = tuple(getattr(features['label'], 'names', None) or ())
  image = rows.Rows(read, len(records), shape)
  path = folder and folder / f'{split}-labels-{builder.version}.npy'
  label = _kept_labels(path, len(records))
  if label is None:
    label = _read_labels(builder, split, len(records))
    if path:
      _keep(path, label)
  return sources.Arrays(image, label, names)


def _kept_labels(path, num) -> np.ndarray | None:
  """Reads labels int32 [num]; None if the file is missing, damaged or another shape."""
  try:
    label = np.load(path) if path else None
  except (OSError, EOFError, ValueError):
    return None
  return label if label is not None and (label.shape, label.dtype) == (
      (num,), np.int32) else None


def _keep(path, label) -> None:
  """Writes labels atomically, so that no process reads an incomplete file."""
  partial = path.with_name(f'.{path.stem}-{uuid.uuid4().hex}.npy')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(partial, label)
    os.replace(partial, path)
  except OSError as error:
    logging.warning(
        'Labels cannot be kept in %s (%s); they are read again at the next start.',
        path, error)
    with contextlib.suppress(OSError):
      partial.unlink()


def _read_labels(builder, split, num) -> np.ndarray:
  """Reads the labels of a prepared split without decoding its images."""
  import tensorflow_datasets as tfds

  skip = {'image': tfds.decode.SkipDecoding()}
  records = builder.as_data_source(split, decoders=skip)
  label = np.empty(num, np.int32)
  for start in range(0, num, _CHUNK):
    numbers = list(range(start, min(start + _CHUNK, num)))
    label[numbers] = [example['label'] for example in records.__getitems__(numbers)]
  return label


def _split_names(dataset, split) -> list[str]:
  """The splits that an expression such as 'train[:80%]+test' names."""
  names = list(dict.fromkeys(re.findall(r'(?:^|\+)\s*([^\s\[+]+)', split)))
  if 'all' in names:
    raise ValueError(
        f"{dataset}: split 'all' is not valid for tfds; name the splits, as in "
        "'train+test'")
  return names


def _form(size, mode) -> str:
  """What the name of a cached data set ends in: size (h, w) and mode of its images."""
  return '' if size is None else f'@{size[0]}x{size[1]}{mode}'


def _builder(dataset, data_dir, **kwargs):
  """The builder of a data set of tfds; NotPrepared if there is none of this name."""
  import tensorflow_datasets as tfds  # does not import TensorFlow

  try:
    return tfds.builder(dataset, data_dir=data_dir, **kwargs)
  except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
    # Only the hint is shown, since the whole message lists hundreds of data sets.
    hint = re.search(r'Did you mean: .*', str(error))
    reason = hint[0] if hint else str(error).splitlines()[0]
    raise NotPrepared(
        f'expected a data set of tfds or a folder in data_dir={data_dir!r}, got '
        f'{dataset!r} ({reason}); see https://www.tensorflow.org/datasets/catalog'
    ) from None


def _open(dataset: str, split: str, data_dir: str | None):
  """Returns the builder of a prepared data set and the records of one split."""
  builder = _builder(dataset, data_dir)

  def command(where):
    return (
        f'{EXTRA}\n  '
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{dataset}', data_dir='{where}', file_format='array_record')"
        '.download_and_prepare()"'
    )

  where = str(data_dir or builder.data_dir_root)
  if not builder.info.splits:
    raise NotPrepared(
        f'data set {dataset!r} is not prepared in {where}, nor is its split {split!r} '
        f'in the array cache; prepare it with:\n  {command(where)}'
    )
  if split not in builder.info.splits:
    raise ValueError(
        names_lib.unknown(f'split of {dataset},', split, builder.info.splits)
    )
  try:
    return builder, builder.as_data_source(split)
  except NotImplementedError:
    other = f'{where}-array_record'
    raise ValueError(
        f'data set {dataset!r} in {where} is prepared as '
        f'{builder.info.file_format.value}, but only ArrayRecord allows random access '
        f'without TensorFlow; prepare it again in another folder, and set '
        f'TFDS_DATA_DIR={other} or the key data_dir of the source:'
        f'\n  {command(other)}\nIf tfds cannot prepare it again, write its arrays to '
        'the array cache with nat_jax.data.write_cache, and leave out data_dir'
    ) from None


def _check_features(dataset, features, size):
  """Raises ValueError unless the features are a label and a uint8 image of one size."""
  for key in ('image', 'label'):
    if key not in features:
      raise ValueError(
          f'expected an image classification data set, but {dataset} has no feature '
          f'{key!r}; it has: {", ".join(features)}'
      )
  shape, dtype = features['image'].shape, features['image'].np_dtype
  if len(shape) != 3 or dtype != np.uint8 or (None in shape and size is None):
    raise ValueError(
        f'{dataset}: expected uint8 images of one fixed size [h, w, c], or a size to '
        f'resize them to, such as size=224, got {dtype} {shape} and size={size}')
