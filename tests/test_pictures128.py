"""configs/gan/pictures128.py: its methods, their networks, and what they depend on."""

import importlib

import pytest
import toy
from PIL import Image

from nat_jax import runs
from nat_jax.commands import plan
from nat_jax.models import DISCRIMINATORS, GENERATORS
from nat_jax.schema import gan_recipes

FILE = 'gan/pictures128.py'
get_config = toy.config_file(FILE)
NETWORKS = {
    'hinge_sn': 'SN-GAN', 'sagan': 'SAGAN', 'biggan': 'BigGAN', 'nat3': 'SN-GAN'}


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Two class folders and a folder of negatives, of a picture each."""
  root = tmp_path_factory.mktemp('folders')
  for name in ('pets/cat', 'pets/dog', 'others'):
    (root / name).mkdir(parents=True)
    Image.new('RGB', (9, 9)).save(root / name / 'picture.png')
  return f'{root}/pets', f'{root}/others'


@pytest.mark.parametrize('side, classes', [(32, 10), (128, 1000)])
@pytest.mark.parametrize('method', NETWORKS)
def test_networks_have_the_sizes_of_the_table(method, side, classes, monkeypatch):
  """docs/gan_objectives.md has them with one output, which NAT-GAN does not have."""
  monkeypatch.syspath_prepend(str(toy.ROOT / 'tests' / 'bench'))
  count = importlib.import_module('gan_sizes').num_parameters
  config = gan_recipes.resnet(
      'x', method, side=side, num_classes=classes, steps=1, small_steps=1,
      positives={}, negatives={}, classifier='').to_dict()
  given = classes if config['trainer']['labels'] == 'predefined' else 0
  assert config['discriminator'].get('projection', 0) == given
  specs = config['generator'], config['discriminator']
  numbers = ' | '.join(
      f'{count(table, spec, side, given):,}'
      for table, spec in zip((GENERATORS, DISCRIMINATORS), specs, strict=True))
  widths = ', '.join(str(spec['width']) for spec in specs)
  page = (toy.ROOT / 'docs' / 'gan_objectives.md').read_text()
  row = f'| {NETWORKS[method]} | {side} | {given or ""} | {widths} | {numbers} |'
  assert row in page


@pytest.mark.parametrize('form', ['', '_small'])
@pytest.mark.parametrize('method', NETWORKS)
def test_methods(method, form, folders):
  pets, others = folders
  config = runs.resolve(get_config(f'{method}{form}:{pets},{others}'))
  assert (config['variant'], config['name']) == (method, f'gan_pets128{form}')
  assert config['num_classes'] == 2
  sources = [config['data']['positives'], config['measures']['held_out'], *(
      entry['source'] for entry in config['data']['negatives'].values())]
  assert {(one['path'], one['size']) for one in sources} == {
      (pets, 128), *([(others, 128)] if method == 'nat3' else [])}
  assert [one['split'] for one in sources[:2]] == ['all[:60%]', 'all[80%:]']
  attention = {'sagan': 32, 'biggan': 64}.get(method, 0)
  for net in ('generator', 'discriminator'):
    assert config[net].get('attention', 0) == attention
    assert (config[net]['width'] == 8) == bool(form)
  runs.build_trainer(config, (128, 128, 3))


def test_without_a_folder_negatives_are_shuffled_positives(folders):
  config = get_config(f'nat3:{folders[0]}')
  assert config.data.negatives.shuffled.source.name == 'patch_shuffle'


def test_the_evaluation_classifier_is_of_pictures_of_this_size(
    folders, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pets, others = folders
  variant = f'nat3:{pets},{others}'
  config = get_config(variant)
  [(classifier, workdir)], _ = plan.plan(
      config, str(toy.ROOT / 'configs' / FILE), variant, {}, 'runs/x')
  assert workdir == 'runs/classifiers/pets128'
  found, gan = runs.resolve(classifier), runs.resolve(config)
  assert found['task'] == 'classify' and found['variant'] == 'baseline'
  assert found['data']['positives'] == gan['data']['positives']
  assert found['evals']['test']['source'] == gan['measures']['held_out']
  assert not any('corrupt' in entry for entry in found['evals'].values())


def test_mistakes(folders):
  with pytest.raises(ValueError, match="such as 'sagan:pets', got 'sagan'"):
    get_config('sagan')
  with pytest.raises(ValueError, match="'sagam'.*'sagan'.*biggan.*_small"):
    get_config('sagam:/nowhere')
  with pytest.raises(ValueError, match="without a colon, got 'tfds/x:1.0.0'"):
    get_config('sagan:tfds/x:1.0.0')
  with pytest.raises(ValueError, match='no folder'):
    get_config('sagan:/nowhere')
  with pytest.raises(ValueError, match='side must be 32 or 128.*got 64'):
    gan_recipes.resnet('x', 'sagan', side=64, steps=1, small_steps=1, positives={},
                       negatives={}, classifier='')
