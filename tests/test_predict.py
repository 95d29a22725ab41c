"""Pictures -> a row each, by a rule of the same network; interrupted and continued."""

import csv
import io
import json
import os
import pathlib
import re
import shutil
import sys

import numpy as np
import pytest
import toy
from PIL import Image

from nat_jax import data, runs, train
from nat_jax.commands import calibrate, predict, predictions
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.data import picture_paths
from nat_jax.runtime import console
from nat_jax.schema import presets
from nat_jax.tasks.classify import evaluate

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
          'noise': {'source': {'name': 'uniform_noise', 'num': 40}},
          'calibration': {
              'source': CALIBRATION, 'positive': True, 'part': 'calibration'}},
      eval_batch_size=16, run=dict(tensorboard=False, checkpoint_every=2, keep=5)
  ) | changes)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """(workdir with checkpoints 2 to 8, folder of its calibration images in order)."""
  path = tmp_path_factory.mktemp('predict')
  train.train(make_config(), str(path / 'run'))
  (path / 'images').mkdir()
  for k, image in enumerate(data.load(CALIBRATION).image):
    Image.fromarray(image[..., 0]).save(path / 'images' / f'{k:03d}.png')
  return str(path / 'run'), str(path / 'images')


@pytest.fixture
def run(trained):
  """The run without calibration.json, and with the evaluation of checkpoint 8."""
  pathlib.Path(trained[0], 'calibration.json').unlink(missing_ok=True)
  if json.loads(pathlib.Path(trained[0], 'eval.json').read_text())['step'] != 8:
    evaluate_run(trained[0])
  return trained


def rows_of(path):
  with open(path, encoding='utf-8', errors='surrogateescape', newline='') as file:
    return list(csv.DictReader(file))


def rows_from(workdir, *images, **kwargs):
  return rows_of(predict.predict(workdir, images, **kwargs).path)


def scores_of(workdir):
  return dict(np.load(pathlib.Path(workdir) / 'scores' / 'calibration.npz'))


def names_of(rows):
  return [pathlib.Path(row['file']).name for row in rows]


def test_keeps_the_share_it_promises(run):
  workdir, images = run
  rows, scores = rows_from(workdir, images), scores_of(workdir)
  names = data.load(CALIBRATION).names
  assert names_of(rows) == [f'{k:03d}.png' for k in range(60)]
  assert [row['class'] for row in rows] == [names[k] for k in scores['prediction']]
  np.testing.assert_allclose(
      [float(row['probability']) for row in rows], scores['max_prob'], rtol=1e-5)
  np.testing.assert_allclose(
      [float(row['score']) for row in rows], scores['score'], rtol=1e-4, atol=1e-5)
  refused = [row for row in rows if row['verdict'] == 'none of these']
  assert len(refused) == 3  # 95 % of 60 are 57
  assert all(row['verdict'] == 'accepted' for row in rows if row not in refused)
  assert max(float(row['probability']) for row in refused) < min(
      float(row['probability']) for row in rows if row not in refused)
  for row in rows:
    probabilities = [float(row[key])
                     for key in ('probability', 'probability_2', 'probability_3')]
    assert sum(probabilities) == pytest.approx(1)
    assert probabilities == sorted(probabilities, reverse=True)
    assert {row['class'], row['class_2'], row['class_3']} == set(names)


def test_calibration_is_used(run):
  """Its temperature, its threshold; classes are those without it."""
  workdir, images = run
  before = rows_from(workdir, images)
  found = calibrate.calibrate(workdir, accept=0.9)
  done = predict.predict(workdir, [images])
  rows = rows_of(done.path)
  assert [row['class'] for row in rows] == [row['class'] for row in before]
  scores = [float(row['score']) for row in rows]
  assert [row['verdict'] == 'accepted' for row in rows] == [
      score >= found['threshold'] for score in scores]
  assert done.total('accepted') == round(60 * found['accepted']['share'])
  logits = scores_of(workdir)['logits'] / found['temperature']
  np.testing.assert_allclose(
      [float(row['probability']) for row in rows],
      np.exp(logits).max(1) / np.exp(logits).sum(1), rtol=1e-4)
  text = ' '.join(predict.text(done).split())
  assert 'accepts at least 90 % of new positives (95 % confidence, 60 held-out' in text
  share = found['negatives']['noise']['share']
  assert f'refuses: {calibrate.percent(1 - share)} of noise' in text
  # A threshold on the command line is one of these probabilities.
  rows = rows_from(workdir, images, threshold=0.5)
  assert [row['verdict'] == 'accepted' for row in rows] == [
      float(row['probability']) >= 0.5 for row in rows]


def test_calibration_of_another_checkpoint_is_refused(run, capsys):
  workdir, images = run
  calibrate.calibrate(workdir, step=2, accept=0.9)
  with pytest.raises(ValueError, match=r'step 2, not of checkpoint 8; renew it: .*'
                     r'--mode=calibrate .*--step 8 --accept 0.9'):
    predict.predict(workdir, [images])
  assert len(rows_from(workdir, images, threshold=0.5)) == 60
  assert 'temperature 1' in capsys.readouterr().out


def test_threshold_can_be_given(run):
  workdir, images = run
  for threshold, verdict in ((0.0, 'accepted'), (1.0, 'none of these')):
    rows = rows_from(workdir, images, threshold=threshold)
    assert {row['verdict'] for row in rows} == {verdict}


@pytest.mark.parametrize('threshold', [-1.0, 1.1, float('nan')])
def test_threshold_is_a_probability(threshold, tmp_path):
  with pytest.raises(ValueError, match=rf'threshold.*\b0\b.*\b1\b.*{threshold}'):
    predict.predict(str(tmp_path / 'nowhere'), ['images'], threshold=threshold)


def test_threshold_is_never_that_of_another_checkpoint(run):
  workdir, images = run
  with pytest.raises(ValueError, match=r'checkpoint 2\b.*step 8\b.*--threshold.*'
                                       r'--mode=calibrate .*--step 2\b'):
    predict.predict(workdir, [images], step=2)
  evaluate_run(workdir, step=2)
  predict.predict(workdir, [images], step=2)
  with pytest.raises(ValueError, match=r'checkpoint 8\b.*step 2\b.*--step 8$'):
    predict.predict(workdir, [images])


def test_threshold_is_never_that_of_the_test(run, tmp_path):
  """Another test set: the same threshold, byte for byte the same rows."""
  workdir, images = run
  expected = predict.predict(workdir, [images])
  assert re.search('95%.*calibration', expected.promise.origin)
  config = make_config()
  config.evals['test']['source'] = TEST | {'seed': 3, 'num': 20}
  train.train(config, str(tmp_path / 'run'))
  found = predict.predict(str(tmp_path / 'run'), [images])
  assert rows_of(found.path) == rows_of(expected.path)
  assert found.promise.rule == expected.promise.rule


def test_without_calibration_a_threshold_is_asked_for(run, tmp_path):
  """So it is of runs of version 0.1, whose sets are all of the test."""
  _, images = run
  config = make_config(evals={'test': {'source': TEST, 'positive': True}})
  workdir = str(tmp_path / 'run')
  train.train(config, workdir)
  with pytest.raises(ValueError, match=f"{workdir}.*'calibration'.*--threshold"):
    predict.predict(workdir, [images])
  assert not list((tmp_path / 'run').glob('predictions*'))
  found = predict.predict(workdir, [images], threshold=0.5)
  assert len(rows_of(found.path)) == 60
  assert 'refuses: not known' in predict.text(found)


def test_lost_scores_are_asked_for(run, tmp_path):
  workdir, images = run
  copy = shutil.copytree(workdir, tmp_path / 'run')
  (copy / 'scores' / 'calibration.npz').unlink()
  with pytest.raises(
      ValueError, match='scores/calibration.npz.*--threshold.*--step 8$'):
    predict.predict(str(copy), [images])


# What the summary says.


def summary(accepted, refused, accept, negatives, unreadable=0):
  counts = {('accepted', 'cat'): accepted, ('none of these', ''): refused,
            ('unreadable', ''): unreadable}
  known = {name: {**calibrate.share(np.arange(n) < k),
                  'seen_in_training': name == 'seen'}
           for name, (k, n) in negatives.items()}
  promise = predict.Promise(None, 'a threshold', accept, known, accept)
  found = predict.Found('p.csv', counts, [], [], promise, 0, '')
  return ' '.join(predict.text(found).split())


def test_summary_warns_of_drift_and_of_a_poor_operating_point():
  good = summary(950, 50, 0.95, {'noise': (1, 100), 'others': (22, 100)}, 3)
  assert 'refuses: 99 % of noise, 78 % of others accepted' in good
  assert 'refuses: 90 % of seen (a kind seen in training)' in summary(
      9, 1, 0.9, {'seen': (1, 10)})
  assert '950 of 1,000 readable pictures (95 %; 95 % interval 93.5 % - 96.2 %)' in good
  assert '50 none of these 3 unreadable' in good and '950 cat' in good
  assert 'warning' not in good
  drifted = summary(930, 70, 0.95, {'noise': (1, 100)})  # up to 94.4 %
  assert 'warning: fewer than the 95 %' in drifted
  assert 'warning' not in summary(940, 60, 0.95, {'noise': (1, 100)})  # up to 95.3 %
  assert 'warning' not in summary(93, 7, 0.95, {'noise': (1, 100)})  # few pictures
  assert 'warning' not in summary(10, 990, None, {'noise': (1, 100)})
  poor = summary(950, 50, 0.95, {'noise': (1, 100), 'others': (86, 100)})
  assert 'warning: a poor operating point, which accepts 86 % of others,' in poor
  assert summary(0, 0, 0.95, {}, 5).endswith('--mode=evaluate makes them')


def test_few_pictures_are_listed_and_many_are_counted(run, capsys, monkeypatch):
  workdir, images = run
  found = predict.predict(workdir, [f'{images}/00*.png'], threshold=0.0)
  assert len(found.rows) == 10
  for row in found.rows:
    assert f'{row["file"]}: {row["class"]} (' in predict.text(found)
  toy.run_main(monkeypatch, '--mode=predict', f'--workdir={workdir}', '--threshold=0',
               f'--images={images}')
  out = capsys.readouterr().out
  assert '.png' not in out and f'written: {workdir}/predictions.csv' in out
  assert 'accepted: 60 of 60 readable pictures' in out
  counts = re.findall(r'^ +(\d+)  (.+)$', out, re.M)
  assert sum(int(count) for count, _ in counts) == 60


# Which pictures.


def test_files_folders_patterns_lists_and_standard_input(run, tmp_path, monkeypatch):
  workdir, images = run
  place = tmp_path / 'in'
  (place / 'b' / 'c').mkdir(parents=True)
  (place / '.hidden').mkdir()
  for name in ('2.png', '1.jpg', 'b/0.png', 'b/c/3.png', '.4.png', '.hidden/5.png',
               'photo', '[x].png'):
    Image.open(f'{images}/000.png').save(place / name, format='png')
  (place / 'note.txt').write_text('no picture')
  (tmp_path / 'list.txt').write_bytes(
      f'{place}/photo\r\n\n{place}/gone.png\n'.encode())
  stdin = io.TextIOWrapper(io.BytesIO(f'{place}/2.png\n{place}/b'.encode()))
  monkeypatch.setattr(sys, 'stdin', stdin)
  named = [str(place), f'{place}/*.jpg', f'{place}/**/0.png', f'{place}/[x].png',
           f'@{tmp_path}/list.txt', '-']
  found = predict.predict(
      workdir, named, threshold=0.0, out=str(tmp_path / 'rows.jsonl'))
  rows = [json.loads(line) for line in open(found.path, encoding='utf-8')]  # noqa: SIM115
  assert [row['file'].removeprefix(f'{place}/') for row in rows] == [
      '1.jpg', '2.png', '[x].png', 'b/0.png', 'b/c/3.png', '1.jpg', 'b/0.png',
      '[x].png', 'photo', 'gone.png', '2.png', 'b']
  assert [row['verdict'] for row in rows] == [
      'accepted'] * 9 + ['unreadable', 'accepted', 'unreadable']
  assert 'No such file' in rows[9]['error'] and 'directory' in rows[11]['error']


def test_a_picture_that_is_named_twice_has_one_row(run, tmp_path):
  workdir, images = run
  out = str(tmp_path / 'rows.csv')
  named = [images, f'{images}/000.png', f'{images}/./001.png']
  found = predict.predict(workdir, named, threshold=0.0, out=out)
  assert sum(found.counts.values()) == 60
  named = list(picture_paths.find([f'{images}/**']))  # the folder, and what is in it
  assert len(named) == len(set(named)) == 60


def test_output_that_is_in_use_or_an_input_is_refused(run, tmp_path):
  workdir, images = run
  out = tmp_path / 'list.csv'
  out.write_text(f'{images}/000.png')
  for named in (f'@{out}', str(out)):
    with pytest.raises(ValueError, match='list.csv is a list of pictures that --image'):
      predict.predict(workdir, [named], threshold=0.0, out=str(out))
  assert out.read_text() == f'{images}/000.png'
  settings = {'top': 1}
  with predictions.open_rows(str(tmp_path / 'a.csv'), settings) as rows:
    rows.write([{'file': 'a', 'verdict': 'unreadable', 'error': 'b'}])
    with pytest.raises(ValueError, match='another prediction is being written'):
      with predictions.open_rows(str(tmp_path / 'a.csv'), settings):
        pass
    rows.finish()
  assert (tmp_path / 'a.csv').read_text().count('\n') == 2


def test_pictures_of_any_size_and_mode(run, tmp_path):
  """As the training data source decodes them."""
  workdir, _ = run
  rng = np.random.default_rng(0)
  grey = rng.integers(0, 256, (11, 17), dtype=np.uint8)
  Image.fromarray(grey).save(tmp_path / 'grey.png')
  Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / 'grey16.png')
  Image.fromarray(np.stack([grey] * 3, 2)).save(tmp_path / 'rgb.png')
  Image.fromarray(grey).convert('LA').save(tmp_path / 'la.png')
  Image.fromarray(np.stack([grey] * 3, 2)).convert('CMYK').save(tmp_path / 'cmyk.tif')
  rows = rows_from(workdir, str(tmp_path), threshold=0.0)
  found = {name: float(row['score'])
           for name, row in zip(names_of(rows), rows, strict=True)}
  assert len(found) == 5
  for name in found:
    assert found[name] == pytest.approx(found['grey.png'], abs=1e-4), name


@pytest.mark.parametrize('named, message', [
    ([], 'none'), (['{folder}/nowhere'], 'nowhere is neither'),
    (['{folder}/*.png'], r'\*.png is neither'), (['{folder}'], 'holds no picture'),
    (['@{folder}/list'], 'list is not a file'), (['-', '-'], 'only once')])
def test_names_of_nothing(named, message, run, tmp_path):
  with pytest.raises(ValueError, match=message):
    predict.predict(
        run[0], [one.format(folder=tmp_path) for one in named], threshold=0.0,
        out=str(tmp_path / 'rows.csv'))
  assert list(tmp_path.iterdir()) == []


def test_empty_list(run, tmp_path):
  (tmp_path / 'list').write_text('\n')
  with pytest.raises(ValueError, match='list is empty'):
    predict.predict(
        run[0], [f'@{tmp_path}/list'], threshold=0.0, out=str(tmp_path / 'rows.csv'))
  assert [path.name for path in tmp_path.iterdir()] == ['list']


def test_pictures_that_cannot_be_read_have_rows_of_their_own(
    run, tmp_path, monkeypatch, capsys):
  workdir, images = run
  alone = rows_from(workdir, images, threshold=0.0)[:2]
  for name in ('000.png', '001.png'):
    shutil.copy(f'{images}/{name}', tmp_path / name)
  (tmp_path / '0005.png').write_bytes(b'not a picture')
  Image.fromarray(np.zeros((6, 6), np.uint8)).save(tmp_path / 'bomb.bmp')
  lie = bytearray((tmp_path / 'bomb.bmp').read_bytes())
  lie[18:26] = np.array([60_000, 60_000], np.int32).tobytes()  # width, height
  (tmp_path / 'bomb.bmp').write_bytes(lie)
  args = ('--mode=predict', f'--workdir={workdir}', '--threshold=0',
          f'--images={tmp_path}')
  toy.run_main(monkeypatch, *args)  # status 0
  out = capsys.readouterr().out
  assert 'cannot identify' in out and 'decompression bomb' in out
  assert re.search(r'^ +2  unreadable$', out, re.M)
  rows = rows_of(f'{workdir}/predictions.csv')
  assert names_of(rows) == ['000.png', '0005.png', '001.png', 'bomb.bmp']
  assert [row['verdict'] == 'unreadable' for row in rows] == [False, True, False, True]
  for row in (rows[1], rows[3]):
    assert row['class'] == row['probability'] == row['class_2'] == ''
    assert row['error']
  for row, other in zip((rows[0], rows[2]), alone, strict=True):
    assert row['verdict'] == other['verdict'] and not row['error']
    assert float(row['probability']) == pytest.approx(
        float(other['probability']), rel=1e-5)
  with pytest.raises(SystemExit, match='2 pictures cannot be read .--strict'):
    toy.run_main(monkeypatch, *args, '--strict')
  for name in ('000.png', '001.png'):
    (tmp_path / name).unlink()
  rows = rows_from(workdir, str(tmp_path), threshold=0.0)
  assert [row['verdict'] for row in rows] == ['unreadable'] * 2


# The files.


def test_formats_hold_the_same(run, tmp_path):
  parquet = pytest.importorskip('pyarrow.parquet')
  workdir, images = run
  (tmp_path / 'bad.png').write_text('')
  rows = rows_from(workdir, images, str(tmp_path / 'bad.png'), threshold=0.5, top=2)
  for name in ('rows.jsonl', 'rows.parquet'):
    predict.predict(workdir, [images, str(tmp_path / 'bad.png')], threshold=0.5, top=2,
                    out=str(tmp_path / name))
  table = parquet.read_table(tmp_path / 'rows.parquet')
  assert table.column_names == list(rows[0]) == [
      'file', 'verdict', 'class', 'probability', 'score', 'class_2', 'probability_2',
      'error']
  for row, other in zip(rows, table.to_pylist(), strict=True):
    assert row == {key: '' if x is None else str(x) for key, x in other.items()}
  lines = (tmp_path / 'rows.jsonl').read_text().splitlines()
  for row, line in zip(rows, map(json.loads, lines), strict=True):
    assert {key: str(line.get(key, '')) for key in rows[0]
            if not key.endswith('_2')} == {
                key: x for key, x in row.items() if not key.endswith('_2')}
    assert [one['class'] for one in line.get('top', ())] == [
        row[key] for key in ('class', 'class_2') if row[key]]


@pytest.mark.parametrize('out, message', [
    ('rows.txt', r'\.csv, \.jsonl, \.parquet, got .*rows.txt'),
    ('nowhere/rows.csv', 'no folder .*nowhere; create'),
    ('rows.parquet', 'pyarrow.*pip install pyarrow')])
def test_files_that_cannot_be_written(out, message, run, tmp_path, monkeypatch):
  find = predictions.importlib.util.find_spec
  monkeypatch.setattr(predictions.importlib.util, 'find_spec',
                      lambda name: None if name == 'pyarrow' else find(name))
  with pytest.raises(ValueError, match=message):
    predict.predict(*run[:1], [run[1]], threshold=0.5, out=str(tmp_path / out))
  assert list(tmp_path.iterdir()) == []


def test_parquet_shows_bytes_that_are_no_text(tmp_path):
  parquet = pytest.importorskip('pyarrow.parquet')
  path = str(tmp_path / 'rows.parquet')
  name = b'\xff\xc3\xa9'.decode('utf-8', 'surrogateescape')
  row = {'file': name, 'verdict': 'unreadable', 'error': 'why'}
  with predictions.open_rows(path, {'top': 1}) as rows:
    rows.write([row] * 25_000)
    rows.finish()
  column = parquet.read_table(path)['file'].to_pylist()
  assert column == ['\\xffé'] * 25_000


def predict_copies(run, folder, *names):
  """The rows of predictions.csv for one picture under several names."""
  workdir, images = run
  folder.mkdir()
  for name in names:
    shutil.copy(f'{images}/000.png', os.path.join(os.fsencode(folder), name))
  return rows_from(workdir, str(folder), threshold=0.0)


def test_cells_are_no_formulas_and_can_be_taken_back(run, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # names of files then start with that of the folder
  for folder in ('=1+2', '+1', '-1', '@SUM(A1)', '\tx', '\rx', '\nx', "'=1", 'plain=1'):
    [row] = predict_copies(run, pathlib.Path(folder), b'a.png')
    cell = row['file']
    assert cell.startswith("'") == (folder != 'plain=1')
    assert cell.removeprefix("'") == f'{folder}/a.png'
  restored = runs.restore(run[0], None, 'classify')
  names = ('=A1', '-b', "'c")
  monkeypatch.setattr(
      runs, 'restore', lambda *args: restored._replace(class_names=names))
  rows = rows_from(*run, threshold=0.0)
  assert {row['class'] for row in rows} <= {f"'{name}" for name in names}


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
  predict.predict(
      run[0], [str(tmp_path / 'in')], threshold=0.0, out=f'{tmp_path}/rows.jsonl')
  lines = (tmp_path / 'rows.jsonl').read_text().splitlines()
  assert {os.path.basename(json.loads(line)['file'].encode('utf-8', 'surrogateescape'))
          for line in lines} == set(names)
  # A terminal that shows neither.
  shown = io.TextIOWrapper(io.BytesIO(), encoding='ascii')
  monkeypatch.setattr(sys, 'stdout', shown)
  monkeypatch.setattr(sys, 'stderr', sys.stderr)
  console.guard()  # as the program does first
  toy.run_main(monkeypatch, '--mode=predict', f'--workdir={run[0]}',
               f'--images={tmp_path}/in', '--threshold=0')
  shown.flush()
  text = shown.buffer.getvalue().decode('ascii')
  assert '\\udcff\\udcfe.png' in text and '\\xe9\\u732b.png' in text
  assert 'written: ' in text


# Interruptions.


def interrupted(
    run, monkeypatch, out, batches, error=KeyboardInterrupt, **kwargs):
  """Predicts the pictures of a run, and fails after so many batches of 16."""
  decide, calls = predict.rule.decide, []

  def fail(logits, *args):
    if len(logits) <= 16:  # not the scores of the evaluation
      calls.append(1)
      if len(calls) > batches:
        raise error('stopped')
    return decide(logits, *args)

  with monkeypatch.context() as patch:
    patch.setattr(predict.rule, 'decide', fail)
    message = f'{16 * batches} rows' if error is KeyboardInterrupt else 'stopped'
    with pytest.raises(error, match=message):
      predict.predict(run[0], [run[1]], threshold=0.5, out=out, **kwargs)


def test_shares_of_several_processes_are_the_whole(run, tmp_path, monkeypatch):
  expected = rows_from(*run, threshold=0.5)
  outs = []
  for k in (1, 2, 3):
    outs.append(str(tmp_path / f'{k}.csv'))
    if k == 2:
      interrupted(run, monkeypatch, outs[-1], batches=1, share=(2, 3))
      with pytest.raises(ValueError, match='share'):
        predict.predict(run[0], [run[1]], threshold=0.5, out=outs[-1], share=(1, 3))
    predict.predict(run[0], [run[1]], threshold=0.5, out=outs[-1], share=(k, 3))
  shares = [rows_of(out) for out in outs]
  assert [len(rows) for rows in shares] == [20, 20, 20]
  merged = [row for rows in zip(*shares, strict=True) for row in rows]
  assert names_of(merged) == names_of(expected)
  assert [row['verdict'] for row in merged] == [row['verdict'] for row in expected]


def test_share_by_a_flag(run, monkeypatch):
  toy.run_main(monkeypatch, '--mode=predict', '--workdir', run[0], '--threshold=0.5',
               '--share=2/30', '--images', run[1])
  rows = rows_of(pathlib.Path(run[0], 'predictions-2-of-30.csv'))
  assert [pathlib.Path(row['file']).name for row in rows] == ['001.png', '031.png']


@pytest.mark.parametrize('share,message', [
    ((0, 2), '1 <= k <= n'), ((3, 2), 'got 3/2'), ((61, 90), '61/90 is empty')])
def test_share_that_is_not_valid(run, share, message):
  with pytest.raises(ValueError, match=message):
    predict.predict(run[0], [run[1]], threshold=0.5, share=share)
  with pytest.raises(ValueError, match='such as 2/4, got half'):
    predict._share('half')


@pytest.mark.parametrize('tail', [
    b'', b'{"file": "half a li', b'no JSON\n{"file": "x", "verdict": "accepted"}\n'])
def test_interrupted_prediction_is_continued(tail, run, tmp_path, monkeypatch):
  """What follows the last whole line is cut off; no picture is missing or twice."""
  out = str(tmp_path / 'rows.csv')
  expected = rows_from(*run, threshold=0.5)
  interrupted(run, monkeypatch, out, batches=2)
  assert [path.name for path in tmp_path.iterdir()] == ['rows.csv.unfinished']
  partial = tmp_path / 'rows.csv.unfinished'
  partial.write_bytes(partial.read_bytes() + tail)
  read, decode = [], data.decode_each
  monkeypatch.setattr(data, 'decode_each', lambda files, *args, **kwargs: decode(
      (read.append(file) or file for file in files), *args, **kwargs))
  found = predict.predict(run[0], [run[1]], threshold=0.5, out=out)
  assert found.resumed == 32 and len(read) == 28
  assert sum(found.counts.values()) == 60
  rows = rows_of(out)
  assert names_of(rows) == names_of(expected)
  assert [(row['verdict'], row['class']) for row in rows] == [
      (row['verdict'], row['class']) for row in expected]
  assert [path.name for path in tmp_path.iterdir()] == ['rows.csv']


def test_partial_line_is_predicted_again(run, tmp_path, monkeypatch):
  out = str(tmp_path / 'rows.csv')
  interrupted(run, monkeypatch, out, batches=2)
  partial = tmp_path / 'rows.csv.unfinished'
  partial.write_bytes(partial.read_bytes()[:-3])
  found = predict.predict(run[0], [run[1]], threshold=0.5, out=out)
  assert found.resumed == 31
  assert names_of(rows_of(out)) == [f'{k:03d}.png' for k in range(60)]


def test_unfinished_rows_of_other_settings_are_not_mixed(run, tmp_path, monkeypatch):
  out = str(tmp_path / 'rows.csv')
  interrupted(run, monkeypatch, out, batches=2)
  before = (tmp_path / 'rows.csv.unfinished').read_bytes()
  for changes, keys in ((dict(threshold=0.6), 'threshold'), (dict(top=1), 'top'),
                        (dict(images=[f'{run[1]}/001.png']), 'images')):
    arguments = dict(images=[run[1]], threshold=0.5, out=out) | changes
    with pytest.raises(ValueError, match=rf'unfinished .*\({keys} .* -> .*\).*--out'):
      predict.predict(run[0], **arguments)
  assert (tmp_path / 'rows.csv.unfinished').read_bytes() == before


def test_another_list_does_not_go_on(run, tmp_path, monkeypatch):
  """Nor the same names in another folder; where Windows writes a list, with a BOM."""
  out, names = str(tmp_path / 'rows.csv'), tmp_path / 'list.txt'
  paths = [f'{k:03d}.png\r\n' for k in range(60)]
  names.write_text(''.join(paths), encoding='utf-8-sig')
  inner = tmp_path / 'inner'
  inner.mkdir()
  monkeypatch.chdir(run[1])
  listed = (run[0], f'@{names}')
  interrupted(listed, monkeypatch, out, batches=2)
  with monkeypatch.context() as patch:
    patch.chdir(inner)
    with pytest.raises(ValueError, match=r'unfinished .*\(folder .* -> '):
      predict.predict(run[0], [listed[1]], threshold=0.5, out=out)
  before = (tmp_path / 'rows.csv.unfinished').read_bytes()
  for other, why in ((paths[:9] + paths[10:], r'010.png, number 10 of the list'),
                     (paths[:30], 'the list has 30 pictures, and there are 32')):
    names.write_text(''.join(other))
    with pytest.raises(ValueError, match=f'prediction of another list .{why}'):
      predict.predict(run[0], [listed[1]], threshold=0.5, out=out)
  assert (tmp_path / 'rows.csv.unfinished').read_bytes() == before
  names.write_text(''.join(paths))
  found = predict.predict(run[0], [listed[1]], threshold=0.5, out=out)
  assert found.resumed == 32
  assert names_of(rows_of(out)) == [path.strip() for path in paths]


def test_the_old_file_stays_until_the_new_one_is_whole(run, tmp_path, monkeypatch):
  out = str(tmp_path / 'rows.csv')
  predict.predict(run[0], [run[1]], threshold=1.0, out=out)
  before = (tmp_path / 'rows.csv').read_bytes()
  interrupted(run, monkeypatch, out, batches=2, error=OSError)
  assert (tmp_path / 'rows.csv').read_bytes() == before

  def fail(value):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(predictions, 'as_cell', fail)
    with pytest.raises(OSError, match='No space left'):
      predict.predict(run[0], [run[1]], threshold=0.5, out=out)
  assert (tmp_path / 'rows.csv').read_bytes() == before
  found = predict.predict(run[0], [run[1]], threshold=0.5, out=out)
  assert found.resumed == 60 and len(rows_of(out)) == 60


def test_decoding_keeps_few_pictures_in_memory(run, tmp_path):
  """Of any number of files no more than `ahead` are asked for before one is given."""
  asked = []
  files = (asked.append(k) or f'{run[1]}/{k % 60:03d}.png' for k in range(500))
  expected = [str(path) for path in picture_paths.find([run[1]])]
  for k, (file, image) in enumerate(data.decode_each(files, 6, 'L', ahead=8)):
    assert len(asked) - k <= 8
    assert file == expected[k % 60] and image.shape == (6, 6, 1)
  assert k == 499


def test_sheet(run, tmp_path):
  found = predict.predict(
      run[0], [run[1]], threshold=0.5, out=str(tmp_path / 'rows.csv'), sheet=True)
  assert found.sheet == str(tmp_path / 'rows.sheet.png')
  assert np.asarray(Image.open(found.sheet)).std() > 0
  chosen = predict.Chosen()
  restored = runs.restore(run[0])
  for start in (0, 30):  # of two batches as of one
    pixels = data.load(CALIBRATION).image[start:start + 30]
    chosen.add(pixels, predict.rule.decide(
        evaluate.predictor(restored)(pixels), 3, found.promise.rule))
  rows = rows_of(found.path)
  for verdict, order, name in (
      ('accepted', -1, 'accepted, most certain'),
      ('accepted', 1, 'accepted, least certain'),
      ('none of these', -1, 'none of these, nearest to the threshold')):
    shown = sorted((order * float(row['score']), float(row['probability']))
                   for row in rows if row['verdict'] == verdict)[:16]
    assert len(chosen.kept[name][3]) == min(
        16, found.total(verdict))
    np.testing.assert_allclose(
        chosen.kept[name][3], [probability for _, probability in shown], rtol=1e-4)


@pytest.mark.parametrize('threshold', [0.0, 1.0])
def test_a_sheet_is_in_the_order_of_scores_at_any_threshold(threshold):
  gap = np.random.default_rng(0).permutation(40) / 10
  decided = predict.rule.decide(
      np.stack([gap, 0 * gap], 1), 2, predict.rule.at_probability(threshold))
  chosen = predict.Chosen()
  chosen.add(np.zeros((40, 2, 2, 1), np.uint8), decided)
  probability = np.sort(1 / (1 + np.exp(-gap)))
  expected = {'accepted, most certain': probability[:-17:-1],
              'accepted, least certain': probability[:16]} if threshold == 0 else {
                  'none of these, nearest to the threshold': probability[:-17:-1]}
  assert set(chosen.kept) == set(expected)
  for name, shown in expected.items():
    np.testing.assert_allclose(chosen.kept[name][3], shown)


def test_progress_shows_what_is_left(run, monkeypatch, capsys, tmp_path):
  """Not on standard input, whose length is not known."""
  workdir, images = run
  monkeypatch.setattr(predict, 'REPORT_EVERY', 0.0)
  predict.predict(workdir, [images], threshold=0.5, out=str(tmp_path / 'rows.csv'))
  lines = capsys.readouterr().out.splitlines()
  assert [line.split(' pictures')[0] for line in lines] == [
      f'{n} of 60' for n in (16, 32, 48, 60)]
  assert all(re.search(r'\d/s  ETA \d+:\d\d$', line) for line in lines)
  names = ''.join(f'{images}/{k:03d}.png\n' for k in range(20))
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(names.encode())))
  predict.predict(workdir, ['-'], threshold=0.5, out=str(tmp_path / 'rows.csv'))
  lines = capsys.readouterr().out.splitlines()
  assert [line.split(' pictures')[0] for line in lines] == ['16', '20']
  assert not any('ETA' in line for line in lines)
