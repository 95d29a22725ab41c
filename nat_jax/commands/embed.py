"""Makes vectors of pictures with a pretrained network, for `configs/embeddings.py`.

    found = embed('jax:efficientnet_lite0', ['pets/', 'others/'], 'features.npz')
    print(text(found))

The file is one of the source 'arrays' (`nat_jax/data/arrays_source.py`). Pictures in
folders of a folder that is named have the name of the folder as their class; all others
have none. Of a folder with a folder for each part, such as pets/train/cat and
pets/test/cat, the part is kept too. Pictures are decoded in threads; only their vectors
are kept in memory.
"""

import collections
import itertools
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nat_jax import data
from nat_jax.commands import flags
from nat_jax.commands.predict import LISTED, progress
from nat_jax.commands.predictions import as_text
from nat_jax.data import picture_paths
from nat_jax.runtime import backbones, files
from nat_jax.schema import presets

BATCH = 64  # pictures that the network gets at a time


class Embedded(NamedTuple):
  """The result of `embed`.

  Attributes:
    path: of the written file.
    spec: of the backbone.
    classes: name -> number of vectors; '': those without a class.
    unreadable: (file, reason) of the pictures that were left out.
  """

  path: str
  spec: Mapping[str, Any]
  classes: Mapping[str, int]
  unreadable: Sequence[tuple[str, str]]


def embed(backbone: str, images: Sequence[str], out: str) -> Embedded:
  """Writes the vectors of pictures, with class, part and path, and the backbone.

  Args:
    backbone: such as 'jax:efficientnet_lite0@model.safetensors', see
      `runtime.backbones`.
    images: files, folders, patterns, '@FILE' or '-', see `data.picture_paths`.
    out: file to write, .npz. An older one is replaced at the end.

  Raises:
    ValueError: an argument that is not valid, a backbone that cannot be built, no
      picture that can be read, or a picture that is named as of two classes. Nothing is
      written.
  """
  spec = backbones.parse(backbone)
  _check_out(out)
  picture_paths.check(images)
  network = backbones.build(spec)
  vectors, names, parts, paths, unreadable = [], [], [], [], []
  for batch in progress(_batches(images, network.spec), images):
    read = [one for one in batch if not isinstance(one.pixels, str)]
    unreadable += [(one.path, one.pixels) for one in batch
                   if isinstance(one.pixels, str)]
    if read:
      vectors.append(network.embed(np.stack([one.pixels for one in read])))
      paths += [one.path for one in read]
      names += [one.name for one in read]
      parts += [one.part for one in read]
  if not vectors:
    first = ': {}: {}'.format(*unreadable[0]) if unreadable else ''
    raise ValueError(f'not one of {len(unreadable)} pictures can be read{first}')
  found = np.concatenate(vectors)
  if not np.isfinite(found).all():
    raise ValueError(
        f'{(~np.isfinite(found)).any(1).sum()} of {len(found)} vectors of {backbone} '
        'are not finite; are its weights damaged?')
  classes = sorted(set(names) - {''})
  number = {name: k for k, name in enumerate(classes)} | {'': -1}
  known = {'split': np.array(parts, str)} if any(parts) else {}
  files.write_npz(
      out, vector=found, label=np.array([number[name] for name in names], np.int32),
      names=np.array(classes, str), path=np.array(paths, str), **known,
      unreadable=np.array([f'{path}: {why}' for path, why in unreadable], str),
      backbone=np.array(json.dumps(network.spec)))
  return Embedded(out, network.spec, collections.Counter(names), unreadable)


def _check_out(path):
  if os.path.splitext(path)[1] != '.npz':
    raise ValueError(f'expected --out FILE.npz, got {path}')
  folder = os.path.dirname(os.path.abspath(path))
  if not os.path.isdir(folder):
    raise ValueError(f'--out {path}: there is no folder {folder}; create it first')


class _Read(NamedTuple):
  """A picture: path, class or '', part or '', and pixels or why it is unreadable."""

  path: str
  name: str
  part: str
  pixels: Any


def _batches(images, spec) -> Iterator[list[_Read]]:
  """Yields lists of `BATCH` pictures."""
  named = _with_classes(images)
  with warnings.catch_warnings():
    # Pillow warns, without naming the file, of large pictures and of damaged tags in
    # pictures that it nevertheless reads.
    warnings.filterwarnings('ignore', module=r'PIL\.')
    decoded = data.decode_each(
        (path for path, *_ in named), backbones.decoded_size(spec), ahead=2 * BATCH)
    found = (_Read(as_text(path), name, part, pixels)
             for (path, name, part), (_, pixels) in zip(named, decoded, strict=True))
    while batch := list(itertools.islice(found, BATCH)):
      yield batch


def _with_classes(images) -> list[tuple[str, str, str]]:
  """(path, class or '', part or '') of all pictures that are named, each one once.

  Raises:
    ValueError: a picture is named twice, with different classes or parts.
  """
  found: dict[str, tuple[str, str, str]] = {}
  for one in _named(images):
    path, *about = one
    _, *before = found.setdefault(os.path.abspath(path), one)
    if about != before:
      first, second = (f'class {name or "none"!r}' + f', part {part!r}' * bool(part)
                       for name, part in (before, about))
      raise ValueError(
          f'expected each picture to be of one class, got {as_text(path)} twice: '
          f'{first}, and {second}; name it once, by leaving out one of --images')
  return list(found.values())


def _named(images) -> Iterator[tuple[str, str, str]]:
  """Yields (path, class or '', part or '') of all pictures, as often as named."""
  for one in images:
    if not os.path.exists(one):
      one = os.path.expanduser(one)
    folder = os.path.isdir(one)
    part_of = {name: part for part, name in presets.part_folders(one).items()}
    for path in picture_paths.find([one]):
      inner = os.path.relpath(path, one).split(os.sep) if folder else ['']
      part = part_of.get(inner[0], '')
      inner = inner[1:] if part else inner
      yield path, as_text(inner[0]) if len(inner) > 1 else '', part


def text(found: Embedded) -> str:
  """A summary, with the first of the unreadable files, and what to do next."""
  none = found.classes.get('', 0)
  lines = [f'{count:>9,}  {name}' for name, count in sorted(found.classes.items())
           if name]
  lines += [f'{none:>9,}  without a class', f'{len(found.unreadable):>9,}  unreadable']
  lines += [f'           {path}: {why}' for path, why in found.unreadable[:LISTED]]
  return '\n'.join([
      *lines,
      f'{found.spec["name"]}:{found.spec["model"]}: vectors of {found.spec["width"]} '
      f'numbers, SHA-256 of the weights {found.spec["sha256"][:16]}...'])


def run(argv: Sequence[str] = ()) -> None:
  """--mode=embed: writes the vectors of pictures and prints a summary."""
  images = [*(flags.IMAGES.value or ()), *argv]
  if not images:
    flags.needed(flags.IMAGES, 'embed')
  found = embed(
      flags.needed(flags.BACKBONE, 'embed'), images, flags.needed(flags.OUT, 'embed'))
  print(text(found))
  print(f'written: {found.path}')
