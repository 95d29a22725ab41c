"""A folder of pictures -> predictions.csv, with a threshold of the same network."""

import csv
import pathlib

import numpy as np
import pytest
from PIL import Image

from nat_jax import data, evaluate, predict, presets, train

pytestmark = pytest.mark.usefixtures('quick_compilation')

TEST = {  # 60 images
    'name': 'fake', 'num': 80, 'shape': (6, 6, 1), 'seed': 1, 'classes': (0, 1, 2)}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """(workdir with checkpoints 2 and 8, folder of its own test images in order)."""
  path = tmp_path_factory.mktemp('predict')
  config = presets.experiment(
      steps=8, num_classes=3, model={'name': 'mlp', 'width': 8, 'depth': 1},
      data=dict(positives=TEST | {'seed': 0, 'num': 300}, batch_size=32,
                negatives={'noise': {'source': {'name': 'uniform_noise', 'num': 40}}},
                negatives_per_batch=8),
      evals={'test': {'source': TEST, 'positive': True}},
      run=dict(tensorboard=False, checkpoint_every=2, keep=5))
  train.train(config, str(path / 'run'))
  (path / 'images').mkdir()
  for k, image in enumerate(data.load(TEST).image):
    Image.fromarray(image[..., 0]).save(path / 'images' / f'{k:03d}.png')
  return str(path / 'run'), str(path / 'images')


def rows_of(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


def scores_of(workdir):
  return dict(np.load(pathlib.Path(workdir) / 'scores' / 'test.npz'))


def test_keeps_the_share_it_promises(run):
  workdir, images = run
  evaluate.evaluate(workdir)
  rows, scores = rows_of(predict.predict_folder(workdir, images)), scores_of(workdir)
  names = data.load(TEST).names
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
  with pytest.raises(ValueError, match=f'from 0 to 1, got {threshold}'):
    predict.predict_folder(str(tmp_path / 'nowhere'), 'images', threshold=threshold)


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
