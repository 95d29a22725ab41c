"""The networks of the benches in PyTorch, and the time of their updates.

    seconds = time_update(resnet18(), positives=128, negatives=16, shape=(3, 32, 32),
                          compiled=False, budget=2)

An update is a forward pass, the loss of NAT, a backward pass and one step of SGD, on
one batch that stays on the device, in channels_last; on a GPU the forward pass is in
bfloat16 (autocast). Unlike the step of nat_jax it neither normalises nor augments
images, and keeps no metrics.

As a program it answers requests: for each line of standard input, a JSON object with
the arguments of `answer`, it prints one line of JSON. tests/bench/against_torch.py
starts it with the Python that PyTorch is installed in, and it needs nothing else.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn


class BasicBlock(nn.Module):
  """conv-BN-ReLU-conv-BN plus shortcut, then ReLU."""

  def __init__(self, before: int, width: int, stride: int):
    super().__init__()
    self.conv_1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
    self.norm_1 = nn.BatchNorm2d(width)
    self.conv_2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
    self.norm_2 = nn.BatchNorm2d(width)
    self.shortcut = nn.Identity() if before == width else nn.Sequential(
        nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

  def forward(self, x):
    y = F.relu(self.norm_1(self.conv_1(x)))
    return F.relu(self.shortcut(x) + self.norm_2(self.conv_2(y)))


class PreActivationBlock(nn.Module):
  """BN-ReLU-conv-BN-ReLU-conv plus shortcut."""

  def __init__(self, before: int, width: int, stride: int):
    super().__init__()
    self.norm_1 = nn.BatchNorm2d(before)
    self.conv_1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
    self.norm_2 = nn.BatchNorm2d(width)
    self.conv_2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
    self.shortcut = None if before == width else nn.Conv2d(
        before, width, 1, stride, bias=False)

  def forward(self, x):
    pre = F.relu(self.norm_1(x))
    y = self.conv_2(F.relu(self.norm_2(self.conv_1(pre))))
    return y + (x if self.shortcut is None else self.shortcut(pre))


def _groups(block, before, widths, num_blocks):
  layers = []
  for i, width in enumerate(widths):
    for j in range(num_blocks):
      layers.append(block(before, width, 2 if i > 0 and j == 0 else 1))
      before = width
  return layers


def _head(width, num_classes):
  return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)


def resnet(widths: Sequence[int], num_blocks: int, num_classes: int = 10) -> nn.Module:
  """A ResNet with the CIFAR stem, as nat_jax/models/resnet.py has it."""
  return nn.Sequential(
      nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]),
      nn.ReLU(), *_groups(BasicBlock, widths[0], widths, num_blocks),
      *_head(widths[-1], num_classes))


def resnet18() -> nn.Module:
  return resnet((64, 128, 256, 512), 2)


def small_resnet(width: int, num_groups: int, num_classes: int = 10) -> nn.Module:
  """A stem of stride 2 and groups of one block of stride 2 (the form `_small01`)."""
  layers = [nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
  for i in range(num_groups):
    layers.append(BasicBlock(width * 2**i, width * 2**(i + 1), 2))
  return nn.Sequential(*layers, *_head(width * 2**num_groups, num_classes))


def small_conv(widths: Sequence[int], num_classes: int = 10) -> nn.Module:
  """Convolutions of stride 2, as nat_jax/models/small.py has them, for grey images."""
  layers, before = [], 1
  for width in widths:
    layers += [nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width),
               nn.ReLU()]
    before = width
  return nn.Sequential(*layers, *_head(before, num_classes))


def wide_resnet(depth: int, widen: int, num_classes: int = 10) -> nn.Module:
  """WRN-`depth`-`widen`, as nat_jax/models/wide_resnet.py has it."""
  widths = [16 * widen, 32 * widen, 64 * widen]
  return nn.Sequential(
      nn.Conv2d(3, 16, 3, 1, 1, bias=False),
      *_groups(PreActivationBlock, 16, widths, (depth - 4) // 6),
      nn.BatchNorm2d(widths[-1]), nn.ReLU(), *_head(widths[-1], num_classes))


def nat_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
  """Cross-entropy where a label is given, from the uniform distribution where it is -1.

  The mean over positives plus the mean over negatives.
  """
  log_p = F.log_softmax(logits.float(), 1)
  positive = (labels >= 0).float()  # no indexing by it: the device would be waited for
  negative = 1 - positive
  chosen = log_p.gather(1, labels.clamp(min=0)[:, None])[:, 0]
  return -((chosen * positive).sum() / positive.sum()
           + (log_p.mean(1) * negative).sum() / negative.sum())


def time_update(
    model: nn.Module, *, positives: int, negatives: int, shape: Sequence[int],
    compiled: bool, budget: float, rounds: int = 5,
) -> float:
  """Median over rounds of the seconds per update.

  Args:
    model: [n, c, h, w] -> logits.
    positives, negatives: images of a batch.
    shape: (c, h, w) of an image.
    compiled: by `torch.compile`.
    budget: seconds that all rounds should take.
    rounds: number of measurements.
  """
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.backends.cudnn.benchmark = True
  torch.manual_seed(0)
  model = model.to(device, memory_format=torch.channels_last)
  optimizer = torch.optim.SGD(
      model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
  images = torch.randn(positives + negatives, *shape, device=device).to(
      memory_format=torch.channels_last)
  labels = torch.arange(positives + negatives, device=device) % 10
  labels[positives:] = -1

  def loss_of(images, labels):
    with torch.autocast(device, torch.bfloat16, enabled=device == 'cuda'):
      logits = model(images)
    return nat_loss(logits, labels)

  forward = torch.compile(loss_of) if compiled else loss_of

  def update():
    optimizer.zero_grad(set_to_none=True)
    forward(images, labels).backward()
    optimizer.step()

  return timed(update, budget, rounds)


def time_gan_update(
    *, batch: int, size: int, width: int, latent: int, num_outputs: int,
    compiled: bool, budget: float, rounds: int = 5,
) -> float:
  """Median over rounds of the seconds per update of two dense networks of a GAN.

  An update is one of the discriminator, on `batch` real images of `size` pixels and as
  many fake ones, and one of the generator, each with Adam and cross-entropy.
  """
  torch.manual_seed(0)

  def dense(inputs, outputs):
    return nn.Sequential(
        nn.Linear(inputs, width), nn.LeakyReLU(), nn.Linear(width, width),
        nn.LeakyReLU(), nn.Linear(width, outputs))

  gen, disc = dense(latent, size), dense(size, num_outputs)
  gen_adam, disc_adam = (
      torch.optim.Adam(net.parameters(), lr=2e-4) for net in (gen, disc))
  real, labels = torch.randn(batch, size), torch.arange(batch) % (num_outputs - 1)
  none = torch.full((batch,), num_outputs - 1)

  def disc_loss(real, z):
    return F.cross_entropy(disc(real), labels) + F.cross_entropy(
        disc(gen(z).detach()), none)

  def gen_loss(z):
    logits = disc(gen(z))
    return F.cross_entropy(logits, logits[:, :-1].argmax(1))

  if compiled:
    disc_loss, gen_loss = torch.compile(disc_loss), torch.compile(gen_loss)

  def update():
    for adam, loss in ((disc_adam, lambda z: disc_loss(real, z)), (gen_adam, gen_loss)):
      adam.zero_grad(set_to_none=True)
      loss(torch.randn(batch, latent)).backward()
      adam.step()

  return timed(update, budget, rounds)


def time_forward(
    model: nn.Module, *, batch: int, shape: Sequence[int], compiled: bool,
    budget: float, rounds: int = 5,
) -> float:
  """Median over rounds of the seconds per evaluation of `batch` images (CPU)."""
  model = model.eval().to(memory_format=torch.channels_last)
  images = torch.randn(batch, *shape).to(memory_format=torch.channels_last)
  forward = torch.compile(model) if compiled else model

  def evaluate():
    with torch.inference_mode():
      forward(images).softmax(1).amax(1)

  return timed(evaluate, budget, rounds)


def timed(update: Callable[[], None], budget: float, rounds: int) -> float:
  """Median over rounds of the seconds per call of `update`, after three calls."""
  def updates(num):
    start = time.perf_counter()
    for _ in range(num):
      update()
    if torch.cuda.is_available():
      torch.cuda.synchronize()
    return time.perf_counter() - start

  updates(3)  # compiles, chooses kernels
  num = max(int(budget / rounds / updates(1)), 1)
  return statistics.median(updates(num) / num for _ in range(rounds))


NETWORKS = {
    'resnet18': resnet18,
    'wrn_16_1': lambda: wide_resnet(16, 1),
    'small01': lambda: small_resnet(64, 2),
    'digits': lambda: small_conv((32, 64)),
}


def answer(network: str, **settings) -> float:
  """Seconds per update of a network of NETWORKS, per `forward` of it, or of 'gan'.

  Args:
    network: its name; 'gan' is `time_gan_update`.
    settings: of `time_update`, `time_forward` (if there is `batch`) or
      `time_gan_update`.
  """
  if network == 'gan':
    return time_gan_update(**settings)
  time_it = time_forward if 'batch' in settings else time_update
  return time_it(NETWORKS[network](), **settings)


def serve() -> None:
  """Answers requests until standard input ends."""
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  print(json.dumps({'torch': torch.__version__}), flush=True)
  for line in sys.stdin:
    try:
      found = {'seconds': answer(**json.loads(line))}
    except Exception as error:  # for example of the compiler: the others go on
      found = {'error': f'{type(error).__name__}: {error}'[-300:]}
    print(json.dumps(found), flush=True)


if __name__ == '__main__':
  serve()
