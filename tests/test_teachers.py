"""From a teacher's workdir to a taught student; configs and launch script."""

import json
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from nat_jax import reports, train
from nat_jax import runs as runs_lib
from nat_jax.commands import report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.reports import claims, paper
from nat_jax.runtime import checkpoint
from nat_jax.tasks.classify import report as classify_report

VARIANTS = (
    'teacher_baseline', 'teacher_nat', 'student_baseline', 'student_nat',
    'student_alone')


def get_config(name, variant, **changes):
  config = toy.config_file(f'at/{name}.py')(variant)
  config.update_from_flattened_dict(changes)
  return config


def quick(variant, teacher=None, **changes):
  """A config of a few updates of narrow networks."""
  changes = {'steps': 3, 'run.tensorboard': False, 'data.batch_size': 16,
             'model.widths': (3, 4), 'eval_batch_size': 64, **changes}
  if teacher:
    changes['trainer.teacher'] = str(teacher)
  config = get_config('digits', variant, **changes)
  config.evals = {k: config.evals[k] for k in ('test', 'digits_8_9', 'validation')}
  return config


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A teacher and its student."""
  folder = tmp_path_factory.mktemp('runs')
  teacher = {'model.widths': (4, 5), 'run.checkpoint_every': 2}
  train.train(quick('teacher_nat', **teacher), str(folder / 'teacher'))
  train.train(quick('student_nat', folder / 'teacher'), str(folder / 'student'))
  return folder


def test_student_learns_from_the_teachers_maps(runs):
  record = toy.records(runs / 'student')[0]
  assert record['loss_attention'] > 0.01
  np.testing.assert_allclose(
      record['loss'], record['loss_positive'] + record['loss_attention'], rtol=1e-5)
  assert record['loss_negative'] is None  # it never sees one


def test_config_names_the_teachers_checkpoint(runs):
  trainer = json.loads((runs / 'student' / 'config.json').read_text())['trainer']
  restored = runs_lib.restore(str(runs / 'teacher'))
  assert trainer['teacher_step'] == restored.step == 3
  manager = checkpoint.open_manager(str(runs / 'teacher'), read_only=True)
  assert trainer['teacher_crc32'] == checkpoint.read_about(manager, 3)['crc32']
  checkpoint.close(manager)


def test_checkpoint_holds_the_student_alone(runs):
  net = runs_lib.restore(str(runs / 'student')).state.nets['model']
  sizes = {path: x.size for path, x in jax.tree_util.tree_leaves_with_path(net)}
  assert sum(sizes.values()) < 2 * 300  # parameters and momentum of 16 + 144 + ...
  assert {x.shape[-1] for x in jax.tree.leaves(net.params)} <= {3, 4, 6}


def test_student_is_evaluated_without_its_teacher(runs, tmp_path):
  workdir = shutil.copytree(runs / 'student', tmp_path / 'student')
  before = json.loads((workdir / 'eval.json').read_text())
  hidden = (runs / 'teacher').rename(runs / 'hidden')
  try:
    after = evaluate_run(str(workdir))
  finally:
    hidden.rename(runs / 'teacher')
  assert after['evals']['test']['accuracy'] == before['evals']['test']['accuracy']


@pytest.mark.slow
def test_report_shows_attention_maps(runs, tmp_path):
  with np.load(runs / 'student' / 'attention.npz') as data:
    assert data['group1'].shape == (8, 4, 4) and data['group2'].shape == (8, 2, 2)
    length = np.linalg.norm(data['group1'].reshape(8, -1), axis=-1)
    assert list(data['set']) == ['test'] * 4 + ['digits_8_9'] * 4
  np.testing.assert_allclose(length, np.ones(8), rtol=1e-5)
  report.write([str(runs / 'teacher'), str(runs / 'student')], str(tmp_path))
  assert (tmp_path / 'figures' / 'attention.png').exists()
  report.write([str(runs / 'teacher')], str(tmp_path / 'one'))
  assert not (tmp_path / 'one' / 'figures' / 'attention.png').exists()


def test_seeds_with_teachers_of_their_own_are_one_group(runs):
  run = reports.load_run(str(runs / 'student'))
  trainer = run['config']['trainer'] | {'teacher': 'other', 'teacher_crc32': 1}
  other = run | {'seed': 1, 'config': run['config'] | {'seed': 1, 'trainer': trainer}}
  assert [len(same) for same in reports.group([run, other]).values()] == [2]


def refused(config, workdir, match):
  with pytest.raises(ValueError, match=match):
    train.train(config, str(workdir))
  assert not os.path.exists(workdir)  # Nothing was begun.


def test_teacher_without_checkpoint(tmp_path):
  refused(quick('student_nat', tmp_path / 'none'), tmp_path / 's', f'{tmp_path}/none')


def test_unfinished_teacher(runs, tmp_path):
  """Only for who asks for it."""
  teacher = shutil.copytree(runs / 'teacher', tmp_path / 'teacher')
  shutil.rmtree(teacher / 'checkpoints' / '3')
  config = quick('student_nat', teacher)
  refused(config, tmp_path / 's', r'step 2\b.*\b3\b.*trainer.teacher_step=2')
  config.trainer = dict(config.trainer, teacher_step=2)
  assert runs_lib.resolve(config)['trainer']['teacher_step'] == 2


@pytest.mark.parametrize('changes, match', [
    ({'data.mean': (0.25,)}, r'data.mean.*\[0.3053\].*0.25'),
    ({'trainer.groups': ('group3',)},
     "student.*'group3'.*group1, group2.*trainer.groups"),
    ({'model.widths': (3,)}, "student.*'group2'.*group1.*trainer.groups"),
])
def test_teacher_that_does_not_fit(runs, tmp_path, changes, match):
  config = quick('student_nat', runs / 'teacher', **changes)
  refused(config, tmp_path / 's', match)


def test_another_teacher_is_another_run(runs):
  config = quick('student_nat', runs / 'student')
  with pytest.raises(ValueError, match='trainer.teacher: .*trainer.teacher_crc32: '):
    train.train(config, str(runs / 'student'))


@pytest.mark.parametrize('name, size, suffix', [
    ('cifar10', (32, 32, 3), ''), ('cifar10', (32, 32, 3), '_small'),
    ('digits', (8, 8, 1), '')])
def test_students_and_teachers_of_the_configs_fit(name, size, suffix):
  """Their groups have maps of one size; students see no negatives."""
  def shapes(variant):
    config = get_config(name, variant + suffix).to_dict()
    config['trainer'] = {'name': 'supervised'}
    trainer = runs_lib.build_trainer(config, size)
    state = jax.eval_shape(trainer.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *size), jnp.float32)
    return jax.eval_shape(trainer.heads['aux'], state, image)

  students = [
      get_config(name, f'student_{kind}{suffix}') for kind in ('nat', 'baseline')]
  student, teacher = shapes('student_nat'), shapes('teacher_nat')
  for config in students:
    assert config.loss.name == 'cross_entropy'
    assert config.trainer.teacher.endswith(
        config.variant.replace('student', 'teacher') + '-0')
    for group in config.trainer.groups:
      assert student[group].shape[:3] == teacher[group].shape[:3]


def test_students_stand_beside_the_papers_and_against_their_own_baseline():
  name = get_config('cifar10', 'student_nat_small').name
  assert paper.ncr(name, 'student_nat', 'cifar100_test', '0.4') == 0.23

  def runs(variant, *values):
    return [{
        'name': name, 'variant': variant, 'label': variant, 'seed': seed, 'step': 1,
        'class_names': [], 'reference': 'test',
        'config': {}, 'workdir': '', 'evals': {'cifar100_test': {
            'positive': False,
            'ncr': dict.fromkeys(('0.4', '0.6', '0.8', '0.9'), value)}}}
        for seed, value in enumerate(values)]

  groups = {
      'teacher_baseline': runs('teacher_baseline', 0.10, 0.11),
      'student_baseline': runs('student_baseline', 0.80, 0.81),
      'student_nat': runs('student_nat', 0.50, 0.51)}
  assert classify_report.baselines(groups)['student_nat'] == 'student_baseline'
  found = claims.verdicts(claims.comparisons(
      reports.frame(groups), classify_report.baselines(groups)))
  assert found['student_nat', 'cifar100_test', 'ncr', '0.4'].startswith(
      'lower as in the paper')


def test_unknown_variant():
  for name in ('digits', 'cifar10'):
    with pytest.raises(ValueError, match='pupil.*teacher_nat.*student_alone'):
      get_config(name, 'pupil')


@pytest.mark.process
def test_launch_script_reports_on_runs_that_have_ended_well(tmp_path):
  """A run that fails may have the results of another config in its workdir."""
  (tmp_path / 'python').write_text("""#!/usr/bin/env bash
case "$*" in
  *--mode=report*) echo "report ${*:6}" ;;
  *teacher_nat-0*) exit 1 ;;
  *student_alone-0*) exit 0 ;; # as after SIGTERM
  *) mkdir -p "$6" && touch "$6/eval.json" ;;
esac
""")
  (tmp_path / 'python').chmod(0o755)
  out = tmp_path / 'out'
  for name in ('teacher_nat-0', 'teacher_baseline-0'):
    (out / name).mkdir(parents=True)
    (out / name / 'eval.json').touch()
  ran = subprocess.run(
      ['bash', str(toy.ROOT / 'launch' / 'attention_transfer.sh'), str(out), '0',
       'configs/at/digits.py'],
      env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
      capture_output=True, text=True)
  assert ran.stdout == (
      f'report {out}/teacher_baseline-0 {out}/student_baseline-0\n')
  assert ran.returncode == 1
  assert ran.stderr.endswith(
      f'failed: {out}/teacher_nat-0 {out}/student_nat-0 {out}/student_alone-0\n')


@pytest.mark.process
def test_launch_script_trains_teachers_before_students():
  script = str(toy.ROOT / 'launch' / 'attention_transfer.sh')
  subprocess.run(['bash', '-n', script], check=True)
  out = subprocess.run(
      ['bash', script, 'out', '0 1', 'configs/at/cifar10.py:small', '--config.steps=7'],
      env={**os.environ, 'DRY_RUN': '1'}, capture_output=True, text=True, check=True)
  *lines, last = out.stdout.splitlines()
  assert [line.split('cifar10.py:')[1].split()[0] for line in lines] == [
      f'{variant}_small' for variant in VARIANTS] * 2
  assert all('--config.steps=7' in line for line in lines)
  assert 'teacher=out/teacher_nat-1 ' in lines[8] and 'seed=1' in lines[8]
  assert '--mode=report --workdir out out/teacher_baseline-0' in last
  for line in lines:  # the configs that it names are there
    get_config('cifar10', line.split('cifar10.py:')[1].split()[0])
