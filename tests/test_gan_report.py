"""Reports on workdirs of GANs with known figures."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from nat_jax import reports
from nat_jax.commands import report
from nat_jax.reports import figures, paper, pictures
from nat_jax.tasks.gan import figures as gan_figures
from nat_jax.tasks.gan import report as gan_report

OWN = 'classifier and features: our own toy:baseline, step 3; not comparable'
INCEPTION = 'classifier and features: Inception 2015-12-05 from x.npz'


def measured(fid=10.0, **others):
  """Figures of the samples, as the evaluator of GANs writes them."""
  return {
      'num_samples': 50, 'fid': fid, 'kid': 0.0125, 'kid_std': 0.001,
      'precision': 0.7, 'recall': 0.6, 'density': 0.9, 'coverage': 0.5,
      'inception_score': 2.5, 'am_score': 0.25, 'reference_inception_score': 2.75,
      'class_shares': [0.5, 0.25, 0.25, 0], 'cafd': 20.0, 'cafd_left_out': 1,
      'class_kl': 0.125, 'diversity': 0.8, 'spread': 0.9, 'collapsed': False, **others}


def write_run(folder, variant='nat3', seed=0, fids=(30.0, 8.0, 10.0), name='gan_toy',
              classifier=OWN, fewest=7, full=True, **others):
  """A workdir of a GAN; `fids` at updates 100, 200, ...; the last is in eval.json."""
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps({
      'name': name, 'variant': variant, 'seed': seed, 'steps': 100 * len(fids),
      'trainer': {'name': 'gan'}, 'loss': {'name': 'nat_gan'},
      'generator': {'name': 'g'}, 'discriminator': {'name': 'd'}}))
  (folder / 'eval.json').write_text(json.dumps({
      'step': 100 * len(fids), 'evals': {'samples': measured(fids[-1], **others)},
      'num_classes': 4, 'class_names': ['ant', 'bee', 'cat', 'dog'],
      'conventions': {
          'evaluation_classifier': classifier,
          'fid': '50 against 60, 8 feature dimensions.',
          'precision': 'k = 5.', 'recall': 'k = 5.',
          'cafd': f'Mean over 4 of 4 classes; the smallest has {fewest}.'}}))
  if full:
    records = [{'step': s, 'kind': 'train', 'loss_gen': 1 + 1 / s, 'loss_disc': 0.5,
                'spread': 0.9, 'top_class': None, 'accuracy': None}
               for s in range(10, 200, 10)]
    records[0]['loss_gen'] = None  # NaN
    records += [{'step': 100 * (i + 1), 'kind': 'eval',
                 'evals': {'samples': measured(fid, am_score=None)}}
                for i, fid in enumerate(fids)]
    (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, records)))
    images = np.random.default_rng(seed).integers(0, 256, (70, 8, 8, 1), np.uint8)
    np.savez(folder / 'samples.npz', image=images, step=100 * len(fids))
  return str(folder)


def rows(text, head):
  """The other cells of each row whose first is `head`."""
  found = [[cell.strip() for cell in line.split('|')[1:-1]]
           for line in text.splitlines() if line.startswith('|')]
  return [cells[1:] for cells in found if cells[0] == head]


def load(*workdirs):
  return [reports.load_run(workdir) for workdir in workdirs]


def test_one_run_without_an_evaluation_on_the_way(tmp_path):
  text = report.tables([write_run(tmp_path / 'a', fids=(10.0,))])
  scores, distances, near, *_ = rows(text, 'nat3')
  assert scores == ['2.50', '0.250', '10.00', '2.75']
  assert distances == ['0.0125', '20.00', '1', '0.125', '0.800']
  assert near == ['0.700', '0.600', '0.900', '0.500']
  assert rows(text, 'ant') == [['0.500']] and rows(text, 'largest') == [['0.500']]
  assert rows(text, 'smallest') == [['0']]
  assert rows(text, 'classes without a sample') == [['1.0']]
  assert 'paper' not in rows(text, 'run')[0][-1] and 'Welch' not in text
  assert 'Best evaluation' not in text
  assert rows(text, 'precision, recall') == [['k = 5.']]
  assert f'Evaluation classifier: {OWN}.' in re.sub(r'\s+', ' ', text)
  assert '100 of 100 | nat_gan' in text
  assert max(map(len, text.split('Runs.')[0].splitlines())) <= 110


def test_a_run_of_an_older_version_has_no_class_kl(tmp_path):
  old, new = (write_run(tmp_path / name, name, fids=(10.0,)) for name in ('old', 'new'))
  path = tmp_path / 'old' / 'eval.json'
  evaluation = json.loads(path.read_text())
  del evaluation['evals']['samples']['class_kl']
  path.write_text(json.dumps(evaluation))
  assert rows(report.tables([old]), 'old')[1] == ['0.0125', '20.00', '1', '0.800']
  both = report.tables([old, new])
  assert [rows(both, name)[1][3] for name in ('old', 'new')] == ['-', '0.125']


def test_seeds_last_best_and_conventions(tmp_path):
  runs = [write_run(tmp_path / f'{s}', seed=s, fids=(30.0, 8.0 + s, 10.0 + 2 * s),
                    fewest=s + 3, collapsed=s == 2) for s in range(3)]
  text = report.tables(runs)
  scores, distances, *_ = rows(text, 'nat3 (3 seeds, 1 collapsed)')
  assert scores[2] == '12.00 ± 2.00'  # 10, 12, 14
  assert distances[1] == '20.00 ± 0.00'
  best, = rows(text, 'nat3')
  assert best == ['3', '12.00 ± 2.00', '2.50 ± 0.00', '-', '9.00 ± 1.00', '200 200 200']
  said = [row[0].split(': ') for row in rows(text, 'cafd')]
  assert [(who, what[-2:]) for who, what in said] == [
      (f'nat3 seed {s}', f'{s + 3}.') for s in range(3)]  # in which they differ
  assert rows(text, 'precision, recall') == [['k = 5.']]
  assert text.count('COLLAPSED') == 1


def test_classes_of_another_classifier_are_not_counted(tmp_path):
  run = write_run(tmp_path / 'a', class_shares=[0.5, 0.5] + 998 * [0.0])
  (_, sentences), = gan_report.verdict(reports.group(load(run)))
  assert not any('class' in sentence for sentence in sentences)
  run = write_run(tmp_path / 'b')
  (_, sentences), = gan_report.verdict(reports.group(load(run)))
  assert 'Of 4 classes 1 have no sample.' in sentences


def test_held_out_real_images_have_a_row(tmp_path):
  real = {'num_samples': 50, 'inception_score': 2.7, 'am_score': 0.125, 'fid': 0.25,
          'kid': -1e-6, 'cafd': 1.5, 'class_kl': 0.002, 'diversity': 1.0,
          'precision': 0.875, 'recall': 0.9, 'density': 1.0, 'coverage': 0.95}
  one, two = (write_run(tmp_path / name, name, held_out=real) for name in 'ab')
  text = report.tables([one, two])
  assert rows(text, '50 real images, held out') == [
      ['2.70', '0.125', '0.25', '-'], ['0.00000', '1.50', '-', '0.002', '1.000'],
      ['0.875', '0.900', '1.000', '0.950']]
  sentences = dict(gan_report.verdict(reports.group(load(one))))
  assert ('A lower FID is better; that of 50 real images that were not trained on is '
          '0.25.') in [sentence for said in sentences.values() for sentence in said]
  fewer = write_run(tmp_path / 'e', 'e', held_out={**real, 'num_samples': 40})
  (_, sentences), = gan_report.verdict(reports.group(load(fewer)))
  assert any(text.endswith('is 0.25, and of as many as there are samples it would be '
                           'lower.') for text in sentences)
  others = write_run(tmp_path / 'c', 'c', held_out={**real, 'fid': 0.5})
  without = write_run(tmp_path / 'd', 'd')
  for other in (others, without):  # which row would be meant is not clear
    assert not rows(report.tables([one, other]), '50 real images, held out')


def test_the_paper_stands_beside(tmp_path):
  runs = [
      write_run(tmp_path / 'a', 'nat3', name='gan_cifar10', classifier=INCEPTION),
      write_run(tmp_path / 'b', 'am', name='gan_cifar10_small')]
  text = report.tables(runs)
  assert rows(text, 'gan_cifar10:nat3')[0][-2:] == ['9.26 / 0.043 / 14.58', '2']
  assert rows(text, 'gan_cifar10_small:am')[0][-2:] == [
      '8.88 / 0.073 / 13.49, not comparable', '1']
  flat = re.sub(r'\s+', ' ', text)
  assert 'Only rows of the same evaluation classifier compare' in flat
  assert 'Evaluation classifier 2, of gan_cifar10:nat3: classifier' in flat
  assert paper.generated('gan_cifar10', 'catgan')['fid'] == 14.20
  assert paper.generated('gan_cifar10', 'hinge') is None


def test_welch_against_am(tmp_path):
  fids = {'nat0': (10.0, 11.0, 10.5), 'am': (17.0, 18.0, 17.2),
          'nat1': (14.0, 20.0, 9.0)}
  runs = [
      write_run(tmp_path / f'{variant}{s}', variant, s, (fid,), 'gan_cifar10_small')
      for variant, values in fids.items() for s, fid in enumerate(values)]
  text = report.tables(runs)
  p = stats.ttest_ind(fids['nat0'], fids['am'], equal_var=False).pvalue
  tests = text[text.index('Against am: higher or lower'):]
  assert rows(tests, 'nat0')[0] == [  # Holm: the smallest of six
      'not shown (p 1)', 'not shown (p 1)', f'lower as in the paper (p {6 * p:.1g})']
  assert rows(tests, 'nat1')[0] == ['not shown (p 1)'] * 3
  assert text.index('| am ') < text.index('| nat0 ')  # what others are compared with


def test_report_files(tmp_path):
  workdirs = [write_run(tmp_path / f'{v}{s}', v, s, name='gan_mnist')
              for v in ('am', 'nat0') for s in range(2)]
  path = report.write(workdirs, str(tmp_path / 'out'))
  names = {p.name for p in (tmp_path / 'out' / 'figures').iterdir()}
  assert names == {'generator_loss.png', 'training.png', 'measures.png', 'samples.png'}
  page = open(path).read()
  assert page.count('<img') == 4 and 'Report on gan_mnist' in page
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert text.count('](figures/') == 4 and 'Left out' not in text
  with open(tmp_path / 'out' / 'report.csv', newline='') as file:
    lines = [r for r in csv.DictReader(file) if r['run'] == 'gan_mnist:am seed 1']
  found = {(r['eval'], r['metric'], r['threshold']): r['value'] for r in lines}
  assert found['samples', 'fid', ''] == '10.0'
  assert [found['samples', 'class_shares', str(i)] for i in range(4)] == [
      '0.5', '0.25', '0.25', '0.0']
  assert len(lines) == len(measured()) + 3


def test_what_is_missing_is_said(tmp_path):
  bare = write_run(tmp_path / 'bare', full=False, am_score=None, class_shares=None)
  report.write([bare])
  text = (tmp_path / 'bare' / 'report.md').read_text()
  assert text.count('Left out: no run has metrics.jsonl.') == 3
  assert text.count('Left out: no run has samples.npz.') == 1
  assert rows(text, 'nat3')[0][1] == '-' and 'Shares' not in text
  full = write_run(tmp_path / 'full', 'am')
  report.write([bare, full])
  text = (tmp_path / 'bare' / 'report.md').read_text()
  assert 'Without metrics.jsonl: gan_toy:nat3 seed 0.' in text
  assert text.count('](figures/') == 4


def test_gans_and_classifiers_do_not_mix(tmp_path):
  gan, other = write_run(tmp_path / 'gan'), tmp_path / 'other'
  other.mkdir()
  (other / 'eval.json').write_text('{"step": 1, "evals": {"test": {"accuracy": 1}}}')
  for call in (lambda: report.write([gan, str(other)]),
               lambda: report.tables([gan, str(other)])):
    with pytest.raises(ValueError, match=f'GANs.*{gan}.*classifiers.*{other}'):
      call()
  (other / 'eval.json').write_text('{"step": 1}')
  (other / 'config.json').write_text('{"task": "points"}')
  with pytest.raises(ValueError, match=f'GANs.*{gan}.*GANs of points.*{other}'):
    report.write([gan, str(other)])


def test_curves_over_seeds(tmp_path):
  runs = load(*(write_run(tmp_path / str(s), seed=s, fids=(30.0, 10.0 + s)[:2 - s // 2])
                for s in range(3)))

  def over_seeds(runs, *keys):
    return figures.over_seeds(figures.series(run, *keys) for run in runs)

  steps, values = over_seeds(runs, 'eval', 'samples', 'fid')
  assert steps.tolist() == [100]  # the third run has no more
  assert values.tolist() == [[30.0], [30.0], [30.0]]
  steps, values = over_seeds(runs, 'train', 'loss_gen')
  assert steps[0] == 20 and values.shape == (3, 18)  # without the NaN of the first
  np.testing.assert_allclose(values[0], 1 + 1 / steps)
  steps, _ = over_seeds(runs, 'train', 'top_class')
  assert not len(steps)


def test_measures_are_of_the_evaluation_that_is_made_most_often(tmp_path):
  """Quick ones during training, and all measures at the end; sheets have none."""
  one, = load(write_run(tmp_path / 'one'))
  history = [(100 * k, {'quick': {'fid': 50.0 - k}, 'sheet': {}}) for k in range(1, 4)]
  history.insert(0, (50, {'sheet': {}}))
  history[-1][1]['samples'] = measured(10.0)
  one['history']['eval'] = history
  one['config']['evals'] = {'quick': {'type': 'quick'}, 'samples': {'type': 'samples'}}
  drawn = [line.get_xydata().tolist()
           for ax in gan_figures.measures({'nat3': [one]}).axes for line in ax.lines]
  assert drawn == [[[100, 49], [200, 48], [300, 47]]]  # no panels of single values


def test_measures_that_differ_tenfold_have_a_logarithmic_axis(tmp_path):
  def scales(*fids):
    one, = load(write_run(tmp_path / str(fids[0]), fids=fids))
    return {ax.get_title().split()[0]: (ax.get_yscale(), *ax.get_ylim())
            for ax in gan_figures.measures({'nat3': [one]}).axes if ax.get_title()}

  kind, low, high = scales(500.0, 40.0, 2.0)['FID']
  assert kind == 'log' and 1 < low < 2 and 500 < high < 1000
  assert scales(500.5, 40.0, 60.0)['IS'][0] == 'linear'
  assert scales(19.0, 2.0)['FID'][:2] == ('linear', 0)
  assert scales(19.5, 0.0)['FID'][0] == 'linear'


def test_quick_measures_are_in_no_table_of_samples(tmp_path):
  """Neither among the evaluations of the best one, nor among those that are tested."""
  runs = load(*(write_run(tmp_path / f'{v}{s}', v, s, fids=(10.0 + s,))
                for v in ('am', 'nat3') for s in range(2)))
  before = [str(table) for table in gan_report.tables(reports.group(runs))]
  for run in runs:
    run['history']['eval'][:0] = [(k, {'quick': {'fid': 9.0}}) for k in (20, 40)]
    run['evals']['quick'] = {'type': 'quick', 'fid': 55.0 + run['seed']}
  after = [str(table) for table in gan_report.tables(reports.group(runs))]
  assert after == before


def test_the_papers_curve_is_drawn_for_full_size_alone(tmp_path):
  def dotted(name):
    groups = reports.group(load(write_run(tmp_path / name, 'nat10', name=name)))
    ax, = gan_figures.generator_losses(groups).axes
    return [line.get_xydata() for line in ax.lines if line.get_linestyle() == ':']

  curve, = dotted('gan_mnist')
  assert curve[0].tolist() == [10_000, 0.787] and curve[-1].tolist() == [99_000, 0.685]
  assert dotted('gan_mnist_small') == []
  for name, curves in paper.GEN_LOSS.items():
    assert {len(curve) for curve in curves.values()} == {len(curves['updates'])}, name


def test_mosaic():
  images = np.arange(5, dtype=np.uint8).repeat(2 * 3 * 3).reshape(5, 2, 3, 3)
  canvas = pictures.mosaic(images)
  assert canvas.shape == (6, 12, 3)  # 2 rows of 3, each image with a gap of 1
  assert canvas[3, 4].tolist() == [4] * 3 and canvas[3, 8].tolist() == [255] * 3
  assert canvas[2, 0].tolist() == [255] * 3
  assert pictures.mosaic(np.zeros((1, 2, 3, 1), np.uint8)).shape == (3, 4)
  assert pictures.mosaic(images, columns=10).shape == (3, 40, 3)


def test_a_sheet_is_the_mosaic_enlarged(tmp_path):
  images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
  pictures.save_sheet(images, tmp_path / 'sheet.png', columns=2)
  found = np.asarray(Image.open(tmp_path / 'sheet.png'))
  times = found.shape[1] // 18
  np.testing.assert_array_equal(
      found[::times, ::times], pictures.mosaic(images, columns=2))
  assert times == 640 // 18


def test_a_sheet_with_text_has_the_same_images(tmp_path):
  """Each row of images, and below it a strip with a caption under each."""
  images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
  for name, text in (('plain', {}), ('one', {'title': 'a title', 'captions': 'abc'}),
                     ('two', {'title': 'a title', 'captions': 'axc'})):
    pictures.save_sheet(images, tmp_path / name, columns=2, **text)
  plain, one, two = (np.asarray(Image.open(tmp_path / name).convert('L'))
                     for name in ('plain', 'one', 'two'))
  width, row, image = plain.shape[1], plain.shape[0] // 2, plain.shape[0] // 18 * 8
  assert one.shape[1] == width
  first = next(k for k in range(len(one)) if (one[k:k + image] == plain[:image]).all())
  assert (one[:first] < 100).any()  # the title
  second = first + (len(one) - first) // 2
  assert (one[second:second + image] == plain[row:row + image]).all()
  changed = np.argwhere(one != two)
  assert changed[:, 0].min() >= first + image and changed[:, 0].max() < second
  assert changed[:, 1].min() >= width / 2  # the caption of the second image
  long = {'captions': ['a very long caption ' * 20, '', '']}
  pictures.save_sheet(images, tmp_path / 'long', columns=2, **long)
  found = np.asarray(Image.open(tmp_path / 'long').convert('L'))
  assert (found[row:row + 15, width // 2:] == 255).all()


def test_seven_variants_have_seven_colours():
  names = ('am', 'catgan', 'nat0', 'nat1', 'nat3', 'nat10', 'hinge')
  palette = figures.colours({name: [{'variant': name}] for name in names})
  assert len(set(palette.values())) == 7
