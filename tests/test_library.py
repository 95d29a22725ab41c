"""The library, `Classifier`, and `--mode=export`, on one run of digits."""

import csv
import doctest
import hashlib
import io
import json
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import types
import zipfile

import jax
import numpy as np
import pytest
import toy
from PIL import Image

import nat_jax
from nat_jax import Classifier, classifier, data, models, registry, runs, task, train
from nat_jax.commands import calibrate, export, predict
from nat_jax.commands import card as cards
from nat_jax.data import decode
from nat_jax.metrics import selective
from nat_jax.runtime import checkpoint, files, parallel, portable, results
from nat_jax.schema import presets
from nat_jax.tasks.classify import rule

RUN = 'runs/six'  # of docs/library.md


def blocks(page):
  """The Python examples of a page."""
  text = (toy.ROOT / 'docs' / page).read_text()
  return re.findall(r'^```python\n(.*?)^```', text, re.M | re.S)


@pytest.fixture(scope='module')
def example(tmp_path_factory):
  """The names that the first example of docs/library.md defines, in its folder."""
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(tmp_path_factory.mktemp('library'))
    space = {'__name__': 'library'}
    exec(compile(blocks('library.md')[0], 'docs/library.md', 'exec'), space)
    yield space


@pytest.fixture
def clf(example):
  pathlib.Path(RUN, rule.CALIBRATION).unlink(missing_ok=True)
  return example['clf']


@pytest.fixture
def images(example):
  return example['digits'].image


# The examples.


def test_examples_of_the_page_run(example):
  space, examples = dict(example), blocks('library.md')[1:]
  assert len(examples) == 2
  for block in examples:
    exec(compile(block, 'docs/library.md', 'exec'), space)


def test_examples_of_the_docstring_run(clf, images):
  noise = np.random.default_rng(0).integers(0, 256, images.shape[1:], np.uint8)
  label = data.digits('all', range(6)).label
  chosen = [images[np.flatnonzero((label == k) & clf.predict(images).accepted)[0]]
            for k in (0, 2)]
  Image.fromarray(chosen[0][..., 0]).resize((50, 50), 0).save('zero.png')
  shutil.copytree(RUN, 'runs/digits', dirs_exist_ok=True)
  found = doctest.testmod(
      classifier, extraglobs={'images': np.stack([*chosen, noise])})
  assert found.attempted >= 6 and not found.failed


# Predictions.


def test_answers_are_those_of_predict(clf, images, tmp_path):
  """Arrays, Pillow images and paths, of the size of the network and of another."""
  large = [Image.fromarray(one[..., 0]).resize((20, 24)) for one in images[:12]]
  for k, picture in enumerate(large):
    picture.convert('RGB').save(tmp_path / f'{k:02d}.png')
  out = predict.predict(RUN, [str(tmp_path)], out=str(tmp_path / 'rows.csv'), top=6)
  with open(out.path, newline='') as file:
    rows = list(csv.DictReader(file))
  paths = sorted(tmp_path.glob('*.png'))
  mixed = [path if k % 3 == 0 else large[k] if k % 3 == 1 else
           np.asarray(large[k].convert('RGB')) for k, path in enumerate(paths)]
  found = clf.predict(mixed)
  np.testing.assert_allclose(
      found.scores, [float(row['score']) for row in rows], rtol=1e-5)
  np.testing.assert_allclose(
      found.probabilities.max(1), [float(row['probability']) for row in rows],
      rtol=1e-5)
  assert clf.classes_[found.probabilities.argmax(1)].tolist() == [
      row['class'] for row in rows]
  assert found.accepted.tolist() == [row['verdict'] == 'accepted' for row in rows]
  small = data.read_pictures(paths, 8, 'L')[0]
  assert clf.predict(np.array(list(map(str, paths)))).names == found.names
  for one, other in zip(found, clf.predict(small), strict=True):
    np.testing.assert_array_equal(one, other)


def test_answers_do_not_depend_on_their_number_nor_compile_anew(clf, images):
  whole, traced = clf.predict(images[:70]), []
  head = clf.run.trainer.heads['logits']
  run = clf.run._replace(trainer=clf.run.trainer._replace(heads={
      'logits': lambda *args: traced.append(1) or head(*args)}))
  again = Classifier(run, clf.basis, RUN)
  for num in (1, 2, 7, 8, 9, 20, 64, 65, 70):
    found = again.predict(images[:num])
    for one, other in zip(found, whole, strict=True):
      if isinstance(one, tuple):
        assert one == other[:num]
      else:
        np.testing.assert_allclose(one, other[:num], rtol=1e-5, atol=1e-6)
  assert len(traced) == 3


def test_labels_names_and_acceptance_agree(clf, images):
  strangers = data.digits('all', (8, 9)).image
  found = clf.predict(np.concatenate([images, strangers]))
  assert 0.8 < found.accepted[:len(images)].mean() and found.accepted.mean() < 0.9
  np.testing.assert_array_equal(
      found.accepted, found.scores >= clf.basis.rule.threshold)
  np.testing.assert_array_equal(
      found.labels, np.where(found.accepted, found.probabilities.argmax(1), -1))
  assert found.names == tuple(
      'none of these' if k < 0 else clf.classes_[k] for k in found.labels)
  np.testing.assert_array_equal(clf.predict_proba(images), found.probabilities[
      :len(images)])


def test_one_picture_and_none(clf, images):
  expected = clf.predict(images[:1])
  grey = Image.fromarray(images[0, ..., 0])
  for one in (images[0], images[0, ..., 0], grey, [grey, grey]):
    found = clf.predict(one)
    assert found.names[:1] == expected.names
    np.testing.assert_array_equal(found.scores[:1], expected.scores)
  assert len(found.names) == 2
  nothing = clf.predict([])
  assert nothing.probabilities.shape == (0, 6) and nothing.names == ()


@pytest.mark.parametrize('change, message', [
    (lambda x: x / 255, r'uint8.*\[n, h, w, c\].*float64.*\* 255'),
    (lambda x: x[..., 0], r'got uint8 \[5, 8, 8\].*None.*grey'),
    (lambda x: [x[0], x[0] / 2], r'picture 1 \(ndarray\).*uint8.*float64'),
    (lambda x: None, 'expected pictures: a path.*got None'),
    (lambda x: [x[0], 'gone.png'], r'picture 1 \(gone.png\).*No such file'),
])
def test_what_is_no_picture(change, message, clf, images):
  with pytest.raises(ValueError, match=message):
    clf.predict(change(images[:5]))


def linear(rule_of, width=3):
  """A classifier of pixels [2, 2, 3] by a fixed matrix to `width` logits."""
  matrix = np.random.default_rng(0).normal(size=(12, width)).astype(np.float32)

  def logits(state, images):
    return (images.reshape(images.shape[0], -1) / np.float32(64) - 2) @ matrix

  trainer = task.Trainer(None, None, None, {'logits': logits}, None, None)
  config = {'num_classes': 3, 'eval_batch_size': 16}
  run = task.Run(config, (2, 2, 3), (), trainer, {}, 1, parallel.make_mesh())
  return Classifier(run, rule.Basis(rule_of, rule.GIVEN, None), '')


def test_a_background_output_takes_its_share():
  """And is no class."""
  clf = linear(rule.at_probability(0.4), width=4)
  images = np.random.default_rng(1).integers(0, 256, (200, 2, 2, 3), np.uint8)
  found = clf.predict(images)
  logits = clf.run.trainer.heads['logits']({}, images).astype(np.float64)
  expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  np.testing.assert_allclose(found.probabilities, expected[:, :3], rtol=1e-5)
  assert found.labels.max() == 2 and (expected.argmax(1) == 3).any()
  np.testing.assert_array_equal(found.accepted, expected[:, :3].max(1) >= 0.4)
  assert clf.classes_.tolist() == ['0', '1', '2']


# Training from arrays.


def test_trained_on_arrays(clf):
  with open(f'{RUN}/eval.json') as file:
    evals = json.load(file)['evals']
  assert evals['test']['accuracy'] > 0.95
  counts = {name: figures['n'] for name, figures in evals.items()}
  assert counts == {'test': 216, 'validation': 108, 'calibration': 109, 'noise': 1000,
                    'negatives': 72, 'validation_negatives': 36,
                    'calibration_negatives': 36}
  assert evals['negatives']['overlap_with_training_negatives'] == 0
  assert clf.basis.origin == rule.DEFAULT and clf.classes_.tolist() == list('012345')


def test_the_same_call_goes_on_and_other_data_are_refused(example, capsys):
  arguments = dict(workdir=RUN, steps=300, model={'name': 'mlp'})
  digits, others = example['digits'], example['others']
  before = sorted(os.listdir(f'{RUN}/data'))
  Classifier.fit(digits.image, digits.label, others.image, **arguments)
  assert 'trained already' in capsys.readouterr().out
  Classifier.fit(digits.image, digits.label, others.image, **arguments, verbose=False)
  assert capsys.readouterr().out == ''
  with pytest.raises(ValueError, match='data.positives.path: .*another --workdir'):
    Classifier.fit(digits.image[::-1], digits.label, others.image, **arguments)
  with pytest.raises(ValueError, match='steps: 300 -> 400'):
    Classifier.fit(
        digits.image, digits.label, others.image, **{**arguments, 'steps': 400})
  assert sorted(os.listdir(f'{RUN}/data')) == before


def test_pictures_of_any_size_and_labels_of_texts():
  rng = np.random.default_rng(0)
  pictures = [Image.fromarray(rng.integers(0, 256, (9 + k % 3, 12, 3), np.uint8))
              for k in range(40)]
  grey = [picture.convert('L') for picture in pictures[:10]]
  texts = np.array(['dog', 'cat'] * 20, object)  # as a column of pandas holds them
  found = classifier._arrays(pictures, texts, grey, 6)
  assert found['negatives'].image.shape == (10, 6, 6, 3)
  positives = found['positives']
  assert positives.names == ('cat', 'dog') and positives.image.shape == (40, 6, 6, 3)
  kept = {one.tobytes(): k for one, k in zip(*positives[:2], strict=True)}
  for k, picture in enumerate(pictures):
    assert kept[decode.decode(picture, (6, 6)).tobytes()] == (k + 1) % 2
  paths = {name: f'/x/{name}.npz' for name in found}
  config = runs.resolve(classifier._config(
      positives, paths, {'seed': 3, 'data': {'batch_size': 16}}))
  assert (config['seed'], config['data']['batch_size']) == (3, 16)
  assert config['data']['positives']['split'] == 'all[:60%]'
  mean = positives.image.mean((0, 1, 2)) / 255
  np.testing.assert_allclose(config['data']['mean'], mean, atol=1e-4)
  alone = runs.resolve(classifier._config(
      positives, {'positives': paths['positives']}, {}))
  assert list(alone['data']['negatives']) == ['shuffled']


GOOD = np.zeros((30, 6, 6, 1), np.uint8)
KINDS = np.arange(30) % 3


@pytest.mark.parametrize('arguments, message', [
    ((GOOD / 255, KINDS), 'images: expected uint8.*float64'),
    ((list(GOOD), KINDS), 'images: .*image_size'),
    ((GOOD, KINDS[:29]), r'one label for each of 30 images.*\[29\]'),
    ((GOOD, KINDS / 2), 'integers or texts, got float64'),
    ((GOOD, KINDS * 0), 'at least two classes, got 1'),
    ((GOOD, KINDS * (np.arange(30) < 27)), "class '1' has 9 images; at least 10"),
    ((GOOD, KINDS, GOOD / 255), 'negatives: expected uint8.*float64'),
    ((GOOD, KINDS, ['gone.png'] * 10), r'negatives: picture 0 \(gone.png\).*No such'),
    ((GOOD, KINDS, GOOD[:9]), '10 negatives or more, got 9'),
])
def test_mistakes_in_arrays(arguments, message, tmp_path, monkeypatch):
  monkeypatch.setattr(train, 'train', None)
  with pytest.raises(ValueError, match=message):
    Classifier.fit(*arguments, workdir=tmp_path / 'run')
  for changes, wrong in (
      ({'stepz': 3}, 'did you mean'), ({'seed': -1}, 'seed must'),
      ({'steps': 'many'}, "steps must be a whole number .*'many'")):
    with pytest.raises(ValueError, match=wrong):
      Classifier.fit(GOOD, KINDS, workdir=tmp_path / 'run', **changes)
  for workdir, wrong in (
      ('gs://bucket/run', 'local workdir.*gs://'), (None, 'got None'),
      (__file__, 'path of a folder.*test_library.py')):
    with pytest.raises(ValueError, match=wrong):
      Classifier.fit(GOOD, KINDS, workdir=workdir)
  assert list(tmp_path.iterdir()) == []


def test_arrays_of_a_file(tmp_path):
  path = str(tmp_path / 'a.npz')
  np.savez(path, image=GOOD + KINDS.astype(np.uint8)[:, None, None, None], label=KINDS,
           names=['x', 'y', 'z'])
  found = data.load({'name': 'arrays', 'path': path, 'split': 'all[:60%]',
                     'classes': (2, 0)})
  assert found.names == ('z', 'x') and np.bincount(found.label).tolist() == [6, 6]
  np.testing.assert_array_equal(found.image[:, 0, 0, 0], 2 - 2 * found.label)
  np.savez(path, image=GOOD / 255, label=KINDS)
  with pytest.raises(ValueError, match="a.npz: 'image' must be uint8.*float64"):
    data.arrays(path)
  with pytest.raises(ValueError, match='there is no file .*gone.npz'):
    data.arrays(str(tmp_path / 'gone.npz'))


# The rule.


def test_another_calibration_is_refused_and_may_be_overridden(clf, images):
  about = {'step': 1, 'crc32': 1, 'accept': 0.9, 'score': 'energy', 'temperature': 2.0,
           'threshold': 0.0, 'confidence': 0.95, 'n': 99, 'format': 2}
  files.write_json(f'{RUN}/{rule.CALIBRATION}', about)
  for use in (Classifier.restore, export.export):
    with pytest.raises(ValueError, match='of step 1, not of checkpoint 300; renew it'):
      use(RUN)
  with pytest.warns(UserWarning, match='calibration.json is not used.*temperature 1'):
    found = Classifier.restore(RUN, threshold=0.7).predict(images)
  np.testing.assert_array_equal(found.accepted, found.probabilities.max(1) >= 0.7)


@pytest.mark.parametrize('threshold', ['a', True, 2])
def test_a_threshold_is_a_probability(threshold):
  with pytest.raises(ValueError, match=f'from 0 to 1, got {threshold!r}'):
    Classifier.restore(RUN, threshold=threshold)
  rule.check_threshold(np.float32(0.5))


@pytest.mark.parametrize('threshold', [0.0, 1.0])
def test_0_accepts_everything_and_1_nothing_by_finite_numbers(threshold):
  """JSON has no infinity."""
  logits = np.array([[-1e38, 1e38, 0], [0, 0, 0], [1, 0, 0]], np.float32)
  used = rule.at_probability(threshold)
  assert json.loads(json.dumps(used, allow_nan=False))[2] == used.threshold
  assert rule.probability(used.threshold) == threshold
  for accepted in (rule.decide(logits, 3, used).accepted,
                   rule.decide_on_device(logits, 3, used)['accepted']):
    assert list(accepted) == [threshold == 0] * 3


@pytest.mark.parametrize('score', selective.LOGIT_SCORES)
@pytest.mark.parametrize('width', [3, 4])
def test_scores_on_the_device_are_those_on_the_host(score, width):
  logits = np.random.default_rng(0).normal(0, 6, (500, width)).astype(np.float32)
  threshold = float(np.median(rule.confidence(logits, 3, score, 1.7))) + 1e-3
  chosen = rule.Rule(score, 1.7, threshold)
  found = jax.device_get(jax.jit(
      lambda logits: rule.decide_on_device(logits, 3, chosen))(logits))
  expected = rule.decide(logits, 3, chosen)
  np.testing.assert_allclose(found['score'], expected.score, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
      found['probabilities'], expected.probability, rtol=1e-4, atol=1e-7)
  sure = np.abs(expected.score - threshold) > 1e-4
  np.testing.assert_array_equal(found['accepted'][sure], expected.accepted[sure])
  assert 50 < expected.accepted.sum() < 450


def test_every_score_can_be_exported():
  assert rule.ON_DEVICE.keys() == selective.LOGIT_SCORES.keys()
  with pytest.raises(ValueError, match='score of an export, .x.; valid: max_prob'):
    rule.decide_on_device(np.zeros((1, 2)), 2, rule.Rule('x', 1.0, 0.0))


# Exports.


@pytest.fixture
def exported(clf, tmp_path):
  return pathlib.Path(export.export(RUN, out=str(tmp_path / 'model.zip')))


def held(path):
  with zipfile.ZipFile(path) as file:
    return {name: file.read(name) for name in file.namelist()}


SCRIPT = '''
import sys

class Blocked:
  def find_spec(self, name, path=None, target=None):
    if name.partition('.')[0] in ('nat_jax', 'flax', 'optax', 'orbax', 'clu'):
      raise ImportError(f'{name} is blocked')

sys.meta_path.insert(0, Blocked())
EXAMPLE
import numpy as np

model = load('runs/pets/model.zip')
with np.load('images.npz') as file:
  images = file['images']
out = {f'{key}_{n}': x for n in (1, 3, 40) for key, x in model.call(images[:n]).items()}
out |= {f'{key}_pictures': x for key, x in model.predict(list(images)).items()}
out |= {f'{key}_photo': x for key, x in found.items()}
np.savez('out.npz', **out)
'''


@pytest.mark.process
def test_it_runs_without_this_package(clf, images, exported, tmp_path):
  """And finds the results of the original; with the example of docs/prediction.md."""
  (tmp_path / 'runs' / 'pets').mkdir(parents=True)
  shutil.copy(exported, tmp_path / 'runs' / 'pets')
  photo = Image.fromarray(images[0, ..., 0]).convert('RGB').resize((31, 40))
  photo.save(tmp_path / 'photo.jpg')
  images = np.concatenate([images[:40], data.digits('all', (8, 9)).image[:30]])
  np.savez(tmp_path / 'images.npz', images=images)
  text, = blocks('prediction.md')
  ran = subprocess.run(
      [sys.executable, '-c', SCRIPT.replace('EXAMPLE', text)], cwd=tmp_path, text=True,
      capture_output=True, env=toy.environment(tmp_path))
  assert ran.returncode == 0, ran.stderr
  found = toy.arrays(tmp_path / 'out.npz')
  given = {n: images[:n] for n in (1, 3, 40)}
  for name, pictures in {**given, 'pictures': images,
                         'photo': [tmp_path / 'photo.jpg']}.items():
    expected = clf.predict(pictures)
    for key, values in (('probabilities', expected.probabilities),
                        ('score', expected.scores)):
      np.testing.assert_allclose(
          found[f'{key}_{name}'], values, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[f'accepted_{name}'], expected.accepted)
  np.testing.assert_array_equal(found['label_pictures'], clf.predict(images).labels)
  assert 10 < found['accepted_pictures'].sum() < 60


def run_zip(monkeypatch, path, *args):
  """Runs the zip file in this process, as `python model.zip` does."""
  monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
  for name in ('load', 'decode'):
    monkeypatch.delitem(sys.modules, name, raising=False)
  runpy.run_path(str(path), run_name='__main__')


def test_the_file_itself_is_a_program(clf, images, exported, monkeypatch, capsys,
                                      tmp_path):
  run_zip(monkeypatch, exported)
  told, = capsys.readouterr().out.splitlines()
  assert float(told.partition('results: ')[2]) < 1e-5
  Image.fromarray(images[0, ..., 0]).save(tmp_path / 'a.png')
  (tmp_path / 'bad.png').write_text('')
  run_zip(monkeypatch, exported, tmp_path, tmp_path / 'bad.png', '--help')
  assert capsys.readouterr().out.startswith('usage: python load.py model.zip PICTURE')
  with pytest.raises(SystemExit, match='1'):
    run_zip(monkeypatch, exported, tmp_path)
  assert capsys.readouterr().out == (
      f'{tmp_path}: a folder; name its pictures, such as {tmp_path}/*\n')
  run_zip(monkeypatch, exported, tmp_path / 'a.png')
  capsys.readouterr()
  with pytest.raises(SystemExit, match='1'):
    run_zip(monkeypatch, exported, tmp_path / 'a.png', tmp_path / 'bad.png')
  found = clf.predict(images[:1])
  one, other = capsys.readouterr().out.splitlines()
  likeliest = clf.classes_[found.probabilities[0].argmax()]
  probability = found.probabilities.max()
  assert one.startswith(
      f'{tmp_path}/a.png: {found.names[0]} ({likeliest} {probability:.3f}')
  assert other.startswith(f'{tmp_path}/bad.png: unreadable (cannot identify')


def test_names_that_the_output_cannot_encode(exported, tmp_path, images):
  name = os.fsencode(tmp_path) + b'/lat\xe9.png'
  Image.fromarray(images[0, ..., 0]).save(tmp_path / 'a.png')
  os.rename(tmp_path / 'a.png', name)
  done = subprocess.run(
      [sys.executable, exported, name], capture_output=True, timeout=120,
      env=os.environ | {'PYTHONIOENCODING': 'ascii:strict', 'JAX_PLATFORMS': 'cpu'})
  assert done.returncode == 0 and b'lat\\udce9.png: ' in done.stdout, done.stderr


def test_scores_that_an_export_cannot_compute(clf, monkeypatch, tmp_path):
  basis = clf.basis._replace(rule=clf.basis.rule._replace(score='knn'))
  knn = types.SimpleNamespace(run=clf.run, basis=basis)
  monkeypatch.setattr(export.classifier, 'restore', lambda *args: knn)
  with pytest.raises(ValueError, match="score 'knn', which needs.*energy.*or give"):
    export.export(RUN, out=str(tmp_path / 'x.zip'))
  assert not list(tmp_path.iterdir())


def test_damage_is_found(exported, monkeypatch):
  parts = held(exported)
  for name in ('model.stablehlo', 'golden.npz', 'card.md'):
    last = bytes([parts[name][-1] ^ 1])
    with zipfile.ZipFile(exported, 'w') as file:
      for other, content in {**parts, name: parts[name][:-1] + last}.items():
        file.writestr(other, content)
    with pytest.raises(ValueError, match=f'{name} is damaged.*SHA-256'):
      run_zip(monkeypatch, exported)


def test_what_an_export_holds(clf, exported):
  parts = held(exported)
  meta = json.loads(parts['meta.json'])
  assert set(parts) - {'meta.json'} == set(meta['sha256'])
  for name, digest in meta['sha256'].items():
    assert hashlib.sha256(parts[name]).hexdigest() == digest
  assert meta['classes'] == list('012345')
  assert meta['rule']['threshold'] == clf.basis.rule.threshold
  assert meta['input']['shape'] == ['n', 8, 8, 1]
  assert (meta['resizing']['size'], meta['resizing']['mode']) == ([8, 8], 'L')
  assert meta['resizing']['about'].startswith('A picture is rotated by its EXIF tag')
  assert meta['checkpoint'] == {
      'step': 300, 'crc32': runs.about(RUN, 300)['crc32']}
  assert meta['versions']['nat_jax'] == nat_jax.__version__
  assert meta['versions']['jax'] == jax.__version__
  for name, source in (('load.py', 'commands/standalone.py'),
                       ('decode.py', 'data/decode.py')):
    assert parts[name] == (toy.ROOT / 'nat_jax' / source).read_bytes()
  with np.load(io.BytesIO(parts['golden.npz'])) as golden:
    found = clf.predict(golden['image'])
    np.testing.assert_allclose(golden['score'], found.scores, rtol=1e-6)
    np.testing.assert_array_equal(golden['accepted'], found.accepted)
  for name, content in parts.items():  # nor a folder of this machine
    assert os.getcwd().encode() not in content, name
    assert str(toy.ROOT).encode() not in content, name


def test_an_export_needs_to_know_what_made_the_vectors(clf, monkeypatch, tmp_path):
  vectors = clf.run._replace(shape=(4,))
  monkeypatch.setattr(classifier, 'restore', lambda *args: Classifier(
      vectors, clf.basis, RUN))
  with pytest.raises(ValueError, match='trained on vectors, and does not know how'):
    export.export(RUN, out=str(tmp_path / 'model.zip'))
  assert list(tmp_path.iterdir()) == []


def test_program_is_of_all_platforms_and_any_number(exported):
  program = jax.export.deserialize(bytearray(held(exported)['model.stablehlo']))
  assert program.platforms == ('cpu', 'cuda', 'tpu') and program.nr_devices == 1
  image, = program.in_avals
  assert image.dtype == np.uint8 and str(image.shape) == '(n, 8, 8, 1)'


def test_equal_checkpoints_make_equal_files(exported, tmp_path):
  again = export.export(RUN, out=str(tmp_path / 'again.zip'))
  assert pathlib.Path(again).read_bytes() == exported.read_bytes()


def test_an_old_file_stays_until_the_new_one_is_whole(exported, monkeypatch, tmp_path):
  before, write = exported.read_bytes(), zipfile.ZipFile.writestr

  def fail(self, about, *args):
    if about.filename == 'card.md':
      raise OSError(28, 'No space left on device')
    return write(self, about, *args)

  monkeypatch.setattr(zipfile.ZipFile, 'writestr', fail)
  with pytest.raises(OSError, match='No space left'):
    export.export(RUN, out=str(exported), threshold=0.5)
  assert exported.read_bytes() == before
  assert [path.name for path in tmp_path.iterdir()] == ['model.zip']


def test_a_card_has_accepted_shares_of_its_own_rule_only(clf, monkeypatch):
  found = results.read_evaluation(RUN)
  found['evals']['corrupted_jpeg_1'] = {
      'n': 50, 'accuracy': 0.75, 'accuracy_interval': [0.5, 0.875], 'accepted': 0.625,
      'accepted_interval': [0.5, 0.8125]}
  monkeypatch.setattr(cards.results, 'read_evaluation', lambda workdir: found)
  restored = classifier.restore(RUN)
  card = cards.text(restored, predict.promised(restored))
  rows = [line for line in card.splitlines() if 'corrupted_jpeg_1' in line]
  assert len(rows) == 1 and '0.7500' in rows[0] and '0.625' not in card


def test_a_card_says_what_the_training_made(clf):
  """Not the negatives of a plain classifier, nor updates after the checkpoint."""
  config = clf.run.config
  for loss, expected in (('nat', 'negatives "negatives"'),
                         ('cross_entropy', 'negatives: none in training')):
    run = clf.run._replace(config={**config, 'loss': {'name': loss}}, step=100)
    lines = list(cards._training(Classifier(run, clf.basis, RUN)))
    assert lines[1].startswith(expected) and len(lines) == 3
    assert f'checkpoint of step 100 of at most {config["steps"]:,} updates' in lines[-1]
  made = {**config, 'data': {**config['data'], 'negatives': {}},
          'trainer': {'name': 'adversarial'}}
  run = clf.run._replace(config=made)
  assert 'negatives: what the trainer adversarial makes of positives' in (
      cards._training(Classifier(run, clf.basis, RUN)))


def test_card(clf, tmp_path):
  """Its figures are those of eval.json and of the calibration."""
  calibrated = calibrate.calibrate(RUN, accept=0.9)
  card = held(export.export(RUN, out=str(tmp_path / 'model.zip')))['card.md'].decode()
  with open(f'{RUN}/eval.json') as file:
    evals = json.load(file)['evals']
  rows = [[cell.strip() for cell in line.split('|')[1:-1]]
          for line in card.splitlines() if line.startswith('|')]
  for name, key, title, digits in (
      ('test', 'accuracy', 'accuracy', 4), ('negatives', 'auroc', 'AUROC', 3),
      ('noise', 'auroc', 'AUROC', 3)):
    low, high = evals[name][f'{key}_interval']
    assert [name, title, f'{evals[name][key]:.{digits}f}',
            f'{low:.{digits}f} - {high:.{digits}f}', f'{evals[name]["n"]:,}'] in rows
  assert 'accepts at least 90 % of new positives (95 % confidence, 109 held-out' in card
  scores = toy.arrays(f'{RUN}/scores/test.npz')
  accepted = rule.decide(scores['logits'], 6, rule.of_calibration(calibrated)).accepted
  percent = calibrate.percent
  assert ['positives "test"', percent(accepted.mean())] in [row[:2] for row in rows]
  assert [f'class {clf.classes_[0]}', percent(calibrated['classes']['0']['share'])] in [
      row[:2] for row in rows]
  share = calibrated['negatives']['noise']['share']
  assert ['negatives "noise" (not seen in training)', percent(share)] in [
      row[:2] for row in rows]
  assert re.search(r'^- positives: arrays path=positives-\w+.npz split=', card, re.M)
  for title in ('Classes', 'Training', 'Threshold', 'Figures', 'What it is not for'):
    assert f'\n## {title}\n' in card
  assert 'calibration' not in [row[0] for row in rows]
  # Of a checkpoint without an evaluation.
  alone = classifier.restore(RUN, 200, threshold=0.5)
  card = cards.text(alone, predict.promised(alone))
  assert 'no evaluation of this checkpoint' in card and 'is not known' in card


@pytest.mark.parametrize('out, message', [
    ('model.onnx', r'ending .zip, got .*model.onnx'),
    ('nowhere/model.zip', 'no folder .*nowhere; create')])
def test_files_that_cannot_be_written(out, message, clf, tmp_path):
  with pytest.raises(ValueError, match=message):
    export.export(RUN, out=str(tmp_path / out))
  assert list(tmp_path.iterdir()) == []


def test_a_run_of_another_task_is_refused(clf, tmp_path, monkeypatch):
  config = presets.experiment(task='gan').to_dict()
  read = checkpoint.read_about
  monkeypatch.setattr(checkpoint, 'read_about',
                      lambda *args: {**read(*args), 'config': config})
  for use in (Classifier.restore, lambda run: export.export(run, out=f'{run}/x.zip')):
    with pytest.raises(ValueError, match='expected classifiers.*GANs.*--mode=evaluate'):
      use(RUN)
  assert not os.path.exists(f'{RUN}/x.zip')


def test_the_mode(clf, monkeypatch, capsys):
  toy.run_main(monkeypatch, '--mode=export', f'--workdir={RUN}', '--threshold=0.5')
  assert f'written: {RUN}/model.zip' in capsys.readouterr().out
  assert json.loads(held(f'{RUN}/model.zip')['meta.json'])['rule']['threshold'] == 0
  with pytest.raises(SystemExit, match='threshold must be a probability'):
    toy.run_main(monkeypatch, '--mode=export', f'--workdir={RUN}', '--threshold=2')


@pytest.mark.parametrize('name', models.MODELS)
def test_every_network_can_be_exported(name):
  """Lowered, not compiled."""
  spec = {'name': name} | ({'blocks': (1, 1)} if name == 'resnet' else {})
  model = registry.build(
      models.MODELS, spec, what='model', num_outputs=3, axis_name=None)
  shapes = jax.eval_shape(lambda key: model.init(
      key, np.zeros((1, 16, 16, 3), np.float32), train=False), jax.random.key(0))
  variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)

  def fn(images):
    return model.apply(variables, images.astype(np.float32), train=False)[0]

  assert portable.serialise(fn, (16, 16, 3))


def test_a_network_that_needs_the_number_of_pictures():
  with pytest.raises(ValueError, match=r'any size .*images.shape\[0\].*'):
    portable.serialise(lambda images: images.reshape(len(images), -1), (2, 2, 1))


# What is imported when.


@pytest.mark.process
def test_the_package_and_its_schema_do_not_import_jax():
  code = ('import sys, nat_jax, nat_jax.schema.presets; '
          'print(hasattr(nat_jax, "Clasifier"), "jax" in sys.modules)')
  ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                       cwd=toy.ROOT)
  assert ran.stdout.split() == ['False', 'False'], ran.stderr


def test_unknown_attributes():
  assert nat_jax.Classifier is classifier.Classifier
  with pytest.raises(AttributeError, match="'nat_jax' has no attribute 'Clasifier'"):
    nat_jax.Clasifier  # noqa: B018
