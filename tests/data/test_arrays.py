"""Vectors and pictures from files .npz and .csv: what is read, split and refused."""

import numpy as np
import pytest
import toy

from nat_jax import data, runs
from nat_jax.data import load, read_header
from nat_jax.schema import presets
from nat_jax.tasks import TASKS
from nat_jax.tasks.classify import inputs

NUM = 30
LABELS = np.arange(NUM) % 3 - 1  # -1: none


def vectors(num=NUM, width=4):
  """Vectors whose first number is their row."""
  found = np.random.default_rng(0).normal(2, 3, (num, width))
  found[:, 0] = np.arange(num)
  return found


def save(folder, **changes):
  """A file .npz of vectors, and what the source 'arrays' needs to read it."""
  found = {'vector': vectors(), 'label': LABELS, 'names': ['cat', 'dog']} | changes
  np.savez(folder / 'x.npz', **{k: v for k, v in found.items() if v is not None})
  return {'name': 'arrays', 'path': str(folder / 'x.npz')}


def rows_of(spec, **arguments):
  return load({**spec, **arguments}).image[:, 0].astype(int).tolist()


def write_csv(path, table):
  """A file .csv of columns of text, and what reads it."""
  lines = [','.join(table), *(','.join(row) for row in zip(
      *table.values(), strict=True))]
  (path / 'x.csv').write_text('\n'.join(lines) + '\n')
  return {'name': 'arrays', 'path': str(path / 'x.csv')}


def columns(**changes):
  return {'a': [str(k) for k in range(NUM)], 'b': [f'{k * k / 4}' for k in range(NUM)],
          'label': [['', 'NA', 'dog'][k % 3] for k in range(NUM)]} | changes


def test_labelled_and_unlabelled_rows(tmp_path):
  spec = save(tmp_path)
  positive = load(spec)
  assert positive.names == ('cat', 'dog') and positive.image.dtype == np.float32
  rows = positive.image[:, 0].astype(int)
  np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(LABELS >= 0))
  np.testing.assert_array_equal(positive.label, LABELS[rows])
  np.testing.assert_array_equal(positive.label, [0, 1] * 10)  # they take turns
  np.testing.assert_array_equal(
      positive.image, vectors()[rows].astype(np.float32))
  others = load({**spec, 'rows': 'unlabelled'})
  assert others.names == ('unlabelled',) and set(others.label) == {0}
  assert sorted(rows_of(spec, rows='unlabelled')) == [*range(0, NUM, 3)]
  every = load({**spec, 'rows': 'all'})
  assert every.names == ('cat', 'dog', 'unlabelled')
  np.testing.assert_array_equal(
      every.label, LABELS[every.image[:, 0].astype(int)] % 3)
  assert load({**spec, 'classes': (1,)}).names == ('dog',)


def test_slices_are_of_each_class_and_disjoint(tmp_path):
  spec = save(tmp_path)
  first, second = (rows_of(spec, split=s) for s in ('all[:80%]', 'all[80%:]'))
  assert sorted(first + second) == np.flatnonzero(LABELS >= 0).tolist()
  np.testing.assert_array_equal(np.bincount(LABELS[first]), [8, 8])
  with pytest.raises(ValueError, match=r"'all\[:5\]' counts rows, but .*2 classes"):
    load({**spec, 'split': 'all[:5]'})
  assert len(rows_of(spec, rows='unlabelled', split='all[:5]')) == 5


def test_parts_of_the_file(tmp_path):
  part = np.array(['train', 'test'])[np.arange(NUM) // 15]
  spec = save(tmp_path, split=part)
  assert read_header(spec['path']).split.tolist() == part.tolist()
  train, test = (rows_of(spec, split=s) for s in ('train', 'test'))
  assert max(train) < 15 <= min(test)
  assert sorted(train + test) == sorted(rows_of(spec))
  low, high = (rows_of(spec, split=f'train[{s}]') for s in (':80%', '80%:'))
  assert sorted(low + high) == sorted(train) and len(low) == 8
  assert sorted(rows_of(spec, split='train[80%:]+test')) == sorted(high + test)
  with pytest.raises(ValueError, match="split 'tests'.*did you mean 'test'.*train"):
    load({**spec, 'split': 'tests'})


def test_csv_has_the_numbers_of_npz(tmp_path):
  """Names of classes may look like a missing number."""
  spec = write_csv(tmp_path, columns())
  found = load(spec)
  assert found.names == ('NA', 'dog')
  assert sorted(rows_of(spec, rows='unlabelled')) == [*range(0, NUM, 3)]
  values = np.stack([np.arange(NUM), np.arange(NUM) ** 2 / 4], 1)
  same = save(tmp_path, vector=values, names=['NA', 'dog'])
  np.testing.assert_array_equal(found.image, load(same).image)
  np.testing.assert_array_equal(found.label, load(same).label)
  numbers = write_csv(tmp_path, columns(label=[str(k % 3 - 1) for k in range(NUM)]))
  assert load(numbers).names == ('0', '1')
  np.testing.assert_array_equal(load(numbers).label, found.label)
  assert read_header(numbers['path']).label.tolist() == LABELS.tolist()
  spaces = write_csv(tmp_path, columns(label=[
      ('', ' cat', 'cat ')[k % 3] for k in range(NUM)]))
  assert load(spaces).names == ('cat',)


def test_names_as_labels_and_pictures(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (NUM, 5, 6, 3), np.uint8)
  names = np.array(['', 'cat', 'dog'])[LABELS + 1]
  spec = save(tmp_path, vector=None, image=image, label=names, names=None)
  found = load(spec)
  assert found.names == ('cat', 'dog') and found.image.dtype == np.uint8
  for one, label in zip(found.image, found.label, strict=True):
    row = np.flatnonzero((image == one).all((1, 2, 3)))
    assert LABELS[row] == [label]


def test_numbers_without_names(tmp_path):
  for names in (None, []):
    found = load(save(tmp_path, names=names, label=LABELS + 1))
    assert found.names == ('0', '1', '2')
  gaps = np.where(LABELS < 0, -1, 3 * LABELS + 2)
  gaps = load(save(tmp_path, names=None, label=gaps))
  assert gaps.names == ('2', '5')  # counted from 0, with the numbers as names
  np.testing.assert_array_equal(gaps.label, LABELS[LABELS >= 0])


BAD = vectors()
BAD[7, 2] = np.nan
BAD[9, 2] = np.inf
SAME = vectors()
SAME[:, [1, 3]] = 5


@pytest.mark.parametrize('changes, message', [
    ({'vector': BAD}, r'2 of 120 numbers.*in 2 rows.*nan in column 2 of row 7'),
    ({'vector': vectors() * 1e300}, r'not finite in float32'),
    ({'vector': SAME}, r'2 of 4 columns are constant, number 1, 3.*keep_constant'),
    ({'vector': vectors()[0]}, r"'vector' must be numbers \[n, d\], got float64 \[4\]"),
    ({'vector': vectors().astype(str)}, r"'vector' must be numbers"),
    ({'vector': vectors().astype(object)}, r'cannot be read as a file .npz of numbers'),
    ({'vector': None}, r"one of the arrays 'vector'.*'image'.*got \['label', 'names'"),
    ({'vector': None, 'vectors': vectors()}, r"did you mean 'vector'"),
    ({'image': vectors()}, r"one of the arrays 'vector'"),
    ({'vector': None, 'image': vectors()}, r"'image' must be uint8 \[n, h, w, c\]"),
    ({'label': None}, r"has no labels: expected 'label'.*rows='all'"),
    ({'label': LABELS * 0 - 1}, r'has no labels'),
    ({'label': LABELS[:-1]}, r"'label' must .*30 rows.*\[29\]"),
    ({'label': LABELS + 1.0}, r"'label' must be whole numbers or names, got float64"),
    ({'label': LABELS + 1}, r"'label' must be -1 .*at most 1, got 0..2"),
    ({'label': LABELS - 1}, r"'label' must be -1 .*got -2..0"),
    ({'label': np.full(NUM, 'cow')}, r"'label' holds 'cow', which is not in 'names'"),
])
def test_files_npz_that_are_refused(changes, message, tmp_path):
  spec = save(tmp_path, **changes)
  with pytest.raises(ValueError, match=message):
    load(spec)


def test_damaged_files_npz_are_refused(tmp_path):
  path = tmp_path / 'x.npz'
  np.savez_compressed(path, vector=vectors(), label=LABELS)
  whole = path.read_bytes()
  for at in range(0, len(whole), 7):
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1:])
    try:
      load({'name': 'arrays', 'path': str(path)})
    except ValueError as error:
      assert 'x.npz' in str(error)


@pytest.mark.parametrize('changes, message', [
    ({'b': ['1', '', *('3',) * 28]}, r"1 of 60 numbers.*nan in column 'b' of row 1"),
    ({'b': ['x'] * NUM}, r'column\(s\) b hold something else than numbers'),
    ({'b': ['2'] * NUM}, r'1 of 2 columns are constant, number 1'),
    ({'label': [''] * NUM}, r'has no labels'),
    ({'a': ['"'] * NUM}, r'cannot be read as CSV|something else than numbers'),
])
def test_files_csv_that_are_refused(changes, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    load(write_csv(tmp_path, columns(**changes)))


def test_what_is_no_such_file(tmp_path):
  (tmp_path / 'x.npz').write_bytes(b'no zip')
  for name, message in (('x.npz', 'cannot be read'), ('y.npz', 'there is no file'),
                        ('x.txt', r"reads \.npz and \.csv, got the file 'x.txt'")):
    path = tmp_path / name if name != 'x.txt' else name
    with pytest.raises(ValueError, match=message):
      load({'name': 'arrays', 'path': str(path)})
  with pytest.raises(ValueError, match="'labeled'.*did you mean 'labelled'"):
    load({**save(tmp_path), 'rows': 'labeled'})
  with pytest.raises(ValueError, match='no row without a label'):
    load({**save(tmp_path, label=LABELS * 0), 'rows': 'unlabelled'})


def test_constant_columns_can_be_kept(tmp_path):
  found = load({**save(tmp_path, vector=SAME), 'keep_constant': True})
  moments = data.moments(found)
  assert moments['mean'][1] == 5 and moments['std'][1] == 1
  np.testing.assert_array_equal(
      data.standardise(found.image, **moments)[:, [1, 3]], 0)


# What a classifier does with vectors.


def make_config(path, **changes):
  spec = save(path)
  other = {'source': {**spec, 'rows': 'unlabelled'}}
  return presets.experiment(**toy.change(dict(
      steps=1, num_classes=2, model={'name': 'mlp', 'width': 4, 'depth': 1},
      data=dict(positives=spec, negatives={'others': other}, mean=(), std=(),
                batch_size=8, negatives_per_batch=8),
      evals={'test': {'source': spec, 'positive': True}, 'others': other,
             'noise': {'source': {'name': 'normal_noise', 'num': 400}}}), **changes))


def test_vectors_are_standardised_by_the_training_positives(tmp_path):
  config = runs.resolve(make_config(tmp_path))
  raw = vectors()[LABELS >= 0]
  np.testing.assert_allclose(config['data']['mean'], raw.mean(0), rtol=1e-6)
  np.testing.assert_allclose(config['data']['std'], raw.std(0), rtol=1e-6)
  assert runs.resolve(config) == config
  found = TASKS['classify'].load(config, 1)
  assert found.shape == (4,) and found.pool.image.dtype == np.float32
  positive = found.pool.image[:20]
  np.testing.assert_allclose(positive.mean(0), 0, atol=1e-6)
  np.testing.assert_allclose(positive.std(0), 1, rtol=1e-5)
  sets = inputs.load_evals(config, found.negatives)
  np.testing.assert_allclose(
      np.sort(sets['others'].arrays.image[:, 0]),
      (np.arange(0, NUM, 3) - raw[:, 0].mean()) / raw[:, 0].std(), rtol=1e-5)
  noise = sets['noise'].arrays.image  # which has the moments of the positives
  assert noise.shape == (400, 4)
  np.testing.assert_allclose(noise.mean(0), 0, atol=0.2)
  np.testing.assert_allclose(noise.std(0), 1, atol=0.15)


BLOBS = {'source': {'name': 'blobs', 'num': 5}}


@pytest.mark.parametrize('changes, message', [
    ({'model': {'name': 'small_conv'}}, "'small_conv' takes pictures.*vectors: mlp"),
    ({'data__augment': [{'name': 'flip'}]}, 'data.augment changes pictures'),
    ({'data__negatives__others': BLOBS}, "'blobs' makes pictures.*normal_noise"),
    ({'data__treatment': {'name': 'mix', 'mode': 'cutmix'}}, 'cutmix.*linear'),
    ({'data__mean': (0.0, 1.0)}, 'vectors of 2 columns, as data.mean.* got 4'),
    ({'data__positives': toy.fake()}, 'data.mean=.* are for vectors'),
    ({'data__negatives__others': {'source': toy.fake()}}, 'are pictures, the positives '
     'vectors; --mode=embed'),
])
def test_what_does_not_go_with_vectors(changes, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    config = runs.resolve(make_config(tmp_path, **changes))
    found = TASKS['classify'].load(config, 1)
    runs.build_trainer(config, found.shape)


def test_vectors_of_another_width(tmp_path):
  (tmp_path / 'other').mkdir()
  other = {'source': save(tmp_path / 'other', vector=vectors(width=5))}
  config = make_config(tmp_path, data__negatives__others=other, data__mean=(0.0,),
                       data__std=(1.0,))
  with pytest.raises(ValueError, match="'others' have 5 columns, the positives 4"):
    TASKS['classify'].load(runs.resolve(config), 1)
  config = make_config(
      tmp_path, evals__others=other, data__mean=(0.0,), data__std=(1.0,))
  with pytest.raises(ValueError, match=r"'others' .*5.*4"):
    inputs.load_evals(runs.resolve(config))


def test_a_gan_of_vectors_is_refused(tmp_path):
  config = presets.experiment(
      task='gan', num_classes=2,
      data=dict(positives=save(tmp_path), mean=(0.0,), std=(1.0,), batch_size=8))
  with pytest.raises(ValueError, match="GANs are trained on pictures.*'arrays'"):
    TASKS['gan'].load(runs.resolve(config), 1)
