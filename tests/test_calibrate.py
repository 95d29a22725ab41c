"""The temperature and the threshold of a run, from its calibration part alone."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
import toy

from nat_jax import Classifier, data, detectors, metrics, runs, train
from nat_jax.commands import calibrate, export
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.metrics import selective
from nat_jax.schema import presets
from nat_jax.tasks.classify import inputs, rule

TEST = toy.fake(1, num=80, classes=(0, 1, 2))
CALIBRATION = TEST | {'seed': 2, 'num': 160}  # 120 images
NEGATIVES = toy.fake(3, num=120, classes=(3,))


def make_config(**changes):
  return presets.experiment(**dict(
      steps=8, num_classes=3, model={'name': 'mlp', 'width': 8, 'depth': 1},
      data=dict(positives=TEST | {'seed': 0, 'num': 300}, batch_size=32,
                negatives={'three': {'source': NEGATIVES | {'seed': 4}}},
                negatives_per_batch=8),
      evals={
          'test': {'source': TEST, 'positive': True},
          'noise': {'source': {'name': 'uniform_noise', 'num': 40}},
          'calibration': {
              'source': CALIBRATION, 'positive': True, 'part': 'calibration'},
          'three': {'source': NEGATIVES, 'part': 'calibration'}},
      run=dict(tensorboard=False, checkpoint_every=4, keep=5)) | changes)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run with checkpoints 4 and 8, and the evaluation of 8."""
  path = str(tmp_path_factory.mktemp('calibrate') / 'run')
  train.train(make_config(), path)
  evaluate_run(path)
  return path


def scores_of(workdir, name):
  return dict(np.load(pathlib.Path(workdir, 'scores', f'{name}.npz')))


def test_figures_are_those_of_the_calibration_part(workdir):
  """By hand, from the scores that the evaluation of the checkpoint has written."""
  found = calibrate.calibrate(workdir, accept=0.9)
  with open(f'{workdir}/calibration.json') as file:
    assert json.load(file) == found
  assert (found['step'], found['n'], found['accept']) == (8, 120, 0.9)
  assert found['crc32'] == runs.about(workdir, 8)['crc32']
  scores = scores_of(workdir, 'calibration')
  logits, label = scores['logits'].astype(np.float64), scores['label']
  temperature = metrics.fit_temperature(logits, label)
  assert found['temperature'] == pytest.approx(temperature, rel=1e-3)
  ranked = np.sort(metrics.scores_from_logits(logits / temperature, 3)['score'])
  k = selective.tolerance_rank(120, 0.9)
  assert found['rank'] == k and 1 < k < 12
  assert found['threshold'] == pytest.approx(ranked[k - 1], rel=1e-3)
  # Not the score itself, which other programs compute with other last digits.
  assert found['threshold'] < ranked[k - 1] * (1 - 2e-6)
  assert found['conformal_threshold'] == pytest.approx(ranked[11], rel=1e-3)
  assert found['threshold_probability'] == pytest.approx(
      1 / (1 + np.exp(-found['threshold'])))
  assert found['accepted']['share'] == pytest.approx((121 - k) / 120)
  assert found['accuracy']['share'] == np.mean(scores['prediction'] == label)
  figures = json.loads(pathlib.Path(workdir, 'eval.json').read_text())['evals']
  assert found['ece_before'] == pytest.approx(figures['calibration']['ece'], abs=1e-5)
  assert found['nll_after'] < found['nll_before']
  assert len(found['classes']) == 3
  assert sum(one['n'] for one in found['classes'].values()) == 120
  refused = sum(one['n'] * (1 - one['share']) for one in found['classes'].values())
  assert refused == pytest.approx(k - 1)
  assert {name: (one['n'], one['seen_in_training'])
          for name, one in found['negatives'].items()} == {
              'three': (len(scores_of(workdir, 'three')['label']), True),
              'noise': (40, False)}
  three = scores_of(workdir, 'three')['logits'].astype(np.float64) / temperature
  passed = metrics.scores_from_logits(three, 3)['score'] >= ranked[k - 1]
  assert found['negatives']['three']['share'] == pytest.approx(
      passed.mean(), abs=0.05)
  assert found['negatives']['three']['interval'] == list(metrics.proportion_interval(
      round(found['negatives']['three']['share'] * len(three)), len(three)))
  curve = np.array(found['risk_coverage'])
  assert curve[-1] == pytest.approx([1, 1 - found['accuracy']['share']])
  assert 'costs' not in found


def test_noise_is_not_that_of_the_test(workdir):
  run = runs.restore(workdir)
  sets = calibrate._load(workdir, run)
  test = inputs.load_evals(run.config, {}, ['test'])
  one, other = (each['noise'].arrays.image for each in (sets, test))
  assert one.shape == other.shape and (one != other).any((1, 2, 3)).all()


def test_text_has_the_figures(workdir):
  found = calibrate.calibrate(
      workdir, accept=0.9, costs=selective.Costs(10, 1, negative_share=0.5))
  text = calibrate.text(found)
  assert re.search(r'checkpoint 8 on 120 held-out positives', text)
  assert f'{found["temperature"]:.3f}' in text
  assert f'{found["threshold_probability"]:.4f}' in text
  assert re.search(r'three \(seen\) .*noise \(unseen\)', text, re.S)
  assert f'cost {found["costs"]["cost"]:.4f}' in ' '.join(text.split())
  assert found['costs']['negative_share'] == 0.5
  assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize('score', selective.LOGIT_SCORES)
def test_decisions_are_those_of_the_file_and_never_change_a_class(workdir, score):
  """Renewed without training, for each score."""
  found = calibrate.calibrate(workdir, accept=0.9, score=score)
  read = rule.read(workdir, 8, found['crc32'])
  assert read == found
  scores = scores_of(workdir, 'calibration')
  decided = rule.decide(scores['logits'], 3, rule.of_calibration(read))
  assert decided.accepted.mean() == pytest.approx(found['accepted']['share'], abs=0.01)
  np.testing.assert_array_equal(decided.order[:, 0], scores['prediction'])
  np.testing.assert_allclose(decided.probability.sum(1), 1)


def test_scores_for_thresholds_are_all_that_posthoc_compares():
  same = {'max_softmax', 'max_logit', 'energy', 'gen'}  # as scores of logits
  assert set(selective.FEATURE_SCORES) == set(detectors.SCORES) - same
  assert same - {'max_softmax'} < set(selective.LOGIT_SCORES)


@pytest.mark.parametrize('score', selective.FEATURE_SCORES)
def test_thresholds_of_scores_of_features(workdir, score):
  """Predictions are by the score that the threshold was chosen for, and its fit."""
  found = calibrate.calibrate(workdir, accept=0.9, score=score)
  clf = Classifier.restore(workdir)
  assert clf.basis.rule.score == score
  config = clf.run.config
  images = data.load(config['evals']['calibration']['source']).image
  predicted = clf.predict(images)
  assert predicted.accepted.mean() == pytest.approx(found['accepted']['share'])
  np.testing.assert_array_equal(
      predicted.accepted, predicted.scores >= found['threshold'])
  # The scores are those of `detectors`, one by one as all at once.
  fit = detectors.fit_to_training(clf.run, score)
  logits, expected = detectors.make_scorer(clf.run, score, fit)(images)
  np.testing.assert_allclose(predicted.scores, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(
      clf.predict(images[3]).scores, expected[3:4], rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(predicted.probabilities.argmax(1), logits.argmax(1))
  kept = pathlib.Path(workdir, detectors.FITTED)
  assert kept.exists() == (score != 'odin')
  with pytest.raises(ValueError, match=f"score '{score}', which needs more than"):
    export.export(workdir)
  if score != 'odin':
    arrays = toy.arrays(kept)
    np.savez(kept, **{**arrays, 'crc32': 0})
    with pytest.raises(ValueError, match='another checkpoint'):
      _ = Classifier.restore(workdir).score_fit
    kept.unlink()
    with pytest.raises(ValueError, match='is missing'):
      Classifier.restore(workdir).predict(images)
  calibrate.calibrate(workdir, accept=0.9)
  assert not kept.exists()


def test_gen_on_a_device():
  logits = np.random.default_rng(0).normal(0, 4, (50, 7)).astype(np.float32)
  logits[0] = [60, 0, 0, 0, 0, 0, 0]
  np.testing.assert_allclose(
      jax.jit(lambda logits: rule.ON_DEVICE['gen'](logits, 6, 1.0))(logits),
      selective.LOGIT_SCORES['gen'](logits, 6, 1.0), rtol=2e-5)


def test_threshold_of_a_probability():
  logits = np.array([[2.0, 0, 0], [0, 1.0, 0]])
  probability = np.exp(logits).max(1) / np.exp(logits).sum(1)
  for threshold in (0.0, 0.5, 0.7, 0.9, 1.0):
    found = rule.decide(logits, 3, rule.at_probability(threshold))
    np.testing.assert_array_equal(
        found.accepted, probability >= threshold, str(threshold))
  background = rule.decide(np.array([[1.0, 0, 5.0]]), 2, rule.at_probability(0.5))
  assert not background.accepted[0] and background.order.tolist() == [[0, 1]]


def test_calibration_of_another_checkpoint_is_refused(workdir):
  calibrate.calibrate(workdir, step=4, accept=0.9, score='energy')
  crc32 = runs.about(workdir, 8)['crc32']
  with pytest.raises(ValueError, match=(
      r'step 4, not of checkpoint 8; renew it: python -m nat_jax.main '
      rf'--mode=calibrate --workdir {workdir} --step 8 --accept 0.9 --score energy$')):
    rule.read(workdir, 8, crc32)
  found = calibrate.calibrate(workdir)
  with pytest.raises(ValueError, match='another checkpoint of step 8'):
    rule.read(workdir, 8, crc32 + 1)
  assert rule.read(workdir, 8, crc32) == found


def test_damaged_file(workdir, tmp_path):
  assert rule.read(str(tmp_path), 8, 1) is None
  for content in ('{', '[]', '{"format": 2}', '{"format": 2, "score": "energy"}'):
    (tmp_path / 'calibration.json').write_text(content)
    with pytest.raises(ValueError, match='calibration.json.*--mode=calibrate'):
      rule.read(str(tmp_path), 8, 1)
  (tmp_path / 'calibration.json').write_text('{"format": 99}')
  with pytest.raises(ValueError, match='99.*later'):
    rule.read(str(tmp_path), 8, 1)


@pytest.mark.parametrize('arguments, message', [
    (dict(accept=95), 'accept.*between 0 and 1.*95'),
    (dict(accept=float('nan')), 'accept.*nan'),
    (dict(accept='x'), "accept.*got 'x'"),
    (dict(accept=None), 'accept.*got None'),
    (dict(accept=0.99), r'120 positives.*at least 299;.*0.975$'),
    (dict(score='gne'), "'gne'.*did you mean 'gen'"),
    (dict(score='msp'), "'msp'.*max_probability.*mahalanobis"),
    (dict(costs=selective.Costs(-1, 1)), 'cost_error.*-1'),
    (dict(costs=selective.Costs(1, 1, 1.0)), 'negative_share.*1.0'),
    (dict(step=5), r'step 5\b.*\[4, 8\]'),
])
def test_mistakes(arguments, message, workdir, tmp_path):
  copy = shutil.copytree(workdir, tmp_path / 'run')
  (copy / 'calibration.json').unlink(missing_ok=True)
  with pytest.raises(ValueError, match=message):
    calibrate.calibrate(str(copy), **arguments)
  assert not (copy / 'calibration.json').exists()


def test_run_without_a_calibration_part(tmp_path):
  config = make_config(evals={'test': {'source': TEST, 'positive': True}})
  train.train(config, str(tmp_path / 'run'))
  with pytest.raises(ValueError, match="held out no positives.*'calibration'.*evals"):
    calibrate.calibrate(str(tmp_path / 'run'))


@pytest.mark.slow
def test_gan(tmp_path):
  source = toy.fake(0, num=32)
  train.train(presets.experiment(
      task='gan', num_classes=4, steps=1,
      data=dict(positives=source, batch_size=8, negatives={}, negatives_per_batch=0),
      measures=dict(num_samples=8, batch_size=8), loss={'name': 'am_gan'},
      generator={'name': 'mlp_generator', 'latent': 2, 'widths': (4,)},
      discriminator={'name': 'mlp_discriminator', 'widths': (4,)},
      run=dict(tensorboard=False)), str(tmp_path / 'run'))
  with pytest.raises(ValueError, match='expected classifiers.*GAN.*--mode=evaluate'):
    calibrate.calibrate(str(tmp_path / 'run'))


def test_program(workdir, monkeypatch, capsys):
  toy.run_main(monkeypatch, '--mode=calibrate', f'--workdir={workdir}', '--accept=0.9',
               '--cost_error=5', '--cost_refusal=1', '--negative_share=0.2')
  out = capsys.readouterr().out
  assert 'error 5, refusal 1, 20 % negatives' in ' '.join(out.split())
  assert f'written: {workdir}/calibration.json' in out
  with pytest.raises(SystemExit, match='needs --cost_error and --cost_refusal'):
    toy.run_main(monkeypatch, '--mode=calibrate', f'--workdir={workdir}',
                 '--negative_share=0.2')
  for lonely in ('--cost_error=5', '--cost_refusal=5'):
    with pytest.raises(SystemExit, match='--cost_error.*--cost_refusal.*together'):
      toy.run_main(monkeypatch, '--mode=calibrate', f'--workdir={workdir}', lonely)
