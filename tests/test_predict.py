"""A folder of pictures -> predictions.csv, with a threshold of the same network."""

import csv
import io
import logging
import os
import pathlib
import re
import shutil
import sys
import types

import numpy as np
import pytest
import toy
from PIL import Image

from nat_jax import data, train
from nat_jax.commands import predict
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.runtime import console
from nat_jax.schema import presets

TEST = toy.fake(1, num=80, classes=(0, 1, 2))
CALIBRATION = TEST | {'seed': 2}  # 60 images


def make_config(**changes):
  return presets.experiment(**dict(
      steps=8, num_classes=3, model={'name': 'mlp', 'width': 8, 'depth': 1},
      data=dict(positives=TEST | {'seed': 0, 'num': 300}, batch_size=32,
                negatives={'noise': {'source': {'name': 'uniform_noise', 'num': 40}}},
                negatives_per_batch=8),
      evals={
          'test': {'source': TEST, 'positive': True},
          'calibration': {
              'source': CALIBRATION, 'positive': True, 'part': 'calibration'}},
      run=dict(tensorboard=False, checkpoint_every=2, keep=5)) | changes)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """(workdir with checkpoints 2 to 8, folder of its calibration images in order)."""
  path = tmp_path_factory.mktemp('predict')
  train.train(make_config(), str(path / 'run'))
  (path / 'images').mkdir()
  for k, image in enumerate(data.load(CALIBRATION).image):
    Image.fromarray(image[..., 0]).save(path / 'images' / f'{k:03d}.png')
  return str(path / 'run'), str(path / 'images')


def rows_of(path):
  with open(path, encoding='utf-8', errors='surrogateescape', newline='') as file:
    return list(csv.DictReader(file))


def scores_of(workdir):
  return dict(np.load(pathlib.Path(workdir) / 'scores' / 'calibration.npz'))


def test_keeps_the_share_it_promises(run):
  workdir, images = run
  evaluate_run(workdir)
  rows, scores = rows_of(predict.predict_folder(workdir, images)), scores_of(workdir)
  names = data.load(CALIBRATION).names
  assert [pathlib.Path(row['file']).name for row in rows] == [
      f'{k:03d}.png' for k in range(60)]
  assert [row['nearest class'] for row in rows] == [
      names[k] for k in scores['prediction']]
  np.testing.assert_allclose(
      [float(row['max_prob']) for row in rows], scores['max_prob'], rtol=1e-5)
  refused = [row for row in rows if row['answer'] == 'none of these']
  assert len(refused) == 2  # 95 % of 60 are 57; three refused would do as well
  assert all(row['answer'] == row['nearest class'] for row in rows
             if row not in refused)
  assert max(float(row['max_prob']) for row in refused) < min(
      float(row['max_prob']) for row in rows if row not in refused)


def test_threshold_can_be_given(run):
  workdir, images = run
  for threshold, answer in ((0.0, False), (1.0, True)):
    rows = rows_of(predict.predict_folder(workdir, images, threshold=threshold))
    assert {row['answer'] == 'none of these' for row in rows} == {answer}


@pytest.mark.parametrize('threshold', [-1.0, 1.1, float('nan')])
def test_threshold_is_a_probability(threshold, tmp_path):
  with pytest.raises(ValueError, match=rf'threshold.*\b0\b.*\b1\b.*{threshold}'):
    predict.predict_folder(str(tmp_path / 'nowhere'), 'images', threshold=threshold)


def test_threshold_is_never_that_of_another_checkpoint(run):
  workdir, images = run
  evaluate_run(workdir)
  with pytest.raises(ValueError, match=r'checkpoint 2\b.*step 8\b.*--threshold.*'
                                       r'--mode=evaluate .*--step 2$'):
    predict.predict_folder(workdir, images, step=2)
  evaluate_run(workdir, step=2)
  predict.predict_folder(workdir, images, step=2)
  with pytest.raises(ValueError, match=r'checkpoint 8\b.*step 2\b.*--step 8$'):
    predict.predict_folder(workdir, images)


def test_threshold_is_never_that_of_the_test(run, tmp_path, capsys):
  """Another test set: the same threshold, byte for byte the same answers."""
  workdir, images = run
  evaluate_run(workdir)
  expected = rows_of(predict.predict_folder(workdir, images))
  threshold = capsys.readouterr().out
  assert re.search('95%.*calibration', threshold)
  config = make_config()
  config.evals['test']['source'] = TEST | {'seed': 3, 'num': 20}
  train.train(config, str(tmp_path / 'run'))
  capsys.readouterr()
  assert rows_of(predict.predict_folder(str(tmp_path / 'run'), images)) == expected
  assert capsys.readouterr().out == threshold


def test_without_calibration_a_threshold_is_asked_for(run, tmp_path):
  """So it is of runs of version 0.1, whose sets are all of the test."""
  _, images = run
  config = make_config(evals={'test': {'source': TEST, 'positive': True}})
  workdir = str(tmp_path / 'run')
  train.train(config, workdir)
  with pytest.raises(ValueError, match=f"{workdir}.*'calibration'.*--threshold"):
    predict.predict_folder(workdir, images)
  assert not (tmp_path / 'run' / 'predictions.csv').exists()
  assert len(rows_of(predict.predict_folder(workdir, images, threshold=0.5))) == 60


def test_lost_scores_are_asked_for(run, tmp_path):
  workdir, images = run
  evaluate_run(workdir)
  copy = shutil.copytree(workdir, tmp_path / 'run')
  (copy / 'scores' / 'calibration.npz').unlink()
  with pytest.raises(
      ValueError, match='scores/calibration.npz.*--threshold.*--step 8$'):
    predict.predict_folder(str(copy), images)


def predict_copies(run, folder, *names):
  """The rows of predictions.csv for one picture under several names."""
  workdir, images = run
  folder.mkdir()
  for name in names:
    shutil.copy(f'{images}/000.png', os.path.join(os.fsencode(folder), name))
  return rows_of(predict.predict_folder(workdir, str(folder), threshold=0.0))


def test_pictures_that_cannot_be_read_have_rows_of_their_own(run, tmp_path, caplog):
  workdir, images = run
  alone = rows_of(predict.predict_folder(workdir, images, threshold=0.0))[:2]
  for name in ('000.png', '001.png'):
    shutil.copy(f'{images}/{name}', tmp_path / name)
  (tmp_path / '0005.png').write_bytes(b'not a picture')
  Image.fromarray(np.zeros((6, 6), np.uint8)).save(tmp_path / 'bomb.bmp')
  lie = bytearray((tmp_path / 'bomb.bmp').read_bytes())
  lie[18:26] = np.array([60_000, 60_000], np.int32).tobytes()  # width, height
  (tmp_path / 'bomb.bmp').write_bytes(lie)
  logging.getLogger('absl').propagate = True
  with caplog.at_level(logging.WARNING):
    rows = rows_of(predict.predict_folder(workdir, str(tmp_path), threshold=0.0))
  assert 'cannot identify' in caplog.text and 'decompression bomb' in caplog.text
  assert [pathlib.Path(row['file']).name for row in rows] == [
      '000.png', '0005.png', '001.png', 'bomb.bmp']
  assert [row['answer'] == 'unreadable' for row in rows] == [False, True, False, True]
  for row in (rows[1], rows[3]):
    assert row['nearest class'] == row['max_prob'] == ''
  for row, other in zip((rows[0], rows[2]), alone, strict=True):
    assert row['answer'] == other['answer']
    assert float(row['max_prob']) == pytest.approx(float(other['max_prob']), rel=1e-5)
  for name in ('000.png', '001.png'):
    (tmp_path / name).unlink()
  written = pathlib.Path(workdir, 'predictions.csv').read_bytes()
  with pytest.raises(ValueError, match=f'{tmp_path}/0005.png'):
    predict.predict_folder(workdir, str(tmp_path), threshold=0.0)
  assert pathlib.Path(workdir, 'predictions.csv').read_bytes() == written


def test_cells_are_no_formulas_and_can_be_taken_back(run, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # names of files then start with that of the folder
  for folder in ('=1+2', '+1', '-1', '@SUM(A1)', '\tx', '\rx', '\nx', "'=1", 'plain=1'):
    [row] = predict_copies(run, pathlib.Path(folder), b'a.png')
    cell = row['file']
    assert cell.startswith("'") == (folder != 'plain=1')
    assert cell.removeprefix("'") == f'{folder}/a.png'
  restored = predict.runs.restore(run[0], None, 'classify')
  names = ('=A1', '-b', "'c")
  monkeypatch.setattr(
      predict.runs, 'restore',
      lambda *args: restored._replace(class_names=names))
  for threshold in (0.0, 1.0):
    rows = rows_of(predict.predict_folder(*run, threshold=threshold))
    assert {row['nearest class'] for row in rows} <= {f"'{name}" for name in names}
    for row in rows:
      assert row['answer'] == (row['nearest class'] if not threshold else predict.NONE)


def test_names_that_are_not_utf8_survive(run, tmp_path, monkeypatch):
  names = [b'\xff\xfe.png', 'é猫.png'.encode()]
  try:
    (tmp_path / os.fsdecode(names[0])).touch()
  except OSError:
    pytest.skip('a file system that takes UTF-8 only')
  rows = predict_copies(run, tmp_path / 'in', *names)
  found = {os.path.basename(row['file'].encode('utf-8', 'surrogateescape'))
           for row in rows}
  assert found == set(names)
  # A terminal that shows neither.
  shown = io.TextIOWrapper(io.BytesIO(), encoding='ascii')
  monkeypatch.setattr(sys, 'stdout', shown)
  monkeypatch.setattr(sys, 'stderr', sys.stderr)
  console.guard()  # as the program does first
  for flag, value in dict(WORKDIR=run[0], STEP=None, IMAGES=str(tmp_path / 'in'),
                          THRESHOLD=0.0).items():
    monkeypatch.setattr(predict.flags, flag, types.SimpleNamespace(value=value))
  predict.run()
  shown.flush()
  text = shown.buffer.getvalue().decode('ascii')
  assert '\\xff\\xfe.png' in text and '\\xe9\\u732b.png' in text
  assert 'written: ' in text


def test_the_old_file_stays_until_the_new_one_is_whole(run, monkeypatch):
  path = pathlib.Path(predict.predict_folder(*run, threshold=0.0))
  before, places = path.read_bytes(), set(path.parent.iterdir())

  def fail(text):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(predict, '_cell', fail)
  with pytest.raises(OSError, match='No space left'):
    predict.predict_folder(*run, threshold=1.0)
  assert path.read_bytes() == before
  assert set(path.parent.iterdir()) == places
