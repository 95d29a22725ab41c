"""The classifiers of the benches in PyTorch, and the time of their updates.

    seconds = time_update(resnet18(), positives=128, negatives=16, shape=(3, 32, 32),
                          compiled=False, budget=2)

An update is a forward pass in bfloat16 (autocast), the loss of NAT, a backward pass and
one step of SGD, on one batch that stays on the device, in channels_last. Unlike the
step of nat_jax it neither normalises nor augments images, and keeps no metrics.
"""

import statistics
import time
from collections.abc import Sequence

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
    with torch.autocast(device, torch.bfloat16):
      logits = model(images)
    return nat_loss(logits, labels)

  forward = torch.compile(loss_of) if compiled else loss_of

  def updates(num):
    start = time.perf_counter()
    for _ in range(num):
      optimizer.zero_grad(set_to_none=True)
      forward(images, labels).backward()
      optimizer.step()
    if device == 'cuda':
      torch.cuda.synchronize()
    return time.perf_counter() - start

  updates(3)  # compiles, chooses kernels
  num = max(int(budget / rounds / updates(1)), 1)
  return statistics.median(updates(num) / num for _ in range(rounds))
