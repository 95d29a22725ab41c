"""A folder of pictures -> predictions.csv, with a threshold of the same network."""

import csv
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from nat_jax import data, evaluate, predict, presets, train

pytestmark = pytest.mark.usefixtures('quick_compilation')

TEST = {
    'name': 'fake', 'num': 80, 'shape': (6, 6, 1), 'seed': 1, 'classes': (0, 1, 2)}
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
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


def scores_of(workdir):
  return dict(np.load(pathlib.Path(workdir) / 'scores' / 'calibration.npz'))


def test_keeps_the_share_it_promises(run):
  workdir, images = run
  evaluate.evaluate(workdir)
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
  for threshold, answer in ((0.0, False), (1.1, True)):
    rows = rows_of(predict.predict_folder(workdir, images, threshold=threshold))
    assert {row['answer'] == 'none of these' for row in rows} == {answer}


def test_threshold_is_never_that_of_another_checkpoint(run):
  workdir, images = run
  evaluate.evaluate(workdir)
  with pytest.raises(ValueError, match='of checkpoint 2, and .*has that of step 8; .*'
                                       '--mode=evaluate .*--step 2'):
    predict.predict_folder(workdir, images, step=2)
  evaluate.evaluate(workdir, step=2)
  predict.predict_folder(workdir, images, step=2)
  with pytest.raises(ValueError, match='of checkpoint 8, and .*has that of step 2'):
    predict.predict_folder(workdir, images)


def test_threshold_is_never_that_of_the_test(run, tmp_path, capsys):
  """Another test set: the same threshold, byte for byte the same answers."""
  workdir, images = run
  evaluate.evaluate(workdir)
  expected = rows_of(predict.predict_folder(workdir, images))
  threshold = capsys.readouterr().out
  assert 'keeps 95% of the positives that were held out for calibration' in threshold
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
  with pytest.raises(ValueError, match="held out no positives .*part 'calibration'.*"
                                       'give --threshold, between 0 and 1'):
    predict.predict_folder(workdir, images)
  assert not (tmp_path / 'run' / 'predictions.csv').exists()
  assert len(rows_of(predict.predict_folder(workdir, images, threshold=0.5))) == 60


def test_lost_scores_are_asked_for(run, tmp_path):
  workdir, images = run
  evaluate.evaluate(workdir)
  copy = shutil.copytree(workdir, tmp_path / 'run')
  (copy / 'scores' / 'calibration.npz').unlink()
  with pytest.raises(ValueError, match='has no scores/calibration.npz; .*--step 8'):
    predict.predict_folder(str(copy), images)
