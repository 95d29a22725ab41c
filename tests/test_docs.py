"""README.md and docs/: their links and paths exist, their examples run."""

import contextlib
import doctest
import importlib
import importlib.util
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from urllib import parse

import jax
import numpy as np
import pytest
import toy
from absl import flags
from PIL import Image

from nat_jax import data, losses, models, runs, schema
from nat_jax.commands import COMMANDS
from nat_jax.schema import presets
from nat_jax.tasks import TASKS, classify

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / 'README.md'
PAGES = [README, *sorted((ROOT / 'docs').glob('*.md'))]
TABLES = (
    losses.OBJECTIVES, losses.GAN_OBJECTIVES, models.MODELS, data.SOURCES,
    schema.DEFAULTS, schema.ENTRY_KEYS, TASKS, classify.EVALUATORS)
TRAINED = ('brier', 'entropy', 'build')  # examples; the others are traced
PLACES = ('configs', 'docs', 'launch', 'nat_jax', 'tests')
SYNOPSES = (  # modules of nat_jax whose docstrings hold examples that run
    'data', 'data.points', 'data.sources', 'losses.negative_aware',
    'metrics.calibration', 'metrics.detection', 'metrics.intervals', 'metrics.ncr',
    'metrics.scores', 'metrics.segmentation',
    'metrics.selective', 'metrics.table', 'names', 'registry',
    'reports.claims', 'reports.paper', 'reports.tables', 'schema.bounds',
    'schema.gan_recipes', 'schema.recipes')


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request):
  return request.param


def drawing():
  """docs/draw_architecture.py, which is no part of the package."""
  spec = importlib.util.spec_from_file_location(
      'draw_architecture', ROOT / 'docs' / 'draw_architecture.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def anchors(page):
  """The anchors of a page's headings, as GitHub makes them."""
  headings = re.findall(r'^#+ (.*)$', page.read_text(), re.M)
  return {re.sub(r'[^\w -]', '', one.lower()).replace(' ', '-') for one in headings}


def test_readme_is_short():
  assert len(README.read_text().splitlines()) <= 250


def test_links_and_images_exist(page):
  links = re.findall(r'\]\(([^)\s]+)\)', page.read_text())
  relative = [link for link in links if not parse.urlparse(link).scheme]
  assert relative
  for link in relative:
    path, _, anchor = link.partition('#')
    target = page.parent / path if path else page
    assert target.exists(), link
    if anchor:
      assert anchor in anchors(target), link


def test_named_paths_exist(page):
  """But what a variant or a list in braces follows, or what is written as CAPITALS."""
  text = re.sub(r'https?://\S+', '', page.read_text())
  named = re.findall(rf'(?<![\w/.-])(?:{"|".join(PLACES)})/[\w./-]*', text)
  for path in {one.rstrip('./-') for one in named}:
    assert (ROOT / path).exists(), f'{page.name} names {path}'
  assert named


def test_named_variants_exist(page):
  """configs/digits.py:nat and configs/digits.py:{nat,baseline}."""
  # attention_transfer.sh takes the form of all variants instead of one variant.
  text = re.sub(r'launch/attention_transfer\.sh[^`]*', '', page.read_text())
  for path, variants in re.findall(
      r'(configs/[\w/]+\.py):(\{[\w,/]+\}|\w+)', text):
    spec = importlib.util.spec_from_file_location('a_config', ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if path in ('configs/pictures.py', 'configs/gan/pictures128.py',
                'configs/embeddings.py', 'configs/finetune.py'):  # variants are paths
      continue
    for variant in variants.strip('{}').split(','):
      assert module.get_config(variant).variant


def test_modes_and_flags_exist(page):
  importlib.import_module('nat_jax.main')  # defines the flags
  text = page.read_text()
  assert set(re.findall(r'--mode=(\w+)', text)) <= set(COMMANDS)
  lines = re.sub(r'\\\n', ' ', text).splitlines()
  for line in (line for line in lines if 'nat_jax.main' in line):
    for name in re.findall(r'(?<= --)\w+', line):
      assert name == 'help' or name in flags.FLAGS, line


def test_tables_of_names_stand_where_extending_says():
  text = (ROOT / 'docs' / 'extending.md').read_text()
  rows = re.findall(r'^\|[^|]*\|(.*)\|(.*)\|$', text, re.M)[2:]
  assert len(rows) == 17
  for tables, files in rows:
    code = ''.join((ROOT / path).read_text() for path in re.findall(r'`(.*?)`', files))
    for name in re.findall(r'`(\w+)`', tables):
      assert re.search(rf'^{name}\b.*= \{{', code, re.M), name


@contextlib.contextmanager
def as_they_are(tables):
  """Gives tables back what they held."""
  before = [dict(table) for table in tables]
  try:
    yield
  finally:
    for table, held in zip(tables, before, strict=True):
      table.clear()
      table.update(held)


def trace(**config):
  """Loads, builds and traces a step: what a trial run does, but for the compilation."""
  config = runs.resolve(presets.experiment(steps=2, num_classes=4, **config))
  task = TASKS[config['task']]
  inputs = task.load(config, 1)
  trainer = task.build(config, inputs.shape, runs.OTHERS)
  state = jax.eval_shape(trainer.init, jax.random.key(0))
  batch = data.gather(inputs.pool, inputs.stream.index(0))
  after, _ = jax.eval_shape(trainer.step, state, trainer.frozen(), batch)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
      lambda x: (x.shape, x.dtype), state)


def test_examples_run(tmp_path, monkeypatch):
  text = (ROOT / 'docs' / 'extending.md').read_text()
  first, *examples = re.findall(r'^```python\n(.*?)^```', text, re.M | re.S)
  assert len(examples) == 6
  monkeypatch.chdir(tmp_path)
  space = {'__name__': 'extending'}
  exec(compile(first, 'docs/extending.md', 'exec'), space)
  trial = space['trial']
  with as_they_are(TABLES):
    for block in examples:
      assert block.count('\n') <= 21, block
      trains = any(f'def {name}(' in block for name in TRAINED)
      space['trial'] = trial if trains else trace
      exec(compile(block, 'docs/extending.md', 'exec'), space)
    new = {'brier', 'least_squares', 'linear', 'npz', 'late', 'entropy'}
    assert new <= set().union(*TABLES)
    assert TASKS['late'].commands == ('evaluate',)  # not those of 'classify'
  assert 'late' not in TASKS


@pytest.mark.parametrize('name', SYNOPSES)
def test_synopses_run(name):
  found = doctest.testmod(importlib.import_module(f'nat_jax.{name}'))
  assert found.attempted and not found.failed


def test_drawing_is_of_the_package_and_points_downwards(tmp_path):
  draw = drawing()
  assert set(draw.RANK_OF) == set(draw.rooms())
  found = draw.arrows()
  assert {('train', 'runs'), ('tasks', 'losses'), ('main', 'commands')} <= set(found)
  for one, other in found:
    assert draw.RANK_OF[other] < draw.RANK_OF[one], f'{one} imports {other}'
  for name in ('one.png', 'other.png'):
    draw.draw(tmp_path / name)
  assert (tmp_path / 'one.png').read_bytes() == (tmp_path / 'other.png').read_bytes()


@pytest.mark.slow
@pytest.mark.process
def test_the_guide_to_deployment_runs(tmp_path, monkeypatch, capsys):
  """Its commands as they are written, with few updates."""
  (tmp_path / 'photos').mkdir()
  for k, image in enumerate(data.digits('test').image[:30]):
    Image.fromarray(image.squeeze()).resize((40, 40)).save(tmp_path / f'photos/{k}.png')
  monkeypatch.chdir(tmp_path)
  text = (ROOT / 'docs' / 'deploy.md').read_text()
  commands = re.findall(r'^python (.*)$', text, re.M)
  assert len(commands) == 6
  for command in map(shlex.split, commands):
    if command[:2] == ['-m', 'nat_jax.main']:
      short = ['--config.steps=60'] if '--config' in command else []
      toy.run_main(monkeypatch, *command[2:], *short)
    else:
      subprocess.run([sys.executable, *command], check=True, timeout=300, env=(
          os.environ | {'JAX_PLATFORMS': 'cpu'}))
  run = tmp_path / 'runs' / 'digits'
  assert json.loads((run / 'calibration.json').read_text())['accept'] == 0.9
  assert (run / 'predictions.sheet.png').exists() and (run / 'model.zip').exists()
  assert '30 readable pictures' in capsys.readouterr().out


@pytest.fixture
def own_pictures(tmp_path):
  """The folders and the table of docs/pictures.md, of small smooth pictures."""
  def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    values[..., seed % 3] //= 4
    Image.fromarray(values).resize((15, 12), Image.Resampling.BICUBIC).save(path)

  rows = ['path,label,group']
  for k in range(600):
    kind = ('pets/cat', 'pets/dog', 'others')[k % 3]
    picture(tmp_path / kind / f'{k}.jpg', k)
    picture(tmp_path / 'scans' / f'{k}.png', k)
    rows.append(f'scans/{k}.png,{("ill", "well", "")[k % 3]},p{k // 4}')
  picture(tmp_path / 'photos' / '1.jpg', 0)
  (tmp_path / 'scans.csv').write_text('\n'.join(rows))
  return tmp_path


@pytest.mark.slow
def test_the_guide_to_own_pictures_runs(own_pictures, monkeypatch, capsys):
  """Its commands as they are written, with a small network and few updates."""
  text = (ROOT / 'docs' / 'pictures.md').read_text()
  commands = re.findall(r'^python -m nat_jax.main (.*)$', text, re.M)
  assert len(commands) == 5
  for kind in ('raccoon', 'crow'):
    (own_pictures / 'strangers').mkdir(exist_ok=True)
    (own_pictures / 'strangers' / kind).symlink_to(own_pictures / 'others')
  experiment = presets.experiment

  def quick(**settings):
    settings |= {'steps': 4, 'model': {'name': 'mlp', 'width': 8, 'depth': 1},
                 'patience': 4, 'compare_with': '', 'run': {
                     **settings['run'], 'eval_every': 2, 'checkpoint_every': 2}}
    return experiment(**settings)

  monkeypatch.setattr(presets, 'experiment', quick)
  monkeypatch.chdir(own_pictures)
  for command in commands:
    toy.run_main(monkeypatch, *shlex.split(command))
  assert 'report.html' in capsys.readouterr().out
  for path in ('pets/report.html', 'pets/calibration.json', 'pets/predictions.csv',
               'pets/duplicates.csv', 'scans/eval.json'):
    assert (own_pictures / 'runs' / path).exists(), path
  found = json.loads((own_pictures / 'runs' / 'scans' / 'eval.json').read_text())
  assert found['class_names'] == ['ill', 'well'] and 'others' in found['evals']
  found = json.loads((own_pictures / 'runs' / 'strangers' / 'eval.json').read_text())
  assert {'raccoon', 'crow', 'others'} < set(found['evals'])
