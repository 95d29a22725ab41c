"""Sources of zero-shot learning: generated features, published files, and mistakes."""

import numpy as np
import pytest
from scipy import io

from nat_jax import data

D, A, K = 5, 3, 6


def files(folder, **changes):
  """Writes files in the published layout: 6 classes of 10 rows, the last two unseen.

  Of the seen classes 0-3 rows 8 and 9 are tested; class 3 is held out. As in the
  published files, train_loc and val_loc have the rows of test_seen_loc too.
  """
  rng = np.random.default_rng(0)
  label = np.arange(K * 10) % K
  rows = np.arange(K * 10)
  tested = rows >= 48
  content = {
      'features': rng.random((D, K * 10)), 'image_files': np.array([['a']], object),
      'labels': (label + 1).astype(np.uint8)[:, None],
      'att': rng.random((A, K)) + 1, 'original_att': rng.random((A, K)),
      'allclasses_names': np.array([f'no. {c}' for c in range(K)], object)[:, None],
      'trainval_loc': rows[(label < 4) & ~tested],
      'train_loc': rows[label < 3], 'val_loc': rows[label == 3],
      'test_seen_loc': rows[(label < 4) & tested], 'test_unseen_loc': rows[label > 3]}
  for key in content:
    if key.endswith('_loc'):
      content[key] = (content[key] + 1).astype(np.uint8)[:, None]
  content |= changes
  for name, keys in (('res101.mat', ('features', 'labels', 'image_files')),
                     ('att_splits.mat', content.keys() - {'features', 'labels'})):
    io.savemat(folder / name, {key: content[key] for key in sorted(keys)
                               if content[key] is not None})
  return content


def source(name='attributes', **arguments):
  examples = data.ZERO_SHOT[name](**arguments)
  data.check_zero_shot(examples)
  return examples


def test_published_files(tmp_path):
  content = files(tmp_path)
  found = source('mat', path=str(tmp_path), validation=0.25)
  np.testing.assert_allclose(found.feature, content['features'].T, rtol=1e-6)
  np.testing.assert_array_equal(found.label, np.arange(60) % K)
  norm = np.sqrt(np.square(content['att']).sum(0))
  np.testing.assert_allclose(found.embedding, (content['att'] / norm).T, rtol=1e-6)
  assert found.names[2] == 'no. 2' and found.feature.dtype == np.float32
  np.testing.assert_array_equal(found.test_seen, content['test_seen_loc'][:, 0] - 1)
  np.testing.assert_array_equal(found.test_unseen, content['test_unseen_loc'][:, 0] - 1)
  assert found.seen.tolist() == [0, 1, 2, 3] and found.unseen.tolist() == [4, 5]
  assert found.held_out.tolist() == [3]
  # No row of test_seen_loc is trained on, although train_loc has some of them.
  assert np.intersect1d(content['train_loc'], content['test_seen_loc']).size
  np.testing.assert_array_equal(
      np.sort(np.append(found.train, found.validation)),
      content['trainval_loc'][:, 0] - 1)
  assert np.bincount(found.label[found.validation]).tolist() == [2, 2, 2, 2]


def test_files_without_validation_classes_get_some(tmp_path):
  files(tmp_path, val_loc=None, train_loc=None, allclasses_names=None)
  found = source('mat', path=str(tmp_path), held_out=0.5, seed=1)
  assert len(found.held_out) == 2 and set(found.held_out) <= {0, 1, 2, 3}
  again = source('mat', path=str(tmp_path), held_out=0.5, seed=1)
  for one, other in zip(found, again, strict=True):
    np.testing.assert_array_equal(one, other)
  assert found.names[0] == 'class 1'


@pytest.mark.parametrize('changes, named', [
    (dict(test_seen_loc=None), "att_splits.mat has no array 'test_seen_loc'; .*att"),
    (dict(features=None), "res101.mat has no array 'features'"),
    (dict(trainval_loc=np.arange(61)), 'trainval_loc must hold rows 1 to 60, got 0'),
    (dict(test_unseen_loc=[[5.0, 61.0]]), 'test_unseen_loc must hold.*got 5 to 61'),
    (dict(test_unseen_loc=[[5.5]]), 'test_unseen_loc must hold whole numbers'),
    (dict(features=np.ones((60, D))), r'features \[d, n\].*\[60, 5\]'),
    (dict(test_seen_loc=[[1, 2]]), 'in one part, once.*: 0, 1 '),
    (dict(test_unseen_loc=[[49, 5, 6]], test_seen_loc=[[50]]),
     'seen and unseen classes must differ.*unseen classes 0 '),
    (dict(test_seen_loc=[[5]], test_unseen_loc=[[6]]),
     'classes 4 .*of the part test_seen have no training row'),
    (dict(att=np.ones((A, K - 1))), 'every class needs an embedding: labels are 0..5'),
    (dict(att=np.eye(A, K)), 'every class needs an embedding: those of the classes 3'),
    (dict(att=np.ones((A, K))), 'embeddings of 6 classes must differ, and only 1 do'),
    (dict(test_unseen_loc=np.zeros((0, 1))), 'test_unseen must have 1 row or more'),
    (dict(train_loc=[[1]], val_loc=[[2, 3, 4]]), '2 seen classes or more.*got 1 of 4'),
    (dict(features=np.where(np.arange(60) == 7, np.nan, np.ones((D, 60)))),
     r'finite; remove the rows 7 \(counted from 0')])
def test_mistakes_in_files(changes, named, tmp_path):
  files(tmp_path, **changes)
  with pytest.raises(ValueError, match=named):
    source('mat', path=str(tmp_path))


def test_files_that_cannot_be_read(tmp_path):
  with pytest.raises(ValueError, match='no file .*res101.mat.*folder'):
    source('mat', path=str(tmp_path))
  files(tmp_path)
  header = b'MATLAB 7.3 MAT-file, Platform: GLNXA64'.ljust(124) + b'\x00\x02IM'
  for content, named in ((header + bytes(100), r'version 7\.3.*-v7'),
                         (b'something else', 'cannot be read as a MATLAB file')):
    (tmp_path / 'res101.mat').write_bytes(content)
    with pytest.raises(ValueError, match=named):
      source('mat', path=str(tmp_path))


def test_generated_features():
  found, again, other = source(), source(), source(seed=1)
  for one, two in zip(found, again, strict=True):
    np.testing.assert_array_equal(one, two)
  assert (found.feature != other.feature).any()
  assert found.feature.shape == (1900, 64) and found.feature.min() == 0
  assert found.embedding.shape == (20, 16)
  assert found.seen.tolist() == list(range(15))
  assert found.unseen.tolist() == [15, 16, 17, 18, 19]
  assert found.held_out.tolist() == [11, 12, 13, 14]
  sizes = {name: np.bincount(found.label[getattr(found, name)], minlength=20)
           for name in ('train', 'validation', 'test_seen', 'test_unseen')}
  assert {name: set(one[one > 0]) for name, one in sizes.items()} == {
      'train': {50}, 'validation': {10}, 'test_seen': {50}, 'test_unseen': {50}}


def test_features_are_those_of_the_formula():
  """Without noise and spread all rows of a class are max(0, W s + b)."""
  found = source(spread=0.0, noise=0.0)
  for c in range(20):
    of_class = found.feature[found.label == c]
    np.testing.assert_array_equal(of_class, of_class[:1].repeat(len(of_class), 0))
  linear = (found.feature > 0).all(0)  # columns that no ReLU has cut
  assert linear.sum() >= 5
  design = np.concatenate([found.embedding[found.label], np.ones((1900, 1))], 1)
  fit, *_ = np.linalg.lstsq(design, found.feature[:, linear], rcond=None)
  np.testing.assert_allclose(design @ fit, found.feature[:, linear], atol=1e-4)


@pytest.mark.parametrize('arguments, named', [
    (dict(num_classes=8), 'num_classes=8, num_unseen=5'),
    (dict(num_attributes=5), 'num_attributes=5 are too few for 20'),
    (dict(per_class=10**12), 'lower per_class')])
def test_mistakes_in_generated_features(arguments, named):
  with pytest.raises(ValueError, match=named):
    source(**arguments)


def test_held_out_classes_are_seen_ones():
  with pytest.raises(ValueError, match='held-out classes 17 .*must be seen'):
    data.check_zero_shot(source()._replace(held_out=np.array([17])))
