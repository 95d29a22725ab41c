"""Classifies pictures with an exported model; nat_jax need not be installed.

    python model.zip cat.png dog.jpg      # or, unpacked: python load.py model.zip ...
    python model.zip                      # compares results with those of nat_jax

    sys.path.insert(0, 'model.zip')       # from Python
    from load import load
    model = load('model.zip')
    model.predict(['cat.png', pixels])       # {'label', 'probabilities', 'score', ...}

Needs jax, flatbuffers, numpy and pillow. In an export this file is called load.py.
"""

import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from decode import decode  # a copy of nat_jax/data/decode.py, beside this file

BATCH = 32  # pictures per call; another size is compiled again


class Model(NamedTuple):
  """An exported classifier.

  Attributes:
    meta: the content of meta.json.
    call: uint8 [n, h, w, c] of the size in meta -> {'probabilities' [n, k], 'score'
      [n], 'accepted' [n]}; compiled once for each n.
    golden: arrays by name: 'image', and what `call` returned for it where it was made.
  """

  meta: dict[str, Any]
  call: Callable[[np.ndarray], dict[str, Any]]
  golden: dict[str, np.ndarray]

  def predict(self, pictures: Sequence[Any]) -> dict[str, np.ndarray]:
    """Classifies pictures of any size: paths, Pillow images or uint8 [h, w, c].

    Returns:
      What `call` returns, in numpy, and 'label' int [n]: index into meta['classes'], -1
      where the picture is not accepted.

    Raises:
      ValueError: no picture, or an array that is none. For a damaged file Pillow raises
        nearly any exception.
    """
    if not len(pictures):
      raise ValueError('expected pictures, got none')
    resizing = self.meta['resizing']
    size, batch = tuple(resizing['size']), BATCH if len(pictures) > 1 else 1
    found = []
    for start in range(0, len(pictures), batch):
      images = [decode(one, size, resizing['mode'])
                for one in pictures[start:start + batch]]
      blank = [np.zeros_like(images[0])] * (batch - len(images))
      out = self.call(np.stack(images + blank))
      found.append({key: np.asarray(x)[:len(images)] for key, x in out.items()})
    found = {key: np.concatenate([one[key] for one in found]) for key in found[0]}
    label = np.where(found['accepted'], found['probabilities'].argmax(1), -1)
    return {'label': label, **found}


def load(path: str) -> Model:
  """Reads an export.

  Args:
    path: of the .zip file.

  Raises:
    ValueError: a part of it has another SHA-256 than meta.json says.
  """
  from jax import export

  with zipfile.ZipFile(path) as file:
    meta = json.loads(file.read('meta.json'))
    parts = {name: file.read(name) for name in meta['sha256']}
  for name, data in parts.items():
    found = hashlib.sha256(data).hexdigest()
    if found != meta['sha256'][name]:
      raise ValueError(
          f'{path}: {name} is damaged or was changed: its SHA-256 is {found}, expected '
          f'{meta["sha256"][name]}; get the file again')
  program = export.deserialize(bytearray(parts['model.stablehlo']))
  with np.load(io.BytesIO(parts['golden.npz'])) as arrays:
    return Model(meta, program.call, dict(arrays))


def difference(model: Model) -> float:
  """The largest difference from the golden results, of probabilities and scores."""
  found = model.call(model.golden['image'])
  return max(float(np.abs(np.asarray(found[key]) - model.golden[key]).max())
             for key in ('probabilities', 'score'))


def main(argv: Sequence[str]) -> None:
  """Prints a line for each picture; without any, the difference from golden results.

  Args:
    argv: path of the export, and the pictures.

  Raises:
    SystemExit: with status 1 after all lines, if a picture cannot be classified.
  """
  for stream in (sys.stdout, sys.stderr):  # names of files and classes of any bytes
    stream.reconfigure(errors='backslashreplace')
  usage = f'usage: python load.py model.zip PICTURE ...\n\n{__doc__}'
  if not argv:
    sys.exit(usage)
  path, *pictures = argv
  if {'-h', '--help'} & set(pictures):
    print(usage)
    return
  model = load(path)
  if not pictures:
    print(f'largest difference from the golden results: {difference(model):.2g}')
  failed = 0
  for picture in pictures:
    if os.path.isdir(picture):
      print(f'{picture}: a folder; name its pictures, such as {picture}/*')
      failed += 1
      continue
    try:
      found = model.predict([picture])
    except Exception as error:  # for a damaged file Pillow raises nearly any exception
      print(f'{picture}: unreadable ({error})')
      failed += 1
      continue
    classes, probabilities = model.meta['classes'], found['probabilities'][0]
    label = found['label'][0]
    answer = 'none of these' if label < 0 else classes[label]
    order = np.argsort(-probabilities, kind='stable')[:3]
    print(f'{picture}: {answer} ('
          + ', '.join(f'{classes[k]} {probabilities[k]:.3f}' for k in order) + ')')
  if failed:
    sys.exit(1)


if __name__ == '__main__':
  main(sys.argv[1:])
