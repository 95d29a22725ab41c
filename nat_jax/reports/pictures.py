"""Figures made of images: sheets, the most confident mistakes, attention maps.

    figure = mistakes(run)
    figure = attention({'teacher': [run], 'student': [run]})
    figures.save(figure, 'figures/attention.png')
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nat_jax.reports import figures
from nat_jax.reports.frames import set_names
from nat_jax.runtime import files, results

SHEET_COLUMNS, SHEET_ROWS = 8, 2
SHEET_PITCH = 1.42  # height of a thumbnail with its two lines of text

WIDE, TEXT = 640, 11  # pixels: width of a sheet, size of its text

MAX_NETWORKS, IMAGES_A_SET = 5, 3


def mistakes(run: Mapping[str, Any]) -> Any:
  """Draws the most confident negatives and the classes that are predicted for them.

  Returns None if the run has no such images.
  """
  found_in = {}
  for name in set_names([run['evals']])[1]:
    found = results.read_arrays(
        run['workdir'], f'{results.MISTAKES}/{name}', run['step'],
        ['image', 'max_prob', 'prediction'])
    if found:
      found_in[name] = found
  found_in = {
      name: sheet for name, sheet in found_in.items() if len(sheet['image'])}
  return sheets(found_in, run['class_names']) if found_in else None


def sheets(
    groups: Mapping[str, Mapping[str, np.ndarray]], class_names: Sequence[str]
) -> Any:
  """Draws groups of images, the first 16 of each, with classes and probabilities.

  Args:
    groups: title -> 'image' uint8 [n, h, w, 1 or 3], 'prediction' int [n] and
      'max_prob' [n], the probability of the likeliest class, n at least 1.
    class_names: of the classes; other predictions, such as a background output, are
      called 'none' and have no probability.

  Returns:
    A matplotlib figure.
  """
  def text(label, probability):
    if label >= len(class_names):
      return 'none'
    return f'{class_names[label][:12]}\n{probability:.3f}'

  return captioned({title: (sheet['image'], [
      text(int(label), probability) for label, probability in zip(
          sheet['prediction'], sheet['max_prob'], strict=True)])
      for title, sheet in groups.items()})


def captioned(groups: Mapping[str, tuple[np.ndarray, Sequence[str]]]) -> Any:
  """Draws groups of images, the first 16 of each, with captions.

  Args:
    groups: title -> (images uint8 [n, h, w, 1 or 3], captions [n] of up to two lines),
      n at least 1.

  Returns:
    A matplotlib figure.
  """
  import matplotlib
  from matplotlib.figure import Figure
  lines = [min(SHEET_ROWS, -(-len(images) // SHEET_COLUMNS))
           for images, _ in groups.values()]
  with matplotlib.rc_context(figures.STYLE):
    height = sum(SHEET_PITCH * 0.81 * n + 0.3 for n in lines)
    figure = Figure(figsize=(6.6, height), layout='constrained')
    axes = figure.subplots(len(groups), squeeze=False, height_ratios=lines)[:, 0]
    for ax, (name, sheet), rows in zip(axes, groups.items(), lines, strict=True):
      _sheet(ax, *sheet, rows)
      ax.set_title(name, loc='left')
  return figure


def mosaic(images: np.ndarray, columns: int | None = None) -> np.ndarray:
  """Arranges images in a grid, with one white pixel to the right of and below each.

  Args:
    images: uint8 [n, h, w, 1 or 3].
    columns: images per row; None: about as many columns as rows.

  Returns:
    [rows * (h + 1), columns * (w + 1), 3], or without the last axis for one channel.
  """
  num, height, width, channels = images.shape
  columns = columns or math.ceil(math.sqrt(num))
  rows = -(-num // columns)
  canvas = np.full(
      (rows * columns, height + 1, width + 1, channels), 255, np.uint8)
  canvas[:num, :height, :width] = images
  canvas = canvas.reshape(rows, columns, height + 1, width + 1, channels).swapaxes(1, 2)
  canvas = canvas.reshape(rows * (height + 1), columns * (width + 1), channels)
  return canvas[..., 0] if channels == 1 else canvas


def save_sheet(
    images: np.ndarray, path: str | Path, columns: int = 10, title: str = '',
    captions: Sequence[str] = (),
) -> None:
  """Writes the `mosaic` of images as a PNG, enlarged to about `WIDE` pixels in width.

  Args:
    images: uint8 [n, h, w, 1 or 3].
    path: of the PNG.
    columns: images per row.
    title: text above the images; '': none.
    captions: text below each image, cut off at its width; (): none.
  """
  times = max(1, WIDE // (columns * (images.shape[2] + 1)))

  def enlarged(part):
    return Image.fromarray(
        mosaic(part, columns).repeat(times, 0).repeat(times, 1))

  if title or captions:
    canvas = _captioned(images, enlarged, columns, title, captions)
  else:
    canvas = enlarged(images)
  with files.replacing(path, 'wb') as file:
    canvas.save(file, format='png')


def _captioned(images, enlarged, columns, title, captions):
  """The rows of a sheet with text above the first and below each."""
  font = ImageFont.load_default(TEXT)
  rows = [enlarged(images[start:start + columns])
          for start in range(0, len(images), columns)]
  width, height = rows[0].size
  words = textwrap.wrap(title, max(1, int(width / (0.55 * TEXT))))
  line, strip = round(1.4 * TEXT), round(1.4 * TEXT) * bool(captions)
  top = len(words) * line + line // 2 * bool(words)
  canvas = Image.new('RGB', (width, top + len(rows) * (height + strip)), 'white')
  draw = ImageDraw.Draw(canvas)
  for k, text in enumerate(words):
    draw.text((2, k * line), text, 'black', font)
  for k, row in enumerate(rows):
    canvas.paste(row.convert('RGB'), (0, top + k * (height + strip)))
  side = width // columns
  for k, text in enumerate(captions):
    while text and font.getlength(text) > side:
      text = text[:-1]
    x, y = k % columns * side + side / 2, top + k // columns * (height + strip) + height
    gap = height // (images.shape[1] + 1)  # that `mosaic` leaves below an image
    draw.text((x, y - gap + strip / 2), text, 'black', font, anchor='mm')
  return canvas


def attention(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
  """Draws the attention maps of the first run of each label for the same images.

  The columns are the image, then each network's maps from low to high groups of layers;
  the rows are test images, then images of the first negative set that no run was
  trained on. Each map is scaled from 0 (dark) to its own maximum (bright). Returns None
  if fewer than two networks have maps.
  """
  import matplotlib
  from matplotlib.figure import Figure
  firsts = {label: runs[0] for label, runs in groups.items()}
  found = {label: maps for label, run in firsts.items() if (maps := _maps(run))}
  found = dict(list(found.items())[:MAX_NETWORKS])
  if len(found) < 2:
    return None
  first = next(iter(found.values()))
  names = list(dict.fromkeys(first['set'].tolist()))
  runs = [firsts[label] for label in found]
  fresh = [name for name in names if not any(
      run['evals'].get(name, {}).get('overlap_with_training_negatives', 1)
      for run in runs)]
  shown = [runs[0]['reference'], *fresh[:1]]
  rows = [i for name in shown
          for i in np.flatnonzero(first['set'] == name)[:IMAGES_A_SET]]
  columns = [(label, key) for label, maps in found.items()
             for key in sorted(maps) if key.startswith('group')]
  same = [np.array_equal(maps['image'], first['image']) for maps in found.values()]
  if not (rows and all(same)):
    return None
  with matplotlib.rc_context(figures.STYLE):
    num_columns = len(columns) + 1
    side = 6.6 / num_columns
    figure = Figure(figsize=(6.6, side * len(rows) + 0.7), layout='constrained')
    axes = figure.subplots(len(rows), num_columns, squeeze=False)
    for line, i in zip(axes, rows, strict=True):
      _image(line[0], first['image'][i])
      for ax, (label, key) in zip(line[1:], columns, strict=True):
        ax.imshow(found[label][key][i], cmap='magma', vmin=0)
      for ax in line:
        ax.axis('off')
    for ax, (label, key) in zip(axes[0, 1:], columns, strict=True):
      name = label.replace('_', '\n') if key == 'group1' else ''
      ax.set_title(f'{name}\n{key[-1]}', fontsize=8, loc='left')
  return figure


def _maps(run):
  """The attention maps of a run, or None."""
  return results.read_arrays(
      run['workdir'], results.ATTENTION, run['step'], ['image', 'set'])


def _image(ax, image, **where):
  grey = image.shape[-1] != 3
  ax.imshow(image.mean(-1) if grey else image, cmap='gray' if grey else None,
            vmin=0, vmax=255, **where)


def _sheet(ax, images, captions, rows):
  """Draws up to rows * SHEET_COLUMNS thumbnails with their captions below."""
  for i, image in enumerate(images[:rows * SHEET_COLUMNS]):
    x, y = i % SHEET_COLUMNS, -SHEET_PITCH * (i // SHEET_COLUMNS)
    _image(ax, image, extent=(x + 0.04, x + 0.96, y - 0.92, y))
    ax.text(x + 0.5, y - 0.97, captions[i], ha='center', va='top', fontsize=8,
            linespacing=1.1)
  ax.set(xlim=(0, SHEET_COLUMNS), ylim=(0.08 - SHEET_PITCH * rows, 0.02))
  ax.axis('off')
