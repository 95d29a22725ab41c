"""launch/gpu_report.sh and its parts, in tiny on a CPU; what it counts and prints."""

import json
import math
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from nat_jax import runs, schema
from nat_jax.models import resnet18
from nat_jax.schema import gan_recipes, recipes

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / 'launch' / 'gpu_report.sh'
PARTS = ['device', 'resnet18', 'resnet18_large', 'wide_resnet', 'gan', 'torch', 'train',
         'profile']
UPDATES = PARTS[1:5]


@pytest.fixture(scope='module')
def bench():
  """The modules of tests/bench, which are scripts beside one another."""
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / 'tests' / 'bench'))
    import gpu
    import gpu_parts
    import gpu_table
    import steps
    yield SimpleNamespace(gpu=gpu, parts=gpu_parts, table=gpu_table, steps=steps)


def start(*args, **env):
  return subprocess.run(
      [str(SCRIPT), *map(str, args)], text=True, capture_output=True, timeout=900,
      env=os.environ | {'PYTHON': sys.executable} | env)


def written(out):
  return {path.stem: json.loads(path.read_text()) for path in out.glob('*.json')}


def numbers(value):
  """All numbers in a JSON value."""
  if isinstance(value, dict | list):
    for each in value.values() if isinstance(value, dict) else value:
      yield from numbers(each)
  elif isinstance(value, int | float):
    yield value


# ---- the script ---------------------------------------------------------------------


@pytest.mark.process
def test_parts_share_the_budget(tmp_path):
  """In their order, each with its share, and together no more than there is."""
  out = tmp_path / 'results'
  lines = start(out, 700, DRY_RUN='1').stdout.splitlines()
  words = [line.split() for line in lines]
  assert [line[line.index('--out') - 1] for line in words] == PARTS
  limits = [int(line[2]) + int(line[1].partition('=')[2]) for line in words]
  assert all(int(line[line.index('--seconds') + 1]) == int(line[2]) for line in words)
  assert limits == [39, 89, 69, 90, 80, 80, 200, 50] and sum(limits) == 697
  assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_only_some_parts(tmp_path):
  """They have all of the time."""
  lines = start(tmp_path / 'results', 103, 'profile', 'train', DRY_RUN='1')
  limits = [line.split()[1:3] for line in lines.stdout.splitlines()]
  assert limits == [['--kill-after=8', '72'], ['--kill-after=2', '18']]


@pytest.mark.process
@pytest.mark.parametrize('args, told', [
    (['soon'], "expected whole seconds, got 'soon'"),
    (['60', 'resnet19'], "unknown part 'resnet19'; valid: device, resnet18, "),
    (['60', '--quick'], 'launch/gpu_report.sh'),
])
def test_mistakes(tmp_path, args, told):
  ran = start(tmp_path / 'results', *args)
  assert ran.returncode == 2 and told in ran.stdout + ran.stderr
  assert 'Traceback' not in ran.stderr


@pytest.mark.process
def test_a_missing_package_is_told_before_any_work(tmp_path):
  bare = tmp_path / 'python'
  bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
  bare.chmod(0o755)
  ran = start(tmp_path / 'results', 60, PYTHON=str(bare))
  assert ran.returncode == 2
  assert 'expected the packages that nat_jax needs' in ran.stdout
  assert ' jax, ' in ran.stdout and ' optax, ' in ran.stdout
  assert list(tmp_path.iterdir()) == [bare]


@pytest.mark.process
@pytest.mark.slow
def test_all_parts_and_a_second_start(tmp_path):
  """Each part leaves finite figures. One that fails is told, and the next one runs; the
  second start makes up for it, and repeats nothing."""
  out, work = tmp_path / 'results', tmp_path / 'scratch'
  work.mkdir()
  (work / 'runs').write_text('in the way of the workdirs')
  env = dict(JAX_PLATFORMS='cpu', JAX_DISABLE_MOST_OPTIMIZATIONS='1', WORK=str(work),
             COMMIT='1234abc')
  ran = start(out, 20_000, '--tiny', **env)
  assert ran.returncode == 1 and 'not done: train' in ran.stderr
  assert 'train failed: it ended with status 1' in ran.stdout
  found = written(out)
  assert list(filter(found.__contains__, PARTS)) == PARTS
  assert found['train']['status'] == 'failed'
  assert str(work / 'runs') in found['train']['error'][-1]
  assert found['torch']['status'] in ('done', 'skipped')
  for name in set(PARTS) - {'torch', 'train'}:
    assert found[name]['status'] == 'done', name
    assert found[name]['tiny'] is True and found[name]['commit'] == '1234abc'
    assert all(map(math.isfinite, numbers(found[name]))), name
  assert found['device']['bfloat16_tflops'] > 0
  for name in UPDATES:
    for key in ('step_ms', 'single_ms', 'updates_per_second', 'images_per_second',
                'loop_images_per_second', 'loop_share', 'flops', 'mfu_measured',
                'program_gb'):
      assert found[name][key] > 0, (name, key)
    assert found[name]['images_per_second'] == pytest.approx(
        found[name]['images_per_update'] * found[name]['updates_per_second'])
  assert set(found['profile']['networks']) == {'resnet18', 'gan'}
  for one in found['profile']['networks'].values():
    shares = [cost['share'] for cost in one['costs'].values()]
    assert len(shares) > 3 and shares == sorted(shares, reverse=True)
    assert shares[0] > 0 and sum(shares) < 1.001
    assert sum(cost['share'] for cost in one['kinds'].values()) == pytest.approx(1)

  (work / 'runs').unlink()
  before = {name: (out / f'{name}.json').read_bytes() for name in PARTS}
  ran = start(out, 20_000, '--tiny', **env)
  assert ran.returncode == 0, ran.stdout + ran.stderr
  after = written(out)
  for name in set(PARTS) - {'torch', 'train'}:
    assert f'{name}: done already' in ran.stderr
    assert (out / f'{name}.json').read_bytes() == before[name]
  assert after['train']['status'] == 'done' and 'error' not in after['train']
  assert set(after['train']['runs']) == {'baseline', 'nat'}
  assert all(map(math.isfinite, numbers(after['train'])))
  table = (out / 'table.md').read_text()
  assert table.strip() in ran.stdout and 'PAR_t' in table
  for heading in ('Device', 'Updates', 'Training', 'Profile', 'Parts'):
    assert f'## {heading}' in table
  assert sum(p.stat().st_size for p in out.rglob('*') if p.is_file()) < 16e6


# ---- FLOPs --------------------------------------------------------------------------


def ones(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_flops_of_products(bench):
  count, a, b = bench.steps.count_flops, ones(5, 2, 3), ones(5, 3, 7)
  assert count(jnp.matmul, a, b) == 2 * 5 * 2 * 3 * 7
  assert count(jax.jit(lambda a, b: jnp.tanh(a @ b)), a, b) == 2 * 5 * 2 * 3 * 7

  def loop(a, b):
    return jax.lax.scan(lambda x, _: (x @ b, None), a, length=11)

  assert count(loop, ones(2, 3), ones(3, 3)) == 11 * 2 * 2 * 3 * 3

  def branch(a, b):
    return jax.lax.cond(a[0, 0] > 0, lambda: a @ b @ b, lambda: a @ b)

  assert count(branch, ones(2, 3), ones(3, 3)) == 2 * 2 * 2 * 3 * 3


def test_flops_of_convolutions_and_their_gradients(bench):
  """The value and each of the two gradients have the products of one convolution."""
  def conv(x, w):
    return jax.lax.conv_general_dilated(
        x, w, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

  x, w = ones(4, 8, 8, 3), ones(2, 2, 3, 5)
  once = 2 * 4 * 4 * 4 * 5 * 2 * 2 * 3
  assert bench.steps.count_flops(conv, x, w) == once
  grad = jax.grad(lambda x, w: conv(x, w).sum(), argnums=(0, 1))
  assert bench.steps.count_flops(grad, x, w) == 3 * once


def test_flops_of_resnet18(bench):
  """Against the sum over its layers."""
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  model = resnet18(num_outputs=10)
  variables = jax.eval_shape(
      lambda x: model.init(jax.random.key(0), x, train=False), images)
  products = 3 * 64 * 9 * 32**2 + 4 * 64 * 64 * 9 * 32**2 + 512 * 10
  for width, size in ((128, 16), (256, 8), (512, 4)):
    products += (width // 2 * width * 10 + 3 * width * width * 9) * size**2
  assert bench.steps.count_flops(
      lambda v, x: model.apply(v, x, train=False)[0], variables, images) == 2 * products


# ---- configs ------------------------------------------------------------------------


def test_full_size_configs_are_those_of_the_recipes(bench):
  """But for what is said: networks, batches, images, the rate, no samples measured."""
  for name, (positives, negatives) in {
      'resnet18': (128, 16), 'resnet18_large': (512, 64), 'wide_resnet': (128, 16),
  }.items():
    config = runs.resolve(bench.parts.classifier_config(name, tiny=False))
    assert config['data']['batch_size'] == positives
    assert config['data']['negatives_per_batch'] == negatives
    assert config['model']['dtype'] == 'bfloat16'
    assert config['run'] == {**schema.defaults.RUN, **recipes.FULL['run']}
    assert config['optimizer'] == recipes.FULL['optimizer']
  config = runs.resolve(bench.parts.gan_config(tiny=False))
  assert config['data']['batch_size'] == 100 and config['evals'] == {}
  widths = config['generator']['width'], config['discriminator']['width']
  assert widths == gan_recipes.FULL['widths']


def test_training_leaves_out_sets_that_are_not_there(bench, tmp_path, monkeypatch):
  """The positive test set stays; whole calls of updates are made."""
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path))
  for folder in ('cifar10/train', 'cifar10/test', 'cifar100/train'):
    (tmp_path / folder).mkdir(parents=True)
  config, left_out = bench.parts.train_config('nat', 3, tiny=False)
  assert set(left_out) == {'cifar100_test', 'tiny_imagenet', 'ilsvrc', 'svhn', 'mnist'}
  assert config['steps'] == 1000  # 3 * 45,000 / 128 is 1055
  kept = runs.resolve(config)['evals']
  assert {'test', 'noise', 'cifar100_train', 'validation', 'calibration'} < set(kept)
  assert not set(left_out) & set(kept)


# ---- epochs, traces, tables ---------------------------------------------------------


@pytest.mark.parametrize('seconds, expected', [
    (300, 10),  # two runs of 150 s, of which 50 are no training
    (319, 10), (320, 11), (10, 1), (10**6, 200)])
def test_epochs_that_fit(bench, seconds, expected):
  assert bench.parts.plan_epochs(seconds, 10.0, 50.0) == expected


def line(name, *events):
  return SimpleNamespace(name=name, events=[
      SimpleNamespace(name=each, duration_ns=ns, stats=stats)
      for each, ns, stats in events])


def test_operations_of_a_trace(bench):
  """Of a GPU the kernels of its streams, and not the lines that sum them up; without
  one the HLO operations of the host's threads."""
  op = [('hlo_op', 'dot.1')]
  host = SimpleNamespace(name='/host:CPU', lines=[line(
      'thread', ('dot.1', 5, op), ('end: dot.1', 1, op), ('python', 7, []))])
  gpu = SimpleNamespace(name='/device:GPU:0', lines=[
      line('Stream #13', ('gemm', 3, []), ('copy', 1, [])),
      line('XLA Modules', ('jit_step', 4, []))])
  find = bench.parts.operations
  assert list(find(SimpleNamespace(planes=[host, gpu]))) == [('gemm', 3), ('copy', 1)]
  assert list(find(SimpleNamespace(planes=[host]))) == [('dot.1', 5)]


def test_kinds_of_operations(bench):
  costs = {'input_reduce_fusion': 3.0, 'sm90_fprop_implicit_gemm': 5.0,
           'cutlass::ReduceSplitK': 1.0, 'transpose_fusion': 2.0, 'loop_fusion': 4.0}
  assert bench.parts.by_kind(costs) == {
      'convolutions and products': 6.0, 'other': 4.0, 'reductions': 3.0, 'copies': 2.0}


def test_table_of_what_there_is(bench):
  """A cut off part shows what it had; what a part said cannot break the table."""
  parts = {name: {} for name in PARTS}
  parts['resnet18'] = dict(
      status='running', batch='128 + 16', images_per_update=144, dtype='bfloat16',
      step_ms=4.0, updates_per_second=250.0, images_per_second=36000.0,
      flops=480e9, mfu_measured=0.15)
  parts['torch'] = dict(
      status='done', torch='2', torch_device='a GPU', networks={
          'resnet18': {'step_ms': 6.0, 'images_per_second': 24000.0, 'batch': '4 + 2'},
          'resnet18_compiled': {'error': 'no compiler\nwas | found'}})
  parts['train'] = dict(status='failed', reason='its time was up', error=['a', 'b | c'])
  lines = bench.table.markdown(parts).splitlines()
  row = next(line for line in lines if line.startswith('| ResNet-18 | 128 + 16'))
  assert '| 36,000 |' in row and '| 480 | 15.0% |  |' in row
  assert '| ResNet-18 | 4 + 2 | no | 6 | 24,000 | 1.50 |  |' in lines
  assert '| ResNet-18 |  | yes |  |  |  | no compiler was / found |' in lines
  assert '| resnet18 | cut off |  |  |  |  |' in lines
  assert '| train | failed |  |  |  | its time was up: b / c |' in lines
  assert '| profile | not started |  |  |  |  |' in lines
  assert '## Device' not in lines and '## Training' not in lines


def test_how_a_part_ended_is_noted(bench, tmp_path, capsys):
  """With the last lines of its log and its figures; what it told itself stays."""
  (tmp_path / 'gan.log').write_text('one\n\ntwo\nValueError: three\n')
  bench.gpu.write(tmp_path, 'gan', {'tiny': False, 'status': 'running', 'step_ms': 1.0})
  bench.gpu.failed(tmp_path, 'gan', 124, tiny=False)
  found = written(tmp_path)['gan']
  assert found == {'tiny': False, 'status': 'failed', 'step_ms': 1.0,
                   'reason': 'its time was up',
                   'error': ['one', 'two', 'ValueError: three']}
  bench.gpu.write(tmp_path, 'train', {'tiny': False, 'status': 'unfinished'})
  bench.gpu.failed(tmp_path, 'train', 137, tiny=False)
  assert written(tmp_path)['train']['status'] == 'unfinished'
  capsys.readouterr()
  bench.gpu.write(tmp_path, 'device', {'tiny': False, 'status': 'done'})
  bench.gpu.write(tmp_path, 'profile', {'tiny': True, 'status': 'done'})
  bench.gpu.todo(tmp_path, [], tiny=False)
  listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
  assert listed == [name for name in PARTS if name != 'device']
