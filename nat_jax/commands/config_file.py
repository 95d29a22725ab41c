"""Loads the config of a variant from a config file; errors name file and line.

    config = load('configs/digits.py', 'baseline')
"""

import importlib.machinery
import importlib.util
import traceback

import ml_collections


def load(path: str, variant: str | None = None) -> ml_collections.ConfigDict:
  """Loads the config of a variant from a config file.

  Args:
    path: of the file.
    variant: argument of its get_config; None: no argument.

  Raises:
    ValueError: the file raised an error (the message names file and line), or has no
      get_config that returns a config.
  """
  loader = importlib.machinery.SourceFileLoader('variant_config', path)
  module = importlib.util.module_from_spec(
      importlib.util.spec_from_loader(loader.name, loader))
  try:
    loader.exec_module(module)
    if not callable(getattr(module, 'get_config', None)):
      raise ValueError('it has no function get_config')
    config = module.get_config(*([] if variant is None else [variant]))
  except Exception as error:  # whatever the user's code may raise
    raise ValueError(f'{_place(error, path)}: {_message(error)}') from error
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
