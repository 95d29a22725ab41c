"""Train, validation, calibration, test: cut apart, and used for nothing else."""

import json
import pathlib

import numpy as np
import pytest
import toy

from nat_jax import data, runs, schema, train
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.data import cache
from nat_jax.reports import paper
from nat_jax.runtime import checkpoint
from nat_jax.runtime import workdir as workdirs
from nat_jax.schema import presets, recipes
from nat_jax.tasks import images
from nat_jax.tasks.classify import inputs

PARTS = schema.PARTS


def load_config(file, variant):
  return runs.resolve(toy.config_file(file)(variant))


@pytest.mark.parametrize('named, whole, splits', [
    ((), 'all', ('all[:60%]', 'all[60%:70%]', 'all[70%:80%]', 'all[80%:]')),
    ((), 'test', ('test[:60%]', 'test[60%:70%]', 'test[70%:80%]', 'test[80%:]')),
    (('train',), '', ('train[:60%]', 'train[60%:70%]', 'train[70%:80%]',
                      'train[80%:]')),
    (('test', 'train'), '', ('train[:80%]', 'train[80%:90%]', 'train[90%:]', 'test')),
    (('train', 'validation'), '', (
        'train[:70%]', 'validation', 'train[70%:80%]', 'train[80%:]')),
    (presets.SHARES, '', tuple(presets.SHARES))])
def test_parts_that_a_source_lacks_are_of_train(named, whole, splits):
  assert presets.part_splits(named, whole) == dict(
      zip(presets.SHARES, splits, strict=True))


def test_hold_out():
  entry = {'source': {'name': 'tfds', 'dataset': 'b', 'split': 'test[:50%]'}}
  noise = {'source': {'name': 'uniform_noise', 'num': 9}, 'weight': 2.0}
  test = {'test': {'source': {'name': 'digits', 'split': 'test'}, 'positive': True},
          'shown': entry | {'seen': True}}
  positives, negatives, evals = presets.hold_out(
      {'name': 'digits', 'split': 'train', 'classes': (0, 1)},
      {'b': entry | {'weight': 3.0}, 'noise': noise}, test, percent=10)

  def digits(split):
    return {'name': 'digits', 'split': split, 'classes': (0, 1)}

  def b(split):
    return {'name': 'tfds', 'dataset': 'b', 'split': split}

  assert positives == digits('train[:80%]')
  assert negatives == {
      'b': {'source': b('test[:30%]'), 'weight': 3.0}, 'noise': noise}
  assert evals == {
      'test': test['test'], 'shown': {'source': b('test[:30%]'), 'seen': True},
      'validation': {'source': digits('train[80%:90%]'), 'positive': True,
                     'part': 'validation'},
      'calibration': {'source': digits('train[90%:]'), 'positive': True,
                      'part': 'calibration'},
      'validation_b': {'source': b('test[30%:40%]'), 'part': 'validation'},
      'calibration_b': {'source': b('test[40%:50%]'), 'part': 'calibration'}}
  assert set(test) == {'test', 'shown'} and test['shown']['source'] == entry['source']
  with pytest.raises(ValueError, match=r"'train'.*'train\[10:20\]'"):
    presets.hold_out(digits('train[10:20]'), {}, {})


def test_forms_of_a_variant():
  assert recipes.parse('nat', ['nat', 'nat_mix']) == ('nat', '', False)
  for variant in ('nat_mix_small_paper', 'nat_mix_paper_small'):
    form = recipes.parse(variant, ['nat', 'nat_mix'])
    assert form == ('nat_mix', '_small', True) and form.small
    assert form.name('svhn') == 'svhn_small_paper'
  form = recipes.parse('nat_small01_paper', ['nat'], ('_small', '_small01'))
  assert form == ('nat', '_small01', True)
  assert form.name('mnist') == 'mnist_small01_paper'
  for variant in ('nat_small_small', 'nat_small01', 'nat_paper_paper',
                  'nat_small_paper_small', 'nat_large', '_small', ''):
    with pytest.raises(
        ValueError, match=f"'{variant}'.*nat.*_small, _paper, _small_paper"):
      recipes.parse(variant, ['nat'])


def test_small_form_of_version_01_is_still_there():
  """The figures of docs/results.md that were not made again are of it."""
  new, old = (load_config('nat/cifar10.py', f'baseline{size}_paper')
              for size in ('_small', '_small01'))
  assert old['model'] == {
      'name': 'resnet', 'blocks': [0, 1, 1], 'width': 64, 'stem_stride': 2}
  assert old['optimizer']['name'] == 'sgd' and old['steps'] == 2344
  assert new['model']['name'] == 'fast' and new['name'] == 'cifar10_small_paper'


def test_full_forms_have_whole_calls_of_updates():
  """200 epochs of 45,000 and 50,000 images are 70,312 and 78,125 updates of 128."""
  for variant, steps in (
      ('nat', 70_300), ('nat_paper', 78_100), ('nat_small', 2109)):
    assert load_config('nat/cifar10.py', variant)['steps'] == steps
  assert presets.steps(1, 10, 10, multiple=5) == 5


def test_papers_figures_stand_beside_every_form():
  for form in ('', '_small', '_small01', '_paper', '_small_paper'):
    assert paper.ncr(f'cifar10{form}', 'nat', 'cifar100_test', '0.4') == 0.072
  assert paper.ncr('cifar10_large', 'nat', 'cifar100_test', '0.4') is None


SPLITS = {  # data set -> splits and the shape of their images
    'cifar10': ('train test', (32, 32, 3)), 'cifar100': ('train test', (32, 32, 3)),
    'svhn_cropped': ('train test', (32, 32, 3)),
    'tiny_imagenet_val32': ('test', (32, 32, 3)),
    'ilsvrc_samples32': ('test', (32, 32, 3)),
    'mnist': ('train test', (28, 28, 1)), 'fashion_mnist': ('train test', (28, 28, 1)),
    'kmnist': ('test', (28, 28, 1)), 'emnist/letters': ('test', (28, 28, 1)),
    'notmnist': ('test', (28, 28, 1)),
}


@pytest.fixture(scope='module')
def generated(tmp_path_factory):
  """A cache of data sets of 200 images a split, all of them different."""
  folder = tmp_path_factory.mktemp('cache')
  rng = np.random.default_rng(0)
  for dataset, (splits, shape) in SPLITS.items():
    for split in splits.split():
      image = rng.integers(0, 256, (200, *shape)).astype(np.uint8)
      cache.write_cache(
          dataset, split, image, np.arange(200) % 10, (), str(folder))
  return str(folder)


@pytest.mark.parametrize('name, own', [
    ('nat/mnist.py:letters_small', 'letters'),
    *(pytest.param(name, own, marks=pytest.mark.slow) for name, own in (
        ('nat/cifar10.py:nat_small', 'cifar100'), ('nat/cifar10.py:ilsvrc', 'ilsvrc'),
        ('nat/svhn.py:nat', 'cifar100'), ('at/cifar10.py:teacher_nat', 'cifar100')))])
def test_images_of_the_recipes_are_parted(name, own, generated, monkeypatch):
  """Nine tenths are trained on, a twentieth each is held out; none is in two parts."""
  monkeypatch.setenv('NAT_JAX_CACHE', generated)
  config = load_config(*name.split(':'))
  positives = data.load(config['data']['positives'])
  trained = images.load_negatives(config, positives)
  sets = inputs.load_evals(config, trained)
  rest = {'letters': 80, 'ilsvrc': 80, 'cifar100': 180}[own]
  assert (len(positives.label), len(trained[own].label)) == (180, rest)
  assert {n: len(sets[n].arrays.label) for n in sets if sets[n].part != 'test'} == {
      n: 10 for part in PARTS[1:] for n in (part, f'{part}_{own}')}
  shown = {n for n in sets if sets[n].overlap}
  assert shown == {f'{own}_train'} & set(sets)  # the training negatives themselves
  assert all(sets[f'{part}_{own}'].seen for part in PARTS[1:])
  of_part = {part: [s.arrays for n, s in sets.items()
                    if s.part == part and n not in shown] for part in PARTS}
  of_part['train'] = [positives, *trained.values()]
  for part, arrays in of_part.items():
    for other in set(of_part) - {part}:
      assert not any(data.count_overlaps(
          dict(enumerate(arrays)), of_part[other]).values())

  # Epochs are of what is trained on; in the paper's form that is everything.
  whole = load_config(*f'{name}_paper'.split(':'))
  assert abs(config['steps'] / whole['steps'] - 0.9) < 1e-3
  assert whole['name'] == f'{config["name"]}_paper' and whole['best'] == ''
  assert len(data.load(whole['data']['positives']).label) == 200
  assert {s.part for s in inputs.load_evals(whole).values()} == {'test'}


def test_sets_that_are_not_prepared(generated, tmp_path, monkeypatch, caplog):
  """Optional ones are left out, with a warning; others end the program."""
  there = tmp_path / 'cache'
  there.mkdir()
  for name in ('cifar10', 'cifar100', 'mnist', 'svhn_cropped'):
    (there / name).symlink_to(pathlib.Path(generated, name))
  monkeypatch.setenv('NAT_JAX_CACHE', str(there))
  config = load_config('nat/cifar10.py', 'nat_small')
  config['evals']['ilsvrc']['source'].pop('split')
  left_out = {'tiny_imagenet', 'ilsvrc'}
  assert set(config['evals']) - set(inputs.load_evals(config)) == left_out
  assert all(f"Evaluation set '{name}' is left out" in caplog.text for name in left_out)
  assert "write_cache('ilsvrc_samples32', 'train', image, label)" in caplog.text

  (there / 'svhn_cropped').unlink()
  config['evals']['svhn']['source']['data_dir'] = str(tmp_path / 'tfds')
  with pytest.raises(data.NotPrepared, match="^evals.svhn: data set 'svhn_cropped'"):
    inputs.load_evals(config)


def test_optional_sets_do_not_keep_a_run_from_going_on(tmp_path):
  """A run of a version without the key."""
  config = load_config('nat/cifar10.py', 'nat_small')
  workdirs.prepare(str(tmp_path), config)
  config['evals']['ilsvrc'].pop('optional')
  assert not workdirs.check(str(tmp_path), config)
  config['evals']['ilsvrc']['every'] = 5
  with pytest.raises(ValueError, match='another config.*evals.ilsvrc'):
    workdirs.check(str(tmp_path), config)


def test_full_recipe_counts_what_it_trains_on():
  config = load_config('nat/svhn.py', 'nat')
  rows, = data.split_slices(config['data']['positives']['split'], {'train': 73_257})
  assert rows[1].stop == 65_931 == recipes.num_trained(73_257)
  assert config['steps'] == 200 * 65_931 // 128 // 100 * 100


def test_digits_are_parted():
  """No image of one part stands in another, be it another row of the same pixels."""
  config = load_config('digits.py', 'nat')
  positives = data.load(config['data']['positives'])
  trained = images.load_negatives(config, positives)
  sets = inputs.load_evals(config, trained)
  assert sum(len(s.arrays.label) for n, s in sets.items() if n != 'noise') + len(
      positives.label) + len(trained['digits_6_7'].label) == 1797
  assert {n for n, s in sets.items() if s.seen} == {
      'digits_6_7', 'validation_digits_6_7', 'calibration_digits_6_7'}
  assert not any(s.overlap for s in sets.values())
  assert not any(data.count_overlaps(
      {n: s.arrays for n, s in sets.items() if s.positive}, [positives]).values())


def fake(seed, *classes):
  return toy.fake(seed, num=80, classes=classes)


TEST = fake(1, 0, 1, 2)


def make_config(test=TEST, **changes):
  """A run that becomes worse in its second half, watched by validation."""
  evals = {'test': {'source': test, 'positive': True},
           'three': {'source': fake(1, 3)},
           'cut': {'source': {'name': 'patch_shuffle', 'num': 9}}}
  for seed, part in ((2, 'validation'), (3, 'calibration')):
    evals[part] = {'source': fake(seed, 0, 1, 2), 'positive': True, 'part': part}
    evals[f'{part}_three'] = {'source': fake(seed, 3), 'part': part}
    evals[f'{part}_cut'] = {
        'source': {'name': 'patch_shuffle', 'num': 9}, 'part': part}
  return presets.experiment(**dict(
      steps=8, num_classes=3, model={'name': 'mlp', 'width': 8, 'depth': 1},
      schedule={'name': 'step', 'learning_rate': 0.1, 'factor': 1e4, 'at': [0.5]},
      data=dict(positives=fake(0, 0, 1, 2), negatives={'three': {'source': fake(0, 3)}},
                batch_size=16, negatives_per_batch=8),
      evals=evals, best='validation/accuracy',
      run=dict(tensorboard=False, checkpoint_every=2, eval_every=2, keep=1,
               log_every=4)) | changes)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('parts') / 'run'
  train.train(make_config(), str(workdir))
  return workdir


def test_every_figure_says_its_part(run):
  found = json.loads((run / 'eval.json').read_text())['evals']
  assert {part: {name for name, figures in found.items() if figures['part'] == part}
          for part in PARTS} == {
      'test': {'test', 'three', 'cut'},
      'validation': {'validation', 'validation_three', 'validation_cut'},
      'calibration': {'calibration', 'calibration_three', 'calibration_cut'}}
  assert {path.stem for path in (run / 'scores').iterdir()} == set(found)
  assert {path.stem for path in (run / 'mistakes').iterdir()} == {'three', 'cut'}


def test_negatives_are_compared_with_positives_of_their_part(run):
  found = json.loads((run / 'eval.json').read_text())['evals']
  for start, reference in (('', 'test'), ('validation_', 'validation'),
                           ('calibration_', 'calibration')):
    pos, neg = (np.load(run / 'scores' / f'{name}.npz')['score']
                for name in (reference, f'{start}three'))
    above = (pos[:, None] > neg).mean() + (pos[:, None] == neg).mean() / 2
    assert found[f'{start}three']['auroc'] == pytest.approx(above, abs=1e-12)
    assert found[f'{start}three']['par'] == found[reference]['par']


def test_synthetic_negatives_are_made_of_positives_of_their_part():
  sets = inputs.load_evals(runs.resolve(make_config()))
  for start, reference in (('', 'test'), ('validation_', 'validation'),
                           ('calibration_', 'calibration')):
    expected = data.patch_shuffle(sets[reference].arrays, 9).image
    np.testing.assert_array_equal(sets[f'{start}cut'].arrays.image, expected)


def test_test_is_looked_at_when_all_is_done(run, capsys, tmp_path):
  """On the way only what may be chosen by; the lines of progress say the same."""
  found = toy.evaluations(run)
  assert list(found) == [2, 4, 6, 8]
  validation = {'validation', 'validation_three', 'validation_cut'}
  assert all(set(found[step]) == validation for step in (2, 4, 6))
  assert found[8] == json.loads((run / 'eval.json').read_text())['evals']
  train.train(make_config(), str(tmp_path / 'again'))
  out = capsys.readouterr().out.replace('\n  ', ' ')  # lines broken at 80 columns
  lines = [line.partition('evaluation: ')[2] for line in out.splitlines()
           if 'evaluation: ' in line]
  assert [line.split(' accuracy')[0] for line in lines] == ['validation'] * 3 + ['test']
  assert 'validation' not in lines[-1] and 'three AUROC' in lines[-1]
  # Without validation sets there is nothing else to look at.
  config = make_config(best='')
  for name in validation:
    del config.evals[name]
  train.train(config, str(tmp_path / 'whole'))
  assert all(set(figures) == set(config.evals)
             for figures in toy.evaluations(tmp_path / 'whole').values())


def test_nothing_of_the_test_chooses(run, tmp_path, monkeypatch):
  """A test whose classes have changed places: the same checkpoint is the best."""
  workdir = str(tmp_path)
  # Otherwise labels follow the names of the classes.
  monkeypatch.setattr(inputs, '_by_class', lambda name, arrays, class_names: arrays)
  train.train(make_config(test=fake(9, 1, 2, 0)), workdir)
  best, last = checkpoint.list_steps(run)
  assert checkpoint.list_steps(tmp_path) == [best, last] and best < last
  one, other = toy.evaluations(run), toy.evaluations(tmp_path)
  assert one.pop(last)['validation'] == other.pop(last)['validation'] and one == other
  accuracy = [evaluate_run(workdir, step)['evals']['test']['accuracy']
              for step in (best, last)]
  assert accuracy[0] < 0.1 < accuracy[1]  # the test would have chosen otherwise


def test_evaluation_of_a_checkpoint_looks_at_every_part(run):
  before = (run / 'eval.json').read_bytes()
  evaluate_run(str(run))
  assert (run / 'eval.json').read_bytes() == before
