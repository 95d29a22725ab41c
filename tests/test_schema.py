"""What a config may hold: each value has its bounds, and nonsense gets a message."""

import copy
import inspect
import json
import math
import random

import jax
import pytest

from nat_jax import data, losses, models, runs, schema
from nat_jax.commands import jobs
from nat_jax.runtime import feed, optim, parallel
from nat_jax.schema import bounds, presets
from nat_jax.tasks import (
    advgan,
    classify,
    gaan,
    gan,
    generated,
    segment,
    semi_supervised,
    zero_shot,
)
from nat_jax.tasks.classify import inputs
from nat_jax.tasks.gan import features
from nat_jax.tasks.points import step as points

NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize('interval, inside, outside', [
    ('[0, 1)', (0, 0.5, 0.999, -0.0), (1, -1e-9)),
    ('(0, 1]', (1e-9, 1), (0, 1.001)),
    ('[1, 1e9]', (1, 10**9), (0, 10**9 + 1, 10**400)),
])
def test_intervals_hold_their_ends_and_numbers_alone(interval, inside, outside):
  for bound in (bounds.number(interval), bounds.whole(interval)):
    for x in (*outside, NAN, INF, -INF, None, True, '1', [], {}):
      assert not bound.holds(x), x
  assert all(map(bounds.number(interval).holds, inside))
  assert [x for x in inside if bounds.whole(interval).holds(x)] == [
      x for x in inside if isinstance(x, int)]


def test_lists_and_texts():
  pair = bounds.listed(bounds.whole('[0, 9]'), 2, 2)
  assert pair.holds([1, 2]) and pair.holds((1, 2))
  assert not any(map(pair.holds, ([1], [1, 2, 3], [1, 0.5], '12', {1: 2}, 12)))
  text = bounds.text(4)
  assert text.holds('éé') and not any(map(text.holds, ('ééé', 'a\nb', 'a\0', None, 1)))


# What is chosen -> all that may be, and the arguments that the program adds.
IMAGE = {'image_shape', 'num_classes', 'num_outputs', 'axis_name'}
SECTIONS = {
    'trainer': (
        classify.TRAINERS | gaan.TRAINERS | advgan.TRAINERS | semi_supervised.TRAINERS
        | segment.TRAINERS
        | {f'gan: {name}': fn for name, fn in gan.TRAINERS.items()}
        | {'points': points.TRAINERS['gaan']}
        | zero_shot.TRAINERS, IMAGE | {
            'decoder', 'regressor', 'latent', 'shape', 'num_copies', 'frozen',
            'model', 'objective', 'tx', 'gen_tx', 'disc_tx', 'generator',
            'discriminator', 'augment', 'normalise', 'treat', 'ema_decay', 'student',
            'penalties', 'enc_tx', 'micro_batches', 'target', 'student_tx',
            'networks', 'supervised', 'segmenter', 'class_weights', 'gan_tx'}),
    'target': (advgan.TARGETS, {'others'}),
    'pixel_model': (models.PIXEL_MODELS, {'num_outputs', 'parent', 'name'}),
    'model': (models.MODELS, IMAGE),
    'generator': (models.GENERATORS, IMAGE | {'table'}),
    'discriminator': (models.DISCRIMINATORS, IMAGE),
    'loss': (losses.OBJECTIVES | losses.GAN_OBJECTIVES, {'num_classes'}),
    'optimizer': (optim.OPTIMIZERS, {'learning_rate'}),
    'schedule': (optim.SCHEDULES, {'steps'}),
    'treatment': (classify.TREATMENTS, set()),
    'augment': (data.AUGMENTS, set()),
    'corruption': (data.CORRUPTIONS, {'images', 'numbers'}),
    'source': (data.SOURCES | data.SYNTHETIC | generated.FROM_RUNS
               | {f'masks: {name}': fn for name, fn in data.PAIRS.items()},
               {'like', 'settings', 'others', 'void'}),
    'features': (features.FEATURES, {'mesh', 'image_shape', 'others'}),
    'penalty': (losses.PENALTIES, set()),
    'points': (data.POINTS, set()),
    'series': (data.SERIES, {'reading'}),
    'zero_shot': (data.ZERO_SHOT, set()),
    'noise': ({'grid': points.GridNoise},
              {'generator', 'axis_name', 'parent', 'name'}),
}


def test_every_key_and_every_argument_is_bounded():
  known = {f'{section}.{argument}' for section, (table, program) in SECTIONS.items()
           for made in table.values()
           for argument in set(inspect.signature(made).parameters) - program}
  for section in ('model', 'generator', 'discriminator'):
    known.discard(f'{section}.name')  # flax's, which registry.build takes away
  for base in schema.ALL:
    for key in base:
      inner = base[key] if key in schema.groups(base) else ()
      known |= {f'{key}.{one}' for one in inner} or {key}
  for group, keys in {'evals': schema.SET_KEYS, **schema.SETS}.items():
    known.discard(group)
    known |= {f'{group}.*.{key}' for key in keys}
  known = known - set(schema.LISTS) | {f'{key}.*' for key in schema.LISTS}
  assert known - set(bounds.BOUNDS) == {
      key for key in bounds.SPECS if key in known}
  # Nothing is left over but what is read before the function of the spec is called.
  assert set(bounds.BOUNDS) - known == {
      'loss.logit_norm', 'optimizer.historical', 'optimizer.orthogonal',
      'trainer.teacher_step', 'trainer.teacher_crc32', 'corruption.num'}
  assert set(bounds.SPECS.values()) == set(SECTIONS)


FAKE = {'name': 'fake', 'num': 16, 'shape': (8, 8, 1), 'num_classes': 4, 'seed': 0,
        'classes': (0, 1, 2, 3)}
DATA = dict(
    positives=FAKE, batch_size=8, negatives_per_batch=(2, 4),
    negatives={'n': {'source': FAKE, 'weight': 1.0},
               's': {'source': {'name': 'patch_shuffle', 'num': 4, 'patches': 2}}})
CONFIGS = {
    'classifier': dict(
        steps=4, num_classes=4,
        model={'name': 'mlp', 'width': 4, 'depth': 1, 'dtype': 'float32'},
        loss={'name': 'energy', 'weight': 0.1, 'm_in': -2.0, 'm_out': 1.0,
              'logit_norm': 0.1},
        optimizer={'name': 'sgd', 'momentum': 0.9, 'nesterov': True,
                   'weight_decay': 0.1, 'decay': 'all'},
        schedule={'name': 'cosine', 'learning_rate': 0.1, 'warmup': 1, 'end': 0.01},
        trainer={'name': 'supervised', 'threshold': 0.4},
        data=dict(
            DATA, augment=[{'name': 'crop', 'pad': 1, 'mode': 'reflect'},
                           {'name': 'cutout', 'size': 2}],
            treatment={'name': 'mix', 'alpha': 1.0, 'mode': 'cutmix', 'portion': 0.5}),
        evals={'test': {'source': FAKE, 'positive': True, 'seen': None},
               'noisy': {'source': FAKE, 'positive': True, 'type': 'corruption',
                         'corrupt': {'name': 'noise', 'strength': 2, 'num': 5,
                                     'seed': 1}}}),
    'convolutions': dict(
        steps=4, num_classes=4,
        model={'name': 'resnet', 'blocks': [0, 1], 'width': 4, 'stem_stride': 2},
        optimizer={'name': 'adamw', 'b1': 0.9, 'b2': 0.9, 'eps': 1e-8},
        schedule={
            'name': 'step', 'learning_rate': 0.1, 'factor': 0.1, 'at': [0.5, 0.75]},
        data=dict(DATA, treatment={'name': 'mine', 'keep': 0.5}),
        evals={'test': {'source': FAKE, 'positive': True}}),
    'small form': dict(
        steps=4, num_classes=4,
        model={'name': 'fast', 'widths': [4], 'dtype': 'float32'},
        optimizer={'name': 'muon', 'momentum': 0.9, 'weight_decay': 0.1, 'ratio': 0.3,
                   'ns_steps': 2},
        schedule={'name': 'linear', 'learning_rate': 0.1, 'warmup': 1},
        data=DATA, evals={'test': {'source': FAKE, 'positive': True}}),
    'gan': dict(
        task='gan', trainer=schema.defaults.GAN['trainer'], steps=4, num_classes=4,
        generator={'name': 'mlp_generator', 'latent': 2, 'widths': (4,)},
        discriminator={
            'name': 'mlp_discriminator', 'widths': (4,), 'norm': 'weight',
            'batch_norm': True, 'noise': 0.1, 'dropout': 0.3},
        loss={'name': 'nat_gan', 'direction': 'uniform_first', 'marginal': 0.0},
        disc_schedule={'name': 'linear', 'learning_rate': 0.1, 'over': 0},
        data=dict(DATA, negatives_per_batch=3)),
    'points': dict(
        task='points', steps=4, num_seeds=2, run=dict(eval_every=2), num_samples=10,
        data={'name': 'gaussian1d', 'num': 20, 'mean': 1.0, 'std': 1.0, 'seed': 0,
              'negatives': ((1.0, 1.0),)},
        noise={'name': 'grid', 'reach': 8.0, 'jitter': 0.1},
        generator={'name': 'toy_generator', 'latent': 1, 'widths': (4,)},
        discriminator={'name': 'toy_discriminator', 'widths': (4,), 'norm': 'none'}),
    'outliers': dict(
        task='outliers', steps=4, num_generators=2, freeze_after=2, hidden=4,
        optimizer={'name': 'sgd', 'momentum': 0.9, 'nesterov': False},
        data=dict(examples={'name': 'breast_cancer', 'split': 'all', 'classes': (0, 1),
                            'outliers': 10, 'seed': 0}, batch_size=100)),
}
NONSENSE = (None, [], {}, 'x', -1, 0, 0.5, NAN, INF, 1e300, 10**30, True, '', [None],
            {'name': 'x'})


def try_out(config):
  """All that is done with a config before anything is written."""
  config = runs.resolve(config)
  loaded = runs.TASKS[config['task']].load(config)
  trainer = runs.build_trainer(config, loaded.shape)
  feed.make_feed(
      config, loaded, trainer, parallel.make_mesh(jax.devices()[:1]),
      feed.periods(config['run'], []))
  if 'reference' in config:
    inputs.load_evals(config, loaded.negatives)


def places(node, prefix=()):
  for key, value in node.items() if isinstance(node, dict) else enumerate(node):
    yield (*prefix, key)
    if isinstance(value, dict | list):
      yield from places(value, (*prefix, key))


def replaced(config, place, value):
  config = node = copy.deepcopy(config)
  for key in place[:-1]:
    node = node[key]
  node[place[-1]] = value
  return config


@pytest.mark.parametrize('kind', CONFIGS)
def test_nonsense_is_told_or_harmless(kind):
  """Each value in turn by a piece of it: a message, or a config that builds."""
  config = json.loads(json.dumps(presets.experiment(**CONFIGS[kind]).to_dict()))
  try_out(config)
  rng, told = random.Random(0), 0
  for place in places(config):
    value = rng.choice(NONSENSE)
    try:
      try_out(replaced(config, place, value))
    except (ValueError, TypeError) as error:
      assert str(error), (place, value)
      told += 1
    except Exception as error:
      raise AssertionError(f'{place} = {value!r} ends in {error!r}') from error
  assert told > 40


NUMBERS = {  # of each config, and what they may not be beyond the nonsense above
    'classifier': {
        'optimizer.momentum': (1, 2), 'optimizer.weight_decay': (-1,),
        'schedule.learning_rate': (0, -1), 'schedule.warmup': (-1, 0.5),
        'ema_decay': (1, 1.5), 'trainer.threshold': (2,), 'seed': (2**64, 2**32),
        'data.positives.classes': ((0.5,),), 'evals.test.positive': ('no', 1),
        'data.mean': ((NAN,), (1e300,)), 'data.std': ((0.0,), (1e-300,)),
        'data.treatment.portion': (0, 2), 'data.batch_size': (10**12,),
        'run.updates_per_call': (10**12,), 'data.positives.num': (10**12,),
        'num_classes': (1,), 'name': ('a' * 300,)},
    'convolutions': {
        'optimizer.b1': (1, 2), 'optimizer.eps': (0, -1), 'schedule.factor': (0, -1),
        'schedule.at': ((2, -1), (0.5, 0.5), (0.75, 0.5), (0.01,), (0.5, 0.51)),
        'data.treatment.keep': (NAN, 2.0, 0), 'model.width': (0,),
        'model.blocks': ((-1,),)},
    'small form': {
        'optimizer.ratio': (0, -1), 'optimizer.ns_steps': (0, 0.5),
        'model.widths': ((0,),)},
    'gan': {
        'discriminator.dropout': (1, 0.999), 'generator.latent': (0,),
        'trainer.negative_weight': (-1,), 'discriminator.widths': ((0,),),
        'measures.num_samples': (10**12,), 'disc_schedule.learning_rate': (0,)},
    'points': {
        'num_seeds': (0, 10**12), 'data.std': (0,), 'data.num': (10**12,),
        'run.eval_every': (10**12,), 'negatives': ('no',),
        'data.negatives': ((), ((1,),))},
    'outliers': {
        'num_generators': (0, 10**6, 0.5), 'freeze_after': (-1, None),
        'hidden': (-1, 10**6), 'data.outliers': ((-1,), 1), 'data.low': (((),), 'x'),
        'data.examples.outliers': (-1, 213, 0.5)},
}


@pytest.mark.parametrize('kind', NUMBERS)
def test_numbers_that_make_no_sense(kind):
  for key, values in NUMBERS[kind].items():
    config = presets.experiment(**CONFIGS[kind]).to_dict()
    for value in values:
      with pytest.raises(ValueError, match=key.rpartition('.')[2]):
        try_out(replaced(config, key.split('.'), value))


@pytest.mark.parametrize('key, value', [
    ('data.batch_size', 10**6), ('run.updates_per_call', 10**5),
    ('eval_batch_size', 10**6)])
def test_arrays_beyond_the_memory_are_refused(key, value, monkeypatch):
  config = presets.experiment(**CONFIGS['classifier']).to_dict()
  config = replaced(config, ('steps',), 10**6)
  for period in ('log_every', 'checkpoint_every'):
    config = replaced(config, ('run', period), 10**6)
  monkeypatch.setattr(data.memory.os, 'sysconf', lambda name: 1000)  # 1 MB in all
  try_out(config)
  with pytest.raises(ValueError, match=f'{key}.* GB .*{key}'):
    try_out(replaced(config, key.split('.'), value))


def test_sources_beyond_the_memory_are_refused(monkeypatch):
  positives = data.load(FAKE)
  monkeypatch.setattr(data.memory.os, 'sysconf', lambda name: 1000)
  for spec in (dict(FAKE, num=2000), *({'name': name, 'num': 20_000}
                                       for name in data.SYNTHETIC)):
    with pytest.raises(ValueError, match=rf'\b{spec["num"]}\b.* GB .*num'):
      data.load(spec, positives)
  for name in data.POINTS:
    with pytest.raises(ValueError, match=r'\b100000\b.* GB .*num'):
      data.POINTS[name](num=100_000)


def test_seeds_up_to_the_bound_differ():
  keys = [jax.random.key_data(jax.random.key(s)).tolist() for s in (0, 1, 2**32 - 1)]
  assert len({tuple(key) for key in keys}) == 3
  assert bounds.SEED.holds(2**32 - 1) and not bounds.SEED.holds(2**32)


def test_a_config_is_a_dict():
  for wrong in (None, [], 'x', 3):
    with pytest.raises(ValueError, match='presets.experiment'):
      schema.plain(wrong)
  config = presets.experiment(**CONFIGS['classifier']).to_dict()
  with pytest.raises(ValueError, match='config.*set'):
    schema.plain(config | {'name': {1}})
  for group, key in (('data', 'batch_size'), ('run', 'log_every')):
    for wrong in (None, [], 'x', 3):
      with pytest.raises(ValueError, match=f'{group}.*{key}'):
        presets.experiment(**{group: wrong})
      with pytest.raises(ValueError, match=f'{group}.*{key}'):
        schema.plain(config | {group: wrong})
  assert math.isfinite(schema.plain(config)['grad_clip'])


@pytest.mark.parametrize('key, message', [
    ('model', r"model is a spec.*--config.model=.{'name': 'NAME', .*"
     r'--config.model.name=NAME.*--config.model.ARGUMENT='),
    ('loss', 'loss is a spec.*--config.loss.name=NAME'),
    ('data.positives', 'positives is a spec.*--config.data.positives.name=NAME'),
    ('run', 'run is a group of keys.*--config.run.KEY=VALUE.*checkpoint_every'),
    ('data', 'data is a group of keys.*--config.data.KEY=VALUE.*batch_size'),
    ('stesp', "'stesp' .did you mean 'steps'"),
    ('run.log_evry', "run.'log_evry' .did you mean 'log_every'"),
    ('image_size', "'image_size' .did you mean 'data.image_size'"),
    ('train.image_size', "'train' .did you mean 'data.image_size'"),
    ('run.image_size', "run.'image_size' .did you mean 'data.image_size'"),
    ('learning_rate', "'learning_rate' .did you mean 'schedule.learning_rate'"),
    ('modl.name', "'modl' .did you mean 'model'"),
])
def test_overrides_that_change_no_single_value(key, message):
  with pytest.raises(ValueError, match=message):
    schema.check_override(key)


def test_a_key_in_the_wrong_place_of_a_config_file():
  with pytest.raises(ValueError, match="'image_size' .did you mean 'data.image_size'"):
    presets.experiment(image_size=64)


def test_a_spec_is_changed_as_a_whole_by_a_dict():
  held_out = {'name': 'digits', 'split': 'test', 'classes': (0, 1)}
  schema.check_override('measures.held_out', str(held_out))
  job, = jobs.list_jobs(
      ['gan/digits:nat3', f'--config.measures.held_out={held_out}'], ['0'], 'out')
  assert job.config.measures.held_out.to_dict() == held_out
  assert f'--config.measures.held_out={held_out}' in job.args


def test_a_weight_that_is_none_is_set_by_a_flag():
  for source, key in (('gan/gaussian1d:nat', 'negative_weight'),
                      ('gan/gaan:gaan3', 'trainer.negative_weight')):
    for args, expected in (([], None), ([f'--config.{key}=0.25'], 0.25)):
      job, = jobs.list_jobs([source, *args], ['0'], 'out')
      config = schema.plain(job.config)
      assert config.get('trainer', config).get(
          'negative_weight', config.get('negative_weight')) == expected
