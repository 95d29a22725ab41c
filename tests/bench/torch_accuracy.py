"""The accuracy that PyTorch reaches on CIFAR-10 in given CPU seconds of one core.

    taskset -c 0 ~/torch/bin/python tests/bench/torch_accuracy.py --cpu_seconds 480

To be run by a Python with PyTorch, beside `configs/nat/cifar10.py:baseline_small`. It
trains the network of the form `_small01` with that form's recipe (SGD with Nesterov
momentum, a cosine with warm-up, padded crops and flips, batches of 128), for as many
updates as fit the time, which the first updates estimate. Images are those of the array
cache, $NAT_JAX_CACHE/cifar10; a tenth of the training images is not trained on, as in
the config.
"""

import argparse
import math
import os
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch_steps import small_resnet

BATCH, WARMUP, PAD = 128, 200, 4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
TRIED = 40  # updates by which the time of all is estimated


def load(split: str) -> tuple[torch.Tensor, torch.Tensor]:
  """The normalised images [n, 3, 32, 32] and labels of a split."""
  home = os.environ.get('NAT_JAX_CACHE', pathlib.Path.home() / '.cache' / 'nat_jax')
  folder = pathlib.Path(home, 'cifar10', split)
  image = np.load(folder / 'image.npy').astype(np.float32) / 255
  image = (image - np.float32(MEAN)) / np.float32(STD)
  label = torch.from_numpy(np.load(folder / 'label.npy').astype(np.int64))
  return torch.from_numpy(image.transpose(0, 3, 1, 2).copy()), label


def augmented(padded: torch.Tensor, rows: np.ndarray, rng) -> torch.Tensor:
  """Random crops of padded images, half of them flipped."""
  crops = []
  for row, (y, x), flip in zip(
      rows, rng.integers(0, 2 * PAD + 1, (len(rows), 2)), rng.random(len(rows)) < 0.5,
      strict=True):
    crop = padded[row, :, y:y + 32, x:x + 32]
    crops.append(crop.flip(2) if flip else crop)
  return torch.stack(crops).to(memory_format=torch.channels_last)


def rate(update: int, num: int) -> float:
  """The learning rate of an update: a warm-up, then half a cosine."""
  if update < WARMUP:
    return 0.1 * (update + 1) / WARMUP
  return 0.05 * (1 + math.cos(math.pi * (update - WARMUP) / max(num - WARMUP, 1)))


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--cpu_seconds', type=float, required=True)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  torch.manual_seed(args.seed)
  rng = np.random.default_rng(args.seed)
  image, label = load('train')
  trained = rng.permutation(len(label))[:len(label) * 9 // 10]
  padded = F.pad(image, (PAD,) * 4)
  model = small_resnet(64, 2).to(memory_format=torch.channels_last)
  decayed = [p for p in model.parameters() if p.ndim > 1]
  others = [p for p in model.parameters() if p.ndim == 1]
  optimizer = torch.optim.SGD(
      [{'params': decayed, 'weight_decay': 5e-4}, {'params': others}], lr=0.1,
      momentum=0.9, nesterov=True)
  num, update = 10**9, 0
  while update < num:
    order = rng.permutation(trained)
    for rows in order[:len(order) // BATCH * BATCH].reshape(-1, BATCH):
      for group in optimizer.param_groups:
        group['lr'] = rate(update, num)
      optimizer.zero_grad(set_to_none=True)
      F.cross_entropy(model(augmented(padded, rows, rng)), label[rows]).backward()
      optimizer.step()
      update += 1
      if update == TRIED // 4:
        began = time.process_time()
      if update == TRIED:
        each = (time.process_time() - began) / (TRIED - TRIED // 4)
        num = TRIED + int((args.cpu_seconds - time.process_time()) / each)
      if update >= num:
        break
  model.eval()
  test_image, test_label = load('test')
  with torch.inference_mode():
    right = sum(
        int((model(test_image[i:i + 500]).argmax(1) == test_label[i:i + 500]).sum())
        for i in range(0, len(test_label), 500))
  print(f'torch {torch.__version__}, seed {args.seed}: {num} updates '
        f'({num * BATCH / len(trained):.1f} epochs), test accuracy '
        f'{right / len(test_label):.4f} (n {len(test_label)}), '
        f'{time.process_time():.0f} CPU seconds')


if __name__ == '__main__':
  main()
