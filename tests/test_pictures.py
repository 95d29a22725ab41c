"""configs/pictures.py: one key for the size of all pictures; its variants and runs."""

import csv
import sys

import numpy as np
import pytest
import toy
from absl import flags
from ml_collections import config_flags
from PIL import Image

from nat_jax import data, runs, train
from nat_jax.commands import config_file, plan
from nat_jax.schema import presets
from nat_jax.tasks import TASKS
from nat_jax.tasks.classify import duplicates, evaluate, inputs


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


@pytest.mark.parametrize('override, num', [
    (('path=zoo', 'split=all'), 21), (("={'name': 'folder', 'path': 'zoo'}",), 1)])
def test_a_test_set_from_elsewhere_is_also_corrupted(
    override, num, folders, monkeypatch, caplog):
  """By the flags of docs/pictures.md, or a warning says that it is not."""
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values)
  start = '--config.evals.test.source'
  monkeypatch.setattr(sys, 'argv', [  # where ml_collections looks too
      'main', f'--config={config_file.find("pictures")}:{folders}',
      *(f'{start}{"" if one[0] == "=" else "."}{one}' for one in override)])
  values(sys.argv)
  config = runs.resolve(values.config)
  assert num == sum(spec['source'].get('path') == 'zoo' and (
      spec['source'].get('split', 'all') == 'all') for spec in config['evals'].values())
  evaluate._warn_of_other_sources(config)
  assert ("20 sets of corrupted positives" in caplog.text) == (num == 1)
  assert "those of 'test'" in caplog.text or num > 1


@pytest.mark.parametrize('names, expected', [
    ('cat dog owl', [0, 1, 2]), ('cat owl', [0, 2]),
    ('owl ant', "'test' has classes .* not trained on, ant; its own are cat, dog, ")])
def test_labels_of_a_test_folder_follow_the_names_of_its_classes(
    names, expected, folders, tmp_path):
  for k, name in enumerate(names.split()):
    (tmp_path / name).mkdir()
    Image.new('RGB', (4, 4), (k, 0, 0)).save(tmp_path / name / '0.png')
  config = config_file.load('pictures', folders)
  config.num_classes = 3
  config.evals.test.source.update(path=str(tmp_path), split='all')
  config = runs.resolve(config)

  def load():
    sets = inputs.load_evals(config, {}, ['test'], class_names=('cat', 'dog', 'owl'))
    return sets['test'].arrays

  if isinstance(expected, str):
    with pytest.raises(ValueError, match=expected):
      load()
  else:
    assert sorted(load().label) == expected
    assert load().names == ('cat', 'dog', 'owl')


@pytest.fixture
def strangers(tmp_path):
  for k in range(6):
    folder = tmp_path / 'strangers' / ('grey fox' if k % 2 else 'owl')
    folder.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (9, 9), (k, 0, 0)).save(folder / f'{k}.png')
  return tmp_path / 'strangers'


def test_kinds_for_the_test_only(folders, strangers, monkeypatch):
  """Each folder is a set of the run and of the plain one, unseen and no positives."""
  for variant in (f'{folders},{strangers}', f'{folders.split(",")[0]},,{strangers}'):
    config = config_file.load('pictures', variant)
    needed, planned = plan.plan(config, 'pictures', variant, {}, 'runs/pets')
    assert needed == [] and len(planned) == 2
    for one, _ in planned:
      sets = inputs.load_evals(runs.resolve(one), {}, ['test'])
      for name in ('owl', 'grey_fox'):
        assert sets[name].arrays.image.shape == (3, 32, 32, 3)
        assert not sets[name].seen and not sets[name].positive
      assert {'test', 'noise', 'corrupted_blur_1'} < set(sets)
      assert ('others' in sets) == (',,' not in variant)
  assert config.evals.owl.source.path == f'{strangers}/owl'  # also beside new folders
  parts = strangers.parent / 'parts'
  for part in ('train', 'test'):
    (parts / part).mkdir(parents=True)
    for kind in ('owl', 'grey fox'):
      (parts / part / kind).symlink_to(strangers / kind)
  config = config_file.load('pictures', f'{folders},{parts}')
  sets = inputs.load_evals(runs.resolve(config), {}, ['test'])
  assert {len(sets[name].arrays.label) for name in ('owl', 'grey_fox')} == {6}
  monkeypatch.setattr(presets, 'MOST_KINDS', 1)
  config = config_file.load('pictures', variant)
  assert config.evals.strangers.source.path == str(strangers)
  assert not {'owl', 'grey_fox'} & set(config.evals)
  config = config_file.load('pictures', f'{folders},{strangers}/owl')
  assert config.evals.owl.source.path == f'{strangers}/owl'
  config = config_file.load('pictures', f'{folders},tfds/svhn_cropped')
  assert config.evals.svhn_cropped.source.split == 'train'


@pytest.mark.parametrize('variant, message', [
    ('{0}/pets,{0}/others,', 'expected POSITIVES, .* without spaces after commas'),
    ('{0}/pets,{0}/others,{1},{1}', 'expected POSITIVES, .* without spaces'),
    ('{0}/pets,,{1}/nothing', "no folder '.*nothing' of negatives for the test only"),
    ('{0}/pets,{0}/others,{0}/others', "others' is trained on too"),
    ('{0}/pets,{0}/others,{0}/others/../others', "holds pictures that are trained on"),
    ('tfds/mnist,,tfds/mnist', "'tfds/mnist' is trained on too"),
    ('{0}/pets,,tfds/no_such_set', "'no_such_set' is no data set of tfds"),
    ('{0}/pets,,{1}', "no picture in the class folder 'empty'"),
    ('{0}/pets,,{0}', "trained on, since one of it and '.*pets' is in the other"),
    ('{0}/pets,,{1}', 'holds both class folders and pictures outside.*loose.png'),
    ('{0}/pets,,{1}', "another name for 'Noise', .* another set is called 'noise'"),
])
def test_kinds_that_cannot_be_used(variant, message, folders, strangers):
  if 'loose' in message:
    (strangers / 'loose.png').symlink_to(strangers / 'owl' / '0.png')
  if 'Noise' in message:
    (strangers / 'owl').rename(strangers / 'Noise')
  if 'empty' in message:
    (strangers / 'empty').mkdir()
  root = folders.split('/pets,')[0]
  with pytest.raises(ValueError, match=message):
    config_file.load('pictures', variant.format(root, strangers))


def test_another_network_takes_the_place_of_the_whole_spec(
    folders, tmp_path, monkeypatch):
  trained = []
  monkeypatch.setitem(
      toy.main.COMMANDS, 'train', lambda argv: trained.append(flags.FLAGS.config))
  for change in ("={'name': 'resnet18'}", '.name=resnet18'):
    toy.run_main(
        monkeypatch, f'--config=pictures:{folders}', f'--workdir={tmp_path}',
        f'--config.model{change}')
  whole, part = map(runs.resolve, trained)
  assert whole['model'] == {'name': 'resnet18'}
  runs.build_trainer(whole, (32, 32, 3))
  with pytest.raises(TypeError, match="'widths'.*resnet18|resnet18.*'widths'"):
    runs.build_trainer(part, (32, 32, 3))


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


@pytest.mark.slow
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


@pytest.fixture(scope='module')
def table(tmp_path_factory):
  """A table of smooth pictures, of which some are copies of others."""
  root = tmp_path_factory.mktemp('table')
  rows = []
  for k, (label, i) in enumerate((one, i) for one in ('cat', 'dog', '')
                                 for i in range(20)):
    values = np.random.default_rng(k).integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(values).resize((24, 20), Image.Resampling.BICUBIC)
    image.save(root / f'{k}.png')
    part = ('train',) * 8 + ('validation', 'calibration') * 3 + ('test',) * 6
    rows.append((f'{k}.png', label, part[i]))

  def copy(one, other):
    Image.open(root / f'{one}.png').resize((48, 40)).save(root / f'{other}.png')

  copy(0, 15)  # of a cat that is trained on, in the test
  copy(41, 3)  # of a negative, among the cats, both trained on
  copy(5, 6)  # of another cat that is trained on, which does no harm
  with open(root / 'table.csv', 'w', newline='') as file:
    csv.writer(file).writerows([('path', 'label', 'split'), *rows])
  return root


def test_a_table_is_trained_on_and_near_duplicates_are_told_once(
    table, tmp_path, caplog, monkeypatch):
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path / 'cache'))
  config = config_file.load('pictures', str(table / 'table.csv'))
  assert (config.num_classes, config.name) == (2, 'table')
  assert config.compare_with == f'baseline:{table}/table.csv'
  config.update_from_flattened_dict({
      'steps': 4, 'patience': 0, 'best': '', 'data.image_size': 16,
      'run.eval_every': 4, 'run.checkpoint_every': 2, 'run.log_every': 2,
      'run.updates_per_call': 2, 'data.batch_size': 16})
  config.model = {'name': 'mlp', 'width': 8, 'depth': 1}
  found = train.train(config, str(tmp_path / 'run'))
  assert {name: one['part'] for name, one in found['evals'].items()
          if one['type'] != 'corruption'} == {
      'test': 'test', 'others': 'test', 'noise': 'test', 'validation': 'validation',
      'calibration': 'calibration', 'validation_others': 'validation',
      'calibration_others': 'calibration'}
  assert found['evals']['others']['n'] == 6 and found['evals']['test']['n'] == 12
  assert found['class_names'] == ['cat', 'dog']
  with open(tmp_path / 'run' / 'duplicates.csv') as file:
    rows = list(csv.DictReader(file))
  assert {(row['set'], row['path'], row['other_set'], row['other_path'])
          for row in rows} == {
      ('test/test', f'{table}/15.png', 'train/positives', f'{table}/0.png'),
      ('train/others', f'{table}/41.png', 'train/positives', f'{table}/3.png')}
  assert all(int(row['distance']) <= 4 for row in rows)
  assert 'positives and negatives: 2' in caplog.text
  assert '1 in test/test (of 12) of pictures in train/positives, such as ' in (
      caplog.text)
  assert len(list((tmp_path / 'cache').rglob('image.npy'))) == 1
  caplog.clear()
  (tmp_path / 'run' / 'duplicates.csv').write_text('kept')
  train.train(config, str(tmp_path / 'run'))
  assert 'duplicates' not in caplog.text
  assert (tmp_path / 'run' / 'duplicates.csv').read_text() == 'kept'


@pytest.mark.parametrize('most, count', [
    (None, None),
    # All pictures of a set with one of each set before it: for validation 1 set and 2
    # (6 positives, 3 negatives), calibration 3 and 4, test 5 and 6 (12 and 6 pictures).
    (64, 6 * 1 + 3 * 2 + 6 * 3 + 3 * 4 + 12 * 5 + 6 * 6)])
def test_near_duplicates_are_looked_for_as_far_as_asked(most, count, table, tmp_path):
  config = config_file.load('pictures', f'baseline:{table}/table.csv')
  config.update_from_flattened_dict({'data.image_size': 16, 'data.duplicates': most})
  config = runs.resolve(config)
  found = TASKS['classify'].load(config, 1)
  duplicates.write(config, str(tmp_path), found, inputs.load_evals(config, {}))
  path = tmp_path / 'duplicates.csv'
  assert path.exists() == (count is not None)
  if count:
    assert len(path.read_text().splitlines()) == 1 + count


@pytest.mark.parametrize('variant, message', [
    ('{0}/gone.csv', "no file '.*gone.csv'"),
    ('{0}/table.csv,others', "holds the negatives too.*'others'"),
    ('{0}/one.csv', r"one.csv' must have at least two classes.*got \['a'\]"),
    ('{0}/semicolons.csv', "values that are separated by commas"),
    ('{0}/lable.csv', "unknown column 'lable'.*did you mean 'label'"),
    ('{0}/latin.csv', "latin.csv is not a CSV file in UTF-8"),
    ('tfds/no_such_set', "'no_such_set' is no data set of tfds.*./tfds/no_such_set"),
])
def test_tables_and_sets_that_cannot_be_used(variant, message, table):
  (table / 'one.csv').write_text('path,label\n1.png,a\n2.png,\n')
  (table / 'semicolons.csv').write_text('path;label\n1.png;a\n2.png;b\n')
  (table / 'lable.csv').write_text('path,lable\n1.png,a\n2.png,b\n')
  (table / 'latin.csv').write_bytes(b'path,label\nk\xe4tzchen.png,a\n2.png,\n')
  with pytest.raises(ValueError, match=message):
    config_file.load('pictures', variant.format(table))


def test_the_home_folder_and_spaces_in_a_header(table, monkeypatch):
  text = (table / 'table.csv').read_text()
  (table / 'spaces.csv').write_text(text.replace('label', ' label ', 1))
  monkeypatch.setenv('HOME', str(table))
  config = config_file.load('pictures', '~/spaces.csv')
  assert config.data.positives.path == f'{table}/spaces.csv'


def test_a_data_set_of_tfds_is_split_in_the_same_shares():
  config = config_file.load('pictures', 'tfds/cifar10,tfds/cifar100')
  assert config.num_classes == 10 and config.name == 'cifar10'
  splits = {name: one.source.split for name, one in config.evals.items()
            if 'split' in one.source and 'corrupt' not in one}
  assert config.data.positives.split == 'train[:60%]'
  assert config.data.negatives.others.source.split == 'train[:60%]'
  assert splits == {
      'test': 'train[80%:]', 'others': 'train[80%:]', 'validation': 'train[60%:70%]',
      'calibration': 'train[70%:80%]', 'validation_others': 'train[60%:70%]',
      'calibration_others': 'train[70%:80%]'}


def test_a_folder_that_is_called_as_a_set_of_tfds(folders, tmp_path, monkeypatch):
  (tmp_path / 'tfds').mkdir()
  for name, given in zip(('cifar10', 'cifar100'), folders.split(','), strict=True):
    (tmp_path / 'tfds' / name).symlink_to(given)
  monkeypatch.chdir(tmp_path)
  for root, source in (('tfds', 'tfds'), ('./tfds', 'folder')):
    config = config_file.load('pictures', f'{root}/cifar10,{root}/cifar100')
    assert config.num_classes == (10 if source == 'tfds' else 2)
    assert {config.data.positives.name, config.evals.others.source.name} == {source}


def test_folders_of_parts(folders, tmp_path):
  """Parts without a folder are taken from train; negatives need not have parts."""
  root = folders.split('/pets,')[0]
  for k in range(30):
    part = 'val' if k < 6 else 'train'
    for name in ('cat', 'dog'):
      (tmp_path / 'pets' / part / name).mkdir(parents=True, exist_ok=True)
      (tmp_path / 'pets' / part / name / f'{k}.png').symlink_to(
          f'{root}/pets/{name}/{k}.png')
  (tmp_path / 'others').mkdir()
  (tmp_path / 'others' / 'train').symlink_to(f'{root}/others')
  for negatives, bounds in ((f'{root}/others', 'all[80%:]'),
                            (f'{tmp_path}/others', 'train[80%:]')):
    config = config_file.load('pictures', f'{tmp_path}/pets,{negatives}')
    assert config.num_classes == 2 and config.evals.others.source.split == bounds
    assert config.evals.validation.source.split == 'validation'
    config = runs.resolve(config)
    found = TASKS['classify'].load(config, 1)
    sets = inputs.load_evals(config, found.negatives)
    assert found.pool.label.tolist().count(-1) == 18 and sets['others'].seen
    assert {name: len(sets[name].arrays.label) for name in (
        'test', 'validation', 'calibration', 'others')} == {
            'test': 10, 'validation': 12, 'calibration': 4, 'others': 6}
    files = [found.positives.files, *(one.arrays.files for name, one in sets.items()
                                      if one.positive and not one.corrupt)]
    assert len({*map(str, np.concatenate(files))}) == 60 == sum(map(len, files))


@pytest.mark.parametrize('variant, message', [
    ('{0}/pets/cat', r"cat' has no class folders.*at least two.*got 0"),
    ('{0}/one', r"one' has no class folders.*got 1"),
    ('{0}/nowhere', "no folder '.*nowhere'.*POSITIVES,NEGATIVES"),
    ('{0}/pets,{0}/other', "no folder of negatives '.*other'.*POSITIVES,NEGATIVES"),
    ('{0}/pets,{0}/pets/../pets', "negatives '.*pets' is '.*pets', or in it"),
    ('{0}/pets,{0}/pets/cat', "negatives '.*cat' is '.*pets', or in it"),
    ('{0}/pets,', "POSITIVES,NEGATIVES,.*without spaces after .*, got '.*pets,'"),
    ('bsaeline:{0}/pets', "variant 'bsaeline'.*did you mean 'baseline'"),
])
def test_folders_that_are_not_of_classes(variant, message, folders, tmp_path):
  root = folders.split('/pets,')[0]
  (tmp_path / 'one' / 'cat').mkdir(parents=True)
  root = tmp_path if '/one' in variant else root
  with pytest.raises(ValueError, match=message):
    config_file.load('pictures', variant.format(root))


@pytest.mark.parametrize('inner, refused', [
    ('pets', True), ('pets/run', True), ('others/runs/a', True), ('run', False),
    ('pets-baseline', False), ('pets/.runs/a', False)])
def test_a_workdir_among_the_pictures_is_refused(inner, refused, folders):
  root = folders.split('/pets,')[0]
  config = config_file.load('pictures', folders)
  if not refused:
    train.check(config, f'{root}/{inner}')
    return
  with pytest.raises(ValueError, match=f'{inner} is in the folder of pictures {root}/'):
    train.check(config, f'{root}/{inner}')
