"""Estimates of data-parallel training on 256 TPU v5e and 64 H100: docs/scaling.md.

    python tests/bench/scaling.py        # prints the tables of that page

Arithmetic on published figures of the chips, and on the FLOPs, parameters and
activations of the networks; ResNet-18 is traced, on a CPU. Nothing is measured.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from steps import count_flops

from nat_jax import models

# Assumptions.
PASSES = 12  # times that each output of a convolution is read or written in an update
ATTAINED = 0.5  # share of the bound by FLOP/s and bandwidth that an update reaches
OVERLAP = 2 / 3  # share of an update, its backward pass, that hides an all-reduce
DECODE = 550  # JPEGs per second and core, Pillow, ImageNet (arXiv 2605.08731)
JPEG_BYTES = 110_000  # mean size of an ImageNet training image: 140 GB / 1.28 million


class Chip(NamedTuple):
  """A chip and the hosts and networks that connect it.

  Attributes:
    name: of the chip.
    flops: peak bfloat16 FLOP/s, dense.
    hbm: bytes/s of its memory.
    per_host: chips of a host.
    cores: CPU cores of a host (a core has two threads).
    inner, outer: bytes/s that a chip sends to chips of its host, and to other hosts.
    start: seconds that a small all-reduce takes at least.
    hop: further seconds for each hop.
    torus: whether chips are connected in a square torus; or else by switches.
  """

  name: str
  flops: float
  hbm: float
  per_host: int
  cores: int
  inner: float
  outer: float
  start: float
  hop: float
  torus: bool


# https://cloud.google.com/tpu/docs/v5e: 197 TFLOP/s, 819 GB/s, ICI 1,600 Gbit/s in each
# direction, a torus of 16 x 16, 32 hosts with 8 chips and 224 vCPU. Start and hop are
# assumptions.
V5E = Chip('TPU v5e', 197e12, 819e9, 8, 112, 200e9, 200e9, 5e-6, 1e-6, True)
# https://www.nvidia.com/en-us/data-center/h100/ (SXM): 989 TFLOP/s without sparsity,
# 3.35 TB/s, NVLink 900 GB/s, half of it in each direction. DGX H100: 8 GPUs, 2 x 56
# cores, InfiniBand of 400 Gbit/s for each GPU. Start and hop are assumptions.
H100 = Chip('H100', 989e12, 3.35e12, 8, 112, 450e9, 50e9, 15e-6, 3e-6, False)


class Network(NamedTuple):
  """A network.

  Attributes:
    name: of the network.
    params: number of parameters.
    macs: multiply-adds of the forward pass of an image.
    activations: outputs of its convolutions for an image.
    norms: number of BatchNorm layers.
    pixels: width of the images.
  """

  name: str
  params: int
  macs: int
  activations: int
  norms: int
  pixels: int


def resnet18() -> Network:
  """nat_jax's ResNet-18 for images of 32 x 32, counted in its trace."""
  model = models.resnet18(10)
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
  variables = jax.eval_shape(
      lambda x: model.init(jax.random.key(0), x, train=False), images)

  def apply(variables, images):
    return model.apply(variables, images, train=False)[0]

  convolutions = [
      equation.outvars[0].aval.size
      for equation in jax.make_jaxpr(apply)(variables, images).eqns
      if equation.primitive.name == 'conv_general_dilated']
  paths = jax.tree.leaves_with_path(variables['params'])
  return Network(
      'ResNet-18, 32 px', sum(leaf.size for _, leaf in paths),
      count_flops(apply, variables, images) // 2, sum(convolutions),
      sum('scale' in str(path[-1]) for path, _ in paths), 32)


# Published counts. Parameters and multiply-adds: torchvision's model card;
# activations: Dollar et al., "Fast and Accurate Model Scaling", CVPR 2021, Table 1.
RESNET50 = Network('ResNet-50, 224 px', 25_557_032, 4_089_000_000, 11_100_000, 53, 224)


def update_seconds(network: Network, chip: Chip, images: int) -> float:
  """Seconds of an update on one chip, without any communication.

      max(6 macs images / flops, 2 PASSES activations images / hbm) / ATTAINED

  The backward pass needs twice the FLOPs of the forward pass; activations are bfloat16.
  """
  compute = 6 * network.macs * images / chip.flops
  memory = 2 * PASSES * network.activations * images / chip.hbm
  return max(compute, memory) / ATTAINED


def all_reduce_seconds(num_bytes: float, chip: Chip, chips: int) -> float:
  """Seconds of an all-reduce of `num_bytes` over `chips`.

      2 (n - 1) / n bytes / bandwidth + latency

  On switches it is made in each host first (n: its chips), and then, by each chip for
  its share of the bytes, between the hosts (n: their number).
  """
  inside = min(chips, chip.per_host)
  hosts = chips // inside
  if chip.torus:
    seconds = _ring(chips) * num_bytes / chip.outer
  else:
    seconds = (_ring(inside) * num_bytes / chip.inner
               + _ring(hosts) * num_bytes / inside / chip.outer)
  return seconds + latency(chip, chips)


def _ring(n):
  return 2 * (n - 1) / n


def latency(chip: Chip, chips: int) -> float:
  """Seconds of an all-reduce of a few bytes.

  On a torus it passes as many hops as its two sides are long; between hosts that
  switches connect, log2(hosts) there and back.
  """
  if chips == 1:
    return 0.0
  if chip.torus:
    side = 2 ** (int(math.log2(chips)) // 2)
    return chip.start + (side + chips // side) * chip.hop
  return chip.start + 2 * math.log2(max(chips // chip.per_host, 1)) * chip.hop


class Estimate(NamedTuple):
  """An update of a data-parallel run; times in seconds.

  Attributes:
    update: computation on a chip.
    gradients: all-reduce of the float32 gradients.
    exposed: the part of it that the backward pass does not hide.
    norms: the small all-reduces of BatchNorm, two for each layer, which nothing hides.
    rate: images/s of all chips.
    efficiency: images/s per chip, as a share of that of one chip.
  """

  update: float
  gradients: float
  exposed: float
  norms: float
  rate: float
  efficiency: float


def estimate(network: Network, chip: Chip, chips: int, images: int) -> Estimate:
  """Estimates an update with `images` on each chip."""
  update = update_seconds(network, chip, images)
  gradients = (
      all_reduce_seconds(4 * network.params, chip, chips) if chips > 1 else 0.0)
  exposed = max(gradients - OVERLAP * update, 0.0)
  norms = 2 * network.norms * latency(chip, chips)
  seconds = update + exposed + norms
  return Estimate(update, gradients, exposed, norms, chips * images / seconds,
                  update / seconds)


# ---- tables -------------------------------------------------------------------------

MACHINES = ((V5E, (1, 8, 64, 256)), (H100, (1, 8, 64)))
IMAGES = 144  # per chip: 128 positives and 16 negatives


def networks_table(networks: Sequence[Network]) -> Iterator[Sequence[str]]:
  """Rows on the networks."""
  yield ('network', 'parameters', 'gradients', 'FLOPs per image and update',
         'convolution outputs per image', 'BatchNorm layers')
  for each in networks:
    yield (each.name, f'{each.params / 1e6:.1f} M', f'{4 * each.params / 1e6:.0f} MB',
           f'{6 * each.macs / 1e9:.1f} G', f'{each.activations / 1e6:.2f} M',
           str(each.norms))


def growing_table(networks: Sequence[Network]) -> Iterator[Sequence[str]]:
  """Rows with `IMAGES` on each chip."""
  yield ('network', 'chips', 'global batch', 'update, ms', 'MFU', 'gradients, ms',
         'BatchNorm, ms', '1,000 images/s', 'efficiency')
  for network in networks:
    for chip, numbers in MACHINES:
      for chips in numbers:
        found = estimate(network, chip, chips, IMAGES)
        mfu = 6 * network.macs * IMAGES / found.update / chip.flops
        yield (network.name, f'{chips} {chip.name}', f'{chips * IMAGES:,}',
               f'{1e3 * found.update:.1f}', f'{mfu:.2f}',
               f'{1e3 * found.gradients:.2f}', f'{1e3 * found.norms:.2f}',
               _thousands(found.rate), f'{found.efficiency:.0%}')


def fixed_table(networks: Sequence[Network], batch: int) -> Iterator[Sequence[str]]:
  """Rows with a global batch of `batch` on the whole machines."""
  yield ('network', 'chips', 'images per chip', 'update, ms',
         'gradients not hidden, ms', 'BatchNorm, ms', '1,000 images/s', 'efficiency',
         'with BatchNorm per chip')
  for network in networks:
    for chip, numbers in MACHINES:
      chips = numbers[-1]
      found = estimate(network, chip, chips, batch // chips)
      alone = found.update / (found.update + found.exposed)
      yield (network.name, f'{chips} {chip.name}', str(batch // chips),
             f'{1e3 * found.update:.2f}', f'{1e3 * found.exposed:.2f}',
             f'{1e3 * found.norms:.2f}', _thousands(found.rate),
             f'{found.efficiency:.0%}', f'{alone:.0%}')


def input_table(networks: Sequence[Network]) -> Iterator[Sequence[str]]:
  """Rows on the input of a host, with `IMAGES` on each of the chips."""
  yield ('network', 'chips', '1,000 images/s per host', 'raw uint8', 'JPEG',
         'cores to decode', 'cores')
  for network in networks:
    for chip, numbers in MACHINES:
      found = estimate(network, chip, numbers[-1], IMAGES)
      rate = found.rate / numbers[-1] * chip.per_host
      raw, jpeg = (rate * size / 1e9 for size in (3 * network.pixels**2, JPEG_BYTES))
      small = network.pixels < 100  # stored as arrays
      yield (network.name, f'{numbers[-1]} {chip.name}', _thousands(rate),
             f'{raw:.1f} GB/s', '-' if small else f'{jpeg:.1f} GB/s',
             '-' if small else f'{math.ceil(rate / DECODE)}', str(chip.cores))


def _thousands(rate):
  return f'{rate / 1e3:.1f}' if rate < 1e5 else f'{rate / 1e3:,.0f}'


def markdown(rows: Iterator[Sequence[str]]) -> str:
  """Rows as a Markdown table; all columns but the first two are numbers."""
  head, *body = rows
  line = ['---'] * 2 + ['--:'] * (len(head) - 2)
  return '\n'.join(f'| {" | ".join(row)} |' for row in (head, line, *body))


def tables() -> list[str]:
  """All tables of docs/scaling.md."""
  networks = (resnet18(), RESNET50)
  return [markdown(rows) for rows in (
      networks_table(networks), growing_table(networks), fixed_table(networks, 4096),
      input_table(networks))]


if __name__ == '__main__':
  print('\n\n'.join(tables()))
