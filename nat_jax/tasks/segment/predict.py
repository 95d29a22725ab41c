"""Writes masks of new pictures, and pictures of the confidence in every pixel.

    text = predict(run, 'runs/street', ['photos/'])
    # runs/street/predictions/masks/*.png, runs/street/predictions/confidence/*.png

The masks are indexed PNGs with a colour for each class, as the source 'masks' reads
them.
"""

import collections
import colorsys
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from nat_jax.data import folder_source, picture_paths
from nat_jax.data.masks import MASKS, VOID
from nat_jax.runtime import files, parallel
from nat_jax.task import Run

PREDICTIONS, CONFIDENCE = 'predictions', 'confidence'  # folders
SHOWN = 5  # most files that are named


def palette() -> np.ndarray:
  """A colour for each class, and black for the void; uint8 [256, 3]."""
  colours = [colorsys.hsv_to_rgb(0.6 + 0.618034 * k, 0.65, 0.95 - 0.25 * (k % 2))
             for k in range(VOID)]
  return np.array([*np.round(np.array(colours) * 255), (0, 0, 0)], np.uint8)


def predict(
    run: Run, workdir: str, named: Sequence[str], out: str | None = None
) -> str:
  """Segments pictures.

  Pictures have the size that they were trained in, if the source has one (they are
  resized and cropped as there), and otherwise their own.

  Args:
    run: a restored segmenter.
    workdir: of the run.
    named: files, folders, patterns, lists; see `data.picture_paths`.
    out: folder to write to; None: predictions/ in the workdir. Each picture makes
      masks/NAME.png, the predicted classes, and confidence/NAME.png, grey, the maximum
      probability times 255.

  Returns:
    What was written, as text.

  Raises:
    ValueError: no picture, none that can be read, or two of one name.
  """
  out = out or os.path.join(workdir, PREDICTIONS)
  picture_paths.check(named)
  found = list(picture_paths.find(named))
  names = [pathlib.Path(file).stem for file in found]
  twice = next((name for name, times in collections.Counter(names).items()
                if times > 1), None)
  if twice is not None:
    raise ValueError(
        f'expected pictures of different names, since masks are named after them; got '
        f'{twice!r} twice; segment the folders one by one, with --out for each')
  size = run.config['data']['pairs'].get('size')
  mode = 'L' if run.shape[-1] == 2 else 'RGB'
  head = parallel.wrap_head(run.trainer.heads['pixels'], run.mesh)
  colours, unreadable, counts = palette(), [], np.zeros(VOID + 1, int)
  copies = run.mesh.devices.size  # each device takes one
  for file, name in zip(found, names, strict=True):
    try:
      image = folder_source.decode(file, folder_source.checked(size, mode), mode)
    except Exception as error:  # Pillow raises nearly any exception
      unreadable.append(f'{file} ({error or type(error).__name__})')
      continue
    maps = np.asarray(head(run.state, np.repeat(image[None], copies, 0)))[0]
    prediction, confidence = maps[..., 0].astype(np.uint8), maps[..., 1]
    counts += np.bincount(prediction.ravel(), minlength=VOID + 1)
    mask = Image.fromarray(prediction, 'P')
    mask.putpalette(colours.tobytes())
    _save(mask, os.path.join(out, MASKS, f'{name}.png'))
    _save(Image.fromarray(np.round(255 * confidence).astype(np.uint8)),
          os.path.join(out, CONFIDENCE, f'{name}.png'))
  if len(unreadable) == len(found):
    raise ValueError(
        f'expected pictures that can be read, got none among {len(found)}: '
        f'{unreadable[0]}; nothing was written')
  return _text(run, counts, len(found) - len(unreadable), unreadable, out)


def _save(image, path):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with files.replacing(path, 'wb') as file:
    image.save(file, format='png')


def _text(run, counts, num, unreadable, out):
  """The shares of the classes, the unreadable pictures, and where the masks are."""
  total = max(int(counts.sum()), 1)
  lines = [f'{counts[k] / total:>8.1%}  '
           f'{run.class_names[k] if run.class_names else f"class {k}"}'
           for k in range(run.config['num_classes'])]
  if unreadable:
    lines.append(f'{len(unreadable)} pictures cannot be read: '
                 + ', '.join(unreadable[:SHOWN]))
  folders = ' and '.join(os.path.join(out, part) for part in (MASKS, CONFIDENCE))
  return '\n'.join([*lines, f'{num} pictures segmented; written: {folders}'])
