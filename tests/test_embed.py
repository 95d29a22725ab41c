"""Pictures -> vectors -> a classifier -> prediction from pictures again."""

import importlib.util
import json
import pathlib
import re
import shlex
import zipfile

import jax
import numpy as np
import pytest
import toy
from flax import traverse_util
from PIL import Image

from nat_jax import data, detectors, models, runs, train
from nat_jax.classifier import Classifier
from nat_jax.commands import (
    calibrate,
    config_file,
    embed,
    export,
    posthoc,
    predict,
)
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.models import weights
from nat_jax.runtime import backbones
from nat_jax.schema import presets
from nat_jax.tasks import TASKS
from nat_jax.tasks.classify import inputs

COLOURS = {'cat': (200, 60, 60), 'dog': (60, 60, 200), '': (60, 200, 60)}


def stand_in(model, weights='', recorded=None, file=''):
  """A backbone without a package: means of quarters, seen through a matrix."""
  seed = len(model)
  matrix = np.random.default_rng(seed).normal(size=(12, 10)).astype(np.float32)
  spec = {'name': 'timm', 'model': model, 'weights': weights, 'size': [8, 8],
          'crop': 0.8, **(recorded or {}), 'width': 10,
          'sha256': backbones.checksum({'matrix': matrix})}

  def vectors(pictures):
    middle = backbones.crop_middle(pictures, spec['size'])
    quarters = middle.reshape(-1, 2, 4, 2, 4, 3).mean((2, 4), dtype=np.float32)
    return np.maximum(quarters.reshape(-1, 12) @ matrix / 255, 0)

  return backbones.Backbone(spec, vectors)


@pytest.fixture(autouse=True)
def no_timm(monkeypatch):
  monkeypatch.setitem(backbones.BACKBONES, 'timm', stand_in)


def draw(root, num=40):
  """Pictures of pets in two folders, and flat ones of others, of different sizes."""
  rng = np.random.default_rng(0)
  for name, colour in COLOURS.items():
    folder = root / 'pets' / name if name else root / 'others'
    folder.mkdir(parents=True)
    for k in range(num):
      pixels = rng.normal(colour, 30, (12 + k % 5, 14 + k % 3, 3)).clip(0, 255)
      Image.fromarray(pixels.astype(np.uint8)).save(folder / f'{k:02d}.png')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  root = tmp_path_factory.mktemp('pictures')
  draw(root)
  return root


@pytest.fixture(scope='module')
def trained(pictures, tmp_path_factory):
  """A run on vectors of the pictures, its features and its evaluation."""
  root = tmp_path_factory.mktemp('trained')
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(backbones.BACKBONES, 'timm', stand_in)
    made = embed.embed(
        'timm:nine', [f'{pictures}/pets', f'{pictures}/others'], str(root / 'x.npz'))
  config = config_file.load('embeddings', made.path)
  config.update_from_flattened_dict({
      'steps': 60, 'patience': 0, 'run.eval_every': 0, 'run.checkpoint_every': 0,
      'run.tensorboard': False, 'model.width': 16, 'schedule.learning_rate': 0.03,
      'schedule.warmup': 0})
  return str(root / 'run'), made, train.train(config, str(root / 'run'))


# The file of vectors.


def test_vectors_classes_and_files(pictures, tmp_path, capsys):
  (tmp_path / 'bad.png').write_bytes(b'no picture')
  found = embed.embed(
      'timm:nine', [f'{pictures}/pets', str(tmp_path / 'bad.png'),
                    f'{pictures}/others/*.png'], str(tmp_path / 'x.npz'))
  assert found.classes == {'cat': 40, 'dog': 40, '': 40}
  assert [path for path, _ in found.unreadable] == [str(tmp_path / 'bad.png')]
  made = toy.arrays(tmp_path / 'x.npz')
  assert made['vector'].shape == (120, 10) and made['vector'].dtype == np.float32
  files = [*sorted(pictures.glob('pets/*/*')), *sorted(pictures.glob('others/*'))]
  assert made['path'].tolist() == list(map(str, files))
  assert made['names'].tolist() == ['cat', 'dog']
  np.testing.assert_array_equal(made['label'], np.repeat([0, 1, -1], 40))
  assert made['unreadable'].tolist()[0].startswith(str(tmp_path / 'bad.png'))
  # Pictures are decoded to 10 = 8 / 0.8, of which the middle 8 are seen.
  pixels = data.read_pictures(files, 10)[0]
  np.testing.assert_allclose(made['vector'], stand_in('nine').embed(pixels), rtol=1e-5)
  assert json.loads(str(made['backbone'])) == found.spec == stand_in('nine').spec
  text = embed.text(found)
  assert re.search(r'40  cat\n +40  dog\n +40  without a class\n +1  unreadable', text)
  assert 'bad.png: ' in text and '120 pictures' not in capsys.readouterr().out


def test_pictures_of_the_home_folder_have_classes(pictures, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(pictures))
  found = embed.embed('timm:nine', ['~/pets', '~/others'], str(tmp_path / 'x.npz'))
  assert found.classes == {'cat': 40, 'dog': 40, '': 40}


def test_a_picture_that_is_named_twice_is_kept_once(pictures, tmp_path, monkeypatch):
  monkeypatch.chdir(pictures)
  found = embed.embed('timm:nine', ['pets', f'{pictures}/pets/', 'others/00.png',
                                    './others'], str(tmp_path / 'x.npz'))
  assert found.classes == {'cat': 40, 'dog': 40, '': 40}
  assert len(set(toy.arrays(found.path)['path'].tolist())) == 120
  with pytest.raises(ValueError, match=(
      "got pets/cat/00.png twice: class 'cat', and class 'none'; name it once")):
    embed.embed('timm:nine', ['pets', 'pets/cat'], str(tmp_path / 'y.npz'))
  assert not (tmp_path / 'y.npz').exists()


def test_a_file_of_vectors_in_the_home_folder(trained, monkeypatch):
  _, made, _ = trained
  folder = pathlib.Path(made.path).parent
  monkeypatch.setenv('HOME', str(folder))
  config = config_file.load('embeddings', '~/x.npz')
  assert config.data.positives.path == made.path and config.name == 'x'


def test_parts_of_a_folder_are_kept(pictures, tmp_path):
  for k, file in enumerate(sorted(pictures.glob('pets/*/*'))):
    inner = tmp_path / 'pets' / ('val' if k % 4 else 'train') / file.parent.name
    inner.mkdir(parents=True, exist_ok=True)
    (inner / file.name).symlink_to(file)
  embed.embed('timm:nine', [f'{tmp_path}/pets', f'{pictures}/others'],
              str(tmp_path / 'x.npz'))
  made = toy.arrays(tmp_path / 'x.npz')
  assert made['names'].tolist() == ['cat', 'dog']
  np.testing.assert_array_equal(
      made['split'], np.repeat(['train', 'validation', ''], [20, 60, 40]))
  np.testing.assert_array_equal(
      made['label'], np.repeat([0, 1, 0, 1, -1], [10, 10, 30, 30, 40]))
  config = config_file.load('embeddings', str(tmp_path / 'x.npz'))
  assert {name: entry.source.split for name, entry in config.evals.items()
          if name != 'noise'} == {
              'validation': 'validation', 'calibration': 'train[70%:80%]',
              'test': 'train[80%:]', 'validation_others': 'all[60%:70%]',
              'calibration_others': 'all[70%:80%]', 'others': 'all[80%:]'}


def test_a_list_of_any_bytes(pictures, tmp_path):
  """Files of a list have no class, and names keep their bytes."""
  odd = tmp_path / 'gr\udcfcn.png'
  odd.write_bytes((pictures / 'others' / '00.png').read_bytes())
  (tmp_path / 'list').write_bytes(bytes(odd) + b'\n')
  embed.embed('timm:nine', [f'@{tmp_path}/list'], str(tmp_path / 'x.npz'))
  made = toy.arrays(tmp_path / 'x.npz')
  assert made['path'].tolist() == [str(odd)] and made['label'].tolist() == [-1]


@pytest.mark.parametrize('backbone, out, message', [
    ('resnet50', 'x.npz', r'or timm:resnet50.a1_in1k.*got .resnet50'),
    ('timm:a@', 'x.npz', 'such as jax:'),
    ('tinm:a', 'x.npz', "backbone 'tinm' .did you mean 'timm'"),
    ('timm:a', 'x.csv', 'expected --out FILE.npz'),
    ('timm:a', 'nowhere/x.npz', 'there is no folder.*nowhere; create it'),
])
def test_mistakes(backbone, out, message, pictures, tmp_path):
  with pytest.raises(ValueError, match=message):
    embed.embed(backbone, [str(pictures)], str(tmp_path / out))
  assert not list(tmp_path.iterdir())


def test_pictures_that_are_all_unreadable(tmp_path):
  (tmp_path / 'bad.png').write_bytes(b'no picture')
  with pytest.raises(ValueError, match='not one of 1 pictures can be read: .*bad.png'):
    embed.embed('timm:a', [str(tmp_path)], str(tmp_path / 'x.npz'))
  assert not (tmp_path / 'x.npz').exists()


def test_without_timm_the_message_says_what_to_install(monkeypatch):
  monkeypatch.setitem(backbones.BACKBONES, 'timm', backbones.timm_backbone)
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r"pip install 'nat_jax\[embed\]'"):
    backbones.build(backbones.parse('timm:resnet18'))


@pytest.mark.parametrize('num', [5, 6])
def test_the_middle_of_pictures(num):
  pictures = np.arange(num * 8).reshape(1, num, 8, 1)
  found = backbones.crop_middle(pictures, (4, 4))
  assert found.shape == (1, 4, 4, 1)
  assert found[0, 0, 0, 0] == pictures[0, (num - 4) // 2, 2, 0]


def test_vectors_of_a_network_in_jax(tmp_path, monkeypatch):
  """They are the features of the network, for any number of pictures, of any batch."""
  given = toy.timm_weights('efficientnet_lite0')
  np.savez(tmp_path / 'x.npz', **given)
  monkeypatch.setattr(backbones, 'SIDE', 32)
  spec = backbones.parse(f'jax:efficientnet_lite0@{tmp_path}/x.npz')
  backbone = backbones.build(spec)
  assert backbones.decoded_size(backbone.spec) == (36, 36)
  pixels = np.random.default_rng(0).integers(0, 256, (11, 36, 36, 3), np.uint8)
  found = backbone.embed(pixels)
  assert found.shape == (11, backbone.spec['width']) == (11, 1280)
  net = models.efficientnet_lite0(num_outputs=1)
  images = (backbones.crop_middle(pixels, (32, 32)) / 255 - 0.5) / 0.5
  shapes = jax.eval_shape(lambda key: net.init(key, images, train=False),
                          jax.random.key(0))
  variables = weights.from_torch(
      'efficientnet_lite0', given,
      jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
  _, aux = jax.jit(lambda v, x: net.apply(v, x, train=False))(
      variables, images.astype(np.float32))
  np.testing.assert_allclose(found, aux['features'], atol=1e-5)
  assert backbones.build(backbone.spec).spec == backbone.spec
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path))
  changed = {**given, 'conv_head.weight': given['conv_head.weight'] + 1}
  np.savez(tmp_path / 'x.npz', **changed)
  with pytest.raises(ValueError, match='not those that the .* or .*backbones/x.npz'
                     '.* or .*tf_efficientnet_lite0.in1k.safetensors'):
    backbones.build(backbone.spec)
  (tmp_path / 'backbones').mkdir()
  np.savez(tmp_path / 'backbones' / 'x.npz', **given)  # where the message says
  assert backbones.build(backbone.spec).spec == backbone.spec
  np.savez(tmp_path / 'x.npz', other=np.zeros(3))  # weights of another network
  assert backbones.build(backbone.spec).spec == backbone.spec
  with pytest.raises(ValueError, match='no weights of jax:efficientnet_lite0 in .*/tf_'
                     'efficientnet_lite0.in1k.safetensors: take .* from https://hugging'):
    backbones.build(backbones.parse('jax:efficientnet_lite0'))
  with pytest.raises(ValueError, match="network of the backbone jax, 'resnet5'"):
    backbones.build(backbones.parse('jax:resnet5'))


@pytest.mark.slow
def test_an_export_holds_the_backbone(pictures, tmp_path, monkeypatch):
  """One file classifies pictures as the run does with its backbone in JAX."""
  monkeypatch.setattr(backbones, 'SIDE', 32)
  np.savez(tmp_path / 'w.npz', **toy.timm_weights('efficientnet_lite0'))
  made = embed.embed(
      f'jax:efficientnet_lite0@{tmp_path}/w.npz',
      [f'{pictures}/pets', f'{pictures}/others'], str(tmp_path / 'x.npz'))
  config = config_file.load('embeddings', made.path)
  config.steps, config.compare_with, config.run.tensorboard = 100, '', False
  workdir = str(tmp_path / 'run')
  train.train(config, workdir)
  with zipfile.ZipFile(export.export(workdir, threshold=0.9)) as file:
    card, program = (file.read(name) for name in ('card.md', 'model.stablehlo'))
  assert b'vectors of jax:efficientnet_lite0' in card and b'36 x 36' in card
  files = [f'{pictures}/{name}/03.png' for name in ('pets/cat', 'pets/dog', 'others')]
  pixels = data.read_pictures(files, 36)[0]
  found = jax.export.deserialize(bytearray(program)).call(pixels)
  expected = Classifier.restore(workdir, threshold=0.9).predict(files)
  np.testing.assert_allclose(found['probabilities'], expected.probabilities, atol=1e-4)
  np.testing.assert_array_equal(found['accepted'], expected.accepted)


def test_an_export_needs_a_backbone_in_jax(trained, tmp_path, monkeypatch):
  monkeypatch.setitem(backbones.BACKBONES, 'timm', None)  # it is not built for this
  with pytest.raises(ValueError, match='vectors of a backbone in JAX, got .*timm'):
    export.export(trained[0], threshold=0.5, out=str(tmp_path / 'x.zip'))


# The config.


def features(path, file='x.npz', split=None, unlabelled=True, **backbone):
  rng = np.random.default_rng(0)
  label = np.arange(120) % 3 - unlabelled
  vector = rng.normal(size=(120, 4)) + label[:, None]
  arrays = {'vector': vector, 'label': label, 'backbone': json.dumps(backbone)}
  if split is not None:
    arrays['split'] = np.array(split)[np.arange(120) * len(split) // 120]
  np.savez(path / file, **arrays)
  return str(path / file)


def loaded(variant):
  config = runs.resolve(config_file.load('embeddings', variant))
  found = TASKS['classify'].load(config, 1)
  return config, found, inputs.load_evals(config, found.negatives)


def test_four_parts_that_share_no_row(tmp_path):
  config, found, sets = loaded(features(tmp_path))
  assert config['num_classes'] == 2 and config['compare_with'].startswith('baseline:')
  num = {name: len(one.arrays.label) for name, one in sets.items()}
  assert num == {'test': 16, 'validation': 8, 'calibration': 8, 'others': 8,
                 'validation_others': 4, 'calibration_others': 4, 'noise': 2000}
  assert len(found.pool.label) == 72
  rows = [found.pool.image, *(one.arrays.image for name, one in sets.items()
                              if name != 'noise')]
  assert len({row.tobytes() for row in np.concatenate(rows)}) == 120
  assert [sets[name].seen for name in ('others', 'noise')] == [True, False]


def test_negatives_of_a_second_file_and_none(tmp_path):
  path = features(tmp_path, unlabelled=False)
  (tmp_path / 'n').mkdir()
  config, found, sets = loaded(f'{path},{features(tmp_path / "n")}')
  assert config['num_classes'] == 3
  np.testing.assert_array_equal(
      np.bincount(found.pool.label + 1), [72, 24, 24, 24])
  config, found, sets = loaded(path)
  assert set(config['data']['negatives']) == {'noise'} and sets['noise'].seen
  assert 'others' not in sets


def test_negatives_for_the_test_only(tmp_path, monkeypatch):
  """Each class of the third file is a set, and so are its rows without a class."""
  path = features(tmp_path)
  (tmp_path / 'n').mkdir()
  strangers = features(tmp_path / 'n', 'zoo.npz')  # the classes 0 and 1, and none
  for variant in (f'{path},,{strangers}', f'{path},{path},{strangers}'):
    sets = loaded(variant)[2]
    assert {name: len(sets[name].arrays.label) for name in ('0', '1', 'zoo')} == {
        '0': 40, '1': 40, 'zoo': 40}
    assert not any(sets[name].seen or sets[name].positive for name in ('0', '1', 'zoo'))
  with pytest.raises(ValueError, match='x.npz is trained on too'):
    loaded(f'{path},,{path}')
  np.savez(tmp_path / 'St. B.npz', vector=np.eye(4)[[0, 1, 2, 3]], label=[*'abb', ''])
  assert {name: len(loaded(f'{path},,{tmp_path}/St. B.npz')[2][name].arrays.label)
          for name in ('a', 'b', 'St__B')} == {'a': 1, 'b': 2, 'St__B': 1}
  np.savez(tmp_path / 'a.npz', vector=np.eye(4)[[0, 1]], label=['a', ''])
  with pytest.raises(ValueError, match="another name for 'a', .* set is called 'a'"):
    loaded(f'{path},,{tmp_path}/a.npz')
  monkeypatch.setattr(presets, 'MOST_KINDS', 1)
  sets = loaded(variant)[2]
  assert len(sets['zoo'].arrays.label) == 120 and '0' not in sets
  other = features(tmp_path / 'n', 'x.npz', sha256='2')
  with pytest.raises(ValueError, match='different backbones .sha256 is none and 2'):
    config_file.load('embeddings', f'{path},,{other}')


def test_a_table_of_numbers(tmp_path):
  """A .csv file gives the four parts that an .npz file of its numbers gives."""
  path = features(tmp_path)
  made = toy.arrays(path)
  rows = [f'{number},{",".join(map(repr, row.tolist()))}'
          for number, row in zip(made['label'], made['vector'], strict=True)]
  (tmp_path / 'x.csv').write_text('\n'.join(['label,a,b,c,d', *rows]))
  config, found, sets = loaded(str(tmp_path / 'x.csv'))
  same, expected, others = loaded(path)
  assert config['data']['mean'] == same['data']['mean'] and config['num_classes'] == 2
  np.testing.assert_array_equal(found.pool.image, expected.pool.image)
  np.testing.assert_array_equal(found.pool.label, expected.pool.label)
  for name, one in sets.items():
    np.testing.assert_array_equal(one.arrays.image, others[name].arrays.image)


@pytest.mark.parametrize('split, nums', [
    (['train', 'train', 'train', 'test'], (48, 6, 6, 20)),
    (['train', 'train', 'validation', 'test'], (36, 20, 4, 20)),
    (['train', 'validation', 'calibration', 'test'], (20, 20, 20, 20)),
])
def test_parts_that_the_file_names(split, nums, tmp_path):
  config, found, sets = loaded(features(tmp_path, split=split))
  assert (int((found.pool.label >= 0).sum()), *(
      len(sets[name].arrays.label) for name in ('validation', 'calibration', 'test'))
  ) == nums


def saved(folder, **arrays):
  np.savez(folder / 'saved.npz', **arrays)
  return str(folder / 'saved.npz')


@pytest.mark.parametrize('made, message', [
    (lambda p: features(p, split=['train', 'x']), "expected train,.* 'train', 'x'"),
    (lambda p: features(p, split=['train', '']), "or in none, got '', 'train'"),
    (lambda p: features(p, split=['validation', 'test']), 'part train, got only test'),
    (lambda p: f'{features(p, name="timm", sha256="1")},'
     f'{features(p, "y.npz", name="timm", sha256="2")}', 'different backbones .sha256'),
    (lambda p: f'{features(p)},{features(p, "y.npz", sha256="2")}', 'none and 2'),
    (lambda p: 'basline:' + features(p), "did you mean 'baseline'"),
    (lambda p: str(p / 'x.npz'), 'there is no file .*--mode=embed'),
    (lambda p: saved(p, vector=np.eye(4), label=['a']), r'4 rows, got the shape .1.'),
    (lambda p: saved(p, vector=np.eye(4), label=['a'] * 4), 'two classes.*got 1 cl'),
    (lambda p: saved(p, vector=np.eye(4)), 'two classes, named in label.*got 0 cl'),
])
def test_files_that_do_not_go(made, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    config_file.load('embeddings', made(tmp_path))


# Every mode on such a run.


def test_prediction_from_pictures_is_that_of_the_vectors(trained, pictures):
  """The calibration part, predicted from its files and from its vectors."""
  workdir, made, evaluation = trained
  assert evaluation['evals']['test']['accuracy'] == 1
  assert evaluation['evals']['others']['auroc'] > 0.95
  assert not list(pathlib.Path(workdir).glob('mistakes*'))
  config = runs.about(workdir)['config']
  assert config['data']['backbone'] == made.spec
  vectors, files = (toy.arrays(made.path)[key] for key in ('vector', 'path'))
  raw = data.load(config['evals']['calibration']['source']).image
  rows = [int(np.flatnonzero((vectors == one).all(1))[0]) for one in raw]
  images = [str(files[row]) for row in rows]
  found = predict.predict(workdir, images)
  scores = toy.arrays(pathlib.Path(workdir) / 'scores' / 'calibration.npz')
  names = ['cat', 'dog']
  assert [row['class'] for row in found.rows] == [
      names[k] for k in scores['prediction']]
  np.testing.assert_allclose(
      [row['probability'] for row in found.rows], scores['max_prob'], rtol=1e-4)
  assert predict.predict(workdir, [f'{pictures}/others'], sheet=True).sheet


def test_other_modes(trained):
  workdir, _, evaluation = trained
  again = evaluate_run(workdir)
  assert again['evals']['test']['accuracy'] == evaluation['evals']['test']['accuracy']
  calibrated = calibrate.calibrate(workdir, accept=0.5)
  assert calibrated['n'] == 8 and set(calibrated['negatives']) == {
      'calibration_others', 'noise'}
  pathlib.Path(workdir, 'calibration.json').unlink()
  found = posthoc.posthoc(workdir)
  assert set(found['scores']) == set(detectors.SCORES)
  for score, sets in found['scores'].items():
    assert set(sets) == {'others', 'noise'}, score
    assert 0 <= sets['others']['auroc'] <= 1, score
  assert found['scores']['mahalanobis']['others']['auroc'] > 0.9


def test_weights_that_have_changed(trained, pictures, monkeypatch):
  workdir, made, _ = trained
  other = stand_in('seven77')
  monkeypatch.setitem(
      backbones.BACKBONES, 'timm',
      lambda model, weights='', recorded=None, file='': other)
  with pytest.raises(ValueError, match=r'not those that the vectors.*, of SHA-256 '
                     + made.spec['sha256'][:16] + '.*backbones/nine.safetensors'):
    predict.predict(workdir, [f'{pictures}/others'])


def test_a_run_that_knows_no_backbone(tmp_path, pictures):
  spec = {'name': 'arrays', 'path': features(tmp_path)}
  train.train(presets.experiment(
      steps=1, num_classes=2, model={'name': 'mlp', 'width': 2, 'depth': 0},
      loss={'name': 'cross_entropy'},
      data=dict(positives=spec, mean=(), std=(), batch_size=8),
      evals={'test': {'source': spec, 'positive': True}},
      run=dict(tensorboard=False)), str(tmp_path / 'run'))
  with pytest.raises(ValueError, match=r'trained on vectors.*data.backbone is empty'):
    predict.predict(str(tmp_path / 'run'), [str(pictures)], threshold=0.5)


# timm itself, where it is installed, with random weights.


@pytest.fixture
def resnet18(tmp_path, monkeypatch):
  """(network of timm, file of its weights)."""
  torch, timm = pytest.importorskip('torch'), pytest.importorskip('timm')
  from safetensors.torch import save_file

  monkeypatch.setitem(backbones.BACKBONES, 'timm', backbones.timm_backbone)
  monkeypatch.setenv('HF_HUB_OFFLINE', '1')
  torch.manual_seed(0)
  net = timm.create_model('resnet18', pretrained=False).eval()
  save_file(net.state_dict(), tmp_path / 'weights.safetensors')
  return net, str(tmp_path / 'weights.safetensors')


def test_vectors_of_timm(resnet18, pictures, tmp_path):
  """Those that timm computes of pictures that its own transform has prepared."""
  import timm
  import torch

  net, file = resnet18
  found = embed.embed(
      f'timm:resnet18@{file}', [f'{pictures}/pets'], str(tmp_path / 'x.npz'))
  made = toy.arrays(tmp_path / 'x.npz')
  assert found.spec['width'] == 512 == made['vector'].shape[1]
  transform = timm.data.create_transform(
      **{**timm.data.resolve_model_data_config(net), 'interpolation': 'bicubic'})
  rows = [0, 17, 50]
  images = torch.stack([transform(Image.open(made['path'][row])) for row in rows])
  with torch.inference_mode():
    expected = net.forward_head(net.forward_features(images), pre_logits=True).numpy()
  scale = np.abs(expected).max()
  np.testing.assert_allclose(made['vector'][rows], expected, atol=0.02 * scale)
  again = backbones.build(found.spec)
  assert again.spec == found.spec


def test_weights_of_timm_that_do_not_go(resnet18, tmp_path, monkeypatch):
  _, file = resnet18
  spec = {'name': 'timm', 'model': 'resnet18', 'weights': file}
  with pytest.raises(ValueError, match='does not hold the weights of timm:resnet34'):
    backbones.build({**spec, 'model': 'resnet34'})
  with pytest.raises(ValueError, match="no network 'resnet81' .did you mean 'resnet"):
    backbones.build({**spec, 'model': 'resnet81'})
  (tmp_path / 'damaged.safetensors').write_bytes(b'\0' * 100)
  with pytest.raises(ValueError, match='damaged.safetensors does not hold'):
    backbones.build({**spec, 'weights': str(tmp_path / 'damaged.safetensors')})
  with pytest.raises(ValueError, match='cannot be fetched.*model.safetensors from '
                     r'https://huggingface.co/timm/.*backbones/resnet18.safetensors'):
    backbones.build({**spec, 'weights': ''})
  # Brought to where the message says, under the name of the model or of the file.
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path))
  (tmp_path / 'backbones').mkdir()
  pathlib.Path(file).rename(tmp_path / 'backbones' / 'resnet18.safetensors')
  found = backbones.build({**spec, 'weights': ''})
  moved = {**found.spec, 'weights': str(tmp_path / 'gone' / 'resnet18.safetensors')}
  assert backbones.build(moved).spec == moved
  with pytest.raises(ValueError, match='neither in .*gone.* nor in .*backbones'):
    backbones.build({**moved, 'weights': str(tmp_path / 'gone' / 'x.safetensors')})


# The guide.


@pytest.mark.slow
def test_the_guide(tmp_path, monkeypatch, capsys):
  """Its commands, with the stand-in, few updates and no plain classifier."""
  page = pathlib.Path(toy.ROOT, 'docs', 'embeddings.md').read_text()
  blocks = re.findall(r'^```\n(.*?)^```', page, re.M | re.S)
  commands = [
      shlex.split(line) for block in blocks
      for line in block.replace('\\\n', ' ').splitlines() if 'nat_jax.main' in line]
  modes = [next((one for one in command if one.startswith('--mode=')), '--mode=train')
           for command in commands]
  assert [mode.removeprefix('--mode=') for mode in modes] == [
      'embed', 'train', 'calibrate', 'posthoc', 'predict']
  monkeypatch.setitem(backbones.BACKBONES, 'jax', stand_in)
  draw(tmp_path, 300)
  (tmp_path / 'photos').symlink_to(tmp_path / 'pets')
  monkeypatch.chdir(tmp_path)
  for command, mode in zip(commands, modes, strict=True):
    extra = ['--config.steps=100', '--config.run.tensorboard=False',
             '--config.compare_with=']
    toy.run_main(monkeypatch, *command[3:], *extra * (mode == '--mode=train'))
  rows = (tmp_path / 'runs' / 'pets' / 'predictions.csv').read_text().splitlines()
  assert len(rows) == 601
  assert sum(',accepted,' in row for row in rows) >= 0.9 * 600
  assert 'refuses: ' in capsys.readouterr().out


def test_the_guide_to_fine_tuning(pictures, tmp_path, monkeypatch):
  """Its config is traced; its weights are asked for before anything is written."""
  page = pathlib.Path(toy.ROOT, 'docs', 'embeddings.md').read_text()
  block = next(one for one in re.findall(r'^```python\n(.*?)^```', page, re.M | re.S)
               if 'get_config' in one)
  (tmp_path / 'resnet.py').write_text(block)
  monkeypatch.chdir(tmp_path)
  config = config_file.load('resnet.py', f'{pictures}/pets,{pictures}/others')
  config = runs.resolve(config)
  trainer = runs.build_trainer(config, (224, 224, 3))
  shapes = jax.eval_shape(trainer.init, jax.random.key(0))
  with pytest.raises(ValueError, match='no file of weights .*/model.safetensors.: take '
                     'model.safetensors from https://huggingface.co/timm/resnet50'):
    trainer.start(shapes)
  trained = sum(x.size for x in jax.tree.leaves(shapes.nets['model'].opt_state))
  frozen = sum(x.size for path, x in jax.tree_util.tree_leaves_with_path(
      shapes.nets['model'].params) if path[0].key.startswith(('stem', 'group1')))
  whole = sum(x.size for x in jax.tree.leaves(shapes.nets['model'].params))
  assert whole - frozen < trained / 2 < whole - frozen + 20  # two moments of Adam


def test_fine_tuning_of_the_small_network(pictures, tmp_path, monkeypatch):
  """The weights have a place in the cache; the plain variant has no negatives."""
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path))
  variant = f'{pictures}/pets,{pictures}/others'
  plain = config_file.load('finetune', f'baseline:{variant}')
  assert plain.data.negatives_per_batch == 0 and plain.loss.name == 'cross_entropy'
  config = config_file.load('finetune', variant)
  assert config.compare_with == f'baseline:{variant}' and config.data.image_size == 224
  with pytest.raises(ValueError, match=r"^\S+pictures.py, line \d+: there is no "):
    config_file.load('finetune', f'{variant},{pictures}/gone')
  trainer = runs.build_trainer(runs.resolve(config), (224, 224, 3))
  shapes = jax.eval_shape(trainer.init, jax.random.key(0))
  with pytest.raises(ValueError, match='no file of weights .*/backbones/tf_efficient.*'
                     'https://huggingface.co/timm/tf_efficientnet_lite0.in1k'):
    trainer.start(shapes)


@pytest.mark.slow
def test_a_fine_tuned_run(pictures, tmp_path, monkeypatch):
  """Two updates of small pictures leave what is frozen as it was; then it predicts."""
  given = toy.timm_weights('efficientnet_lite0')
  np.savez(tmp_path / 'weights.npz', **given)
  config = config_file.load('finetune', f'{pictures}/pets,{pictures}/others')
  config.update(weights=str(tmp_path / 'weights.npz'), steps=2, patience=0, best='',
                compare_with='')
  config.evals = {name: one for name, one in config.evals.items() if name in (
      'test', 'validation', 'calibration', 'calibration_others')}
  config.data.image_size = 32
  config.run.tensorboard = False
  train.train(config, str(tmp_path / 'run'))
  net = runs.restore(str(tmp_path / 'run')).state.nets['model']
  start = traverse_util.flatten_dict(
      weights.from_torch('efficientnet_lite0', given, net.variables), sep='/')
  for path, found in traverse_util.flatten_dict(net.variables, sep='/').items():
    layer = path.partition('/')[2]
    if not layer.startswith('head/'):  # which starts from random weights
      assert np.array_equal(found, start[path]) == (
          weights.stage('efficientnet_lite0', layer) < config.model.frozen), path
  found = predict.predict(str(tmp_path / 'run'), [f'{pictures}/pets'], threshold=0.0)
  assert found.total('accepted') == 80
