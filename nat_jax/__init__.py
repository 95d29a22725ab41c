"""Negative-Aware Training in JAX: classifiers that can answer "none of these"."""

import importlib
from typing import Any

__version__ = '0.2.0'


def __getattr__(name: str) -> Any:
  """`Classifier`, imported when it is asked for: configs import nat_jax without JAX."""
  if name == 'Classifier':
    return importlib.import_module('nat_jax.classifier').Classifier
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
