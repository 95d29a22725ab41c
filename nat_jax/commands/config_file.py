"""Finds config files; loads the config of a variant, with errors that name the line.

    find('digits')                # the path of configs/digits.py
    config = load('nat/cifar10', 'baseline')
    config = load(*split('nat/cifar10:baseline'))
    config = load('my_configs/cats.py')
"""

import importlib.machinery
import importlib.util
import os
import pathlib
import traceback

import ml_collections

from nat_jax import names as names_lib

ENDING = '.py'


def folder() -> pathlib.Path:
  """The folder of the configs: `nat_jax/configs` where the package is installed, and
  `configs` beside the package in its repository."""
  package = pathlib.Path(__file__).parents[1]
  installed = package / 'configs'
  return installed if installed.is_dir() else package.parent / 'configs'


def names() -> list[str]:
  """The names of the configs, sorted: paths in `folder()` without '.py'."""
  root = folder()
  return sorted(
      path.relative_to(root).with_suffix('').as_posix()
      for path in root.rglob(f'[!_]*{ENDING}'))


def find(name: str) -> str:
  """Returns the path of a config file.

  Args:
    name: its path; or a name of `names()`, or the last part of one if no other has this
      last part. 'configs/NAME.py' finds NAME in every current directory.

  Raises:
    ValueError: no config has this name (all names are listed), or several have.
  """
  if name.endswith(ENDING) and os.path.isfile(name):
    return name
  known, bare = names(), name.removeprefix('configs/').removesuffix(ENDING)
  found = [bare] if bare in known else [k for k in known if k.endswith(f'/{bare}')]
  if len(found) == 1:
    return str(folder() / f'{found[0]}{ENDING}')
  if found:
    raise ValueError(
        f'{name}: several configs have this name: {", ".join(found)}; choose one')
  if os.path.exists(name) and not os.path.isdir(name):
    return name
  raise ValueError(
      f'{name}: there is no such file, and no config has this name'
      f'{names_lib.hint(bare, known)}; configs: {", ".join(known)}')


def with_path(source: str) -> str:
  """'digits:nat' -> the path of the file and ':nat', as the flag --config takes it.

  Raises:
    ValueError: see `find`.
  """
  name, variant = split(source)
  return f'{find(name)}:{variant}' if variant else find(name)


def split(source: str) -> tuple[str, str | None]:
  """'digits:nat' -> ('digits', 'nat'), the arguments of `load`; 'digits:' has None."""
  name, _, variant = source.partition(':')
  return name, variant or None


class Placed(ValueError):
  """An error of a config file, whose message names the file and, if known, the line."""


def load(name: str, variant: str | None = None) -> ml_collections.ConfigDict:
  """Loads the config of a variant from a config file.

  Args:
    name: path or name of the file; see `find`.
    variant: argument of its get_config; None: no argument.

  Raises:
    ValueError: there is no such file; it raised an error, see `Placed`; or it has no
      get_config that returns a config.
  """
  path = find(name)
  loader = importlib.machinery.SourceFileLoader('variant_config', path)
  module = importlib.util.module_from_spec(
      importlib.util.spec_from_loader(loader.name, loader))
  try:
    loader.exec_module(module)
    if not callable(getattr(module, 'get_config', None)):
      raise ValueError('it has no function get_config')
    config = module.get_config(*([] if variant is None else [variant]))
  except Placed:  # of another config, which this one loads
    raise
  except Exception as error:  # whatever the user's code may raise
    raise Placed(f'{_place(error, path)}: {_message(error)}') from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise ValueError(
        f'{path}: get_config must return what nat_jax.schema.presets.experiment(...) '
        f'returns, got {type(config).__name__} (is there a return statement?)')
  return config


def _place(error, path):
  """The file and, if known, the line at which an error was raised."""
  if isinstance(error, SyntaxError) and error.lineno:
    return f'{error.filename}, line {error.lineno}'
  lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
           if frame.filename == path]
  return f'{path}, line {lines[-1]}' if lines else path


def _message(error):
  """The text of an error, with its type unless that is ValueError or OSError."""
  if isinstance(error, SyntaxError):
    return error.msg
  kind = '' if isinstance(error, ValueError | OSError) else f'{type(error).__name__}: '
  return f'{kind}{error}'
