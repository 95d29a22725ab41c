"""What is installed: all packages and configs, found by name; the command nat-jax."""

import configparser
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
import toy
from absl import flags

from nat_jax import main
from nat_jax.commands import config_file, plan

ROOT = toy.ROOT


def modules():
  """Every Python file of the package, by its path as installed."""
  for root, name in (('nat_jax', 'nat_jax'), ('configs', 'nat_jax/configs')):
    for path in (ROOT / root).rglob('*.py'):
      yield f'{name}/{path.relative_to(ROOT / root)}'


def test_all_packages_are_listed():
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  listed = setup['options']['packages'].split()
  folders = {os.path.dirname(path).replace('/', '.') for path in modules()}
  assert listed == sorted(folders)


def test_configs_are_found_by_name_and_by_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  configs = ROOT / 'configs'
  for name, path in (
      ('digits', 'digits.py'), ('gan/digits', 'gan/digits.py'),
      ('rings2d', 'gan/rings2d.py'), ('pictures', 'pictures.py'),
      ('configs/nat/cifar10.py', 'nat/cifar10.py')):
    assert config_file.find(name) == str(configs / path)
  assert len(config_file.names()) == len(list(configs.rglob('*.py')))
  # A file is preferred if the whole name is given, and otherwise the config.
  for name in ('digits', 'digits.py', 'mine.py', 'mine'):
    pathlib.Path(name).write_text('')
  assert config_file.find('digits.py') == 'digits.py'
  assert config_file.find('digits') == str(configs / 'digits.py')
  assert [config_file.find(name) for name in ('mine.py', 'mine')] == ['mine.py', 'mine']


@pytest.mark.parametrize('name, message', [
    ('svhn', 'svhn: several.*: gan/svhn, nat/svhn'),
    ('digit', r"digit: .*did you mean 'digits'\?.*at/cifar10, .*, pictures"),
    ('nat/cifra10.py', r"did you mean 'nat/cifar10'\?"),
    ('configs', 'no such file'),
    ('', 'no such file'),
])
def test_unknown_and_ambiguous_configs(name, message):
  with pytest.raises(ValueError, match=message):
    config_file.find(name)


def test_a_needed_run_has_its_config_from_the_package(tmp_path, monkeypatch):
  """The classifier of a GAN, whose config is named by its path in the repository."""
  monkeypatch.chdir(tmp_path)
  needed, _ = plan.plan(
      config_file.load('gan/digits', 'nat3'), 'gan/digits', 'nat3', {}, 'runs/x')
  assert [(config.name, config.variant) for config, _ in needed] == [
      ('classifier', 'digits')]


def test_the_command_line_takes_names(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(main.COMMANDS, 'train', lambda argv: None)
  for args in (['--config', 'digits:nat'], ['--config=digits:nat']):
    toy.run_main(monkeypatch, *args, '--workdir=x')
    assert flags.FLAGS.config.variant == 'nat'
  toy.run_main(
      monkeypatch, '--mode=sweep', '--workdir=x', 'digits:nat', '--dry_run')
  assert 'main --config digits:nat --workdir x/digits-nat-0' in capsys.readouterr().out
  with pytest.raises(SystemExit, match=r"error: digist: .*'digits'.*gan/rings2d"):
    toy.run_main(monkeypatch, '--config=digist:nat', '--workdir=x')


@pytest.mark.process
@pytest.mark.slow
def test_a_wheel_holds_all_and_its_command_runs(tmp_path):
  """The source is copied, since setuptools builds within it."""
  source = tmp_path / 'source'
  for name in ('nat_jax', 'configs'):
    shutil.copytree(
        ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  built = subprocess.run(
      [sys.executable, '-m', 'pip', 'wheel', '--no-build-isolation', '--no-deps',
       '--no-index', '-q', '-w', str(tmp_path), str(source)],
      text=True, capture_output=True)
  assert built.returncode == 0, built.stderr
  [wheel] = tmp_path.glob('*.whl')
  with zipfile.ZipFile(wheel) as file:
    held = set(file.namelist())
    assert set(modules()) | {'nat_jax/reports/page.html.jinja'} <= held
    file.extractall(tmp_path / 'site')
  [entries] = (tmp_path / 'site').glob('*.dist-info/entry_points.txt')
  assert 'nat-jax = nat_jax.__main__:run' in entries.read_text()
  ran = subprocess.run(
      [sys.executable, '-c', 'from nat_jax.__main__ import run; run()', '--mode=sweep',
       '--workdir=out', 'gan/digits:nat3', '--dry_run'],
      cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(tmp_path / 'site')}, text=True,
      capture_output=True)
  assert 'main --config gan/digits:nat3' in ran.stdout, ran.stderr
  told = subprocess.run(
      [sys.executable, '-c', 'from nat_jax.__main__ import run; run()', '--help'],
      cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(tmp_path / 'site')}, text=True,
      capture_output=True)
  assert 'Negative-aware training: trains' in told.stdout and '--mode' in told.stdout
