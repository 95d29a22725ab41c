"""Pretrained networks that make vectors of pictures and are not trained themselves.

    backbone = build(parse('jax:efficientnet_lite0'))
    backbone = build(parse('timm:resnet50.a1_in1k@model.safetensors'))
    vectors = backbone.embed(pictures)          # uint8 [n, h, w, 3] -> float32 [n, d]
    same = build(backbone.spec)                 # ValueError if the weights have changed

The spec of a backbone holds all that its vectors depend on: its weights (as a checksum)
and how pictures are prepared. It travels with the vectors, into the config of a run.
'jax' has the networks of `nat_jax.models` with pretrained weights; 'timm' has those of
timm, which with its PyTorch is imported here only, when one of them is built.
"""

import functools
import hashlib
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import data, models, names, registry
from nat_jax.models import weights as model_weights
from nat_jax.runtime import inference, parallel
from nat_jax.schema import presets

FOLDER = 'backbones'  # of weights, in the cache of nat_jax


class Backbone(NamedTuple):
  """A network and how pictures are prepared for it.

  Attributes:
    spec: 'name' (in `BACKBONES`), 'model', 'weights' (a file, or ''), 'sha256' (of the
      weights), 'size' [h, w] of the network's input, 'crop' (the share of each side of
      a picture that is seen), 'mean' and 'std' (of pixels in [0, 1]), 'width' (d).
    embed: pictures of the size `decoded_size(spec)`, uint8 [n, h, w, 3] -> vectors,
      float32 [n, d].
    traced: the same as a part of a JAX program, whose constants are numpy arrays; None:
      the network is not of JAX.
  """

  spec: dict[str, Any]
  embed: Callable[[np.ndarray], np.ndarray]
  traced: Callable[[jax.Array], jax.Array] | None = None


def parse(text: str) -> dict[str, Any]:
  """Returns the spec that NAME:MODEL or NAME:MODEL@WEIGHTS stands for.

  Raises:
    ValueError: another form, or an unknown name.
  """
  name, _, rest = text.partition(':')
  model, at, weights = rest.partition('@')
  if not (name and model) or (at and not weights):
    raise ValueError(
        'expected a backbone such as jax:efficientnet_lite0 or timm:resnet50.a1_in1k, '
        'or with a file of its weights timm:resnet50.a1_in1k@model.safetensors, got '
        f'{text!r}')
  if name not in BACKBONES:
    raise ValueError(names.unknown('backbone', name, BACKBONES))
  weights = weights and os.path.abspath(os.path.expanduser(weights))
  return {'name': name, 'model': model, 'weights': weights}


def build(spec: Mapping[str, Any]) -> Backbone:
  """Builds a backbone.

  Args:
    spec: from `parse`; or that of a `Backbone`, which is built as it was.

  Raises:
    ValueError: an unknown name, weights that are not there or not the same, or a
      package that is not installed.
  """
  asked = {key: value for key, value in spec.items()
           if key in ('name', 'model', 'weights')}
  recorded = {key: value for key, value in spec.items() if key not in asked}
  expected, places = recorded.get('sha256'), _places(asked, 'sha256' in recorded)
  make = functools.partial(
      registry.build, BACKBONES, asked, what='backbone', recorded=recorded)
  files = [*filter(os.path.isfile, places)]
  if not expected:
    return make(file=files[0] if files else '')
  others = []
  for file in files or ['']:
    try:
      backbone = make(file=file)
    except ValueError as error:
      if len(files) < 2:
        raise
      others.append(f'{file}: {error}')
      continue
    found = backbone.spec['sha256']
    if found == expected:
      return backbone
    others.append(f'{file or "the hub"} has SHA-256 {found[:16]}...')
  raise ValueError(
      f'the weights of {spec["name"]}:{spec["model"]} are not those that the vectors '
      f'were made with, of SHA-256 {expected[:16]}...: {"; ".join(others)}. Bring the '
      f'right file, as {" or ".join(places)}')


def _places(spec, anywhere=False):
  """Where files of weights are looked for; `anywhere`: not only as the spec says."""
  model, weights = spec.get('model', ''), spec.get('weights', '')
  if spec.get('name') == 'jax' and model in PREPARED:
    model = timm_name(model)
  named = [weights, place(model, weights)] if weights else []
  return list(dict.fromkeys(named + [place(model)] * (anywhere or not named)))


def decoded_size(spec: Mapping[str, Any]) -> tuple[int, int]:
  """The size (h, w) to which pictures are decoded, before `crop_middle`."""
  height, width = (math.floor(side / spec['crop']) for side in spec['size'])
  return height, width


def crop_middle(pictures: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """The middle [n, *size, c] of pictures [n, h, w, c]."""
  top, left = (round((have - want) / 2)
               for have, want in zip(pictures.shape[1:3], size, strict=True))
  return pictures[:, top:top + size[0], left:left + size[1]]


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
  """SHA-256 of names, types, shapes and values, in the order of the names."""
  found = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    found.update(f'{name} {array.dtype} {array.shape}\n'.encode())
    found.update(array.tobytes())
  return found.hexdigest()


def place(model: str = '', weights: str = '') -> str:
  """Where the weights of a network of timm are looked for, in the cache of nat_jax."""
  name = os.path.basename(weights) if weights else f'{model}.safetensors'
  return os.path.join(data.cache_root(), FOLDER, name)


# Backbones of nat_jax.models.

BATCH = {'cpu': 8}  # pictures per call of the network, elsewhere 64
HALF = (0.5, 0.5, 0.5)
# How timm prepares pictures for the networks with its weights: the share of a side that
# is seen, mean, std.
PREPARED = {
    'efficientnet_lite0': (0.875, HALF, HALF),
    'resnet50': (0.95, *presets.NORMALISATION['imagenet'].values()),
    'vit_s16': (0.9, HALF, HALF),
}
SIDE = 224  # of their pictures


def timm_name(model: str) -> str:
  """What timm calls the weights of a network of `PREPARED`."""
  return model_weights.HUB[model].removeprefix('timm/')


def jax_backbone(
    model: str, weights: str = '', recorded: Mapping[str, Any] | None = None,
    file: str = '',
) -> Backbone:
  """A network of `nat_jax.models` with timm's weights; needs neither timm nor PyTorch.

  Args:
    model: a name in `PREPARED`.
    weights: the file that the user named, or ''.
    recorded: how pictures are prepared; keys that are missing are as timm says.
    file: of weights, for `models.weights.read`; '': none was found. Those of another
      network with the same arrays, such as timm's efficientnet_lite0.ra_in1k, are not
      told apart.

  Raises:
    ValueError: no such network, or no such weights.
  """
  if model not in PREPARED:
    raise ValueError(names.unknown('network of the backbone jax,', model, PREPARED))
  if not file:
    spec = {'name': 'jax', 'model': model, 'weights': weights}
    places = _places(spec, anywhere=bool(recorded))
    make = '' if recorded else (
        f', or name its place: --backbone jax:{model}@model.safetensors')
    raise ValueError(
        f'there are no weights of jax:{model} in {" or ".join(places)}: take '
        f'model.safetensors from https://huggingface.co/{model_weights.HUB[model]} and '
        f'put it there{make}')
  crop, mean, std = PREPARED[model]
  arrays = model_weights.read(file, model)
  net = models.MODELS[model](num_outputs=1)
  spec = {'name': 'jax', 'model': model, 'weights': weights, 'size': [SIDE, SIDE],
          'crop': crop, 'mean': [*mean], 'std': [*std], **(recorded or {})}
  shapes = jax.eval_shape(
      lambda key: net.init(key, jnp.zeros((1, *spec['size'], 3)), train=False),
      jax.random.key(0))
  variables = model_weights.from_torch(
      model, arrays, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
  used = {key: np.asarray(arrays[key], np.float32)
          for key in model_weights.needed(model)}

  def head(variables, pictures):
    pixels = data.normalise(pictures, spec['mean'], spec['std'])
    return net.apply(variables, pixels, train=False)[1]['features']

  mesh = parallel.make_mesh(jax.local_devices()[:1])
  predict = inference.make_predict(
      head, mesh, BATCH.get(mesh.devices.flat[0].platform, 64))
  placed = parallel.replicate(variables, mesh)
  width = jax.eval_shape(
      head, shapes, jax.ShapeDtypeStruct((1, *spec['size'], 3), np.uint8)).shape[1]
  return Backbone(
      {**spec, 'width': width, 'sha256': checksum(used)},
      lambda pictures: predict(placed, crop_middle(pictures, spec['size'])),
      lambda pictures: head(variables, crop_middle(pictures, spec['size'])))


# Backbones of timm.


def timm_backbone(
    model: str, weights: str = '', recorded: Mapping[str, Any] | None = None,
    file: str = '',
) -> Backbone:
  """A network of timm; its vectors are the input of its classifier.

  Args:
    model: its name in timm, such as 'resnet50.a1_in1k'.
    weights: the file that the user named, or ''.
    recorded: how pictures are prepared; keys that are missing are as timm says.
    file: of weights (.safetensors, .pth) that timm or torchvision gives out for this
      network; '': those of timm's hub or its cache, if the user named none.

  Raises:
    ValueError: timm is not installed, no such network, or no such weights.

  Reference: Wightman, "PyTorch Image Models", doi:10.5281/zenodo.4414861.
  """
  for package in ('torch', 'timm'):
    if importlib.util.find_spec(package) is None:
      raise ValueError(
          f'backbones of timm need the package {package}, which is not installed: '
          "pip install 'nat_jax[embed]' (PyTorch takes some GB)")
  import timm
  import torch

  if not timm.is_model(model):
    raise ValueError(
        f'timm has no network {model!r}{names.hint(model, timm.list_models())}; '
        "timm.list_models('*vit*') lists those with vit in their names")
  if file:
    net = _with_weights(timm, model, file)
  elif weights:
    raise ValueError(
        f'the weights of timm:{model} are neither in {weights} nor in '
        f'{place(model, weights)}; bring the file to one of these places')
  else:
    net = _from_hub(timm, model)
  net.eval()
  prepared = timm.data.resolve_model_data_config(net)
  channels, *size = prepared['input_size']
  if channels != 3:
    raise ValueError(
        f'expected a network of pictures with 3 channels, {model} has {channels}')
  spec = {
      'name': 'timm', 'model': model, 'weights': weights, 'size': size,
      'crop': prepared['crop_pct'], 'mean': [*prepared['mean']],
      'std': [*prepared['std']], **(recorded or {}), 'width': net.num_features,
      'sha256': checksum({key: x.numpy() for key, x in net.state_dict().items()})}
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  net.to(device)
  mean, std = (torch.tensor(spec[key], device=device)[:, None, None]
               for key in ('mean', 'std'))

  def embed(pictures):
    pixels = np.ascontiguousarray(crop_middle(pictures, spec['size']))
    with torch.inference_mode():
      x = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
      return net((x - mean) / std).float().cpu().numpy()

  return Backbone(spec, embed)


def _from_hub(timm, model):
  """A network with the weights of timm's hub; ValueError if they cannot be had."""
  try:
    return timm.create_model(model, pretrained=True, num_classes=0)
  # Whatever the libraries below timm raise: without a network, a repository, a tag.
  except Exception as error:
    about = timm.get_pretrained_cfg(model, allow_unregistered=True)
    source = ('https://huggingface.co/' + about.hf_hub_id
              if about and about.hf_hub_id else 'where it is published')
    raise ValueError(
        f'the weights of timm:{model} cannot be fetched '
        f'({str(error).splitlines()[0]}). On a machine with a network take '
        f'model.safetensors from {source}; put it on this one as {place(model, "")}, '
        f'or anywhere with --backbone timm:{model}@model.safetensors') from None


def _with_weights(timm, model, file):
  """A network with the weights of a file, which must hold all of them."""
  net = timm.create_model(model, pretrained=False, num_classes=0)
  wanted = net.state_dict()
  try:
    found = timm.models.load_state_dict(file)
    convert = getattr(sys.modules[type(net).__module__], 'checkpoint_filter_fn', None)
    if set(wanted) - set(found) and convert:  # weights in the form of another library
      found = convert(found, net)
    missing = sorted(set(wanted) - set(found))
    if not missing:
      net.load_state_dict({key: found[key] for key in wanted})
      return net
  # Damaged files and other shapes: whatever safetensors, pickle and PyTorch raise.
  except Exception as error:
    raise ValueError(
        f'{file} does not hold the weights of timm:{model} ({error})') from None
  raise ValueError(
      f'{file} does not hold the weights of timm:{model}: {len(missing)} of '
      f'{len(wanted)} arrays are missing, such as {missing[0]}')


# Called with the arguments of the spec, `recorded` and `file`.
BACKBONES: dict[str, Callable[..., Backbone]] = {
    'jax': jax_backbone, 'timm': timm_backbone}
