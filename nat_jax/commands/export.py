"""Exports a classifier as one file that classifies pictures without this package.

    path = export('runs/pets')                  # runs/pets/model.zip
    $ python runs/pets/model.zip cat.png        # needs jax, flatbuffers, numpy, pillow

The zip file holds `model.stablehlo` (normalisation, network, temperature, score and
threshold, for batches of any size), `meta.json`, `golden.npz`, `card.md`, and the
program that reads them: `load.py`, `decode.py`, `__main__.py`.
"""

import hashlib
import importlib.metadata
import inspect
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import nat_jax
from nat_jax import classifier
from nat_jax.classifier import Classifier
from nat_jax.commands import card, flags, predict
from nat_jax.data import decode
from nat_jax.runtime import files, portable
from nat_jax.tasks.classify import rule

FORMAT = 1  # of meta.json
NAME = 'model.zip'
GOLDEN = 4  # pictures with results
# Run by `python model.zip`; sys.path then begins with the zip file.
MAIN = '''"""Runs load.py on the zip file that holds it."""

import os
import sys

from load import main

main([os.path.dirname(__file__), *sys.argv[1:]])
'''


def export(
    workdir: str, step: int | None = None, threshold: float | None = None,
    out: str | None = None,
) -> str:
  """Writes a checkpoint of a classifier, with its rule, as one zip file.

  An older file is replaced once the new one is complete.

  Args:
    workdir: of a run of the task 'classify'.
    step: of the checkpoint; None: the newest, and after early stopping the best.
    threshold: see `rule.find`.
    out: file to write, .zip; None: model.zip in the workdir.

  Returns:
    The path of the file.

  Raises:
    ValueError: an argument that is not valid, no checkpoint, a run of another task, no
      rule (see `rule.find`), vectors of a backbone that is not of JAX, or a network
      that depends on the size of the batch. Nothing is written.
  """
  rule.check_threshold(threshold)
  out = out or os.path.join(workdir, NAME)
  _check_out(out)
  clf = classifier.restore(workdir, step, threshold)
  if clf.basis.rule.score not in rule.ON_DEVICE:
    raise ValueError(
        f'calibration.json is for the score {clf.basis.rule.score!r}, which needs more '
        'than the logits of a picture; calibrate for one of the scores that '
        f'--mode=export takes, {", ".join(rule.ON_DEVICE)}, or give --threshold')
  backbone = clf.run.config['data']['backbone']
  if backbone and backbone['name'] != 'jax':
    raise ValueError(
        f'expected vectors of a backbone in JAX, got those of {backbone["name"]}, '
        'which cannot be exported; make them anew by --mode=embed --backbone '
        'jax:efficientnet_lite0, and train on these')
  if clf.basis.note:
    print(clf.basis.note)
  promise = predict.promised(clf)
  parts = {
      'model.stablehlo': portable.serialise(program(clf), clf.view.shape),
      'golden.npz': _npz(golden(clf)),
      'card.md': card.text(clf, promise).encode(),
      'load.py': pathlib.Path(__file__).with_name('standalone.py').read_bytes(),
      'decode.py': inspect.getsource(decode).encode(),
      '__main__.py': MAIN.encode(),
  }
  parts['meta.json'] = json.dumps(
      files.finite(meta(clf, promise, parts)), indent=2).encode()
  with files.replacing(out, 'wb') as file, zipfile.ZipFile(file, 'w') as zipped:
    for name, data in parts.items():
      about = zipfile.ZipInfo(name)  # dated 1980: equal checkpoints make equal files
      about.external_attr = 0o644 << 16
      zipped.writestr(about, data, zipfile.ZIP_DEFLATED)
  return out


def _check_out(path):
  if os.path.splitext(path)[1] != '.zip':
    raise ValueError(f'expected --out with the ending .zip, got {path}')
  folder = os.path.dirname(os.path.abspath(path))
  if not os.path.isdir(folder):
    raise ValueError(f'--out {path}: there is no folder {folder}; create it first')


def program(clf: Classifier) -> Callable[[jax.Array], dict[str, jax.Array]]:
  """Returns uint8 [n, h, w, c] -> the results of `rule.decide_on_device`."""
  head, num = clf.run.trainer.heads['logits'], len(clf.classes_)
  # In numpy, since constants must not be arrays on the devices of this machine.
  state = jax.tree.map(
      lambda x: x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
      else np.asarray(x), clf.run.state)
  return lambda images: rule.decide_on_device(
      head(state, clf.view.traced(images)), num, clf.basis.rule)


def golden(clf: Classifier) -> dict[str, np.ndarray]:
  """Pictures of random pixels, and the results of the original on them.

  They are no pictures of the data, which need not leave with the model.
  """
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (GOLDEN, *clf.view.shape), np.uint8)
  found = clf.predict(image)
  return {'image': image, 'probabilities': found.probabilities, 'score': found.scores,
          'accepted': found.accepted}


def _npz(arrays):
  file = io.BytesIO()
  np.savez_compressed(file, **arrays)
  return file.getvalue()


def meta(
    clf: Classifier, promise: predict.Promise, parts: dict[str, bytes]
) -> dict[str, Any]:
  """The content of meta.json.

  Args:
    clf: the classifier.
    promise: what is known about its rule.
    parts: name of each other file -> its content.
  """
  config, (height, width, channels) = clf.run.config, clf.view.shape
  return {
      'format': FORMAT, 'name': config['name'], 'variant': config['variant'],
      'classes': clf.classes_.tolist(),
      'rule': {**promise.rule._asdict(), 'about': promise.origin,
               'accept': promise.accept},
      'input': {'dtype': 'uint8', 'shape': ['n', height, width, channels]},
      'outputs': {
          'probabilities': 'float32 [n, classes], after the temperature'
          '; with a background output their sum is below 1',
          'score': 'float32 [n]',
          'accepted': 'bool [n], score >= threshold'},
      'resizing': {
          'size': [height, width], 'mode': clf.view.mode,
          'resample': 'bicubic', 'about': ' '.join(
              inspect.getdoc(decode).split('\n\n')[2].split())},
      'platforms': list(portable.PLATFORMS),
      'versions': {'nat_jax': nat_jax.__version__, **{
          name: importlib.metadata.version(name)
          for name in ('jax', 'jaxlib', 'flax', 'numpy', 'pillow')}},
      'checkpoint': {'step': clf.run.step, 'crc32': clf.run.crc32},
      'sha256': {name: hashlib.sha256(data).hexdigest()
                 for name, data in parts.items()},
  }


def run(argv: Sequence[str] = ()) -> None:
  """--mode=export: writes a classifier as one zip file."""
  del argv
  path = export(
      flags.needed(flags.WORKDIR, 'export'), flags.STEP.value, flags.THRESHOLD.value,
      flags.OUT.value)
  print(f'written: {path} ({os.path.getsize(path) / 1e6:,.1f} MB); with jax, '
        f'flatbuffers, numpy and pillow: python {path} PICTURE ...')
