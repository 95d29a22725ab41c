"""Feature vectors of seen and unseen classes, with an embedding of every class.

    examples = attributes()                         # generated, deterministic
    examples = mat('xlsa17/data/CUB')               # res101.mat and att_splits.mat
    examples.embedding[examples.label[examples.train]]    # float32 [n, a]

An embedding is a vector that describes a class, such as its attributes. A model is
trained on rows of the seen classes and then also classifies rows of the unseen ones, of
which it is given the embeddings only.
"""

import os
from typing import NamedTuple

import numpy as np

from nat_jax.data.memory import check_memory
from nat_jax.names import listed

PARTS = ('train', 'validation', 'test_seen', 'test_unseen')
NEEDED = {  # file -> its arrays
    'res101.mat': ('features', 'labels'),
    'att_splits.mat': ('att', 'trainval_loc', 'test_seen_loc', 'test_unseen_loc'),
}


class ZeroShot(NamedTuple):
  """Examples of generalised zero-shot learning.

  Attributes:
    feature: float32 [n, d].
    label: int32 [n], in 0..k-1.
    embedding: float32 [k, a], of all classes.
    names: of the k classes.
    train, validation, test_seen, test_unseen: int [m], the rows of each part. Those of
      the first three are of the seen classes.
    held_out: int [h], the seen classes that play the unseen ones where something is
      chosen by validation.
  """

  feature: np.ndarray
  label: np.ndarray
  embedding: np.ndarray
  names: tuple[str, ...]
  train: np.ndarray
  validation: np.ndarray
  test_seen: np.ndarray
  test_unseen: np.ndarray
  held_out: np.ndarray

  @property
  def seen(self) -> np.ndarray:
    """The seen classes, those of the part train, int [..] in rising order."""
    return np.unique(self.label[self.train])

  @property
  def unseen(self) -> np.ndarray:
    """The unseen classes, those of the part test_unseen, int [..] in rising order."""
    return np.unique(self.label[self.test_unseen])


def attributes(
    num_classes: int = 20, num_unseen: int = 5, num_held_out: int = 4,
    num_attributes: int = 16, num_features: int = 64, per_class: int = 50,
    spread: float = 0.3, noise: float = 0.3, seed: int = 0,
) -> ZeroShot:
  """Generated features, x = max(0, W (s_y + spread e) + b + noise e').

  The attributes s_c of each class are 0 or 1 with equal probabilities, W has entries of
  variance 1 / num_attributes, b is standard normal, and so are e [a] and e' [d] of each
  example. The last classes are unseen, and those before them are held out.

  Args:
    num_classes: k.
    num_unseen, num_held_out: numbers of classes; at least two more must be seen.
    num_attributes: a.
    num_features: d.
    per_class: training rows of each seen class, and test rows of every class; a fifth
      as many are for validation.
    spread: standard deviation of the attributes within a class.
    noise: standard deviation of the noise on each feature.
    seed: of everything.

  Raises:
    ValueError: too few classes, more classes than different attributes, or more
      numbers than fit in memory.
  """
  if num_classes < num_unseen + num_held_out + 2 or num_unseen < 1:
    raise ValueError(
        'expected num_unseen of 1 or more, and 2 classes or more that are neither '
        f'unseen nor held out, got num_classes={num_classes}, num_unseen={num_unseen} '
        f'and num_held_out={num_held_out}')
  if num_classes > 2 ** (num_attributes - 1):
    raise ValueError(
        f'num_attributes={num_attributes} are too few for {num_classes} different '
        'classes; raise num_attributes')
  sizes = {'train': per_class, 'validation': -(-per_class // 5), 'test': per_class}
  check_memory(12 * num_classes * sum(sizes.values()) * num_features,
               f'{per_class} rows per class', 'lower per_class')
  rng = np.random.default_rng(seed)
  embedding = np.zeros((num_classes, num_attributes))
  while len(np.unique(embedding, axis=0)) < num_classes or not embedding.any(1).all():
    embedding = rng.integers(2, size=embedding.shape).astype(np.float64)
  weights = rng.normal(size=(num_attributes, num_features)) / num_attributes ** 0.5
  shift = rng.normal(size=num_features)
  num_seen, label, part = num_classes - num_unseen, [], []
  for name, num in sizes.items():
    classes = num_classes if name == 'test' else num_seen
    label.append(np.repeat(np.arange(classes), num))
    part += [name] * len(label[-1])
  label, part = np.concatenate(label), np.array(part)
  own = embedding[label] + spread * rng.normal(size=(len(label), num_attributes))
  feature = own @ weights + shift + noise * rng.normal(size=(len(label), num_features))
  rows = {name: np.flatnonzero(part == name) for name in sizes}
  is_seen = label[rows['test']] < num_seen
  return ZeroShot(
      np.maximum(feature, 0).astype(np.float32), label.astype(np.int32),
      embedding.astype(np.float32), tuple(f'class {c}' for c in range(num_classes)),
      rows['train'], rows['validation'], rows['test'][is_seen], rows['test'][~is_seen],
      np.arange(num_seen - num_held_out, num_seen))


def mat(path: str, validation: float = 0.1, held_out: float = 0.25,
        seed: int = 0) -> ZeroShot:
  """Reads the published features and splits of a data set from its folder.

  The folder holds res101.mat, `features` [d, n] and `labels` [n, 1], and
  att_splits.mat, `att` [a, k] (divided here by the L2 norm of each class, as published
  ones are), `trainval_loc`, `test_seen_loc` and `test_unseen_loc`, [m, 1]; optionally
  `allclasses_names` [k, 1], `train_loc` and `val_loc`. Labels and rows count from 1.

  The held-out classes are those of `val_loc` without those of `train_loc`. Of these two
  only the classes are used: their rows contain rows of `test_seen_loc`. Later versions
  of the files lack both, and the held-out classes are then drawn.

  Args:
    path: of the folder.
    validation: share of `trainval_loc`, of each class, that is the part validation.
    held_out: share of the seen classes that are drawn, where the files have none.
    seed: of what is drawn.

  Raises:
    ValueError: a file or an array that is missing or has another form, or files of
      version 7.3.

  Reference: Xian, Lampert, Schiele, Akata, "Zero-Shot Learning - A Comprehensive
  Evaluation of the Good, the Bad and the Ugly", TPAMI 2019.
  """
  folder = os.path.expanduser(path)
  found = {}
  for name, needed in NEEDED.items():
    found |= _read_mat(os.path.join(folder, name), needed)
  feature, embedding = np.asarray(found['features']), np.asarray(found['att'])
  label = _whole(folder, 'labels', found['labels']) - 1
  if feature.ndim != 2 or feature.shape[1] != len(label) or embedding.ndim != 2:
    raise ValueError(
        f'{folder}: expected features [d, n], a column for each of the {len(label)} '
        f'labels, and att [a, k], got the shapes {list(feature.shape)} and '
        f'{list(embedding.shape)}')
  rows = {key: _whole(folder, key, found[key]) - 1
          for key in ('trainval_loc', 'train_loc', 'val_loc', 'test_seen_loc',
                      'test_unseen_loc') if key in found}
  for key, one in rows.items():
    _check_rows(f'{folder}: {key}', one, len(label), first=1)
  with np.errstate(invalid='ignore', divide='ignore'):  # the check names such a class
    embedding = (embedding / np.linalg.norm(embedding, axis=0)).T
  rng, trained = np.random.default_rng(seed), rows['trainval_loc']
  seen = np.unique(label[trained])
  chosen = np.setdiff1d(*(label[rows.get(key, [])] for key in ('val_loc', 'train_loc')))
  chosen = np.intersect1d(chosen, seen)
  if not len(chosen):
    chosen = np.sort(rng.permutation(seen)[:round(held_out * len(seen))])
  kept = np.concatenate([[], *(
      of_class[:max(1, round(validation * len(of_class)))] for of_class in (
          rng.permutation(trained[label[trained] == c]) for c in seen))]).astype(int)
  return ZeroShot(
      np.ascontiguousarray(feature.T, np.float32), label.astype(np.int32),
      embedding.astype(np.float32), _class_names(found, embedding.shape[0]),
      np.setdiff1d(trained, kept), np.sort(kept), rows['test_seen_loc'],
      rows['test_unseen_loc'], chosen)


def _read_mat(path, needed):
  """The arrays of a file .mat by name."""
  from scipy import io  # imported here, as it is needed by few runs

  if not os.path.isfile(path):
    raise ValueError(
        f'there is no file {path}; path must be a folder of a data set that holds '
        f'{" and ".join(NEEDED)}')
  try:
    found = io.loadmat(path)
  except NotImplementedError:
    raise ValueError(
        f'{path} is of MATLAB version 7.3 (HDF5), which scipy.io cannot read; save it '
        "again in MATLAB by save(FILE, ..., '-v7'), or by scipy.io.savemat") from None
  except Exception as error:  # of many types, from the reader of a damaged file
    raise ValueError(
        f'{path} cannot be read as a MATLAB file ({error}); get it again') from None
  missing = [key for key in needed if key not in found]
  if missing:
    held = sorted(key for key in found if not key.startswith('__'))
    raise ValueError(
        f'{path} has no array {missing[0]!r}; expected {", ".join(needed)}, got '
        f'{", ".join(held) or "none"}')
  return found


def _whole(folder, key, values):
  """The values as int64 [n]; in the file they may be of any type and [n, 1]."""
  values = np.asarray(values).ravel()
  if values.dtype.kind not in 'iuf' or not np.equal(values, np.round(values)).all():
    raise ValueError(
        f'{folder}: {key} must hold whole numbers from 1 on, got {values.dtype}')
  return values.astype(np.int64)


def _class_names(found, num):
  given = found.get('allclasses_names')
  given = [] if given is None else [str(np.squeeze(one)) for one in np.ravel(given)]
  return tuple(given) if len(given) == num else tuple(
      f'class {c + 1}' for c in range(num))


def _check_rows(what, rows, num, first=0):
  if len(rows) and not 0 <= rows.min() <= rows.max() < num:
    raise ValueError(
        f'{what} must hold rows {first} to {num - 1 + first}, got '
        f'{rows.min() + first} to {rows.max() + first}; rows count from {first}')


def check_zero_shot(examples: ZeroShot) -> None:
  """Raises ValueError unless the parts and the classes fit each other.

  Args:
    examples: of any source.
  """
  num, (label, embedding) = len(examples.label), (examples.label, examples.embedding)
  if examples.feature.shape[:1] != (num,) or examples.feature.ndim != 2:
    raise ValueError(
        f'expected features [n, d] of the {num} labels, got the shape '
        f'{list(examples.feature.shape)}')
  for name in PARTS:
    rows = getattr(examples, name)
    if not len(rows):
      raise ValueError(f'the part {name} must have 1 row or more, got 0')
    _check_rows(f'the part {name}', rows, num)
  every = np.concatenate([getattr(examples, name) for name in PARTS])
  values, counts = np.unique(every, return_counts=True)
  if (counts > 1).any():
    raise ValueError(
        'each row must be in one part, once; these rows are in several, or repeated: '
        f'{listed(values[counts > 1])} (counted from 0)')
  _check_classes(examples)
  found = np.unique(label[every])
  if found[0] < 0 or found[-1] >= len(embedding):
    raise ValueError(
        f'every class needs an embedding: labels are {found[0]}..{found[-1]} '
        f'(counted from 0), and there are embeddings of {len(embedding)} classes')
  empty = ~(np.isfinite(embedding).all(1) & embedding.any(1))
  if empty[found].any():
    raise ValueError(
        'every class needs an embedding: those of the classes '
        f'{listed(found[empty[found]])} (counted from 0) are 0 or not finite')
  same = np.unique(embedding[found], axis=0)
  if len(same) < len(found):
    raise ValueError(
        f'the embeddings of {len(found)} classes must differ, and only {len(same)} do; '
        'two classes with one embedding cannot be told apart')
  finite = np.isfinite(examples.feature[every]).all(1)
  if not finite.all():
    raise ValueError(
        'features must be finite; remove the rows '
        f'{listed(np.sort(every[~finite]))} (counted from 0)')


def _check_classes(examples):
  seen, unseen = examples.seen, examples.unseen
  both = np.intersect1d(seen, unseen)
  if len(both):
    raise ValueError(
        'seen and unseen classes must differ, and the training rows have the unseen '
        f'classes {listed(both)} (counted from 0); leave them out of one of the parts')
  for name in ('validation', 'test_seen'):
    never = np.setdiff1d(examples.label[getattr(examples, name)], seen)
    if len(never):
      raise ValueError(
          f'the classes {listed(never)} (counted from 0) of the part {name} have '
          'no training row; add some, or leave the classes out')
  left = np.setdiff1d(seen, examples.held_out)
  if len(left) < 2:
    raise ValueError(
        f'2 seen classes or more must not be held out, got {len(left)} of '
        f'{len(seen)}: a mismatched pair needs another class; hold fewer out')
  unknown = np.setdiff1d(examples.held_out, seen)
  if len(unknown):
    raise ValueError(
        f'the held-out classes {listed(unknown)} (counted from 0) must be seen ones')


ZERO_SHOT = {'attributes': attributes, 'mat': mat}
