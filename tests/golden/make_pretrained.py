"""Writes pretrained.npz, the arrays of `tests/models/test_pretrained.py`.

    python3 -m venv timmvenv && timmvenv/bin/pip install timm
    timmvenv/bin/python tests/golden/make_pretrained.py

For timm's EfficientNet-Lite0, ResNet-50 and ViT-S/16 the file holds the names and
shapes of all weights, and the features of two images with the weights of `weights_of`.
These are integers of 8 bits times a scale, made by integer arithmetic, so that the test
makes the same and the file need not hold them. PyTorch and timm are needed by this
script alone, and never by a test.
"""

import pathlib
import zlib

import numpy as np

HERE = pathlib.Path(__file__).parent
NETWORKS = {  # name here -> name in timm, side of the images, further arguments
    'efficientnet_lite0': ('tf_efficientnet_lite0', 75, {}),
    'resnet50': ('resnet50', 64, {}),
    'vit_s16': ('vit_small_patch16_224', 32, {'img_size': 32}),
}


def pseudo_random(name, shape):
  """Numbers in [-1, 1), multiples of 1/128, that depend on name and shape alone."""
  index = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint64)
  mixed = index * np.uint64(2654435761) + np.uint64(zlib.crc32(name.encode()))
  for shift, factor in ((15, 2246822519), (13, 3266489917)):
    mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed &= np.uint64(2**32 - 1)
  bits = (mixed >> np.uint64(24)).astype(np.int64) - 128
  return (bits / 128).reshape(shape)


def weights_of(shapes):
  """{name: float32 array} for {name: shape}; activations keep their scale."""
  found = {}
  for name, shape in shapes.items():
    value = pseudo_random(name, shape)
    if name.endswith('running_var') or (len(shape) == 1 and name.endswith('weight')):
      value = 1 + value / 4
    elif len(shape) == 1 or len(shape) == 3:
      value = value / 8
    else:
      value = value * (2 / np.sqrt(np.prod(shape[1:])))
    found[name] = value.astype(np.float32)
  return found


def images_of(name, size):
  """Two images, float32 [2, size, size, 3]."""
  return 2 * pseudo_random(name, (2, size, size, 3)).astype(np.float32)


def main():
  import timm
  import torch

  arrays = {}
  for name, (theirs, size, more) in NETWORKS.items():
    net = timm.create_model(theirs, pretrained=False, num_classes=0, **more)
    net.double().eval()
    state = {key: x for key, x in net.state_dict().items()
             if not key.endswith('num_batches_tracked')}
    made = weights_of({key: tuple(x.shape) for key, x in state.items()})
    net.load_state_dict(
        {key: torch.from_numpy(x) for key, x in made.items()}, strict=False)
    images = torch.from_numpy(images_of(name, size)).double().permute(0, 3, 1, 2)
    with torch.inference_mode():
      arrays[f'{name}/features'] = net(images).float().numpy()
    arrays[f'{name}/names'] = np.array(list(state))
    arrays[f'{name}/shapes'] = np.array([
        ' '.join(map(str, x.shape)) for x in state.values()])
  np.savez_compressed(HERE / 'pretrained.npz', **arrays)


if __name__ == '__main__':
  main()
