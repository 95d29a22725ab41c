"""configs/pictures.py: one key for the size of all pictures; its variants and runs."""

import pytest
import toy
from absl import flags
from PIL import Image

from nat_jax import runs
from nat_jax.commands import config_file
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
