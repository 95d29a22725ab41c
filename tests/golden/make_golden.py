"""Writes the arrays of `tests/models/test_golden.py`, beside this file.

    python3 -m venv torchvenv && torchvenv/bin/pip install torch numpy
    torchvenv/bin/python tests/golden/make_golden.py

The networks here are written for PyTorch from the papers, and share no code with
`nat_jax`. PyTorch is needed by this script alone, and never by a test.

Each file holds one forward and one backward pass:

- `given/...`, int8: inputs, weights and the cotangent, in units of 1/32. Multiples of
  1/32 are exact in every precision, and take a byte.
- `found/...`, float32: outputs, running statistics, and gradients of the sum of
  outputs * cotangent, computed in float64. Of an array of more than 256 elements only
  its sketch is kept: 64 sums of its elements with random signs, divided by 8. The
  distance of two sketches is that of the arrays to within a tenth or so (Johnson and
  Lindenstrauss), so that every element takes part in the comparison.

Layouts and names are PyTorch's. PyTorch keeps the *unbiased* variance of a batch in
BatchNorm's running statistics, flax and `nat_jax` the biased one: `given/count/...`
(int32) is the number of values per channel, n of the factor n / (n - 1).
"""

import pathlib

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations

HERE = pathlib.Path(__file__).parent
UNIT = 32
WHOLE, SKETCH = 256, 64  # elements
# A ReLU near 0 could fall to either side in float32, and its gradient be 0 or 1.
MARGIN = 1e-5


class BasicBlock(nn.Module):
  """He et al., CVPR 2016, figure 2, with a projection where the shape changes."""

  def __init__(self, inputs, outputs, stride):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    self.bn1 = nn.BatchNorm2d(outputs)
    self.relu1 = nn.ReLU()
    self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
    self.bn2 = nn.BatchNorm2d(outputs)
    self.relu2 = nn.ReLU()
    self.shortcut = nn.Sequential()
    if stride != 1 or inputs != outputs:
      self.shortcut = nn.Sequential(
          nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

  def forward(self, x):
    y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
    return self.relu2(y + self.shortcut(x))


class ResNet18(nn.Module):
  """Four groups of two blocks behind a 3x3 stem without a pool (the CIFAR form)."""

  def __init__(self, width, classes):
    super().__init__()
    self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.relu = nn.ReLU()
    for group in range(4):
      outputs = width * 2**group
      inputs = outputs // 2 if group else outputs
      self.add_module(f'layer{group + 1}', nn.Sequential(
          BasicBlock(inputs, outputs, 2 if group else 1),
          BasicBlock(outputs, outputs, 1)))
    self.linear = nn.Linear(8 * width, classes)

  def forward(self, x):
    found = {}
    x = self.relu(self.bn1(self.conv1(x)))
    for group in range(1, 5):
      x = found[f'group{group}'] = self.get_submodule(f'layer{group}')(x)
    found['features'] = x.mean((2, 3))
    return self.linear(found['features']), found


class WideBlock(nn.Module):
  """B(3, 3) of Zagoruyko and Komodakis, BMVC 2016: BN-ReLU-conv, twice."""

  def __init__(self, inputs, outputs, stride):
    super().__init__()
    self.bn1 = nn.BatchNorm2d(inputs)
    self.relu1 = nn.ReLU()
    self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    self.bn2 = nn.BatchNorm2d(outputs)
    self.relu2 = nn.ReLU()
    self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
    self.convdim = None
    if inputs != outputs:
      self.convdim = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

  def forward(self, x):
    activated = self.relu1(self.bn1(x))
    y = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
    return y + (x if self.convdim is None else self.convdim(activated))


class WRN16(nn.Module):
  """WRN-16-k: three groups of two blocks, of 16 k, 32 k and 64 k channels."""

  def __init__(self, widen, classes):
    super().__init__()
    widths = [16, 16 * widen, 32 * widen, 64 * widen]
    self.conv0 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
    for group in range(3):
      inputs, outputs = widths[group:group + 2]
      self.add_module(f'group{group}', nn.Sequential(
          WideBlock(inputs, outputs, 2 if group else 1),
          WideBlock(outputs, outputs, 1)))
    self.bn = nn.BatchNorm2d(widths[-1])
    self.relu = nn.ReLU()
    self.fc = nn.Linear(widths[-1], classes)

  def forward(self, x):
    found = {}
    x = self.conv0(x)
    for group in range(3):
      x = found[f'group{group + 1}'] = self.get_submodule(f'group{group}')(x)
    found['features'] = self.relu(self.bn(x)).mean((2, 3))
    return self.fc(found['features']), found


def weight_norm(layer):
  """Salimans and Kingma, NeurIPS 2016: w = g v / |v| for each output unit."""
  dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
  return parametrizations.weight_norm(layer, dim=dim)


def batch_norm(channels):
  """By the statistics of the batch, in evaluation too."""
  return nn.BatchNorm2d(channels, eps=1e-3, track_running_stats=False)


class Generator(nn.Module):
  """AM-GAN's: z to 4x4, 8x8, 16x16, 32x32, and the image, cut to its size."""

  def __init__(self, latent, width, side, channels):
    super().__init__()
    self.cut = (32 - side) // 2
    self.side = side
    self.linear = weight_norm(nn.Linear(latent, 4 * 4 * 8 * width))
    self.norms = nn.ModuleList(batch_norm(width * k) for k in (8, 4, 2, 1))
    self.relus = nn.ModuleList(nn.LeakyReLU(0.2) for _ in range(4))
    self.deconvs = nn.ModuleList(
        weight_norm(nn.ConvTranspose2d(2 * width * k, width * k, 3, 2))
        for k in (4, 2, 1))
    self.last = weight_norm(nn.ConvTranspose2d(width, channels, 3, 1, padding=1))

  def forward(self, z):
    # TensorFlow's layout of 4x4 maps: channels last.
    x = self.linear(z).reshape(len(z), 4, 4, -1).permute(0, 3, 1, 2)
    x = self.relus[0](self.norms[0](x))
    for deconv, norm, relu in zip(
        self.deconvs, self.norms[1:], self.relus[1:], strict=True):
      # TensorFlow's transpose of a 'SAME' convolution of stride 2, which pads even
      # sizes below and to the right alone: that row and column are cut off.
      x = relu(norm(deconv(x)[:, :, :-1, :-1]))
    image = torch.tanh(self.last(x))
    kept = slice(self.cut, self.cut + self.side)
    return image[:, :, kept, kept]


class Discriminator(nn.Module):
  """AM-GAN's without noise and dropout; small images are padded by black, -1."""

  def __init__(self, width, side, channels, outputs):
    super().__init__()
    self.pad = (32 - side) // 2
    widths = [channels, width, 2 * width, 4 * width, 8 * width]
    # Padded by hand, below and to the right, where the stride is 2.
    self.convs = nn.ModuleList(
        weight_norm(nn.Conv2d(widths[i], widths[i + 1], 3, 2 if i else 1,
                              padding=0 if i else 1))
        for i in range(4))
    self.norms = nn.ModuleList(batch_norm(w) for w in widths[2:])
    self.relus = nn.ModuleList(nn.LeakyReLU(0.2) for _ in range(4))
    self.linear = weight_norm(nn.Linear(8 * width, outputs))

  def forward(self, x):
    x = nn.functional.pad(x, (self.pad,) * 4, value=-1.0)
    x = self.relus[0](self.convs[0](x))
    for conv, norm, relu in zip(
        self.convs[1:], self.norms, self.relus[1:], strict=True):
      x = relu(norm(conv(nn.functional.pad(x, (0, 1, 0, 1)))))
    features = 4 * x.mean((2, 3))
    return self.linear(features), {'features': features}


class Pair(nn.Module):
  """D(G(z)), so that the gradient of G's weights has gone through D."""

  def __init__(self, latent, width, side, channels, outputs):
    super().__init__()
    self.generator = Generator(latent, width, side, channels)
    self.discriminator = Discriminator(width, side, channels, outputs)

  def forward(self, z):
    images = self.generator(z)
    outputs, found = self.discriminator(images)
    return outputs, {'images': images, **found}


def on_grid(x):
  """x in float64, rounded to multiples of 1/32 within int8's reach."""
  return torch.clamp(torch.round(torch.as_tensor(x) * UNIT), -127, 127).double() / UNIT


def sketch(x):
  """An array as it is, or the signed sums of its elements where it is large."""
  x = x.detach().double().numpy()
  if x.size > WHOLE:
    signs = np.random.RandomState(0).randint(0, 2, (SKETCH, x.size)) * 2 - 1
    x = signs @ x.ravel() / SKETCH**0.5
  return x.astype(np.float32)


def draw_weights(model, rng):
  """He-normal weights, gains about 1, small biases; running statistics likewise."""
  with torch.no_grad():
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, value in named:
      kind = name.split('.')[-1]
      if kind == 'num_batches_tracked':
        continue
      if kind in ('original0', 'running_var') or (kind, value.ndim) == ('weight', 1):
        drawn = rng.uniform(0.5, 1.5, value.shape)
      elif kind in ('bias', 'running_mean'):
        drawn = rng.normal(0, 0.2, value.shape)
      else:
        drawn = rng.normal(0, (2 / value[0].numel())**0.5, value.shape)
      value.copy_(on_grid(drawn))


def look_at_layers(model):
  """Hooks that note the least |input| of a ReLU, and how many values a mean is of."""
  near, counts = [], {}

  def relu(module, inputs, output):
    near.append(inputs[0].detach().abs().min().item())

  for name, module in model.named_modules():
    if isinstance(module, nn.ReLU | nn.LeakyReLU):
      module.register_forward_hook(relu)
    if isinstance(module, nn.BatchNorm2d):
      module.register_forward_hook(lambda module, inputs, output, name=name: (
          counts.__setitem__(name, inputs[0].numel() // inputs[0].shape[1])))
  return near, counts


def passes(model, shape, one_hot, seed):
  """The arrays of one file, or None where a ReLU's input is too near to 0."""
  rng = np.random.RandomState(seed)
  model = model().double()
  draw_weights(model, rng)
  near, counts = look_at_layers(model)
  x = on_grid(rng.normal(0, 0.6, shape))
  if one_hot:  # z joined by the class that is asked for
    x = torch.cat([x, torch.eye(one_hot).double()[:len(x)]], 1)
  x.requires_grad_()

  arrays = {'given/input': x}
  tracked = {
      name: value for name, value in model.named_buffers()
      if name.endswith(('running_mean', 'running_var'))}
  given = {**dict(model.named_parameters()), **tracked}
  arrays.update({f'given/{name}': value.clone() for name, value in given.items()})
  if tracked:  # evaluation, before the training pass changes the statistics
    arrays['found/eval/outputs'] = model.eval()(x)[0]
  outputs, found = model.train()(x)
  cotangent = on_grid(rng.normal(0, 0.6, outputs.shape))
  (outputs * cotangent).sum().backward()
  if min(near) < MARGIN:
    return None
  arrays['given/cotangent'] = cotangent
  arrays.update({
      f'found/train/{name}': value
      for name, value in {'outputs': outputs, **found}.items()})
  arrays.update({f'found/stats/{name}': value for name, value in tracked.items()})
  arrays['found/grad/input'] = x.grad
  arrays.update(
      {f'found/grad/{name}': p.grad for name, p in model.named_parameters()})
  out = {f'given/count/{name}': np.int32(n) for name, n in counts.items() if tracked}
  for name, value in arrays.items():
    if name.startswith('found/'):
      out[name] = sketch(value)
    else:
      out[name] = (value.detach() * UNIT).numpy().astype(np.int8)
  return out


FILES = {  # name -> the model, the input's shape, classes joined to it
    'resnet18': (lambda: ResNet18(2, 5), (4, 3, 16, 16), 0),
    'wrn16': (lambda: WRN16(1, 5), (6, 3, 8, 8), 0),
    'dcgan32': (lambda: Pair(6, 2, 32, 3, 5), (4, 6), 0),
    'dcgan28': (lambda: Pair(6 + 4, 2, 28, 1, 5), (4, 6), 4),
}


def main():
  torch.set_num_threads(1)
  for name, (model, shape, one_hot) in FILES.items():
    seed, arrays = 0, None
    while arrays is None:
      seed += 1
      arrays = passes(model, shape, one_hot, seed)
    path = HERE / f'{name}.npz'
    np.savez_compressed(path, **arrays)
    print(f'{path.name}: seed {seed}, {path.stat().st_size} bytes')


if __name__ == '__main__':
  main()
