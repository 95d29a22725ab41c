"""Formats the results of tests/bench/gpu.py as Markdown.

    print(markdown({'device': {...}, 'resnet18': {...}, ...}))
"""

from collections.abc import Mapping, Sequence
from typing import Any

TITLES = {
    'resnet18': 'ResNet-18', 'resnet18_large': 'ResNet-18', 'wide_resnet': 'WRN-40-2',
    'gan': 'AM-GAN pair'}


def markdown(parts: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns all tables as Markdown; cells of missing figures are empty.

  Args:
    parts: name of a part -> content of its JSON; {} if there is none.
  """
  sections = [
      _device(parts['device']), _updates(parts), _torch(parts), _train(parts['train']),
      _profile(parts['profile']), _states(parts)]
  return '\n\n'.join(section for section in sections if section)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  lines = [head, ['---'] * len(head), *rows]
  return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def _number(value: float | None, form: str = ',.0f', scale: float = 1) -> str:
  return '' if value is None else format(value * scale, form)


def _device(found):
  if 'kind' not in found:
    return ''
  tiny = '**Tiny networks on generated images: a trial of the script.** ' * bool(
      found.get('tiny'))
  about = (
      f'{tiny}{found["kind"]} ({found["platform"]}, {found["memory_gb"]:.0f} GB for '
      f'JAX), jax {found["jax"]}, jaxlib {found["jaxlib"]}, flax {found["flax"]}, '
      f'precision of products: {found["matmul_precision"]}, commit {found["commit"]}.'
      + (f' {found["driver"]}.' if found.get('driver') else ''))
  rows = []
  for name, title in (('bfloat16', 'bfloat16'),
                      ('float32_default', 'float32, default precision (TF32)'),
                      ('float32_highest', 'float32, highest precision')):
    if f'{name}_tflops' in found:
      by_size = found[f'{name}_tflops_by_size']
      rows.append([title, _number(found[f'{name}_tflops'], ',.3g'), ', '.join(
          f'{size}: {rate:.3g}' for size, rate in by_size.items())])
  if found.get('vendor_tflops'):
    rows.append(['bfloat16, by the vendor', _number(found['vendor_tflops']), ''])
  copied = found.get('copy_gb_per_second')
  return '\n\n'.join([
      '## Device', about, _table(['products', 'TFLOP/s', 'by size'], rows),
      f'Copy: {copied:,.0f} GB/s, read and written.' if copied else ''])


def _updates(parts):
  rows = []
  for name, title in TITLES.items():
    found = parts[name]
    if 'images_per_update' not in found:
      continue
    rows.append([
        title, found['batch'], found['dtype'], _number(found.get('step_ms'), '.3g'),
        _number(found.get('updates_per_second'), ',.4g'),
        _number(found.get('images_per_second')), _number(found.get('single_ms'), '.3g'),
        _number(found.get('loop_images_per_second')),
        _number(found.get('loop_share'), '.1%'),
        _number(found.get('flops'), '.4g', 1e-9),
        *[_number(found.get(f'mfu_{whose}'), '.1%') for whose in (
            'measured', 'vendor')],
        _number(found.get('program_gb'), '.3g'),
        _number(found.get('peak_memory_gb'), '.3g')])
  if not rows:
    return ''
  return '\n\n'.join([
      '## Updates',
      'Bare: k updates on one batch that stays on the device, in one call. Loop: '
      '`nat_jax.train.train` with metrics, events and one checkpoint; the first half '
      'of the updates does not count. FLOPs: counted from shapes (classifiers: three '
      'forward passes). Memory: arguments and temporaries of the program of one update '
      '(program); peak in use (peak).',
      _table(['network', 'batch', 'dtype', 'step, ms', 'updates/s', 'images/s',
              'one dispatch per update, ms', 'loop, images/s', 'loop / bare',
              'GFLOP per update', 'MFU, measured peak', "MFU, vendor's peak",
              'program, GB', 'peak, GB'], rows)])


def _torch(parts):
  networks = parts['torch'].get('networks', {})
  rows = []
  for key, found in networks.items():
    name = key.removesuffix('_compiled')
    ours = parts[name].get('step_ms')
    theirs = found.get('step_ms')
    rows.append([
        TITLES[name], found.get('batch', ''), 'yes' if key != name else 'no',
        _number(theirs, '.3g'), _number(found.get('images_per_second')),
        _number(theirs / ours if theirs and ours else None, '.2f'),
        ' '.join(found.get('error', '').split())[:80].replace('|', '/')])
  if not rows:
    return ''
  return '\n\n'.join([
      '## PyTorch',
      f'torch {parts["torch"]["torch"]}, {parts["torch"]["torch_device"]}: forward and '
      'backward pass and SGD in bfloat16 (autocast), channels_last, without '
      "augmentation. Ratio: PyTorch's time divided by that of the bare step.",
      _table(['network', 'batch', 'torch.compile', 'step, ms', 'images/s', 'ratio',
              'error'], rows)])


def _train(found):
  if 'epochs' not in found:
    return ''
  rows = [[variant, found['epochs'], found['steps'], f'{one["accuracy"]:.4f}',
           _number(one['images_per_second'])]
          for variant, one in found.get('runs', {}).items()]
  left_out = ', '.join(found.get('left_out', []))
  return '\n\n'.join(filter(None, [
      '## Training',
      '`configs/nat/cifar10.py`, full size, the schedule over these epochs.'
      + (f' Not in the array cache, so left out: {left_out}.' if left_out else ''),
      _table(['variant', 'epochs', 'updates', 'accuracy', 'images/s'], rows),
      _lowered(found.get('report', ''))]))


def _lowered(report):
  """The report with its headings two levels lower."""
  return '\n'.join(f'##{line}' if line.startswith('#') else line
                   for line in report.strip().splitlines())


def _profile(found):
  sections = []
  for name, one in found.get('networks', {}).items():
    sections += [
        f'{TITLES[name]}, {one["updates"]} traced updates of '
        f'{one["traced_step_ms"]:.3g} ms, {one["device_ms"]:.3g} ms of operations per '
        'update. By kind, and the largest:',
        *[_table([title, 'ms per update', 'share'],
                 [[f'`{kind}`', f'{cost["ms"]:.3g}', f'{cost["share"]:.1%}']
                  for kind, cost in list(one[key].items())[:10]])
          for title, key in (('kind', 'kinds'), ('operation', 'costs'))]]
  return '\n\n'.join(['## Profile', *sections]) if sections else ''


def _states(parts):
  rows = []
  for name, found in parts.items():
    state = found.get('status', 'not started')
    state = 'cut off' if state == 'running' else state
    said = found.get('reason', '') if state not in ('done', 'cut off') else ''
    if state == 'failed':
      said = ': '.join([said, *found.get('error', [])[-1:]])
    rows.append([name, state, _number(found.get('part_seconds'), ',.0f'),
                 found.get('device', ''), found.get('commit', ''),
                 ' '.join(said.split()).replace('|', '/')[:300]])
  return '\n\n'.join(['## Parts', _table(
      ['part', 'status', 'seconds', 'device', 'commit', 'said'], rows)])
