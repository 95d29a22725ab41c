"""How the package is built: import ranks, one place for each library, configs."""

import ast
import functools
import itertools
import json
import pathlib
import re
import sys

import jax
import numpy as np
import pytest
import toy
from absl import flags
from ml_collections import config_flags
from PIL import Image

from nat_jax import data, runs, schema, train
from nat_jax.schema import presets
from nat_jax.tasks.classify import inputs

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / 'nat_jax'

# A module imports strictly lower ranks and its own package.
RANKS = {
    'names': -1,
    'schema': 0, 'registry': 0, 'task': 0,
    'losses': 1, 'models': 1, 'data': 1, 'metrics': 1,
    'runtime': 2,
    'reports': 3,
    'tasks': 4,
    'runs': 5,
    'train': 6, 'detectors': 6,
    'classifier': 7, 'influence': 7,
    'serving': 8,
    'commands': 9,
    'main': 10,
    '__main__': 11,
}

# Library -> the only files that may import it or use it.
PLACES = {
    'matplotlib': {
        'reports/figures.py', 'reports/pictures.py', 'tasks/gan/figures.py',
        'tasks/points/figures.py',
        'tasks/time_series/figures.py', 'tasks/zero_shot/figures.py'},
    'orbax': {'runtime/checkpoint.py'},
    'clu.metric_writers': set(),  # imports TensorFlow
    'tensorboard': {'runtime/writers.py'},
    'jax.jit': {'runtime/parallel.py', 'runtime/portable.py'},
    'jax.export': {'commands/standalone.py', 'runtime/portable.py'},
    'jax.pmap': {'runtime/parallel.py'},
    'jax.make_mesh': {'runtime/parallel.py'},
    'jax.sharding': {'runtime/parallel.py'},
    'tensorflow': set(),
    'torch': {'runtime/backbones.py'},  # with timm, in the extra `embed` only
    'timm': {'runtime/backbones.py'},
    'safetensors': {'models/weights.py'},  # in the extra `pretrained` only
}
SOURCES = sorted(PACKAGE.rglob('*.py'))


def imported(path):
  """The modules that a file imports, at the top or in a function, as dotted names."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}: relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def used(path):
  """What a file imports, and every dotted name in its code but in annotations."""
  tree = ast.parse(path.read_text())
  annotations = set()
  for node in ast.walk(tree):
    for part in (getattr(node, 'annotation', None), getattr(node, 'returns', None)):
      annotations.update(ast.walk(part) if part is not None else ())
  yield from imported(path)
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute) and node not in annotations:
      yield ast.unparse(node)


def test_functions_fit_on_a_screen():
  """At most 80 lines each, with signature and docstring."""
  for path in SOURCES:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.FunctionDef):
        lines = node.end_lineno - node.lineno + 1
        assert lines <= 80, f'{path}: {node.name} has {lines} lines'


def room(path):
  """The top-level module or package that a file belongs to."""
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def test_imports_point_one_way():
  for path in SOURCES:
    if room(path) == '__init__':
      continue
    assert room(path) in RANKS, f'{path}: give it a rank in this test'
    for name in imported(path):
      package, _, rest = name.partition('.')
      other = rest.partition('.')[0]
      if package != 'nat_jax' or other in ('', room(path)):
        continue
      assert RANKS[other] < RANKS[room(path)], f'{path} imports {name}'


def test_each_library_has_its_place():
  for path in SOURCES:
    file = str(path.relative_to(PACKAGE))
    for name in used(path):
      for library, places in PLACES.items():
        if file not in places:
          assert not f'{name}.'.startswith(f'{library}.'), f'{file} uses {name}'


def test_configs_do_not_import_jax():
  for path in (ROOT / 'configs').rglob('*.py'):
    for name in imported(path):
      assert name.partition('.')[0] not in ('jax', 'flax', 'optax'), f'{path}: {name}'


def variants(get_config):
  """The variants that a config names when it is asked for one it does not have."""
  with pytest.raises(ValueError, match=r"'\?'.*valid: ") as error:
    get_config('?')
  _, valid = str(error.value).split('valid: ')
  names, *forms = re.split(r'[,;] each also with ', valid)
  names = names.split(', ')
  ends = forms[0].split(', ') if forms else []
  return names + [name + end for end in ends for name in names]


SHAPES = {'mnist': (28, 28, 1)}


def shape_of(source):
  """The shape of an image of a source, without its data."""
  if source['name'] == 'digits':
    return (8, 8, 1)
  if source['name'] == 'folder':
    return (source['size'], source['size'], 3)
  if source['name'] == 'arrays':
    return (4,)
  return SHAPES.get(source['dataset'], (32, 32, 3))


def folder_specs(value, key=''):
  """(dotted key, spec) of every source 'folder' in a config."""
  if isinstance(value, dict):
    if value.get('name') == 'folder':
      yield key, value
    for name, part in value.items():
      yield from folder_specs(part, f'{key}.{name}' if key else name)


def all_configs(given):
  """(name, config) of all variants; `given`: config -> variants that are paths."""
  for path in sorted((ROOT / 'configs').rglob('*.py')):
    get_config = toy.config_file(path)
    for name in given.get(path.stem) or variants(get_config):
      yield f'{path.relative_to(ROOT)}:{name}', get_config(name)


def make_batch(shape, *sizes):
  """The shapes of a batch."""
  return {
      'image': jax.ShapeDtypeStruct((*sizes, *shape), np.uint8),
      'label': jax.ShapeDtypeStruct(sizes, np.int32),
      'weight': jax.ShapeDtypeStruct(sizes, np.float32),
  }


def own_data(folder):
  """Folders of a picture each and a file of vectors: {config: variants for them}."""
  for name in ('yes/cat', 'yes/dog', 'no', 'zoo/owl', 'zoo/fox'):
    (folder / name).mkdir(parents=True)
    Image.new('RGB', (9, 9)).save(folder / name / 'picture.png')
  vector = np.random.default_rng(0).normal(size=(90, 4))
  for name in 'xz':
    np.savez(folder / f'{name}.npz', vector=vector, label=np.arange(90) % 3 - 1)
  return {
      'pictures': [f'{folder}/yes,{folder}/no', f'{folder}/yes',
                   f'{folder}/yes,{folder}/no,{folder}/zoo',
                   f'baseline:{folder}/yes,{folder}/no'],
      'pictures128': [f'{method}:{folder}/yes,{folder}/no'
                      for method in ('hinge_sn', 'sagan', 'biggan', 'nat3')],
      'finetune': [f'{folder}/yes,{folder}/no,{folder}/zoo',
                   f'baseline:{folder}/yes,{folder}/no'],
      'embeddings': [f'{folder}/x.npz,,{folder}/z.npz', f'baseline:{folder}/x.npz']}


def trainers(tmp_path):
  """(name, resolved config, shape of its images, trainer) of every variant."""
  for name, config in all_configs(own_data(tmp_path)):
    config = config.to_dict()
    # Tested in tests/test_points.py and tests/tasks/test_TASK.py.
    if config['task'] in ('points', 'outliers', 'advgan', 'segment', 'time_series',
                          'zero_shot'):
      continue
    if 'teacher' in config['trainer']:  # which is another run: not here
      config['trainer'] = {'name': 'supervised'}
    for entry in config['data'].get('negatives', {}).values():
      if entry['source']['name'] == 'run':  # which is another run: not here
        entry['source'] = {'name': 'normal_noise'}
    config = runs.resolve(config)
    if config['compare_with']:
      assert name.partition(':')[2] != config['compare_with']
    shape = shape_of(config['data']['positives'])
    assert len(config['data']['mean']) in (1, shape[-1]), name
    yield name, config, shape, runs.build_trainer(config, shape)


def test_every_config_builds(tmp_path):
  for name, config, _, trainer in trainers(tmp_path):
    for update in (0, config['steps'] - 1):
      assert np.isfinite(trainer.learning_rate(update)), name


@pytest.mark.slow
def test_every_config_traces_its_step(tmp_path):
  """Each model and each loss is traced in one of the variants."""
  traced, key = set(), jax.random.key(0)
  for name, config, shape, trainer in trainers(tmp_path):
    treated = [config.get('loss'), config.get('gan_loss'),
               config['data'].get('treatment')]
    nets = [config.get(key)
            for key in ('model', 'generator', 'discriminator', 'encoder')]
    parts = {json.dumps(part) for part in (nets, treated)}
    if parts <= traced:
      continue
    traced |= parts
    num = config['data']['batch_size']
    batch = make_batch(shape, num)
    if config['task'] == 'semi_supervised':
      batch = {name: make_batch(shape, num) for name in ('labelled', 'unlabelled')}
    elif 'generator' in config:
      updates = config['trainer'].get('n_critic', 1)
      batch = {name: make_batch(shape, size, updates)
               for name, size in (('positive', num), ('negative', 3))}
    state = jax.eval_shape(trainer.init, key)
    after, _ = jax.eval_shape(trainer.step, state, {}, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state), name
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state), name
  assert len(traced) >= 8


@functools.cache
def rows_of(place, split, classes):
  """What a source takes of a data set whose splits have 200 rows of every class."""
  splits = ['all'] if '/' in place else ['train', 'validation', 'test']
  counts = dict.fromkeys(splits, 200)
  return frozenset(
      (place, name, row, label) for name, rows in data.split_slices(split, counts)
      for row in range(rows.start, rows.stop) for label in classes)


def images_of(source):
  if 'split' not in source:  # synthetic
    return frozenset()
  place = source.get('dataset', '').replace('/', '-') or source.get('path', 'digits')
  classes = source.get('classes') or [source.get('rows', 0)]
  return rows_of(place, source['split'], tuple(classes))


def test_parts_of_every_config_share_no_image(tmp_path):
  """But test sets that show, on purpose, the training negatives themselves."""
  forms = set()
  for name, config in all_configs(own_data(tmp_path)):
    config = config.to_dict()
    if 'reference' not in config or config['task'] == 'segment':
      continue
    negatives = frozenset().union(*(
        images_of(entry['source'])
        for entry in config['data'].get('negatives', {}).values()))
    trained = images_of(config['data']['positives']) | negatives
    held_out = {part: frozenset() for part in schema.PARTS}
    for entry in config['evals'].values():
      images, part = images_of(entry['source']), entry.get('part', schema.TEST)
      held_out[part] |= images
      shown = part == schema.TEST and not entry.get('positive') and images <= negatives
      assert shown or not images & trained, name
    for part, other in itertools.combinations(schema.PARTS, 2):
      assert not held_out[part] & held_out[other], f'{name}: {part} and {other}'
    assert (config['best'], config['patience']) == (
        ('validation/accuracy', 1000) if 'pictures.py' in name else
        ('validation/accuracy', 150) if 'finetune.py' in name else
        ('validation/accuracy', 500) if 'embeddings.py' in name else ('', 0))
    parts = set(inputs.references(config))
    whole = '_paper' in name or any(  # nothing is chosen in these
        one in name for one in (
            'gan/classifier.py', 'configs/negatives.py', 'configs/screen.py'))
    assert parts == ({schema.TEST} if whole else set(schema.PARTS)), name
    if not whole:
      assert all(held_out[part] for part in parts), name
    forms.add((config['name'], whole))
  assert {('cifar10_small', False), ('cifar10_small_paper', True), ('mnist', False),
          ('at_small_paper', True), ('digits', False), ('yes', False),
          ('x', False)} <= forms


def test_unreadable_pictures_can_be_passed_over(tmp_path, monkeypatch):
  """The advice of the error can be followed for every folder of configs/pictures.py."""
  for name in ('yes/cat', 'yes/dog', 'no', 'zoo/owl', 'zoo/fox'):
    (tmp_path / name).mkdir(parents=True)
    for k in range(30):
      Image.new('RGB', (9, 9)).save(tmp_path / name / f'{k}.png')
  (tmp_path / 'yes' / 'cat' / 'bad.png').write_bytes(b'not a picture')
  (tmp_path / 'no' / 'bad.png').write_bytes(b'not a picture')
  path = f'{ROOT}/configs/pictures.py'
  config = toy.config_file(path)(f'{tmp_path}/yes,{tmp_path}/no').to_dict()
  advice = 'bad.png.*--config.data.skip_unreadable=True'
  wrong = []
  for _, spec in folder_specs(config):
    try:
      data.load(spec)
    except ValueError as error:
      assert re.search(advice, str(error))
      wrong.append(spec['path'])
  assert sorted(pathlib.Path(path).name for path in wrong) == ['no', 'yes']
  schema.check_override('data.skip_unreadable')
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values, lock_config=True)
  monkeypatch.setattr(sys, 'argv', [  # where ml_collections looks too
      'main', f'--config={path}:{tmp_path}/yes,{tmp_path}/no',
      '--config.data.skip_unreadable=True'])
  values(sys.argv)
  specs = dict(folder_specs(runs.resolve(values.config)))
  assert len(specs) == len(dict(folder_specs(config))) >= 4
  assert all(spec['skip_unreadable'] is True for spec in specs.values())
  for spec in specs.values():
    assert len(data.load(spec).label)


class Recorder(dict):
  """A config that remembers which of its keys were asked for."""

  def __init__(self, config, read, prefix=''):
    super().__init__(config)
    self.read, self.prefix = read, prefix
    for group in schema.groups(schema.base_of(config)) if not prefix else ():
      super().__setitem__(group, Recorder(config[group], read, f'{group}.'))

  def __getitem__(self, key):
    self.read.add(self.prefix + key)
    return super().__getitem__(key)

  def get(self, key, default=None):
    return self[key] if key in self else default


SOURCE = {'name': 'fake', 'num': 32}
DATA = dict(positives=SOURCE, negatives={'n': {'source': SOURCE}}, batch_size=8,
            negatives_per_batch=8)
EXAMPLES = {
    'classifier': dict(
        num_classes=4, model={'name': 'mlp', 'width': 4, 'depth': 1},
        loss={'name': 'nat'}, eval_batch_size=32, best='validation/accuracy',
        data=DATA | dict(treatment={'name': 'mix'}),
        evals={'test': {'source': SOURCE, 'positive': True},
               'validation': {
                   'source': SOURCE, 'positive': True, 'part': 'validation'}}),
    'gan': dict(
        task='gan', num_classes=4, data=DATA,
        measures=dict(num_samples=8, batch_size=8),
        evals={'samples': {'type': 'samples'}, 'quick': {'type': 'quick'}},
        generator={'name': 'mlp_generator', 'latent': 2, 'widths': (4,)},
        discriminator={'name': 'mlp_discriminator', 'widths': (4,)}),
    'points': dict(
        task='points', num_seeds=1, num_samples=10, run={'eval_every': 1},
        data={'name': 'gaussian1d', 'num': 50}),
    'outliers': dict(
        task='outliers', num_generators=2, freeze_after=1,
        data=dict(examples={'name': 'breast_cancer', 'outliers': 9})),
    'segment': dict(
        task='segment', segmenter={'name': 'unet', 'widths': (2,)},
        generator={'name': 'unet', 'widths': (2,)}, loss={'name': 'nat'},
        discriminator={'name': 'patch_discriminator', 'widths': (2,)},
        data=dict(batch_size=8, pasted_per_batch=8),
        evals={'test': {'source': {'name': 'scenes', 'num': 20}}}),
    'time_series': dict(
        task='time_series', latent=1, width=2,
        data=dict(series={'name': 'sines', 'num': 60}, window=6, negative_share=1.0,
                  batch_size=8, test={'name': 'sines', 'num': 50, 'segments': 1}),
        measures=dict(inversion_steps=1, pca_components=2)),
    'zero_shot': dict(
        task='zero_shot', num_generated=2, data=dict(source={
            'name': 'attributes', 'num_classes': 6, 'num_unseen': 2, 'num_held_out': 2,
            'num_features': 4, 'per_class': 5})),
}


@pytest.mark.parametrize('kind', [
    kind if kind == 'classifier' else pytest.param(kind, marks=pytest.mark.slow)
    for kind in EXAMPLES])
def test_every_key_of_a_config_is_read(kind, tmp_path, monkeypatch):
  config = presets.experiment(
      steps=2, compare_with='x', **EXAMPLES[kind])
  read, resolve = set(), runs.resolve
  monkeypatch.setattr(runs, 'resolve', lambda c: Recorder(resolve(c), read))
  train.train(config, str(tmp_path))
  read.add('compare_with')  # by commands/plan.py: tests/test_plan.py
  # By runs.resolve: tests/test_pictures.py.
  read.update(('data.image_size', 'data.skip_unreadable'))
  read.add('data.backbone')  # by tasks/classify/view.py: tests/test_embed.py
  base = schema.base_of(config.to_dict())
  keys = {*base, *(
      f'{group}.{key}' for group in schema.groups(base) for key in base[group])}
  assert keys - read == set()
