"""Intervals over seeds, Welch's test, and the paper's figures beside ours."""

import numpy as np
import pytest
from scipy import stats

from nat_jax.reports import claims, paper

THRESHOLDS = ('0.4', '0.6', '0.8', '0.9')


def groups(baseline, nat, name='cifar10_small'):
  def runs(variant, values):
    return [{'name': name, 'variant': variant, 'evals': {
        'test': {'positive': True, 'accuracy': 0.8, 'n': 10},
        'cifar100_test': {
            'positive': False, 'ncr': dict.fromkeys(THRESHOLDS, value)},
    }} for value in values]
  return {'baseline': runs('baseline', baseline), 'nat': runs('nat', nat)}


def test_interval_is_students():
  values = [0.5, 0.6, 0.55]
  expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
  np.testing.assert_allclose(claims.interval(values), expected)


def test_welch_is_scipys_and_settles_constant_groups():
  one, other = [0.1, 0.2, 0.3], [0.5, 0.9, 0.6]
  assert claims.welch(one, other) == pytest.approx(
      stats.ttest_ind(one, other, equal_var=False).pvalue)
  assert claims.welch([0.0, 0.0], [0.0, 0.0]) == 1
  assert claims.welch([0.0, 0.0], [1.0, 1.0]) == 0


def cells(table, column):
  return [row[table.header.index(column)] for row in table.rows]


def test_a_lower_rate_is_found_and_stands_beside_the_paper():
  intervals, comparison = claims.claim_tables(
      groups([0.80, 0.82, 0.81], [0.40, 0.41, 0.39]))
  assert cells(comparison, 'cifar100_test')[0].startswith('lower as in the paper (p ')
  assert cells(intervals, 'cifar100_test')[0] == '0.785..0.835 (0.971)'
  assert cells(intervals, 'cifar100_test')[4].endswith('(0.072)')  # nat, t = .4


def test_a_higher_rate_goes_against_the_paper_and_noise_shows_nothing():
  _, comparison = claims.claim_tables(groups([0.40, 0.41, 0.39], [0.80, 0.82, 0.81]))
  assert cells(comparison, 'cifar100_test')[0].startswith('higher against the paper')
  _, comparison = claims.claim_tables(groups([0.2, 0.8, 0.5], [0.3, 0.7, 0.4]))
  assert cells(comparison, 'cifar100_test')[0].startswith('not shown')
  _, comparison = claims.claim_tables(
      groups([0.80, 0.82, 0.81], [0.40, 0.41, 0.39], name='digits'))
  assert cells(comparison, 'cifar100_test')[0].startswith('lower (p ')  # no paper


def test_baselines_are_of_the_same_experiment():
  """Neither the name of another data set nor a suffix of the label leads astray."""
  one = groups([0.80, 0.82, 0.81], [0.40, 0.41, 0.39])
  other = groups([], [0.1, 0.2, 0.1], name='svhn_small')
  _, table = claims.claim_tables({
      'cifar10:baseline (a)': one['baseline'], 'cifar10:nat (a)': one['nat'],
      'svhn:nat': other['nat']})
  assert [row[0] for row in table.rows if row[0]] == ['cifar10:nat (a)']
  assert len(claims.claim_tables({'a': one['baseline'], 'b': other['nat']})) == 1
  students = {f'student_{name}': [r | {'variant': f'student_{name}'} for r in runs]
              for name, runs in one.items()}
  teacher = [r | {'variant': 'teacher_baseline'} for r in other['nat']]
  _, table = claims.claim_tables({'teacher': [
      r | {'name': 'cifar10_small'} for r in teacher], **students})
  assert 'against student_baseline:' in table.title


def test_one_seed_makes_no_claims():
  assert claims.claim_tables(groups([0.8], [0.4])) == []


def test_paper_tables():
  assert paper.ncr('cifar10', 'nat', 'cifar100_test', '0.4') == 0.072
  assert paper.ncr('cifar10_small', 'ilsvrc', 'noise', '0.8') == 0.051
  assert paper.ncr('svhn', 'nat', 'noise', '0.9') == 0
  assert paper.ncr('cifar10', 'nat', 'tiny_imagenet', '0.4') is None
  assert paper.ncr('digits', 'nat', 'cifar100_test', '0.4') is None
  for figures in paper.NCR.values():
    assert tuple(figures) == THRESHOLDS
    columns = np.array(list(figures.values()))
    assert (np.diff(columns, axis=0) <= 0).all()  # NCR_t falls with t
