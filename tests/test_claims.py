"""Intervals over seeds, Welch's test, and the paper's figures beside ours."""

import numpy as np
import pytest
from scipy import stats

from nat_jax.reports import claims, frame, paper
from nat_jax.tasks.classify import report

THRESHOLDS = ('0.4', '0.6', '0.8', '0.9')


def groups(baseline, nat, name='cifar10_small'):
  def runs(variant, values):
    return [{
        'name': name, 'variant': variant, 'label': f'{name}:{variant} {seed}',
        'seed': seed, 'step': 1, 'config': {}, 'workdir': '', 'evaluation': {},
        'sessions': [], 'class_names': [], 'reference': 'test',
        'evals': {
            'test': {'positive': True, 'accuracy': 0.8, 'n': 10},
            'cifar100_test': {
                'positive': False, 'ncr': dict.fromkeys(THRESHOLDS, value)}},
    } for seed, value in enumerate(values)]
  return {'baseline': runs('baseline', baseline), 'nat': runs('nat', nat)}


def claim_tables(groups):
  return [table for table in report.tables(groups) if table.title.startswith(
      ('NCR_t: 95 % interval of the mean over seeds', 'NCR_t against'))]


def test_interval_is_students():
  values = [0.5, 0.6, 0.55]
  expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
  np.testing.assert_allclose(claims.interval(values), expected)


def test_welch_is_scipys_and_settles_constant_groups():
  one, other = [0.1, 0.2, 0.3], [0.5, 0.9, 0.6]
  assert claims.welch(one, other) == pytest.approx(
      stats.ttest_ind(one, other, equal_var=False).pvalue)
  assert claims.welch([0.0, 0.0], [0.0, 0.0]) == 1
  assert np.isnan(claims.welch([0.0, 0.0], [1.0, 1.0]))  # no spread, no test
  assert np.isnan(claims.welch([0.0], [1.0, 1.1]))
  assert claims.welch([0.0, 0.0, 0.0], [1.0, 1.1, 1.2]) == pytest.approx(
      stats.ttest_1samp([1.0, 1.1, 1.2], 0.0).pvalue)


def test_a_constant_group_gives_no_warning(recwarn):
  p = claims.welch([0.99, 0.99], [0.97, 0.98])
  assert p == pytest.approx(stats.ttest_1samp([0.97, 0.98], 0.99).pvalue)
  assert not recwarn.list


def test_holm_by_hand():
  # Of 4: .005 x 4, .01 x 3, .03 x 2, and .04 x 1, which is not below the one before.
  np.testing.assert_allclose(
      claims.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
  np.testing.assert_allclose(
      claims.holm([0.5, np.nan, 0.7, 0.02]), [1, np.nan, 1, 0.06])  # NaN: no test
  assert claims.holm([0.5, 0.5]) == [1, 1] and claims.holm([]) == []


def test_the_family_of_a_table_is_all_of_its_cells():
  """Of 100 comparisons of equal groups Holm finds none, each for itself some."""
  rng = np.random.default_rng(0)
  tests = {(i,): claims.Comparison(*rng.normal(size=(2, 5))) for i in range(100)}
  alone = [claims.welch(test.ours, test.theirs) for test in tests.values()]
  assert sum(p < 0.05 for p in alone) > 1
  found = claims.verdicts(tests)
  assert all(text.startswith('not shown (p ') for text in found.values())
  tests['far',] = claims.Comparison([5.1, 5.2, 5.3, 5.4], [0.1, 0.2, 0.3, 0.4])
  p = stats.ttest_ind(*tests['far',][:2], equal_var=False).pvalue
  assert claims.verdicts(tests)['far',] == f'higher (p {101 * p:.1g})'


def test_constants_that_differ_are_not_tested():
  _, comparison = claim_tables(groups([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]))
  assert set(cells(comparison, 'cifar100_test')) == {'no test'}
  assert '"no test": two constants that differ' in comparison.title
  _, comparison = claim_tables(groups([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]))
  assert set(cells(comparison, 'cifar100_test')) == {'not shown (p 1)'}


def cells(table, column):
  return [row[table.header.index(column)] for row in table.rows]


def test_a_lower_rate_is_found_and_stands_beside_the_paper():
  one, other = [0.80, 0.82, 0.81], [0.40, 0.41, 0.39]
  intervals, comparison = claim_tables(groups(one, other))
  p = 4 * stats.ttest_ind(one, other, equal_var=False).pvalue  # Holm: of four cells
  assert cells(comparison, 'cifar100_test')[0] == f'lower as in the paper (p {p:.1g})'
  assert "Holm's correction over all cells" in comparison.title
  assert cells(intervals, 'cifar100_test')[0] == '0.785..0.835 (0.971)'
  assert intervals.rows[1][1] == 'nat (3 seeds)'
  assert cells(intervals, 'cifar100_test')[1].endswith('(0.072)')  # nat, t = .4


def test_a_higher_rate_goes_against_the_paper_and_noise_shows_nothing():
  _, comparison = claim_tables(groups([0.40, 0.41, 0.39], [0.80, 0.82, 0.81]))
  assert cells(comparison, 'cifar100_test')[0].startswith('higher against the paper')
  _, comparison = claim_tables(groups([0.2, 0.8, 0.5], [0.3, 0.7, 0.4]))
  assert cells(comparison, 'cifar100_test')[0].startswith('not shown')
  _, comparison = claim_tables(
      groups([0.80, 0.82, 0.81], [0.40, 0.41, 0.39], name='digits'))
  assert cells(comparison, 'cifar100_test')[0].startswith('lower (p ')  # no paper


def test_baselines_are_of_the_same_experiment():
  """Neither the name of another data set nor a suffix of the label leads astray."""
  one = groups([0.80, 0.82, 0.81], [0.40, 0.41, 0.39])
  other = groups([], [0.1, 0.2, 0.1], name='svhn_small')
  _, table = claim_tables({
      'cifar10:baseline (a)': one['baseline'], 'cifar10:nat (a)': one['nat'],
      'svhn:nat': other['nat']})
  assert 'Run: cifar10:nat (a).' in table.title and len(table.rows) == 4
  assert len(claim_tables({'a': one['baseline'], 'b': other['nat']})) == 1
  students = {f'student_{name}': [r | {'variant': f'student_{name}'} for r in runs]
              for name, runs in one.items()}
  teacher = [r | {'variant': 'teacher_baseline', 'name': 'cifar10_small'}
             for r in other['nat']]
  assert report.baselines({'teacher': teacher, **students}) == {
      'student_nat': 'student_baseline'}
  _, table = claim_tables({'teacher': teacher, **students})
  assert 'against student_baseline:' in table.title


def test_comparisons_keep_each_seed_in_its_place():
  found = frame(groups([0.8, 0.7, 0.6], [0.4, None, 0.2]))
  tests = claims.comparisons(found[found.metric == 'ncr'], {'nat': 'baseline'})
  assert set(tests) == {('nat', 'cifar100_test', 'ncr', t) for t in THRESHOLDS}
  test = tests['nat', 'cifar100_test', 'ncr', '0.4']
  np.testing.assert_array_equal(test.ours, [0.4, np.nan, 0.2])
  assert test.theirs == [0.8, 0.7, 0.6] and test.published == [0.072, 0.971]
  p = stats.ttest_ind([0.4, 0.2], test.theirs, equal_var=False).pvalue
  assert claims.welch(test.ours, test.theirs) == pytest.approx(p)


def test_one_seed_makes_no_claims():
  assert claim_tables(groups([0.8], [0.4])) == []


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
