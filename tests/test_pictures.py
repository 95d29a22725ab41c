"""configs/pictures.py: one key for the size of all pictures; its variants and runs."""

import numpy as np
import pytest
import toy
from absl import flags
from PIL import Image

from nat_jax import data, runs, train
from nat_jax.commands import config_file, plan
from nat_jax.tasks import TASKS
from nat_jax.tasks.classify import inputs


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Class folders and a folder of negatives; no two pictures have one size."""
  root = tmp_path_factory.mktemp('pictures')
  for at, name in enumerate(('pets/cat', 'pets/dog', 'others')):
    (root / name).mkdir(parents=True)
    for k in range(30):
      color = (60 * at, 7 * k, 255 - 100 * at)
      Image.new('RGB', (9 + k, 40 - k), color).save(root / name / f'{k}.png')
  return f'{root}/pets,{root}/others'


@pytest.mark.parametrize('size, shape', [(12, (12, 12, 3)), ((8, 10), (8, 10, 3))])
def test_one_key_is_the_size_of_all_pictures(size, shape, folders):
  config = config_file.load('pictures', folders).to_dict()
  config['data']['image_size'] = size
  config['evals']['others']['source']['size'] = None
  config = runs.resolve(config)
  found = TASKS['classify'].load(config, 1)
  assert found.shape == shape
  sets = inputs.load_evals(config, found.negatives)
  assert {'test', 'others', 'noise', 'validation', 'calibration_others'} <= set(sets)
  assert {one.arrays.image.shape[1:] for one in sets.values()} == {shape}
  assert runs.resolve(config) == config


def test_test_pictures_are_corrupted_in_four_ways_at_five_strengths(folders):
  config = runs.resolve(config_file.load('pictures', folders))
  found = {name: spec for name, spec in config['evals'].items() if 'corrupt' in spec}
  assert len(found) == 20 and {spec['every'] for spec in found.values()} == {0}
  assert {(spec['corrupt']['name'], spec['corrupt']['strength'])
          for spec in found.values()} == {
              (name, strength) for name in data.CORRUPTIONS
              for strength in data.STRENGTHS}
  sets = inputs.load_evals(config, {}, ['test'])
  one, test = sets['corrupted_jpeg_5'].arrays, sets['test'].arrays
  assert one.image.shape == test.image.shape == (12, 32, 32, 3)
  np.testing.assert_array_equal(one.label, test.label)
  assert (one.image[:] != test.image[:]).any()


def test_a_size_of_its_own_is_kept(folders):
  config = config_file.load('pictures', folders)
  config.evals.others.source.size = 7
  config = runs.resolve(config)
  assert config['evals']['others']['source']['size'] == 7
  assert config['data']['positives']['size'] == 32
  assert 'size' not in config['evals']['noise']['source']


def test_without_the_key_sizes_must_agree(folders):
  config = config_file.load('pictures', folders)
  config.data.image_size = 0
  with pytest.raises(ValueError, match='one size.*data.image_size'):
    TASKS['classify'].load(runs.resolve(config), 1)


def test_the_size_is_one_flag(folders, tmp_path, monkeypatch):
  trained = []
  monkeypatch.setitem(
      toy.main.COMMANDS, 'train', lambda argv: trained.append(flags.FLAGS.config))
  toy.run_main(
      monkeypatch, f'--config=pictures:{folders}', f'--workdir={tmp_path}',
      '--config.data.image_size=20')
  assert runs.resolve(trained[0])['data']['positives']['size'] == 20


@pytest.mark.parametrize('parts', [2, 1])
def test_the_plain_classifier_is_trained_for_comparison(parts, folders):
  """With and without a folder of negatives; a change is for both."""
  variant = ','.join(folders.split(',')[:parts])
  config = config_file.load('pictures', variant)
  config.data.image_size = 16
  needed, planned = plan.plan(
      config, 'pictures', variant, {'data.image_size': 16}, 'runs/pets')
  assert needed == [] and [workdir for _, workdir in planned] == [
      'runs/pets-baseline', 'runs/pets']
  assert [one.variant for one, _ in planned] == ['baseline', 'nat']
  assert [one.loss.name for one, _ in planned] == ['cross_entropy', 'nat']
  baseline, nat = (runs.resolve(one) for one, _ in planned)
  for key in ('evals', 'steps', 'best', 'patience', 'model', 'run', 'name'):
    assert baseline[key] == nat[key]
  assert baseline['data']['positives'] == nat['data']['positives']
  assert baseline['data']['positives']['size'] == 16
  assert (nat['best'], nat['patience']) == ('validation/accuracy', 1000)
  assert nat['run']['eval_every'] == nat['run']['checkpoint_every'] == 100


def test_both_are_trained_with_validation(folders, tmp_path):
  for method in ('nat', 'baseline'):
    config = config_file.load('pictures', f'{method}:{folders}')
    config.update_from_flattened_dict({
        'steps': 4, 'patience': 4, 'data.image_size': 8, 'run.eval_every': 2,
        'run.checkpoint_every': 2, 'run.log_every': 2, 'data.batch_size': 16})
    config.model = {'name': 'mlp', 'width': 8, 'depth': 1}
    found = train.train(config, str(tmp_path / method))
    seen = toy.evaluations(tmp_path / method)
    assert set(seen[2]) == {'validation', 'validation_others'}
    assert found['step'] in (2, 4) and {'test', 'others', 'noise'} < set(found['evals'])


@pytest.mark.parametrize('variant, message', [
    ('{0}/pets/cat', r"cat' has no class folders.*at least two.*got 0"),
    ('{0}/one', r"one' has no class folders.*got 1"),
    ('{0}/nowhere', "no folder '.*nowhere'.*POSITIVES,NEGATIVES"),
    ('bsaeline:{0}/pets', "variant 'bsaeline'.*did you mean 'baseline'"),
])
def test_folders_that_are_not_of_classes(variant, message, folders, tmp_path):
  root = folders.split('/pets,')[0]
  (tmp_path / 'one' / 'cat').mkdir(parents=True)
  root = tmp_path if '/one' in variant else root
  with pytest.raises(ValueError, match=message):
    config_file.load('pictures', variant.format(root))
