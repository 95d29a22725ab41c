"""The measurements of launch/gpu_report.sh: the parts of tests/bench/gpu.py.

    status = PARTS['resnet18'][0](context)      # None: done; 'skipped', 'unfinished'

A part saves each figure as soon as it is measured. Parts import JAX inside their
functions, because `torch` does not need JAX, which would reserve the device's memory.
"""

import importlib.util
import json
import math
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
STARTED = time.monotonic()
# Device kind -> dense bfloat16 TFLOP/s as specified by the vendor; TF32: half of that.
VENDOR = {'H100 80GB HBM3': 989, 'H200': 989, 'A100': 312}
MAX_TRACE = 16_000_000  # bytes; smaller traces are copied to the results


class Context(NamedTuple):
  """The arguments of a part.

  Attributes:
    name: of the part.
    out: folder of the results.
    work: folder of checkpoints and other large files.
    seconds: time limit of the part.
    tiny: whether to use tiny networks and generated images, to test a part on a CPU.
    found: JSON that an earlier start of the part wrote; {} if there is none.
    save: (**figures) -> None; adds figures to the part's JSON.
  """

  name: str
  out: pathlib.Path
  work: pathlib.Path
  seconds: float
  tiny: bool
  found: dict[str, Any]
  save: Callable[..., None]


def read(out: pathlib.Path, name: str) -> dict[str, Any]:
  """Returns the JSON of a part; {} if it is missing or cannot be read."""
  try:
    return json.loads((out / f'{name}.json').read_text(encoding='utf-8'))
  except (OSError, ValueError):
    return {}


# ---- device -------------------------------------------------------------------------


def device(context: Context) -> None:
  """Saves device, versions and precision, and rates of matrix products and a copy."""
  import flax
  import jax
  import jaxlib

  first = jax.devices()[0]
  vendor = [rate for name, rate in VENDOR.items() if name in first.device_kind]
  context.save(
      kind=first.device_kind, platform=first.platform, num_devices=jax.device_count(),
      memory_gb=(first.memory_stats() or {}).get('bytes_limit', 0) / 1e9,
      driver=_driver(), jax=jax.__version__, jaxlib=jaxlib.__version__,
      flax=flax.__version__, python=platform.python_version(),
      host_cores=os.cpu_count(), vendor_tflops=vendor[0] if vendor else None,
      matmul_precision=jax.config.jax_default_matmul_precision or 'default',
      x64=bool(jax.config.jax_enable_x64), xla_flags=os.environ.get('XLA_FLAGS', ''))
  sizes = (64, 128) if context.tiny else (4096, 8192, 16384, 2048)
  for name, dtype, precision, own in (
      ('bfloat16', 'bfloat16', None, sizes),
      ('float32_default', 'float32', None, sizes[:2]),
      ('float32_highest', 'float32', 'highest', sizes[:1])):
    rates = {}
    for size in own:
      rates[str(size)] = _product_rate(size, dtype, precision) / 1e12
      best = max(rates.values())
      context.save(**{f'{name}_tflops': best, f'{name}_tflops_by_size': rates})
    print(f'{name}: {best:,.1f} TFLOP/s')
  rate = _copy_rate(10**6 if context.tiny else 10**9)
  context.save(copy_gb_per_second=rate / 1e9)
  print(f'copy: {rate / 1e9:,.0f} GB/s, read and written')


def _driver():
  if not shutil.which('nvidia-smi'):
    return ''
  command = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
  lines = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
  return lines.partition('\n')[0]


def _product_rate(size, dtype, precision, seconds=0.5):
  """FLOP/s of a chain of products of random matrices [size, size]."""
  import jax
  import jax.numpy as jnp
  from steps import time_updates

  length = 10
  keys = jax.random.split(jax.random.key(0))
  # The eigenvalues of b have a modulus of at most about 1, so that values do not grow.
  a, b = (jax.random.normal(key, (size, size), dtype) for key in keys)
  b = b / jnp.asarray(math.sqrt(size), dtype)

  @jax.jit
  def chain(a, b):
    return jax.lax.fori_loop(
        0, length, lambda _, x: jnp.matmul(x, b, precision=precision), a), ()

  _, each = time_updates(chain, a, b, length, seconds)
  return 2 * size**3 / each


def _copy_rate(num_bytes, seconds=0.3):
  """Bytes/s, read plus written, of adding 1 to an array of `num_bytes`."""
  import jax
  import jax.numpy as jnp
  from steps import time_updates

  add = jax.jit(lambda x, y: (x + y, ()), donate_argnums=0)
  _, each = time_updates(
      add, jnp.zeros(num_bytes // 4), jnp.ones(()), 1, seconds)
  return 2 * num_bytes / each


# ---- updates ------------------------------------------------------------------------

RESNET18 = {'name': 'resnet18'}
WRN_40_2 = {'name': 'wide_resnet', 'depth': 40, 'widen': 2}
TINY_RESNET = {'name': 'resnet', 'blocks': [1, 1], 'width': 4}
CLASSIFIERS = {  # part -> network, tiny network, positives and negatives per batch
    'resnet18': (RESNET18, TINY_RESNET, 128, 16),
    'resnet18_large': (RESNET18, TINY_RESNET, 512, 64),
    'wide_resnet': (WRN_40_2, {'name': 'wide_resnet', 'depth': 10}, 128, 16),
}
TINY = dict(positives=4, negatives=2, size=8)


def _config(path, variant):
  """A config of this repository, as a dict."""
  spec = importlib.util.spec_from_file_location('config', ROOT / path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant).to_dict()


def _images(num, tiny, **kwargs):
  size = TINY['size'] if tiny else 32
  return {'name': 'fake', 'num': num, 'shape': (size, size, 3), 'num_classes': 10,
          **kwargs}


def classifier_config(name: str, tiny: bool) -> dict[str, Any]:
  """Returns configs/nat/cifar10.py:nat with a network of CLASSIFIERS.

  The images are generated.

  Args:
    name: key of CLASSIFIERS.
    tiny: whether to use the tiny network and small batches.
  """
  model, tiny_model, positives, negatives = CLASSIFIERS[name]
  config = _config('configs/nat/cifar10.py', 'nat')
  config['name'] = f'gpu_{name}'
  config['model'] = {**(tiny_model if tiny else model), 'dtype': 'bfloat16'}
  config['schedule']['learning_rate'] = 0.01  # low enough not to diverge
  num = 20 if tiny else 2000
  config['data'].update(
      positives=_images(num, tiny),
      negatives={'other': {'source': _images(num, tiny, seed=1)}},
      batch_size=TINY['positives'] if tiny else positives,
      negatives_per_batch=TINY['negatives'] if tiny else negatives)
  config['evals'] = {'test': {'source': _images(20, tiny, seed=2), 'positive': True}}
  return config


def gan_config(tiny: bool) -> dict[str, Any]:
  """Returns configs/gan/cifar10.py:am on generated images, without evaluations."""
  config = _config('configs/gan/cifar10.py', 'am')
  config['name'] = 'gpu_gan'
  if tiny:
    config['generator']['width'] = config['discriminator']['width'] = 2
    config['data']['batch_size'] = 4
  config['data']['positives'] = _images(20 if tiny else 2000, tiny=False)
  config['evals'] = {}
  config['measures'].update(features={'name': 'pixels'}, independent={})
  return config


def _resolved(config, tiny):
  from nat_jax import runs

  if tiny:
    config['run'].update(updates_per_call=2)
  return runs.resolve(config)


def updates(context: Context) -> None:
  """Saves time, FLOPs, MFU and memory of the bare step, and the speed of the loop."""
  import jax
  from steps import make_bare, time_updates

  from nat_jax.runtime import parallel

  is_gan = context.name == 'gan'
  config = _resolved(
      gan_config(context.tiny) if is_gan
      else classifier_config(context.name, context.tiny), context.tiny)
  bare = make_bare(config)
  slots, k = bare.training.stream.num_slots, bare.k
  dtype = (config['generator'] if is_gan else config['model']).get('dtype', 'float32')
  context.save(
      batch=_batch(config), images_per_update=slots, dtype=dtype, updates_per_call=k,
      **_flops(bare, is_gan))
  state = bare.state()
  compiled = bare.step.lower(state, bare.batch).compile()
  context.save(seconds_to_compile=time.monotonic() - STARTED, **_of_program(compiled))

  budget = 0.1 if context.tiny else min(max(context.seconds / 30, 1), 2)
  state, single = time_updates(compiled, state, bare.batch, 1, budget)
  ours, fn, num = single, compiled, 1
  context.save(single_ms=1e3 * single)
  if parallel.scans(bare.mesh):
    state, ours = time_updates(bare.scanned, state, bare.batch, k, budget)
    fn, num = bare.scanned, k
  context.save(
      step_ms=1e3 * ours, updates_per_second=1 / ours, images_per_second=slots / ours,
      **_memory(), **_mfu(context, ours, dtype))
  print(f'{context.name}: {1e3 * ours:.2f} ms, {slots / ours:,.0f} images/s')

  rate, steps = _time_loop(config, ours, budget * 3)
  _, after = time_updates(fn, state, bare.batch, num, budget)
  context.save(
      loop_images_per_second=rate, loop_updates_per_second=rate / slots,
      loop_updates=steps, loop_share=rate / slots * (ours + after) / 2,
      step_ms_after=1e3 * after)
  print(f'{context.name}: the loop {rate:,.0f} images/s, '
        f'{rate / slots * (ours + after) / 2:.1%}; {jax.devices()[0].device_kind}')


def _batch(config):
  settings = config['data']
  return f'{settings["batch_size"]} + {settings["negatives_per_batch"]}'


def _flops(bare, is_gan):
  """FLOPs per update, counted from the shapes of its products and convolutions."""
  import jax
  from steps import count_flops

  state = jax.eval_shape(bare.trainer.init, jax.random.key(0))
  if is_gan:
    return dict(flops=count_flops(
        lambda state, batch: bare.trainer.step(state, {}, batch)[0], state, bare.batch),
                flops_of='products and convolutions of the step')
  forward = count_flops(bare.trainer.heads['logits'], state, bare.batch['image'])
  return dict(flops=3 * forward, flops_of='3 x forward')


def _of_program(compiled):
  """Bytes accessed and memory of a program, from the compiler.

  Not its FLOPs: on a GPU convolutions are calls of a library, which it does not count.
  """
  costs = compiled.cost_analysis() or {}
  memory = compiled.memory_analysis()
  sizes = {name: getattr(memory, name) for name in dir(memory)
           if name.endswith('_in_bytes') and not name.startswith(('_', 'host_'))}
  return dict(
      bytes_accessed=costs.get('bytes accessed'), program_memory=sizes,
      program_gb=sum(sizes.get(f'{kind}_size_in_bytes', 0) for kind in (
          'argument', 'temp')) / 1e9)


def _memory():
  """The peak so far of the device memory in use; None if it is not counted."""
  import jax

  stats = jax.devices()[0].memory_stats() or {}
  peak = stats.get('peak_bytes_in_use')
  return {'peak_memory_gb': peak / 1e9 if peak else None}


def _mfu(context, seconds, dtype):
  """MFU: FLOPs per update / seconds per update / peak rate, for each peak."""
  figures, about = read(context.out, context.name), read(context.out, 'device')
  bfloat16 = dtype == 'bfloat16'
  vendor = about.get('vendor_tflops')
  peaks = {
      'measured': about.get(f'{dtype if bfloat16 else "float32_default"}_tflops'),
      'vendor': vendor and (vendor if bfloat16 else vendor / 2)}
  return {f'mfu_{whose}': figures['flops'] / seconds / peak / 1e12
          for whose, peak in peaks.items() if peak}


def _time_loop(config, seconds_per_update, budget):
  """Measures the loop for about `budget` seconds, with one checkpoint.

  The first half, with the compilation and the first checkpoint, does not count.

  Returns:
    (images/s, updates).
  """
  from steps import loop

  k = config['run']['updates_per_call']
  log_every = k * max(round(budget / seconds_per_update / k / 8), 1)
  run = {**config['run'], 'log_every': log_every, 'checkpoint_every': 6 * log_every}
  steps = 16 * log_every
  return loop({**config, 'steps': steps, 'run': run}, skip=8), steps


# ---- torch --------------------------------------------------------------------------


def torch(context: Context) -> str | None:
  """Saves the time of the classifiers in PyTorch, eager and compiled.

  Returns:
    None; 'skipped' if PyTorch is not installed.
  """
  if not importlib.util.find_spec('torch'):
    context.save(reason='PyTorch is not installed')
    return 'skipped'
  import torch as library
  import torch_steps

  gpu = library.cuda.is_available()
  context.save(torch=library.__version__, torch_device=(
      library.cuda.get_device_name() if gpu else 'cpu'))
  made = {
      'resnet18': torch_steps.resnet18,
      'resnet18_large': torch_steps.resnet18,
      'wide_resnet': lambda: torch_steps.wide_resnet(40, 2)}
  done = dict(context.found.get('networks', {}))
  for compiled in (False, True):
    for name, make in made.items():
      key = f'{name}_compiled' if compiled else name
      if 'step_ms' in done.get(key, {}):
        continue
      _, _, positives, negatives = CLASSIFIERS[name]
      if context.tiny:
        make, positives, negatives = (
            lambda: torch_steps.resnet((4, 8), 1), TINY['positives'], TINY['negatives'])
      size = TINY['size'] if context.tiny else 32
      try:
        seconds = torch_steps.time_update(
            make(), positives=positives, negatives=negatives, shape=(3, size, size),
            compiled=compiled, budget=0.1 if context.tiny else 2)
      except Exception as error:  # of the compiler, or out of memory: the others go on
        done[key] = {'error': str(error)[-500:]}
        print(f'{key}: {str(error)[-500:]}')
      else:
        images = positives + negatives
        done[key] = {'step_ms': 1e3 * seconds, 'images_per_second': images / seconds,
                     'batch': f'{positives} + {negatives}'}
        print(f'{key}: {1e3 * seconds:.2f} ms, {images / seconds:,.0f} images/s')
      context.save(networks=done)
  return None


# ---- train --------------------------------------------------------------------------

VARIANTS = ('baseline', 'nat')
RECIPE_EPOCHS = 200
OVERHEAD = 25.0  # seconds per run for its evaluation, and the least for its start


def plan_epochs(
    seconds: float, seconds_per_epoch: float, overhead: float, runs: int = 2
) -> int:
  """Returns the number of epochs per run that fit the time: 1 to RECIPE_EPOCHS.

  Args:
    seconds: time limit for all runs.
    seconds_per_epoch: of one run.
    overhead: seconds that a run takes in addition to its epochs.
    runs: number of runs.
  """
  epochs = (seconds / runs - overhead) / seconds_per_epoch
  return max(1, min(RECIPE_EPOCHS, math.floor(epochs)))


def train(context: Context) -> str | None:
  """Trains the full recipe without and with negatives, and saves their table.

  The number of epochs is chosen at the first start; later starts resume with it.

  Returns:
    None; 'unfinished' if a signal stopped the training.
  """
  from nat_jax import train as training
  from nat_jax.schema import presets, recipes

  num = 40 if context.tiny else recipes.num_trained(50_000)
  batch = TINY['positives'] if context.tiny else 128
  epochs = context.found.get('epochs')
  if epochs is None:
    measured = read(context.out, 'resnet18')
    rate = measured.get('loop_updates_per_second', 100.0)
    overhead = OVERHEAD + max(OVERHEAD, measured.get('seconds_to_compile', 0))
    epochs = 1 if context.tiny else plan_epochs(
        context.seconds, presets.steps(1, num, batch) / rate, overhead)
  context.save(epochs=epochs)
  done = dict(context.found.get('runs', {}))
  workdirs = {}
  for variant in VARIANTS:
    workdirs[variant] = context.work / 'runs' / variant
    config, left_out = train_config(variant, epochs, context.tiny)
    context.save(steps=config['steps'], left_out=left_out)
    started = time.monotonic()
    try:
      evaluation = training.train(config, str(workdirs[variant]))
    except training.Preempted as stopped:
      print(stopped)
      context.save(reason=str(stopped))
      return 'unfinished'
    if variant not in done:
      done[variant] = {
          'accuracy': evaluation['evals']['test']['accuracy'],
          'images_per_second': _last_rate(workdirs[variant]),
          'seconds_of_last_start': time.monotonic() - started}
    context.save(runs=done)
  context.save(report=_report(context, workdirs.values()))
  return None


def train_config(
    variant: str, epochs: int, tiny: bool
) -> tuple[dict[str, Any], list[str]]:
  """Returns configs/nat/cifar10.py, full size, for some epochs.

  Evaluation sets that are not in the array cache are left out.

  Args:
    variant: of the config.
    epochs: number of epochs.
    tiny: whether to use the tiny network on generated images instead.

  Returns:
    (config, names of the sets that are left out).
  """
  from nat_jax import data
  from nat_jax.schema import presets, recipes

  config = _config('configs/nat/cifar10.py', variant)
  if tiny:
    small = classifier_config('resnet18', tiny)
    config.update({key: small[key] for key in ('model', 'evals', 'schedule')})
    config['run'].update(updates_per_call=2, log_every=2, checkpoint_every=4)
    config['data'].update(
        {key: small['data'][key] for key in (
            'positives', 'batch_size', 'negatives_per_batch')},
        negatives=small['data']['negatives'] if config['data']['negatives'] else {})
    config['evals']['other'] = small['data']['negatives']['other']
    return {**config, 'steps': presets.steps(epochs, 40, TINY['positives'])}, []
  steps = presets.steps(
      epochs, recipes.num_trained(50_000), 128, config['run']['updates_per_call'])

  def there(source):
    split = re.match(r'\w+', source.get('split', ''))
    return source['name'] != 'tfds' or (
        data.cache_folder(source['dataset']) / split[0]).exists()

  left_out = [name for name, entry in config['evals'].items()
              if not there(entry['source']) and name != config['reference']]
  evals = {name: entry for name, entry in config['evals'].items()
           if name not in left_out}
  return {**config, 'evals': evals, 'steps': steps}, left_out


def _last_rate(workdir):
  lines = (workdir / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
  rates = [record['images_per_second'] for record in map(json.loads, lines)
           if record['kind'] == 'train']
  return rates[-1]


def _report(context, workdirs):
  """Writes OUT/report/ and returns its tables as Markdown, without its figures."""
  folder = context.out / 'report'
  shown = subprocess.run(
      [sys.executable, '-m', 'nat_jax.main', '--mode=report', '--workdir', str(folder),
       *map(str, workdirs)], capture_output=True, text=True, check=False,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'})  # the device's memory is in use
  if shown.returncode:
    raise RuntimeError(f'--mode=report failed: {(shown.stdout + shown.stderr)[-2000:]}')
  print(shown.stdout)
  return (folder / 'report.md').read_text(encoding='utf-8').partition('\n## ')[0]


# ---- profile ------------------------------------------------------------------------

KINDS = {  # kind -> pattern of the names of its operations; the first that matches
    'convolutions and products': 'conv(?!ert)|gemm|dot|cutlass|cudnn',
    'reductions': 'reduce',
    'copies': '(?i)transpose|copy|memcpy|memset',
}


def profile(context: Context) -> None:
  """Saves traces of a few updates, and their most expensive operations."""
  networks = {}
  for name in ('resnet18', 'gan'):
    networks[name] = _traced(context, name)
    context.save(networks=networks)


def _traced(context, name):
  """The costs of ten updates; a small trace is copied to the results."""
  import jax
  from steps import make_bare

  config = (gan_config(context.tiny) if name == 'gan'
            else classifier_config(name, context.tiny))
  bare = make_bare(_resolved(config, context.tiny))
  state = bare.state()
  step = bare.step.lower(state, bare.batch).compile()
  for _ in range(3):
    state, _ = step(state, bare.batch)
  jax.block_until_ready(state)
  folder, num = context.work / 'trace' / name, 3 if context.tiny else 10
  shutil.rmtree(folder, ignore_errors=True)
  with jax.profiler.trace(str(folder)):
    started = time.perf_counter()
    for _ in range(num):
      state, _ = step(state, bare.batch)
    jax.block_until_ready(state)
    seconds = time.perf_counter() - started
  trace = max(folder.rglob('*.xplane.pb'))
  if trace.stat().st_size < MAX_TRACE:
    shutil.copy(trace, context.out / f'{name}.xplane.pb')
  costs = device_costs(trace)
  kinds, total = by_kind(costs), sum(costs.values())
  for kind, ms in [*kinds.items(), *list(costs.items())[:3]]:
    print(f'{name}: {ms / num:8.3f} ms  {ms / total:6.1%}  {kind}')

  def shares(found):
    return {kind: {'ms': ms / num, 'share': ms / total}
            for kind, ms in list(found.items())[:20]}

  return dict(
      updates=num, traced_step_ms=1e3 * seconds / num, trace=str(trace),
      device_ms=total / num, kinds=shares(kinds), costs=shares(costs))


def device_costs(path: os.PathLike[str]) -> dict[str, float]:
  """Returns {kind of operation: milliseconds on the device}, the longest first.

  Operations whose names differ only in numbers at their end are one kind. On a GPU the
  operations are the kernels of all streams, on a CPU the HLO operations of all threads.

  Args:
    path: of a trace, *.xplane.pb.

  Raises:
    ValueError: the trace has no operation of a device.
  """
  from jax.profiler import ProfileData

  found: dict[str, float] = {}
  for name, nanoseconds in operations(ProfileData.from_file(str(path))):
    kind = re.sub(r'([._-]\d+)+$', '', name)[:100]
    found[kind] = found.get(kind, 0.0) + nanoseconds / 1e6
  if not found:
    raise ValueError(
        f'expected a trace with operations of a device, got none in {path}; trace at '
        'least one update')
  return dict(sorted(found.items(), key=lambda item: -item[1]))


def by_kind(costs: Mapping[str, float]) -> dict[str, float]:
  """Sums costs over kinds of operations, by their names; the largest first."""
  found: dict[str, float] = {}
  for name, ms in costs.items():
    kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)),
                'other')
    found[kind] = found.get(kind, 0.0) + ms
  return dict(sorted(found.items(), key=lambda item: -item[1]))


def operations(profile_data: Any) -> Iterator[tuple[str, float]]:
  """Yields (name, nanoseconds) of the operations of devices, or else of the host."""
  planes = list(profile_data.planes)
  devices = [plane for plane in planes if plane.name.startswith('/device:')]
  for plane in devices:
    lines = list(plane.lines)
    streams = [line for line in lines if line.name.startswith('Stream')]
    for line in streams or lines:
      for event in line.events:
        yield event.name, event.duration_ns
  if not devices:
    for plane in planes:
      for line in plane.lines:
        for event in line.events:
          if not event.name.startswith('end: ') and any(
              key == 'hlo_op' for key, _ in event.stats):
            yield event.name, event.duration_ns


# name -> (function, weight: its share of the time)
PARTS: dict[str, tuple[Callable[[Context], str | None], int]] = {
    'device': (device, 40),
    'resnet18': (updates, 90),
    'resnet18_large': (updates, 70),
    'wide_resnet': (updates, 90),
    'gan': (updates, 80),
    'torch': (torch, 80),
    'train': (train, 200),
    'profile': (profile, 50),
}
