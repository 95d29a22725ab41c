"""Arrays of images in a file as a data source.

    arrays('pets.npz')            # 'image' uint8 [n, h, w, c], 'label' int [n]
"""

from collections.abc import Sequence

import numpy as np

from nat_jax.data import folder_source, sources


def arrays(
    path: str, split: str = 'all', classes: Sequence[int] | None = None
) -> sources.Arrays:
  """Reads images and labels of an .npz file.

  Args:
    path: of a file with 'image' uint8 [n, h, w, c], 'label' int [n] and optionally
      'names', the names of the classes.
    split: 'all', or a slice of it ('all[:80%]'), which is taken of each class, as in
      the source 'folder'.
    classes: the labels to keep, renumbered by position; None: all.

  Raises:
    ValueError: no such file, or other content; or a split or a class that it lacks.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      found = {name: file[name] for name in ('image', 'label')}
      names = tuple(map(str, file['names'])) if 'names' in file.files else ()
  except (OSError, ValueError, KeyError, EOFError) as error:
    raise ValueError(
        f'{path} cannot be read as an .npz file with image and label: {error}'
    ) from None
  image, label = found['image'], found['label']
  if image.dtype != np.uint8 or image.ndim != 4 or label.shape != (len(image),):
    raise ValueError(
        f'{path}: expected image uint8 [n, h, w, c] and label [n], got {image.dtype} '
        f'{list(image.shape)} and {list(label.shape)}')
  names = names or tuple(map(str, range(label.max() + 1)))
  listing = sources.take_classes(
      sources.Arrays(np.arange(len(label)), label.astype(np.int32), names), classes)
  rows = folder_source._rows(listing, split, path)
  return sources.Arrays(image[listing.image[rows]], listing.label[rows], listing.names)
