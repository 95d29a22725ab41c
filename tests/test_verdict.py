"""The verdict of a report in words, for runs with known figures."""

import pytest

from nat_jax.tasks import TASKS
from nat_jax.tasks.classify import verdict


def run(variant='nat', seed=0, accuracy=0.98, n=500, negatives=(), classes=None,
        num_classes=10, **more):
  """A classifier; negatives: (name, share accepted, n, seen in training)."""
  evals = {'test': {'positive': True, 'part': 'test', 'accuracy': accuracy, 'n': n},
           'validation': {'positive': True, 'part': 'validation', 'accuracy': 0.1,
                          'n': 9}, **more}
  for name, accepted, num, seen in negatives:
    evals[name] = {'positive': False, 'part': 'test', 'ncr': {}, 'n': num,
                   'fpr95_id_positive': accepted, 'seen_in_training': seen}
  return {'name': 'toy', 'variant': variant, 'seed': seed, 'reference': 'test',
          'evals': evals, 'num_classes': num_classes,
          'class_names': [f'c{k}' for k in range(num_classes)],
          'evaluation': {'classes': classes} if classes else {}}


def said(groups, task='classify'):
  """The verdict as one text."""
  return ' '.join(f'{headline} {" ".join(sentences)}' for headline, sentences
                  in TASKS[task].verdict(groups))


NEGATIVES = (('noise', 0.02, 1000, False), ('letters', 0.31, 400, True))


def test_a_good_run_beside_its_baseline():
  baseline = run('baseline', accuracy=0.978, negatives=(
      ('noise', 0.9, 1000, False), ('letters', 0.33, 400, False)))
  found = TASKS['classify'].verdict({
      'baseline': [baseline], 'nat': [run(negatives=NEGATIVES)]})
  assert [headline for headline, _ in found] == [
      'nat classifies 98 % of held-out positives correctly. At a threshold that keeps '
      '95 % of them it refuses almost all of noise and more than half of letters.', '']
  text = said({'baseline': [baseline], 'nat': [run(negatives=NEGATIVES)]})
  assert 'Accuracy on 500 held-out positives: 98 % (96.4 to 98.9 %).' in text
  assert '2 % (1.3 to 3.1 %) of noise (n = 1,000, unseen in training)' in text
  assert '31 % (26.7 to 35.7 %) of letters (n = 400, a kind seen in training)' in text
  assert ('To compare, baseline: accuracy 97.8 % (no difference shown), 90 % of noise '
          'accepted (nat lower) and 33 % of letters accepted (no difference shown).'
          in text)
  assert 'validation' not in text and 'plain classifier' not in text


def test_a_poor_run_without_baseline():
  text = said({'nat': [run(accuracy=0.11, negatives=(
      ('noise', 0.97, 1000, False), ('letters', 0.7, 1000, False)))]})
  assert ('classifies 11 % of held-out positives correctly. That is chance, 1 of 10 '
          'classes.' in text)
  # One class stands for a number that is not known.
  assert 'chance' not in said({'nat': [run(accuracy=1.0, num_classes=1)]})
  assert 'refuses less than half of letters and hardly any of noise.' in text
  assert 'There is no plain classifier to compare with.' in text


def test_nothing_is_said_of_a_few_images():
  text = said({'nat': [run(n=9, accuracy=1.0, negatives=(('few', 0.0, 5, False),))]})
  assert 'refuses' not in text and (
      'too few images to say so of few: test more of them, and more positives.' in text)
  assert '100 % (70.1 to 100 %)' in text and '0 % (0 to 43.4 %) of few' in text


def test_without_negatives():
  text = said({'baseline': [run('baseline')]})
  assert 'refuses' not in text and 'No negatives were tested' in text
  assert 'plain classifier to compare' not in text


def test_training_negatives_in_a_set_are_told():
  one = run(negatives=NEGATIVES)
  def of(overlap):
    one['evals']['noise']['overlap_with_training_negatives'] = overlap
    return said({'nat': [one]})

  assert ('noise shares 12 of its 1,000 images with the training negatives; without '
          'them the share of it that is accepted would differ by 1.2 percentage points '
          'at most.' in of(12))
  assert 'shares 101 of its 1,000 images with the training negatives: its figures ' in (
      of(101))
  assert 'noise shares all of its 1,000 images' in of(1000)
  assert 'training negatives' not in of(0)


def test_seeds_with_other_sets():
  """A set that the first run lacks; numbers of images that are not the same."""
  first, second = run(n=500), run(seed=1, n=600, negatives=(('noise', 0.3, 90, True),))
  second['evals']['noise']['overlap_with_training_negatives'] = 90
  text = said({'nat': [first, second]})
  assert 'Accuracy, mean of 2 seeds: 98 %' in text
  assert '30 % (21.5 to 40.1 %) of noise (n = 90, a kind seen in training)' in text
  assert 'noise shares all of its 90 images' in text
  third = run(seed=2, negatives=(('noise', 0.3, 1200, True),))
  assert 'n = 90 or 1,200, a' in said({'nat': [second, third]})


def test_several_seeds_are_tested():
  """Ranges over seeds; Welch's tests with Holm's correction over the sentence."""
  def seeds(variant, *shares):
    return [run(variant, i, negatives=(('noise', share, 1000, False),))
            for i, share in enumerate(shares)]

  text = said({'baseline': seeds('baseline', 0.8, 0.82, 0.81),
               'nat': seeds('nat', 0.1, 0.12, 0.14)})
  assert 'positives, mean of 3 seeds: 98 % (98 to 98 %)' in text
  assert '12 % (10 to 14 %) of noise' in text
  assert '81 % of noise accepted (nat lower (p ' in text
  assert 'accuracy 98 % (no difference shown (p 1))' in text
  assert 'In brackets behind a share: the range over seeds.' in text
  text = said({'baseline': seeds('baseline', 0.8), 'nat': seeds('nat', 0.1, 0.2)})
  assert '80 % of noise accepted (one seed: not tested)' in text


def test_weak_classes():
  """Named where the interval of a class is below that of all."""
  classes = {'n': [250, 200, 50], 'accuracy': [0.99, 0.98, 0.6], 'accepted': [1] * 3}
  text = said({'nat': [run(accuracy=0.947, classes=classes, num_classes=3)]})
  assert 'Less accurate than the rest: c2 (60 % of 50).' in text
  classes['accuracy'][2] = 0.9  # 79 % to 96 %
  assert 'Less accurate' not in said(
      {'nat': [run(accuracy=0.947, classes=classes, num_classes=3)]})


def test_more_groups_than_paragraphs():
  groups = {f'v{i}': [run(f'v{i}')] for i in range(6)}
  found = TASKS['classify'].verdict(groups)
  assert len(found) == verdict.MOST + 2
  assert found[-2][1] == ['2 more: v4, v5; their figures are in the tables.']


@pytest.mark.parametrize('accepted, words', [
    (0, 'almost all of'), (0.05, 'almost all of'), (0.06, 'most of'),
    (0.5, 'more than half of'), (0.51, 'less than half of'), (1, 'hardly any of')])
def test_words(accepted, words):
  assert verdict.refused(accepted) == words


def gan(variant, fid, seed=0, **samples):
  return {'name': 'toy', 'variant': variant, 'seed': seed, 'label': f'{variant} {seed}',
          'class_names': ['a', 'b'], 'conventions': {}, 'config': {}, 'evals': {
              'samples': {'fid': fid, 'inception_score': 4.0, 'precision': 0.5,
                          'reference_inception_score': 5.5, 'recall': 0.25,
                          'class_shares': [0.75, 0.25], **samples}}}


def test_of_gans():
  text = said({'nat3': [gan('nat3', 12.345)]}, 'gan')
  assert 'nat3: FID 12.35, Inception Score 4.00.' in text or (
      'nat3: FID 12.34, Inception Score 4.00.' in text)
  assert 'real images have 5.50' in text and '(recall): 0.250' in text
  assert 'the rarest one makes up 25 % of them, and the most frequent one 75 %' in text
  assert 'One seed' in text and 'collapsed' not in text
  text = said({'nat3': [gan('nat3', 99.0, class_shares=[1.0, 0.0], collapsed=True)]},
              'gan')
  assert 'nearly all alike (collapsed)' in text and 'Of 2 classes 1 have no' in text
  groups = {name: [gan(name, fid + i / 10, i) for i in range(3)]
            for name, fid in (('am', 20.0), ('nat3', 10.0))}
  text = said(groups, 'gan')
  assert 'Against am: ' in text and 'FID lower (p ' in text and 'One seed' not in text
  text = said({name: runs[:1] for name, runs in groups.items()}, 'gan')
  assert 'Against am: not tested, which needs two seeds of each.' in text
  text = said({'gan': [{**gan('gan', None), 'evals': {}}]}, 'gan')
  assert text.startswith('gan.')  # sheets alone were asked for


def points(variant, converged, distance):
  return {'name': 'rings', 'variant': variant, 'seed': 0, 'label': variant,
          'evaluation': {'seeds': list(range(len(converged))), 'threshold': 1.0,
                         'floor': 0.1},
          'evals': {'samples': {
              'converged': converged, 'distance_end': distance,
              'steps_converged': [100 if c else None for c in converged]}}}


def test_of_points():
  few, all_of_them = [0.0] * 7 + [1.0], [1.0] * 8
  text = said({'gan': [points('gan', few, [3.0, 4, 3, 4, 3, 4, 3, 0.5])],
               'nat': [points('nat', all_of_them, [0.5] * 4 + [0.6] * 4)]}, 'points')
  assert 'gan: 1 of 8 seeds converged. The share of seeds that converge is 12.5 % ' in (
      text)
  assert '(95 % interval 2.2 % to 47.1 %)' in text
  assert 'nat: 8 of 8 seeds converged.' in text and 'needed 100 ± 0 updates' in text
  assert 'Distance at the end against gan: lower (p ' in text
