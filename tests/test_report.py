"""Tables, CSV, figures and errors of reports on workdirs with known figures."""

import csv
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from nat_jax import reports
from nat_jax.commands import report
from nat_jax.reports import about, figures, pictures, tables
from nat_jax.tasks.classify import report as classifiers

THRESHOLDS = ('0.4', '0.6', '0.8', '0.9')


def evals(ncr=0.5, accuracy=0.99, sets=('seen', 'unseen'), **extra):
  """Figures as in eval.json: NCR_0.4 = ncr, halved from threshold to threshold."""
  by_threshold = {t: ncr / 2**i for i, t in enumerate(THRESHOLDS)}
  negative = {
      'positive': False, 'ncr': by_threshold, 'par': dict.fromkeys(THRESHOLDS, 0.9),
      'auroc': 0.75, 'aupr_in': 0.7, 'aupr_out': 0.65, 'fpr95_id_positive': 0.3,
      'fpr95_ood_positive': 0.2, 'n': 8, **extra}
  return {
      'test': {'positive': True, 'accuracy': accuracy, 'ece': 0.0125,
               'par': dict.fromkeys(THRESHOLDS, 0.9), 'n': 10},
      **{name: negative | {'seen_in_training': name == 'seen'} for name in sets}}


def write_run(folder, variant='nat', seed=0, full=True, name='toy', figures_of=None,
              class_names=('ant', 'bee', 'cat', '<dog>'), **about):
  """A workdir as training leaves it; without scores and metrics unless full."""
  (folder / 'scores').mkdir(parents=True)
  config = {'name': name, 'variant': variant, 'seed': seed,
            'loss': {'name': 'nat'}, 'model': {'name': 'mlp'}}
  (folder / 'config.json').write_text(json.dumps(config))
  found = figures_of or evals()
  (folder / 'eval.json').write_text(json.dumps({
      'step': 40, 'evals': found, 'reference': 'test', 'num_classes': 4,
      'class_names': class_names, **about}))
  if full:
    rng = np.random.default_rng(seed)
    for set_name in found:
      np.savez(folder / 'scores' / f'{set_name}.npz', step=40,
               max_prob=rng.uniform(0.25, 1, 30))
    (folder / 'mistakes').mkdir()
    np.savez(folder / 'mistakes' / 'seen.npz', step=40,
             image=rng.integers(0, 256, (5, 8, 8, 1)).astype(np.uint8),
             max_prob=np.linspace(0.9, 0.5, 5), prediction=np.arange(5))
    records = [{'step': s, 'kind': 'train', 'loss_positive': 1 / s, 'accuracy': 0.5,
                'loss_negative': None} for s in (10, 20, 10)]
    records.append({'step': 20, 'kind': 'eval', 'evals': found})
    lines = [json.dumps(record) for record in records]
    (folder / 'metrics.jsonl').write_text('\n'.join([*lines, '{"step": 3']))
  return str(folder)


def cells(text, head, table=0):
  """The cells of the row that begins with `head`, in the table of that number."""
  rows = [line for line in text.splitlines() if line.startswith(f'| {head} ')]
  return [cell.strip() for cell in rows[table].split('|')[2:-1]]


def text_of(evals_by_label):
  """The tables of runs of which nothing but the figures is known."""
  groups = {
      label: [dict(label=f'{label} {i}', name='toy', variant=label, seed=i, evals=one,
                   step=1, config={}, workdir='', evaluation={}, sessions=[],
              class_names=[], reference='test')
              for i, one in enumerate(found if isinstance(found, list) else [found])]
      for label, found in evals_by_label.items()}
  return '\n'.join(table.markdown() for table in classifiers.tables(groups))


def test_ncr_table_of_one_run():
  text = text_of({'nat': evals(ncr=0.004)})
  assert 'Run: nat.' in text
  assert cells(text, 't') == ['seen', 'unseen', 'PAR_t test']
  assert cells(text, '0.4') == ['0.004', '0.004', '0.900']
  assert cells(text, '0.9') == ['0.0005', '0.0005', '0.900']
  assert cells(text, 'AUROC') == ['0.750', '0.750']
  assert cells(text, 'FPR95 (ID-positive)') == ['0.300', '0.300']
  assert cells(text, 'FPR95 (OOD-positive)') == ['0.200', '0.200']
  assert cells(text, 'in training') == ['seen', 'unseen']
  assert cells(text, 'accuracy') == ['0.9900']
  assert cells(text, 'ECE') == ['0.0125']
  assert cells(text, 'n') == ['8', '8'] and cells(text, 'n', table=1) == ['10']
  assert 'training images in it' not in text


def test_a_line_for_each_of_two_runs():
  text = text_of({
      'baseline': evals(ncr=0.8, sets=('seen', 'only_baseline')),
      'nat': evals(
          ncr=0.0, sets=('seen', 'only_nat'), overlap_with_training_negatives=3),
  })
  assert cells(text, 't') == ['run', 'seen', 'only_baseline', 'only_nat', 'PAR_t test']
  assert cells(text, '0.6') == ['baseline', '0.400', '0.400', '-', '0.900']
  assert cells(text, '') == ['nat', '0', '-', '0', '0.900']
  assert cells(text, 'training images in it') == ['baseline', '-', '-', '-']
  assert ['nat', '3', '-', '3'] in [cells(text, '', i) for i in range(12)]
  assert cells(text, 'n', table=1) == ['all', '10']  # what is equal stands once


def test_seeds_are_averaged():
  runs = [evals(ncr=x, accuracy=a) for x, a in ((0.2, 0.98), (0.4, 0.99), (0.6, 1.0))]
  text = text_of({'nat': runs})
  assert 'nat (3 seeds)' in text and 'standard deviation over seeds' in text
  assert cells(text, '0.4')[0] == '0.400 ± 0.200'
  assert cells(text, 'accuracy') == ['0.9900 ± 0.0100']
  assert cells(text_of({'nat': [evals(ncr=0.0)] * 2}), '0.4')[0] == '0'


def test_means_over_some_of_the_seeds_are_marked():
  text = text_of({'nat': [evals(sets=('seen',)), evals(), evals(ncr=0.1)]})
  assert cells(text, '0.4')[:2] == ['0.367 ± 0.231', '0.300 ± 0.283 (2 of 3)']


@pytest.mark.parametrize('seeds', [1, 3])
def test_two_runs_on_four_sets_fit_a_terminal(seeds):
  names = ('cifar100_test', 'ilsvrc_samples', 'svhn_cropped', 'noise')
  text = text_of({
      label: [evals(ncr=x, sets=names) for x in np.linspace(0.2, 0.9, seeds)]
      for label in ('baseline', 'nat')})
  assert max(map(len, text.splitlines())) <= 110
  by_table = re.findall(r'(?:^\|.*\n)+', text, flags=re.M)
  assert len(by_table) == (4 if seeds == 1 else 6)
  for table in by_table:
    assert len({len(line) for line in table.splitlines()}) == 1  # aligned
  if seeds == 3:
    assert cells(text, '0.4')[:2] == ['baseline (3 seeds)', '0.550 ± 0.350']


def test_long_cells_are_folded():
  words = 'an evaluation classifier of ten classes ' * 3
  table = tables.Table('title', ['measure', 'convention'], [['fid', words]], left=2)
  lines = table.markdown().splitlines()[4:]
  folded = [line.split('|')[2].strip() for line in lines]
  assert len(folded) == 2 and ' '.join(folded) == words.strip()
  assert [line.split('|')[1].strip() for line in lines] == ['fid', '']
  path = '/' + 'folder/' * 12
  assert path in tables.Table('title', ['workdir'], [[path]]).markdown()


def test_bars_in_cells_are_no_columns():
  text = tables.Table('title', ['run', '2'], [['a|b', '0']]).markdown()
  assert text.splitlines()[-2:] == ['| ---- | --: |', '| a\\|b |   0 |']


@pytest.mark.parametrize('other', [
    {'class_names': ('ant', 'bee', 'cat', 'dog')},
    {'figures_of': evals() | {'test': evals()['test'] | {'n': 20}}}])
def test_runs_with_other_classes_or_another_test_are_not_compared(other, tmp_path):
  write_run(tmp_path / 'a', 'baseline', full=False, **other)
  write_run(tmp_path / 'b', 'nat', full=False)
  write_run(tmp_path / 'c', 'baseline', full=False)
  one, both = ([str(tmp_path / name) for name in names] for names in ('ab', 'bc'))
  assert 'To compare' in report.tables(both) and 'To compare' not in report.tables(one)
  text = pathlib.Path(report.write(one)).with_suffix('.md').read_text()
  for fact in ('Evaluated on: baseline: test: test (20)', 'nat: test: test (10)') if (
      'figures_of' in other) else ('Classes: baseline: 4: ant, bee, cat, dog. nat: 4',):
    assert fact in text


def test_evaluations_of_several_steps_have_no_mean(tmp_path):
  runs = [reports.load_run(write_run(tmp_path / str(k), seed=k, full=False))
          for k in range(3)]
  assert list(reports.group(runs)) == ['nat']
  groups = reports.group([*runs[:2], runs[2] | {'step': 30}])
  assert sorted(map(len, groups.values())) == [1, 2]
  stopped_early = [run | {'config': run['config'] | {'patience': 10}, 'step': k}
                   for k, run in enumerate(runs)]
  assert list(reports.group(stopped_early)) == ['nat']


def test_what_is_no_folder_is_no_run(tmp_path):
  (tmp_path / 'a.log').write_text('text')
  for name in ('a.log', 'nowhere'):
    with pytest.raises(ValueError, match=f'{name} is not the workdir of a run'):
      report.show([str(tmp_path / name)])


def test_runs_that_are_missing_are_told(tmp_path, capsys):
  workdir = write_run(tmp_path / 'a', full=False)
  report.show([workdir], missing=['b failed: it diverged'])
  assert '- Not in this report: b failed: it diverged\n' in (
      tmp_path / 'a' / 'report.md').read_text()


def test_a_run_with_fewer_names_than_classes_is_reported(tmp_path):
  classes = {'n': [2, 3, 5, 0], 'accuracy': [1, 1, 0, None],
             'accepted': [1, 1, 1, None], 'confusion': np.eye(4, dtype=int).tolist()}
  workdir = write_run(
      tmp_path / 'a', full=False, class_names=('ant', 'bee'), classes=classes)
  assert reports.load_run(workdir)['class_names'] == ['ant', 'bee', '2', '3']
  assert '2 (0 % of 5)' in report.tables([workdir])


def test_rules_of_narrow_columns_are_markdown():
  narrow = tables.Table('title', ['a', '2'], [['b', '0']]).markdown()
  assert narrow.splitlines()[3] == '| --- | --: |'


def test_the_frame_has_all_figures_in_long_form(tmp_path):
  interval = {'ncr_interval': {t: [0.1, 0.75] for t in THRESHOLDS}}
  runs = [reports.load_run(write_run(
      tmp_path / str(seed), seed=seed, full=False, name='cifar10',
      figures_of=evals(ncr=0.4 + seed, sets=('cifar100_test',), **interval)))
          for seed in range(2)]
  found = reports.frame(reports.group(runs))
  # accuracy, ECE and PAR of the positives; NCR, PAR and detection of the negatives
  assert len(found) == 2 * (2 + 4 + 4 + 4 + 5)
  rate, = found[(found.seed == 1) & (found.metric == 'ncr')
                & (found.threshold == '0.6')].itertuples()
  assert (rate.group, rate.run, rate.eval, rate.part) == (
      'nat', 'cifar10:nat seed 1', 'cifar100_test', 'test')
  assert (rate.value, rate.low, rate.high, rate.n) == (0.7, 0.1, 0.75, 8)
  assert rate.paper == 0.045 and not rate.positive and not rate.seen
  sizes = {(row.eval, row.metric): row.n for row in found.itertuples()}
  assert sizes['cifar100_test', 'fpr95_id_positive'] == 8
  for metric in ('par', 'fpr95_ood_positive'):  # shares of the positives
    assert sizes['cifar100_test', metric] == sizes['test', 'par'] == 10
  mean = found[found.metric == 'ncr'].groupby('threshold').value.mean()
  np.testing.assert_allclose(mean['0.4'], 0.9)


def test_report_files(tmp_path):
  interval = {'ncr_interval': {t: [0.1, 0.75] for t in THRESHOLDS},
              'auroc_interval': [0.5, 1.0]}
  workdirs = [
      write_run(tmp_path / 'n', figures_of=evals(ncr=0.4, **interval)),
      write_run(tmp_path / 'b', 'baseline', figures_of=evals(ncr=0.8))]
  pyplot = 'matplotlib.pyplot' in sys.modules
  path = report.write(workdirs, str(tmp_path / 'out'))
  assert ('matplotlib.pyplot' in sys.modules) == pyplot  # no backend was chosen
  assert path == str(tmp_path / 'out' / 'report.html')
  pictures = {p.name for p in (tmp_path / 'out' / 'figures').iterdir()}
  assert pictures == {'training.png', 'histogram.png', 'rates.png', 'mistakes_0.png',
                      'mistakes_1.png'}
  page = (tmp_path / 'out' / 'report.html').read_text()
  assert page.count('src="data:image/png;base64,') == page.count('<img') == 5
  assert not re.search(r'https?:|<link|<script|@import|url\(', page)
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert text.count('](figures/') == 5 and 'Left out' not in text
  assert cells(text, '0.4')[:2] == ['baseline', '0.800']  # baselines first
  assert '0.100 to 0.750' in text
  with open(tmp_path / 'out' / 'report.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  row, = (r for r in rows if (r['variant'], r['eval'], r['metric'], r['threshold'])
          == ('nat', 'seen', 'ncr', '0.6'))
  assert row == {'group': 'nat', 'run': 'toy:nat seed 0', 'variant': 'nat', 'seed': '0',
                 'type': 'accuracy_ncr',
                 'eval': 'seen', 'part': 'test', 'positive': 'False', 'seen': 'True',
                 'metric': 'ncr', 'threshold': '0.6', 'value': '0.2', 'low': '0.1',
                 'high': '0.75', 'n': '8', 'paper': ''}
  row, = (r for r in rows if (r['variant'], r['metric']) == ('baseline', 'accuracy'))
  assert (row['value'], row['low'], row['high']) == ('0.99', '', '')


def test_the_number_of_positives_is_that_of_the_part_if_it_is_known(tmp_path):
  found = with_parts(evals())
  found['v_test']['n'] = 7
  found['c_again'] = found['c_test']  # which one they are compared with is not known
  run = reports.load_run(write_run(tmp_path / 'a', full=False, figures_of=found))
  rows = reports.frame({'nat': [run]})
  rows = rows[rows.metric == 'fpr95_ood_positive'].drop_duplicates('part')
  assert dict(zip(rows.part, rows.n.fillna(-1), strict=True)) == {
      'test': 10, 'validation': 7, 'calibration': -1}


def with_parts(found):
  """The same figures of all three parts, as evaluations have them after 0.1."""
  return {
      start + name: figures | {'part': part}
      for start, part in (('', 'test'), ('v_', 'validation'), ('c_', 'calibration'))
      for name, figures in found.items()}


def test_what_was_chosen_by_is_not_reported(tmp_path):
  """Tables and figures have the test alone, the CSV all, with the part of each set."""
  interval = {'ncr_interval': {t: [0.1, 0.75] for t in THRESHOLDS}}
  texts = {}
  for name, change in (('plain', dict), ('parts', with_parts)):
    workdirs = [
        write_run(tmp_path / name / f'{variant}{seed}', variant, seed,
                  figures_of=change(evals(**interval)))
        for variant in ('baseline', 'nat') for seed in (0, 1)]
    workdirs.append(write_run(  # one seed: it has intervals over images
        tmp_path / name / 'oe', 'oe', figures_of=change(evals(**interval))))
    report.write(workdirs, str(tmp_path / name / 'out'))
    text = (tmp_path / name / 'out' / 'report.md').read_text()
    text = re.sub('- Evaluated on:.*', '', text)  # it names all parts
    texts[name] = text.replace(str(tmp_path / name), '')
  assert texts['plain'] == texts['parts']
  figure = figures.histograms({'oe': [reports.load_run(workdirs[-1])]})
  assert [ax.get_title() for ax in figure.axes] == [
      'seen', 'unseen', 'test (positives)']
  with open(tmp_path / 'parts' / 'out' / 'report.csv', newline='') as file:
    parts = {(row['eval'], row['part']) for row in csv.DictReader(file)}
  assert parts == {
      (start + name, part) for name in ('test', 'seen', 'unseen')
      for start, part in (('', 'test'), ('v_', 'validation'), ('c_', 'calibration'))}


def test_training_curves_are_of_what_is_watched(tmp_path):
  """Of validation; of the test where a run, as all of version 0.1, has none."""
  old = write_run(tmp_path / 'old', 'baseline')
  new = write_run(tmp_path / 'new', figures_of=with_parts(evals(accuracy=0.75)))
  groups = reports.group([reports.load_run(old), reports.load_run(new)])
  axes = {ax.get_title(): ax for ax in figures.training_curves(groups).axes}
  start = 'NCR at t = 0.4: '
  drawn = {title.removeprefix(start): [len(line.get_xdata()) for line in ax.lines]
           for title, ax in axes.items() if title.startswith(start)}
  assert drawn == {'seen': [1, 0], 'unseen': [1, 0], 'v_seen': [0, 1],
                   'v_unseen': [0, 1]}
  dots = [line for line in axes['accuracy (dots: evaluation)'].lines
          if line.get_marker() == 'o']
  assert [line.get_ydata().tolist() for line in dots] == [[0.99], [0.75]]


def two_classes(folder, background=False):
  """Two seeds of two variants: rates at t = 0.4 < 1/2, and the same of all."""
  interval = {'ncr_interval': {t: [0.11, 0.77] for t in THRESHOLDS}}
  return [
      write_run(
          folder / f'{variant}{seed}', variant, seed, num_classes=2,
          figures_of=evals(ncr=ncr + seed / 100, **interval), background=background)
      for variant, ncr in (('nat', 0.2), ('baseline', 0.8)) for seed in range(3)]


def titles_of(workdirs):
  groups = reports.group([reports.load_run(workdir) for workdir in workdirs])
  return [ax.get_title() for ax in figures.training_curves(groups).axes]


def test_thresholds_that_say_nothing_are_marked(tmp_path):
  runs = two_classes(tmp_path)
  text = report.tables(runs)
  assert '"-" at t of 0.4: says nothing' in re.sub(r'\s+', ' ', text)
  assert cells(text, '0.4') == ['all', '-', '-', '-']
  assert '±' in cells(text, '0.6')[1]
  comparison = text[text.index('against baseline: lower'):]
  assert cells(comparison, '0.4') == ['-', '-']
  assert '(p ' in cells(comparison, '0.6')[0]
  assert cells(report.tables(runs[:1]), 'NCR_0.4') == ['-', '-']
  assert 'NCR at t = 0.6: seen' in titles_of(runs)
  assert json.loads((tmp_path / 'nat0' / 'eval.json').read_text())[
      'evals']['seen']['ncr']['0.4'] == 0.2  # the file has all there is


def test_with_a_background_output_every_threshold_says_something(tmp_path):
  runs = two_classes(tmp_path, background=True)
  text = report.tables(runs)
  assert 'says nothing' not in text
  comparison = text[text.index('against baseline: lower'):]
  assert cells(comparison, '0.4')[0].startswith('lower (p ')
  assert 'NCR at t = 0.4: seen' in titles_of(runs)


def test_what_is_missing_is_said(tmp_path):
  bare = write_run(tmp_path / 'bare', full=False)
  report.write([bare])
  text = (tmp_path / 'bare' / 'report.md').read_text()
  assert text.count('Left out') == 4 and '](figures/' not in text
  assert list((tmp_path / 'bare' / 'figures').iterdir()) == []
  full = write_run(tmp_path / 'full', 'baseline')
  report.write([bare, full])
  text = (tmp_path / 'bare' / 'report.md').read_text()
  assert 'Without metrics.jsonl: toy:nat seed 0.' in text
  assert text.count('](figures/') == 4


def test_dollars_in_names_are_no_mathematics(tmp_path):
  """'$\\frac$' would be an error of matplotlib's, and 'a$b$' lose its dollars."""
  workdirs = [
      write_run(tmp_path / str(i), variant, class_names=['a$b$', '$\\frac$', '$', '$$'])
      for i, variant in enumerate(('a$b$', '$\\frac$'))]
  report.write(workdirs, str(tmp_path / 'out'))
  assert len(list((tmp_path / 'out' / 'figures').iterdir())) == 5
  text = {part.get_text(): part for part in figures.histograms({
      'a$b$': [reports.load_run(workdirs[0])]}).legends[0].get_texts()}
  assert not text['a$b$'].get_parse_math()


def test_html_escapes_names(tmp_path):
  path = report.write([write_run(tmp_path / 'a', full=False, name='<b>&')])
  page = open(path).read()
  assert '<b>' not in page and '&lt;b&gt;&amp;' in page


def test_paths_of_any_bytes(tmp_path):
  """Python reads bytes that are not UTF-8 as code points that UTF-8 cannot write."""
  path = report.write([write_run(tmp_path / 'a', full=False, name='caf\udce9')])
  assert 'caf\\udce9' in open(path, encoding='utf-8').read()


def test_load_run(tmp_path):
  run = reports.load_run(write_run(tmp_path / 'a', seed=3))
  assert run['label'] == 'toy:nat seed 3' and run['step'] == 40
  assert [step for step, _ in run['history']['train']] == [10, 20]
  assert run['history']['eval'][0][1]['seen']['ncr']['0.4'] == 0.5


def test_groups(tmp_path):
  def load(folder, *args, **kwargs):
    return reports.load_run(write_run(tmp_path / folder, *args, full=False, **kwargs))

  n1, n0, b = load('n1', seed=1), load('n0'), load('b', 'baseline')
  groups = reports.group([n1, n0, b])
  assert list(groups) == ['baseline', 'nat']
  assert [run['seed'] for run in groups['nat']] == [0, 1]
  assert list(reports.group([n0, load('other', name='svhn')])) == [
      'toy:nat', 'svhn:nat']
  # The same seed twice, or another config, is not one more seed of the same run.
  again = load('again')
  wider = load('wider', seed=2)
  wider['config'] = dict(wider['config'], model={'name': 'mlp', 'width': 9})
  groups = reports.group([n0, again, wider])
  assert [len(runs) for runs in groups.values()] == [1, 1, 1]
  assert len({runs[0]['label'] for runs in groups.values()}) == 3
  assert str(tmp_path / 'again') in list(groups)[1]


def test_a_workdir_given_twice_counts_once(tmp_path):
  workdir = write_run(tmp_path / 'a', full=False)
  report.write([workdir, f'{workdir}/'])
  assert (tmp_path / 'a' / 'report.csv').read_text().count(',accuracy,') == 1


def test_errors(tmp_path):
  with pytest.raises(ValueError, match=f'{tmp_path}.*--mode=evaluate --workdir'):
    report.write([str(tmp_path)])
  with pytest.raises(ValueError, match='workdir'):
    report.write([])
  (tmp_path / 'eval.json').write_text('{"step": ')
  with pytest.raises(ValueError, match=f'{tmp_path}/eval.json.*--mode=evaluate'):
    reports.load_run(str(tmp_path))


def test_share_above_is_strict():
  np.testing.assert_array_equal(
      figures.share_above(np.array([0.4, 0.5, 0.9, 0.9]), np.array([0.3, 0.4, 0.9])),
      [1, 0.75, 0])


def test_colours_are_fixed_for_baseline_and_nat():
  groups = {label: [{'variant': label.split()[0]}]
            for label in ('oe', 'nat', 'nat wide', 'baseline')}
  palette = figures.colours(groups)
  assert palette['nat'] == figures.COLOURS['nat']
  assert palette['baseline'] == figures.COLOURS['baseline']
  assert len(set(palette.values())) == 4


@pytest.mark.process
def test_the_program_starts_without_the_libraries_of_reports():
  code = ('import sys, nat_jax.main; '
          'print(*{"pandas", "jinja2", "sklearn"} & {*sys.modules})')
  run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert (run.returncode, run.stdout.strip()) == (0, ''), run.stderr


def test_a_page_names_its_tables_and_figures(tmp_path):
  """For those who hear the page, and on a narrow or dark screen."""
  text = open(report.write([write_run(tmp_path / 'a')])).read()
  assert text.count('aria-labelledby="table-') == text.count('<table>') == 4
  assert 'alt="Training curves"' in text
  assert 'alt="Most confidently mistaken negatives: toy:nat seed 0. Below each' in text
  assert 'prefers-color-scheme: dark' in text and 'overflow-x: auto' in text


def test_the_page_begins_with_verdict_and_facts(tmp_path):
  """In this order: verdict, data, classes, duration, command, tables, figures."""
  workdir = write_run(tmp_path / 'a')
  config = json.loads((tmp_path / 'a' / 'config.json').read_text())
  config |= {'steps': 50, 'data': {
      'positives': {'name': 'tfds', 'dataset': 'cifar10', 'split': 'train[:90%]'},
      'negatives': {'folder': {'source': {
          'name': 'folder', 'path': 'others', 'classes': list(range(30))}}},
      'batch_size': 64}}
  (tmp_path / 'a' / 'config.json').write_text(json.dumps(config))
  with open(tmp_path / 'a' / 'metrics.jsonl') as file:
    lines = file.readlines()[:-1]
  start = {'kind': 'start', 'command': 'python -m nat_jax.main --config a b',
           'devices': '4 x H100', 'examples': {'positives': 45000, 'negatives': {
               'folder': 1234}}}
  lines += [json.dumps(record) + '\n' for record in (
      {'step': 0, **start}, {'step': 20, 'kind': 'end', 'seconds': 3600.4},
      {'step': 20, **start}, {'step': 40, 'kind': 'end', 'seconds': 65})]
  (tmp_path / 'a' / 'metrics.jsonl').write_text(''.join(lines))
  path = report.write([workdir])
  text = (tmp_path / 'a' / 'report.md').read_text()
  assert '- Trained on: cifar10, train[:90%] (45,000 images)\n' in text
  assert re.search(
      r'Negatives: folder: others, classes 0, 1, .* 19 and 10 more \(1,234', text)
  assert 'Evaluated on: test: test (10), seen (8), unseen (8)\n' in text
  assert '- Classes: 4: ant, bee, cat, <dog>\n' in text
  assert ('Training: Checkpoint of step 40; 40 of 50 updates made. Batches of 64. Time '
          'on 4 x H100') in text
  assert 'nat 1:01:05.\n' in text
  assert '- Made by: python -m nat_jax.main --config a b\n' in text
  page = open(path).read()
  places = [page.index(part) for part in (
      'nat classifies 99', 'Trained on', 'Classes', 'Training', 'Made by',
      '<code>python', 'Tables', '<table>', '<figure>')]
  assert places == sorted(places)
  assert '95\u00a0%' in page  # on one line


def of_facts(
    steps, examples=None, batch_size=64, trainer=None, loss=None, made=None,
    **settings):
  """What `about.facts` reads of runs that differ in their numbers of updates."""
  settings = {'positives': {'name': 'digits'}, 'batch_size': batch_size} | settings
  config = {'steps': 50, 'data': settings, 'trainer': trainer or {},
            'loss': {'name': loss or 'nat'}}
  return [dict(config=config, step=step, made=made or step, evals={}, num_classes=1,
               class_names=[], workdir='w',
               sessions=[{'examples': examples}] if examples else [])
          for step in steps]


def test_facts_are_of_each_group_where_they_differ():
  found = dict(about.facts({
      'nat': of_facts([30, 50, 40], negatives={'n': {'source': {'name': 'blobs'}}}),
      'small': of_facts([50], batch_size=8)}))
  assert found['Trained on'] == 'digits'
  assert found['Negatives'] == 'nat: n: blobs. small: none in training'
  assert found['Training'] == (
      'nat: Checkpoints of steps 30 to 50; 30 to 50 of 50 updates made. Batches of 64. '
      'small: Checkpoint of step 50; 50 of 50 updates made. Batches of 8.')


@pytest.mark.parametrize('loss, negatives', [
    ('cross_entropy', 'none in training'), ('nat', 'n: blobs'),
    ('nat_gan', 'n: blobs')])
def test_a_plain_classifier_is_not_said_to_have_negatives(loss, negatives):
  """Its config keeps them; what it was trained on may not be recorded."""
  found = dict(about.facts({'run': of_facts(
      [50], loss=loss, negatives={'n': {'source': {'name': 'blobs'}}})}))
  assert found['Negatives'] == negatives


def test_updates_that_were_made_are_not_the_step_of_the_checkpoint(tmp_path):
  """After early stopping it is an earlier one."""
  found = dict(about.facts({'nat': of_facts([30], made=45)}))
  assert found['Training'] == (
      'Checkpoint of step 30; 45 of 50 updates made. Batches of 64.')
  workdir = pathlib.Path(write_run(tmp_path / 'a', full=False))
  assert reports.load_run(str(workdir))['made'] is None
  assert 'updates made' not in about.facts({'nat': [reports.load_run(str(workdir))]})[
      -2][1]
  for step, made in ((30, 40), (90, 90)):  # the evaluation is of step 40
    (workdir / 'metrics.jsonl').write_text(
        json.dumps({'step': step, 'kind': 'train'}) + '\n')
    assert reports.load_run(str(workdir))['made'] == made


@pytest.mark.parametrize('weight, examples, trained, negatives', [
    (1.0, {'positives': 20, 'negatives': {}, 'unlabelled': 1059},
     ' (20 images with labels, 1,059 without)', 'images of the generator'),
    (0.0, {'positives': 20, 'negatives': {}}, ' (20 images with labels)',
     'none in training'),
    (1.0, None, '', 'images of the generator')])
def test_facts_of_few_labels(weight, examples, trained, negatives):
  found = dict(about.facts({'few': of_facts(
      [50], examples, trainer={'fake_weight': weight}, labels_per_class=2)}))
  assert found['Trained on'] == f'digits, labels of 2 images per class{trained}'
  assert found['Negatives'] == negatives


def test_a_killed_process_leaves_a_part_of_the_time():
  start = {'command': '', 'devices': '2 CPU cores'}
  for sessions, text in (
      ([start, start | {'seconds': 9}], 'at least 0:00:09'), ([start], '-'), ([], '-')):
    assert about.duration({'sessions': sessions}) == text


def test_classes_and_confusions(tmp_path):
  """Of two seeds: means over seeds, sums of counts, a background prediction."""
  workdirs = []
  for seed in range(2):
    classes = {'threshold': 0.5, 'n': [4, 2, 0, 4], 'accuracy': [1.0, 0.5, None, 0.5],
               'accepted': [1.0, seed / 2, None, 1.0],
               'confusion': [[4, 0, 0, 0], [1, 1, 0, 0], [0] * 4, [0, 0, 2, 2]]}
    if seed:
      classes['confusion'][1] = [0, 1, 0, 0, 1]
      for k in (0, 2, 3):
        classes['confusion'][k] += [0]
    workdirs.append(write_run(tmp_path / str(seed), seed=seed, classes=classes))
  text = report.tables(workdirs)
  assert cells(text, 'bee') == ['2', '0.500 ± 0.000', '0.250 ± 0.354']
  assert cells(text, 'cat') == ['0', '-', '-']
  assert 'nat, sum of 2 seeds' in text
  assert cells(text, 'ant', 1) == ['8', '·', '·', '·', '·']
  assert cells(text, 'bee', 1) == ['1', '2', '·', '·', '1']
  assert cells(text, '<dog>', 1) == ['·', '·', '4', '4', '·']
  one = report.tables(workdirs[:1])
  assert cells(one, 'bee') == ['2', '0.500', '0', '0.095 to 0.905']
  workdirs.append(write_run(tmp_path / '2', seed=2, classes={
      **classes, 'n': [4, 20, 0, 4]}))
  assert cells(report.tables(workdirs), 'bee')[0] == '2 or 20'


def test_many_classes_show_their_most_frequent_mistakes(tmp_path):
  num = 60
  names = [f'c{k}' for k in range(num)]
  classes = {'threshold': 0.5, 'n': [10] * num, 'accepted': [1.0] * num,
             'accuracy': [k / num for k in range(num)],
             'confused': [[1, 0, 5], [2, num, 3]]}
  text = report.tables([write_run(
      tmp_path / 'a', class_names=names, num_classes=num, classes=classes)])
  assert 'Most frequent mistakes' in text and 'Confusion matrix' not in text
  assert cells(text, 'c1', 1) == ['c0', '5'] and cells(text, 'c2', 1) == ['none', '3']
  assert 'The 50 of 60 classes' in text and cells(text, 'c49') and '| c50 ' not in text


def test_corrupted_positives(tmp_path):
  found = evals()
  for kind, strength, right, kept in (
      ('noise', 1, 0.9, 0.8), ('noise', 5, 0.6, 0.5), ('jpeg', 5, 0.7, 0.25)):
    found[f'corrupted_{kind}_{strength}'] = {
        'type': 'corruption', 'positive': True, 'part': 'test', 'corruption': kind,
        'strength': strength, 'accuracy': right, 'accepted': kept, 'n': 500}
  workdir = write_run(tmp_path / 'a', figures_of=found)
  text = report.tables([workdir])
  assert cells(text, 'strength') == ['noise', 'jpeg']
  assert cells(text, '1') == ['0.900 / 0.800', '- / -']
  assert cells(text, '5') == ['0.600 / 0.500', '0.700 / 0.250']
  assert ('noise of strength 5: 60 % right, 50 % accepted; jpeg of strength 5: 70 % '
          'right, 25 % accepted.') in ' '.join(text.split())
  report.write([workdir])
  rest = (tmp_path / 'a' / 'report.md').read_text()
  assert 'corrupted_noise_1' not in rest
  with open(tmp_path / 'a' / 'report.csv') as file:
    assert 'corrupted_noise_1' in file.read()


def test_a_background_prediction_has_no_probability_of_a_class(tmp_path):
  """The probability that is saved is that of the likeliest class."""
  sheet = {'image': np.zeros((2, 3, 3, 1), np.uint8), 'prediction': np.array([1, 2]),
           'max_prob': np.array([0.75, 0.25])}
  figure = pictures.sheets({'set': sheet}, ['ant', 'bee'])
  assert [text.get_text() for text in figure.axes[0].texts] == ['bee\n0.750', 'none']
  for background in (False, True):
    run = reports.load_run(write_run(tmp_path / f'{background}', background=background))
    *_, (_, _, note, _) = classifiers.figures({'nat': [run]})
    assert ('background' in note) == background and 'its probability' in note
