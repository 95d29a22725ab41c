"""Report on one GPU: runs a part of it, lists the parts to do, prints the table.

    python tests/bench/gpu.py resnet18 --out results --work scratch --seconds 60
    python tests/bench/gpu.py table --out results     # results so far, as Markdown

launch/gpu_report.sh runs each part in a process, with its share of the time. A part
writes OUT/PART.json at its start and again with each figure, so that a part that is
killed leaves the figures it has measured. No part needs TensorFlow or the network; only
`train` needs data, in the array cache (nat_jax/data/cache.py).
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gpu_table
from gpu_parts import PARTS, ROOT, Context, read

PACKAGES = (  # packages that nat_jax imports in training
    'absl', 'array_record', 'chex', 'clu', 'filelock', 'flax', 'grain', 'jax', 'jinja2',
    'matplotlib', 'ml_collections', 'optax', 'orbax', 'pandas', 'PIL', 'scipy',
    'sklearn', 'tensorflow_datasets', 'tqdm')
TAIL = 12  # last lines of the log that are copied into the JSON of a failed part


def write(out: pathlib.Path, name: str, figures: Mapping[str, Any]) -> None:
  """Writes the JSON of a part atomically."""
  partial = out / f'.{name}.json'
  partial.write_text(json.dumps(figures, indent=2) + '\n', encoding='utf-8')
  partial.replace(out / f'{name}.json')


def check() -> None:
  """Exits with status 2 if a package is missing."""
  missing = [name for name in PACKAGES if not importlib.util.find_spec(name)]
  if missing:
    print(f'expected the packages that nat_jax needs, but {sys.executable} has no '
          f'{", ".join(missing)}; launch/gpu_report.sh explains how to install them')
    sys.exit(2)


def todo(out: pathlib.Path, names: Sequence[str], tiny: bool) -> None:
  """Prints 'PART WEIGHT' of each part that is not done; names done parts on stderr."""
  for name in PARTS if not names else [each for each in PARTS if each in names]:
    found = read(out, name)
    if found.get('status') == 'done' and found.get('tiny') == tiny:
      print(f'{name}: done already', file=sys.stderr)
    else:
      print(name, PARTS[name][1])


def failed(out: pathlib.Path, name: str, code: int, tiny: bool) -> None:
  """Writes to the JSON of a part why it failed, with the last lines of its log.

  If the part had written its final status before it was killed, nothing is changed.

  Args:
    out: folder of the results.
    name: of the part.
    code: exit status of its process; 124 and 137: from `timeout`.
    tiny: whether the part ran with --tiny.
  """
  log = out / f'{name}.log'
  lines = log.read_text(errors='replace').splitlines() if log.exists() else []
  reason = {124: 'its time was up', 137: 'its time was up, or its memory'}.get(
      code, f'it ended with status {code}')
  tail = [line[-300:] for line in lines if line.strip()][-TAIL:]
  found = read(out, name)
  if found.get('tiny') != tiny:
    found = {'tiny': tiny}
  if found.get('status') not in ('running', None):
    return
  write(out, name, {**found, 'status': 'failed', 'reason': reason, 'error': tail})
  print(f'{name} failed: {reason}', *tail, sep='\n  ')


def run(args) -> None:
  """Runs a part and writes its JSON."""
  name, out = args.what, args.out
  found = read(out, name)
  if found.get('tiny') != args.tiny:
    found = {}
  figures = {'part': name, 'tiny': args.tiny}
  # Results of an earlier start that the part does not measure again are kept.
  figures |= {key: found[key] for key in ('epochs', 'runs', 'networks') if key in found}
  figures |= {'status': 'running', 'commit': _commit()}

  def save(**more):
    figures.update(more)
    write(out, name, figures)

  save()
  started = time.monotonic()
  status = PARTS[name][0](Context(
      name, out, args.work, args.seconds, args.tiny, found, save))
  save(status=status or 'done', part_seconds=time.monotonic() - started, **_device())


def _device():
  """The device of this process, for the table; {} if it has not imported JAX."""
  if 'jax' not in sys.modules:
    return {}
  import jax

  return {'device': jax.devices()[0].device_kind, 'jax_version': jax.__version__}


def _commit():
  """The commit of this checkout, or $COMMIT for a copy without its history."""
  if os.environ.get('COMMIT'):
    return os.environ['COMMIT']
  with contextlib.suppress(OSError, subprocess.SubprocessError):
    return subprocess.run(
        ['git', '-C', str(ROOT), 'describe', '--always', '--dirty'], text=True,
        capture_output=True, timeout=20, check=True).stdout.strip()
  return 'unknown'


def main() -> None:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('what', choices=[*PARTS, 'check', 'todo', 'failed', 'table'])
  parser.add_argument('names', nargs='*', metavar='PART')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('gpu_report'))
  parser.add_argument('--work', type=pathlib.Path)
  parser.add_argument('--seconds', type=float, default=60.0)
  parser.add_argument('--status', type=int, default=1)
  parser.add_argument('--tiny', action='store_true')
  args = parser.parse_args()
  for name in args.names:
    if name not in PARTS:
      parser.error(f'unknown part {name!r}; valid: {", ".join(PARTS)}')
  args.work = args.work or args.out.with_name(f'{args.out.name}.work')
  if args.what == 'check':
    return check()
  if args.what == 'todo':
    return todo(args.out, args.names, args.tiny)
  args.out.mkdir(parents=True, exist_ok=True)
  args.work.mkdir(parents=True, exist_ok=True)
  if args.what == 'failed':
    failed(args.out, args.names[0], args.status, args.tiny)
  elif args.what == 'table':
    text = gpu_table.markdown({name: read(args.out, name) for name in PARTS})
    (args.out / 'table.md').write_text(text, encoding='utf-8')
    print(text)
  else:
    run(args)


if __name__ == '__main__':
  main()
