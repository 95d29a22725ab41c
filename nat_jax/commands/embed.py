"""Makes vectors of pictures with a pretrained network, for `configs/embeddings.py`.

    found = embed('timm:resnet50.a1_in1k', ['pets/', 'others/'], 'features.npz')
    print(text(found))

The file is one of the source 'arrays' (`nat_jax/data/arrays_source.py`). Pictures in
folders of a folder that is named have the name of the folder as their class; all others
have none. Pictures are decoded in threads; only their vectors are kept in memory.
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
  """Writes the vectors of pictures, with class and path of each, and the backbone.

  Args:
    backbone: such as 'timm:resnet50.a1_in1k@model.safetensors', see
      `runtime.backbones`.
    images: files, folders, patterns, '@FILE' or '-', see `data.picture_paths`.
    out: file to write, .npz. An older one is replaced at the end.

  Raises:
    ValueError: an argument that is not valid, a backbone that cannot be built, or no
      picture that can be read. Nothing is written.
  """
  spec = backbones.parse(backbone)
  _check_out(out)
  picture_paths.check(images)
  network = backbones.build(spec)
  vectors, names, paths, unreadable = [], [], [], []
  for batch in progress(_batches(images, network.spec), images):
    read = [one for one in batch if not isinstance(one[2], str)]
    unreadable += [(path, why) for path, _, why in batch if isinstance(why, str)]
    if read:
      vectors.append(network.embed(np.stack([pixels for _, _, pixels in read])))
      paths += [path for path, _, _ in read]
      names += [name for _, name, _ in read]
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
  files.write_npz(
      out, vector=found, label=np.array([number[name] for name in names], np.int32),
      names=np.array(classes, str), path=np.array(paths, str),
      unreadable=np.array([f'{path}: {why}' for path, why in unreadable], str),
      backbone=np.array(json.dumps(network.spec)))
  return Embedded(out, network.spec, collections.Counter(names), unreadable)


def _check_out(path):
  if os.path.splitext(path)[1] != '.npz':
    raise ValueError(f'expected --out FILE.npz, got {path}')
  folder = os.path.dirname(os.path.abspath(path))
  if not os.path.isdir(folder):
    raise ValueError(f'--out {path}: there is no folder {folder}; create it first')


def _batches(images, spec) -> Iterator[list[tuple[str, str, Any]]]:
  """Yields lists of (path, class or '', uint8 picture or why it is unreadable)."""
  named, again = itertools.tee(_with_classes(images))
  with warnings.catch_warnings():
    # Pillow warns, without naming the file, of large pictures and of damaged tags in
    # pictures that it nevertheless reads.
    warnings.filterwarnings('ignore', module=r'PIL\.')
    decoded = data.decode_each(
        (path for path, _ in named), backbones.decoded_size(spec), ahead=2 * BATCH)
    found = ((as_text(path), name, pixels)
             for (path, name), (_, pixels) in zip(again, decoded, strict=True))
    while batch := list(itertools.islice(found, BATCH)):
      yield batch


def _with_classes(images) -> Iterator[tuple[str, str]]:
  """Yields (path, class or '') of all pictures that are named."""
  for one in images:
    folder = os.path.isdir(one)
    for path in picture_paths.find([one]):
      inner = os.path.relpath(path, one).split(os.sep) if folder else ()
      yield path, as_text(inner[0]) if len(inner) > 1 else ''


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
