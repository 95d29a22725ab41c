"""`Arrays`, the result of a data source; its splits and classes; digits and toy images.

    >>> digits(split='train', classes=(0, 1, 2)).image.shape   # from scikit-learn
    (364, 8, 8, 1)
    >>> fake(num=64, shape=(32, 32, 3)).image.shape            # toy images, for tests
    (64, 32, 32, 3)
    >>> split_slices('train[:50%]+test', {'train': 100, 'test': 20})
    [('train', slice(0, 50, None)), ('test', slice(0, 20, None))]

All sources take splits in the syntax of tfds: `train`, `train[:80%]`, `all[100:]`,
`train[:50%]+test`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from nat_jax import names as names_lib
from nat_jax.data import rows
from nat_jax.data.memory import check_memory


class Arrays(NamedTuple):
  """A set of images in memory, or read from disk when they are asked for.

  Attributes:
    image: `[n, h, w, c]` uint8, or float32 if already normalised; vectors `[n, d]`
      float32.
    label: `[n]` int32 in 0..num_classes-1.
    names: the class names; may be empty.
    files: paths of the pictures, object [n]; None: not from files, or not known.
    hashes: perceptual hashes uint64 [n] of `near_duplicates`; None: not known.
    row: int [n], the row of each example in its file, from 0; None: not known.
  """

  image: rows.Images
  label: np.ndarray
  names: tuple[str, ...] = ()
  files: np.ndarray | None = None
  hashes: np.ndarray | None = None
  row: np.ndarray | None = None


def split_slices(split: str, counts: Mapping[str, int]) -> list[tuple[str, slice]]:
  """Parses a split such as `train[:50%]+test` by the rules of tfds.

  Args:
    split: the split. `all` is the concatenation of all splits in the order of `counts`;
      unlike in tfds it can be sliced.
    counts: name of each existing split -> number of its examples.

  Returns:
    (name, slice) pairs, whose concatenation is the split.

  Raises:
    ValueError: bad syntax, an unknown split, a slice beyond the end of a split, or a
      split without examples.

  Reference: https://www.tensorflow.org/datasets/splits
  """
  import tensorflow_datasets as tfds  # does not import TensorFlow

  read = tfds.core.ReadInstruction.from_spec  # imported here, not in the try below
  # tfds does not slice 'all'; under another name it is an ordinary split.
  total = sum(counts.values())
  infos = {
      name: SimpleNamespace(num_examples=num)
      for name, num in {**counts, '_all': total}.items()
  }
  spec = re.sub(r'(?<![\w-])all(?![\w-])', '_all', split)
  existing = ', '.join(f'{name} ({num})' for name, num in counts.items())
  try:
    parts = read(spec).to_absolute(infos)
  except (ValueError, AttributeError):  # AttributeError: a slice in shards
    raise ValueError(
        f'split {split!r} is not valid; splits and their numbers of examples: '
        f'{existing}; slices are written train[:80%], train[100:200] or '
        'train[:50%]+test'
    ) from None
  slices = []
  for part in parts:
    first = part.from_ or 0
    last = infos[part.splitname].num_examples if part.to is None else part.to
    if part.splitname != '_all':
      slices.append((part.splitname, slice(first, max(first, last))))
      continue
    start = 0
    for name, num in counts.items():
      low, high = (min(max(edge - start, 0), num) for edge in (first, last))
      slices.append((name, slice(low, max(low, high))))
      start += num
  slices = [(name, part) for name, part in slices if part.stop > part.start]
  if not slices:
    raise ValueError(
        f'split {split!r} holds no example; splits and their numbers of examples: '
        f'{existing}')
  return slices


def take_split(splits: Mapping[str, Arrays], split: str) -> Arrays:
  """Returns the examples of `split`, given all whole splits by name.

  Images on disk are not read, and one slice of an array in memory is a view. See
  `split_slices` for errors.
  """
  counts = {name: len(arrays.label) for name, arrays in splits.items()}
  parts = [
      (rows.select(splits[name].image, part), splits[name].label[part])
      for name, part in split_slices(split, counts)
  ]
  names = next(iter(splits.values())).names
  if len(parts) == 1:
    return Arrays(*parts[0], names)
  images, labels = zip(*parts, strict=True)
  joined = (np.concatenate(images) if all(map(rows.in_memory, images))
            else rows.join(images))
  return Arrays(joined, np.concatenate(labels), names)


def split_classes(listing: Arrays, split: str, path: str, what: str) -> np.ndarray:
  """The rows of a split, an equal share of every class, in alternating class order.

  Args:
    listing: its labels and class names; the images are not read.
    split: 'all', or slices of it, which are taken of each class after one fixed shuffle
      of its rows.
    path: where the rows are from, for messages.
    what: one row, for messages: 'picture'.

  Returns:
    int [m], rows of `listing`.

  Raises:
    ValueError: a split that is not valid, that counts rows although there are several
      classes, or that leaves a class without a row.
  """
  whole = {'all': len(listing.label)}
  bounds = ':'.join(re.findall(r'\[(.*?)\]', split)).split(':')
  if len(listing.names) > 1 and not all(re.fullmatch(r'\s*|.*%\s*', b) for b in bounds):
    split_slices(split, whole)  # raises first if the syntax is wrong
    raise ValueError(
        f'split {split!r} counts {what}s, but {path} has {len(listing.names)} classes '
        'and each of them is split separately; use percentages, such as all[:80%]')
  chosen, turns = [], []
  for k, name in enumerate(listing.names):
    of_class = np.flatnonzero(listing.label == k)
    of_class = of_class[np.random.default_rng(0).permutation(len(of_class))]
    try:
      slices = split_slices(split, {'all': len(of_class)})
    except ValueError:
      # Raises its own message if the split itself is wrong. It is not called earlier: a
      # slice that is empty for the whole may hold a row of each class.
      try:
        split_slices(split, whole)
      except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
      raise ValueError(
          f'{path}: the class {name!r} has {len(of_class)} {what}(s), too few for the '
          f'split {split!r} to hold one; add {what}s, or remove the class (negatives '
          'need no classes)') from None
    for _, part in slices:
      chosen.append(of_class[part])
      turns.append(np.arange(part.start, part.stop))
  return np.concatenate(chosen)[np.argsort(np.concatenate(turns), kind='stable')]


def split_parts(
    listing: Arrays, parts: np.ndarray | None, split: str, path: str, what: str
) -> np.ndarray:
  """The rows of a split where each row may be in a part, such as 'train' or 'test'.

  Args:
    listing, path, what: see `split_classes`.
    parts: name of the part of each row, '': of none; None: there are no parts.
    split: 'all' or a part, slices of these ('train[:80%]') as of `split_classes`, or
      several of them joined by +. A part other than 'train' may lack classes.

  Returns:
    int [m], rows of `listing`.

  Raises:
    ValueError: no such part, or see `split_classes`.
  """
  if parts is None:
    return split_classes(listing, split, path, what)
  known = sorted({*parts.tolist()} - {''})
  found = []
  for one in split.split('+'):
    name, inner = re.fullmatch(r'\s*([^\[]*?)\s*(\[.*)?', one, re.S).groups()
    if name not in ('all', *known):
      raise ValueError(
          f'{path}: ' + names_lib.unknown('split', name, ['all', *known])
          + '; slices are written train[:80%]')
    members = np.flatnonzero((parts == name) | (name == 'all'))
    label = listing.label[members]
    some = Arrays(members, label, listing.names)
    if name not in ('all', 'train'):
      some = take_classes(some, np.unique(label))
    rows_ = split_classes(some, f'all{inner or ""}', path, what)
    found.append(some.image[rows_])
  return np.concatenate(found)


def take_classes(arrays: Arrays, classes: Sequence[int] | None) -> Arrays:
  """Keeps the images of `classes`; classes[i] becomes class i. None keeps all.

  Raises:
    ValueError: a class that is repeated or that has no image.
  """
  if classes is None:
    return arrays
  classes = np.asarray(classes, np.int32)
  present = np.unique(arrays.label)
  absent = np.setdiff1d(classes, present)
  if absent.size or not classes.size or len(np.unique(classes)) < len(classes):
    raise ValueError(
        f'classes must be distinct labels in the split, got {classes.tolist()}; '
        f'there are {present.tolist()}'
    )
  chosen = np.flatnonzero(np.isin(arrays.label, classes))
  order = np.argsort(classes)
  label = order[np.searchsorted(classes, arrays.label[chosen], sorter=order)]
  names = tuple(arrays.names[c] for c in classes) if arrays.names else ()
  return Arrays(rows.select(arrays.image, chosen), label.astype(np.int32), names)


def take_rows(arrays: Arrays, chosen: np.ndarray) -> Arrays:
  """The rows int [m] of all that is known of a set; images on disk are not read."""
  return arrays._replace(
      image=rows.select(arrays.image, chosen), label=arrays.label[chosen],
      **{key: value[chosen] for key in ('files', 'hashes', 'row')
         if (value := getattr(arrays, key)) is not None})


def take_few(arrays: Arrays, per_class: int | None, seed: int) -> Arrays:
  """Keeps `per_class` random images of each class; None keeps all.

  With one seed, those of a smaller number are among those of a larger one.

  Raises:
    ValueError: a class has fewer images.
  """
  if per_class is None:
    return arrays
  counts = np.bincount(arrays.label)
  least = int(counts.argmin())
  if not 1 <= per_class <= counts[least]:
    raise ValueError(
        f'per_class must be in 1..{counts[least]}, the number of images of class '
        f'{least} in the split, got {per_class}')
  order = np.random.default_rng(seed).permutation(len(arrays.label))
  chosen = np.sort(np.concatenate([
      order[arrays.label[order] == k][:per_class] for k in range(len(counts))]))
  return arrays._replace(
      image=rows.select(arrays.image, chosen), label=arrays.label[chosen])


def digits(
    split: str = 'train', classes: Sequence[int] | None = None,
    per_class: int | None = None, seed: int = 0,
) -> Arrays:
  """Scikit-learn's 1,797 handwritten digits, which need no download.

  Args:
    split: 'train' (the first 70 % of one fixed shuffle), 'test' (the rest), 'all', or
      slices of these.
    classes: the digits to keep, renumbered by position; None: all.
    per_class: number of images of each class, chosen at random; None: all.
    seed: of that choice.

  Returns:
    uint8 images [n, 8, 8, 1], scaled from 0..16 to 0..255.

  Raises:
    ValueError: a split that is not valid, or a class with fewer images.

  Reference: https://archive.ics.uci.edu/dataset/80
  """
  from sklearn import datasets

  data = datasets.load_digits()
  order = np.random.default_rng(0).permutation(len(data.target))
  image = np.round(data.images[order, :, :, None] * (255 / 16)).astype(np.uint8)
  label = data.target[order].astype(np.int32)
  names = tuple(str(name) for name in data.target_names)
  num_train = round(0.7 * len(label))
  splits = {
      'train': Arrays(image[:num_train], label[:num_train], names),
      'test': Arrays(image[num_train:], label[num_train:], names),
  }
  return take_few(take_classes(take_split(splits, split), classes), per_class, seed)


def breast_cancer(
    split: str = 'all', classes: Sequence[int] | None = None,
    outliers: int | None = None, seed: int = 0,
) -> Arrays:
  """Scikit-learn's 569 vectors of breast tissue, which need no download.

  Args:
    split: 'all', in the order of one fixed shuffle, or slices of it.
    classes: the classes to keep, 0: benign, 1: malignant, renumbered by position; None:
      both.
    outliers: the number of malignant examples that are kept, chosen at random, as in
      studies of outlier detection; None: all 212.
    seed: of that choice.

  Returns:
    float32 vectors [n, 30], of which 357 are benign.

  Raises:
    ValueError: more outliers than there are.

  Reference: https://archive.ics.uci.edu/dataset/17
  """
  from sklearn import datasets

  found = datasets.load_breast_cancer()
  benign, malignant = (np.flatnonzero(found.target == k) for k in (1, 0))
  if outliers is not None:
    if not 0 <= outliers <= len(malignant):
      raise ValueError(
          f'outliers of the source breast_cancer must be in 0..{len(malignant)}, got '
          f'{outliers}')
    # A RandomState draws what published figures for this data set were made with.
    malignant = np.random.RandomState(seed).permutation(malignant)[:outliers]
  rows_ = np.random.default_rng(0).permutation(np.concatenate([benign, malignant]))
  arrays = Arrays(
      found.data[rows_].astype(np.float32), 1 - found.target[rows_].astype(np.int32),
      ('benign', 'malignant'))
  return take_classes(take_split({'all': arrays}, split), classes)


def fake(
    num: int = 256,
    shape: tuple[int, int, int] = (8, 8, 1),
    num_classes: int = 4,
    seed: int = 0,
    classes: Sequence[int] | None = None,
) -> Arrays:
  """Toy images for tests: a fixed pattern for each class plus noise.

  Args:
    num: number of images, spread evenly over the classes.
    shape: (h, w, c).
    num_classes: number of patterns; they do not depend on the seed.
    seed: of the order and the noise, so that another seed makes another split.
    classes: the classes to keep, renumbered by position; None: all.

  Returns:
    uint8 images [n, h, w, c].

  Raises:
    ValueError: more images than fit in memory.
  """
  check_memory(
      24 * (num + num_classes) * math.prod(shape), f'{num} images of {tuple(shape)}',
      'lower num or shape')
  patterns = np.random.default_rng(0).integers(48, 208, (num_classes, *shape))
  rng = np.random.default_rng(seed)
  label = rng.permutation(np.arange(num, dtype=np.int32) % num_classes)
  image = patterns[label] + rng.normal(0, 16, (num, *shape))
  names = tuple(f'pattern {c}' for c in range(num_classes))
  image = np.clip(np.round(image), 0, 255).astype(np.uint8)
  return take_classes(Arrays(image, label, names), classes)
