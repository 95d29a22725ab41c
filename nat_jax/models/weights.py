"""Weights of torchvision and timm for the networks here that have the same layers.

    arrays = read('resnet50.safetensors')
    variables = from_torch('resnet50', arrays, variables)     # all but the output layer

`LAYERS` has, for each network, all layers of PyTorch with their names here. `stage` is
the place of a parameter between the input and the output, for frozen stages and for
layer-wise learning rates.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from nat_jax.models import efficientnet_lite

# What PyTorch calls an array of each kind of layer -> its collection and its name here.
NORM = {'weight': ('params', 'scale'), 'bias': ('params', 'bias'),
        'running_mean': ('batch_stats', 'mean'), 'running_var': ('batch_stats', 'var')}
LAYER_NORM = {'weight': ('params', 'scale'), 'bias': ('params', 'bias')}
CONV = {'weight': ('params', 'kernel')}
DENSE = {'weight': ('params', 'kernel'), 'bias': ('params', 'bias')}  # or a convolution
ARRAY = {'': ('params', '')}

Layers = Iterator[tuple[str, str, dict[str, tuple[str, str]]]]


def resnet50_layers() -> Layers:
  """(PyTorch's name, the name here, the kind) of every layer but the output layer."""
  yield from [('conv1', 'stem', CONV), ('bn1', 'stem_norm', NORM)]
  for group, num_blocks in enumerate((3, 4, 6, 3), 1):
    for block in range(num_blocks):
      theirs, ours = f'layer{group}.{block}', f'group{group}_block{block + 1}'
      for i in (1, 2, 3):
        yield f'{theirs}.conv{i}', f'{ours}/conv_{i}', CONV
        yield f'{theirs}.bn{i}', f'{ours}/norm_{i}', NORM
      if not block:
        yield f'{theirs}.downsample.0', f'{ours}/conv_shortcut', CONV
        yield f'{theirs}.downsample.1', f'{ours}/norm_shortcut', NORM


def vit_layers() -> Layers:
  """(timm's name, the name here, the kind) of every layer but the output layer."""
  yield from [('cls_token', 'token', ARRAY), ('pos_embed', 'positions', ARRAY),
              ('patch_embed.proj', 'patches', DENSE), ('norm', 'norm', LAYER_NORM)]
  for i in range(12):
    for theirs, ours, kind in (
        ('norm1', 'norm_1', LAYER_NORM), ('attn.qkv', 'qkv', DENSE),
        ('attn.proj', 'out', DENSE), ('norm2', 'norm_2', LAYER_NORM),
        ('mlp.fc1', 'mlp_1', DENSE), ('mlp.fc2', 'mlp_2', DENSE)):
      yield f'blocks.{i}.{theirs}', f'block{i + 1}/{ours}', kind


def efficientnet_lite0_layers() -> Layers:
  """(timm's name, the name here, the kind) of every layer but the output layer."""
  yield from [('conv_stem', 'stem', CONV), ('bn1', 'stem_norm', NORM),
              ('conv_head', 'top', CONV), ('bn2', 'top_norm', NORM)]
  for group, (num_blocks, *_) in enumerate(efficientnet_lite.GROUPS):
    # In the first group there is no expansion.
    theirs = [('conv_pw', 'bn1', 'expand'), ('conv_dw', 'bn2', 'depth'),
              ('conv_pwl', 'bn3', 'project')] if group else [
                  ('conv_dw', 'bn1', 'depth'), ('conv_pw', 'bn2', 'project')]
    for block in range(num_blocks):
      ours = f'group{group + 1}_block{block + 1}'
      for conv, norm, name in theirs:
        yield f'blocks.{group}.{block}.{conv}', f'{ours}/conv_{name}', CONV
        yield f'blocks.{group}.{block}.{norm}', f'{ours}/norm_{name}', NORM


LAYERS: dict[str, Callable[[], Layers]] = {
    'efficientnet_lite0': efficientnet_lite0_layers, 'resnet50': resnet50_layers,
    'vit_s16': vit_layers}
# The number of stages of each, see `stage`.
STAGES = {'efficientnet_lite0': 9, 'resnet50': 6, 'vit_s16': 14}
# What each file is called at timm's hub, for the message that asks for it.
HUB = {'efficientnet_lite0': 'timm/tf_efficientnet_lite0.in1k',
       'resnet50': 'timm/resnet50.a1_in1k',
       'vit_s16': 'timm/vit_small_patch16_224.augreg_in21k_ft_in1k'}
AXES = {4: (2, 3, 1, 0), 2: (1, 0)}  # of kernels, PyTorch's to flax's


def read(path: str, name: str = '') -> dict[str, np.ndarray]:
  """Reads the arrays of a file .safetensors, or .npz.

  Args:
    path: of the file.
    name: of the network, for the message where there is no file.

  Raises:
    ValueError: no such file, one that cannot be read, or the package safetensors is not
      installed.
  """
  path = os.path.expanduser(path)
  if not os.path.isfile(path):
    place = (f': take model.safetensors from https://huggingface.co/{HUB[name]} and '
             'put it there, or name the place where it is' if name in HUB else '')
    raise ValueError(f'there is no file of weights {path!r}{place}')
  try:
    if path.endswith('.npz'):
      with np.load(path, allow_pickle=False) as file:
        return dict(file)
    import safetensors.numpy

    return safetensors.numpy.load_file(path)
  except ImportError:
    raise ValueError(
        f'{path} needs the package safetensors, which is not installed: '
        "pip install 'nat_jax[pretrained]'") from None
  # safetensors has errors of its own, and not one class for all of them.
  except Exception as error:
    raise ValueError(
        f'{path} cannot be read as weights, .safetensors or .npz ({error})') from None


def needed(name: str) -> list[str]:
  """The arrays of a network in PyTorch, by their names, but for the output layer's."""
  return [_theirs(layer, key) for layer, _, kind in LAYERS[name]() for key in kind]


def _theirs(layer, key):
  """PyTorch's name of an array of a layer, which may be one array itself."""
  return f'{layer}.{key}' if key else layer


def from_torch(
    name: str, arrays: Mapping[str, np.ndarray], variables: Any
) -> dict[str, Any]:
  """Returns the variables of a network with the weights of PyTorch's.

  The output layer stays as it is in `variables`, since it is for other classes.

  Args:
    name: of the network, in `LAYERS`.
    arrays: by PyTorch's names; further ones are not used.
    variables: {'params', 'batch_stats'} of the network, arrays or their shapes.

  Raises:
    ValueError: an unknown network, or arrays that are missing or of another shape.
  """
  if name not in LAYERS:
    raise ValueError(
        f'there are pretrained weights for {", ".join(LAYERS)}, got the network '
        f'{name!r}')
  found = traverse_util.flatten_dict(variables, sep='/', keep_empty_nodes=True)
  for layer, ours, kind in LAYERS[name]():
    for key, (collection, last) in kind.items():
      theirs = _theirs(layer, key)
      place = f'{collection}/{ours}/{last}' if last else f'{collection}/{ours}'
      if theirs not in arrays:
        raise ValueError(
            f'the weights do not hold {theirs}: are they of {name}, with the names of '
            'torchvision or timm?')
      value = np.asarray(arrays[theirs], np.float32)
      if last == 'kernel':
        value = value.transpose(AXES[value.ndim])
      if value.shape != found[place].shape:
        raise ValueError(
            f'{theirs} of the weights has the shape {list(value.shape)} (in the order '
            f'of flax), the network needs {list(found[place].shape)}; the number of '
            'patches of a vision transformer follows from data.image_size')
      found[place] = value
  return traverse_util.unflatten_dict(found, sep='/')


def stage(name: str, path: str) -> int:
  """The stage of a parameter: 0 at the input; the output layer is the last.

  ResNet-50 has the stages stem, group 1 to 4, output; EfficientNet-Lite0 the stem,
  group 1 to 7 (with the last convolution in the last), output; a vision transformer the
  embedding, block 1 to 12 (with the last norm in the last), output. The output layer
  'rotation' of `models.heads.WithRotation` is of the last stage too.

  Args:
    name: of the network, in `LAYERS`.
    path: of the parameter, such as 'group1_block2/conv_1/kernel'.
  """
  last = STAGES[name] - 1
  if path.startswith(('head/', 'rotation/')):
    return last
  if path.startswith(('norm/', 'top/', 'top_norm/')):
    return last - 1
  found = re.match(r'(?:group|block)(\d+)', path)
  return int(found[1]) if found else 0
