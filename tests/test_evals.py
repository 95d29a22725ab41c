"""Evaluations chosen by their type, each with a period of its own."""

import types

import numpy as np
import pytest
import toy

from nat_jax import train
from nat_jax.commands import report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.schema import presets
from nat_jax.tasks import classify, gan
from nat_jax.tasks.gan import evaluate

SHAPE = (4, 4, 1)


def fake(seed, *classes):
  return {'name': 'fake', 'num': 40, 'shape': SHAPE, 'seed': seed, 'classes': classes}


def make_config(evals=None, **changes):
  """Ten updates of a tiny classifier: two sets of validation, three of the test."""
  sets = {
      'validation': {'source': fake(1, 0, 1), 'positive': True, 'part': 'validation'},
      'validation_2': {'source': fake(1, 2), 'part': 'validation'},
      'test': {'source': fake(2, 0, 1), 'positive': True},
      'two': {'source': fake(2, 2)},
      'noise': {'source': {'name': 'normal_noise', 'num': 30}},
  }
  for name, more in (evals or {}).items():
    sets[name] = {**sets[name], **more}
  return presets.experiment(**{**dict(
      name='toy', steps=10, num_classes=2, model={'name': 'mlp', 'width': 4},
      data=dict(
          positives=fake(0, 0, 1), negatives={'two': {'source': fake(0, 2)}},
          batch_size=8, negatives_per_batch=2),
      evals=sets,
      run=dict(log_every=10, eval_every=4, checkpoint_every=5, tensorboard=False),
  ), **changes})


def looks(workdir):
  """Step -> names of the sets that were evaluated there."""
  return {step: sorted(sets) for step, sets in toy.evaluations(workdir).items()}


@pytest.fixture
def entropy(monkeypatch):
  """A type of a user's own: one number, and one for each of two thresholds."""
  def measure(scores, eval_set, positives, bootstrap):
    p = scores['max_prob']
    assert len(p) == len(eval_set.arrays.label) and (positives is not None or (
        eval_set.positive))
    return {'mean_confidence': float(p.mean()), 'above': {'0.6': 0.25, '0.9': 0.125}}

  monkeypatch.setitem(classify.EVALUATORS, 'confidence', measure)


def test_periods_of_a_classifier(tmp_path):
  """Validation at run.eval_every; another set where its entry says so; all at the
  end, where each has the figures it has by itself."""
  config = make_config({'two': {'every': 3}, 'validation_2': {'every': 0}})
  evaluation = train.train(config, str(tmp_path))
  assert looks(tmp_path) == {
      3: ['two'], 4: ['validation'], 6: ['two'], 8: ['validation'], 9: ['two'],
      10: sorted(config.evals)}
  assert set(evaluation['evals']) == set(config.evals)
  alone = train.train(make_config(
      {name: {'every': 0} for name in config.evals}), str(tmp_path / 'alone'))
  assert alone['evals'] == evaluation['evals']
  assert list(looks(tmp_path / 'alone')) == [10]


def test_lines_of_an_evaluation_and_of_progress(tmp_path, capsys):
  """Of two classes NCR_0.6, since NCR_0.4 is 1; the lowest AUROC until the next one."""
  config = make_config({'validation': {'every': 0}, 'two': {'every': 4},
                        'noise': {'every': 4}, 'validation_2': {'every': 9}},
                       run=dict(log_every=1, eval_every=0, tensorboard=False))
  train.train(config, str(tmp_path))
  figures = toy.evaluations(tmp_path)
  # Lines that were broken at 80 columns go on behind two spaces.
  lines = capsys.readouterr().out.replace('\n  ', ' ').splitlines()
  at = {step: line for line in lines for step in range(11)
        if line.startswith(f'step {step}/10  ') and 'evaluation: ' not in line}
  said = {step: line.partition('evaluation: ')[2] for line in lines for step in (4, 10)
          if line.startswith(f'step {step}/10  evaluation: ')}
  words = {name: f'{name} AUROC {x["auroc"]:.3f} NCR_0.6 {x["ncr"]["0.6"]:.3f}'
           for name, x in figures[4].items()}
  assert sorted(said[4].split(', ')) == sorted(words.values())
  test = figures[10]['test']
  assert said[10].startswith(
      f'test accuracy {test["accuracy"]:.3f} ECE {test["ece"]:.3f}, ')
  assert 'validation' not in said[10]
  for step in range(1, 11):
    due = {5: 4, 6: 4, 7: 4, 8: 4, 9: 8, 10: 9}.get(step)
    if due is None:
      assert 'AUROC' not in at[step]
      continue
    lowest = min(one['auroc'] for one in figures[due].values())
    assert f'  AUROC {lowest:.3f}' in at[step]


def test_a_negative_set_is_compared_with_its_positives_wherever_it_is_due(tmp_path):
  train.train(make_config({'two': {'every': 10}, 'noise': {'every': 5}}), str(tmp_path))
  at_5, = (r['evals'] for r in toy.records(tmp_path, 'eval') if r['step'] == 5)
  found = evaluate_run(str(tmp_path), 5)['evals']['noise']
  assert list(at_5) == ['noise']
  assert at_5['noise'] == {key: x for key, x in found.items()
                           if key != 'auroc_interval'}


def test_best_checkpoint_with_a_period_of_its_own(tmp_path):
  """The figure is there at updates 4 and 8; a checkpoint at 5 has none to go by."""
  config = make_config(
      {'validation': {'every': 4}, 'noise': {'every': 5}}, best='validation/accuracy',
      run=dict(log_every=10, eval_every=0, checkpoint_every=4, keep=1,
               tensorboard=False))
  train.train(config, str(tmp_path))
  kept = {int(path.name) for path in (tmp_path / 'checkpoints').iterdir()
          if path.name.isdigit()}
  assert 10 in kept and kept <= {4, 8, 10}


def test_another_type(entropy, tmp_path):
  config = make_config({'noise': {'type': 'confidence', 'every': 5},
                        'validation': {'type': 'confidence'}})
  evaluation = train.train(config, str(tmp_path))
  noise = evaluation['evals']['noise']
  scores = np.load(tmp_path / 'scores' / 'noise.npz')['max_prob']
  assert noise == {'type': 'confidence', 'positive': False, 'part': 'test',
                   'mean_confidence': pytest.approx(scores.mean()),
                   'above': {'0.6': 0.25, '0.9': 0.125}}
  assert evaluation['evals']['two']['type'] == 'accuracy_ncr'
  assert 'noise' in looks(tmp_path)[5]
  text = report.tables([str(tmp_path)])
  table = text[text.index("type 'confidence'"):]
  assert f'| mean confidence | {scores.mean():.3f} |' in ' '.join(table.split())
  assert '| above 0.9 | 0.125 |' in ' '.join(table.split())
  ncr = text[text.index('NCR_t: share'):text.index('Detection of negatives')]
  assert 'two' in ncr and 'noise' not in ncr


@pytest.mark.parametrize('changes, named', [
    ({'noise': {'type': 'nought'}}, ['evals.noise', 'nought', 'accuracy_ncr']),
    ({'noise': {'every': -1}}, ['evals.noise.every', '-1']),
    ({'noise': {'every': 2.5}}, ['evals.noise.every', '2.5']),
    ({'noise': {'evry': 2}}, ['evals.noise.', 'evry', 'every'])])
def test_entries_with_mistakes(changes, named, tmp_path):
  with pytest.raises(ValueError) as error:
    train.train(make_config(changes), str(tmp_path / 'run'))
  assert all(text in str(error.value) for text in named)
  assert not (tmp_path / 'run').exists()


def make_gan(evals):
  return presets.experiment(
      task='gan', name='toy', variant='nat0', steps=6, num_classes=2,
      generator={'name': 'mlp_generator', 'latent': 3, 'widths': [4]},
      discriminator={'name': 'mlp_discriminator', 'widths': [4]},
      data=dict(positives=fake(0, 0, 1), batch_size=8), evals=evals,
      measures=dict(num_samples=20, batch_size=8, neighbours=2),
      run=dict(log_every=6, eval_every=3, checkpoint_every=6, tensorboard=False))


@pytest.mark.slow
def test_a_gan_shows_samples_more_often_than_it_measures_them(tmp_path):
  evaluation = train.train(make_gan({
      'samples': {'type': 'samples', 'every': 0}, 'look': {'type': 'sheet', 'every': 2},
      'seldom': {'type': 'sheet'}}), str(tmp_path))
  assert looks(tmp_path) == {2: ['look'], 3: ['seldom'], 4: ['look'],
                             6: ['look', 'samples', 'seldom']}
  assert sorted(path.name for path in (tmp_path / 'figures').glob('*_0*.png')) == [
      'look_0000002.png', 'look_0000004.png', 'look_0000006.png',
      'samples_0000006.png', 'seldom_0000003.png', 'seldom_0000006.png']
  assert evaluation['evals']['look'] == {'type': 'sheet'}
  assert 'fid' in evaluation['evals']['samples']
  alone = train.train(make_gan({'samples': {'type': 'samples'}}), str(tmp_path / 'one'))
  assert alone['evals']['samples'] == evaluation['evals']['samples']
  assert 'FID' in report.tables([str(tmp_path)])


@pytest.mark.parametrize('num, columns, shown', [(2, 10, 70), (6, 6, 60), (12, 10, 70)])
def test_sheets_of_a_conditional_gan_have_classes_in_columns(
    num, columns, shown, monkeypatch):
  sheets = []
  monkeypatch.setattr(evaluate, 'sheet', lambda images, path, columns, captions: (
      sheets.append((len(images), columns, captions))))
  config = {'trainer': {'labels': 'predefined'}, 'num_classes': num, 'seed': 0,
            'generator': {'name': 'toy'}}
  given = types.SimpleNamespace(class_names=('ant', 'bee', 'cat', 'dog'))
  state = types.SimpleNamespace(step=7)

  def show(**changes):
    gan.EVALUATORS['sheet'](
        'look', config | changes, 'run', lambda *args: np.zeros((70, *SHAPE)),
        given=given)(state)
    return sheets.pop()

  names = ['ant', 'bee', 'cat', 'dog', *map(str, range(4, 12))][:num]
  assert show() == (shown, columns, [names[i % num] for i in range(shown)])
  assert show(trainer={'labels': 'dynamic'}) == (70, 10, [])


def test_evaluations_of_a_gan_with_mistakes(tmp_path):
  valid = 'samples, quick, sheet'
  for entry, named in (({'type': 'nought'}, ('evals.x', 'nought', valid)),
                       ({'every': 0}, ('evals.x', 'None', valid)),
                       ({'type': 'sheet', 'source': fake(0)}, ('evals.x.', 'source'))):
    with pytest.raises(ValueError) as error:
      train.train(make_gan({'x': entry}), str(tmp_path / 'run'))
    assert all(text in str(error.value) for text in named)
  assert set(gan.EVALUATORS) == {'samples', 'quick', 'sheet'}


def corrupted(**changes):
  """The config with positives of the test under two strengths of noise."""
  config = make_config()
  entries = presets.corrupted(fake(2, 0, 1), num=10)
  for name in ('corrupted_noise_1', 'corrupted_jpeg_5'):
    config.evals[name] = entries[name] | changes
  return config


def test_corrupted_positives_are_accepted_or_refused(tmp_path):
  """Evaluated at the end only, and with the threshold of the uncorrupted ones."""
  run = tmp_path / 'run'
  content = train.train(corrupted(), str(run))
  assert looks(run)[4] == ['validation', 'validation_2']
  figures = content['evals']['corrupted_noise_1']
  assert (figures['corruption'], figures['strength'], figures['n']) == ('noise', 1, 10)
  clean, noisy = (toy.arrays(run / 'scores' / f'{name}.npz')
                  for name in ('test', 'corrupted_noise_1'))
  threshold = content['classes']['threshold']
  assert np.mean(clean['score'] >= threshold) == 0.95
  assert figures['accepted'] == np.mean(noisy['score'] >= threshold)
  assert figures['accuracy'] == np.mean(noisy['prediction'] == noisy['label'])
  assert content['evals'].keys() == evaluate_run(str(run))['evals'].keys()
  classes = content['classes']
  assert np.sum(classes['confusion']) == np.sum(classes['n']) == 20
  assert np.trace(classes['confusion']) / 20 == pytest.approx(
      content['evals']['test']['accuracy'])
  assert report.write([str(run)])  # other tables and figures leave them out
  text = (run / 'report.md').read_text()
  assert 'corrupted_noise_1' not in text


@pytest.mark.parametrize('changes, message', [
    ({'positive': False}, "corrupted_.*type 'corruption' must have"),
    ({'part': 'calibration'}, "corrupted_.*the part 'test'"),
    ({'corrupt': {'name': 'noise', 'strength': 9}}, r'strength must be .*\[1, 5\]'),
    ({'corrupt': {'name': 'snow', 'strength': 1}}, "unknown corruption 'snow'"),
    ({'corrupt': {'name': 'jpeg', 'strength': 1, 'quality': 5}}, 'jpeg.*quality'),
])
def test_mistakes_in_corruptions(changes, message, tmp_path):
  with pytest.raises((ValueError, TypeError), match=message):
    train.train(corrupted(**changes), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()
