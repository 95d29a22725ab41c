"""The one dispatch: what it builds, and what it says of a mistake."""

import pytest

from nat_jax import registry


def pair(left, right=2, *, extra=0):
  return left, right, extra


def test_builds_from_the_spec_and_what_the_program_adds():
  built = registry.build({'pair': pair}, {'name': 'pair', 'left': 1}, extra=3)
  assert built == (1, 2, 3)


def test_an_unknown_name_lists_the_valid_ones():
  with pytest.raises(ValueError, match="model 'par'.*pair, two"):
    registry.build({'pair': pair, 'two': pair}, {'name': 'par'}, what='model')
  with pytest.raises(ValueError, match='None'):
    registry.build({'pair': pair}, {})


def test_a_wrong_argument_lists_what_the_user_can_give():
  with pytest.raises(TypeError, match=r"'lef'.*left, right=2$"):
    registry.build({'pair': pair}, {'name': 'pair', 'left': 1, 'lef': 1}, extra=3)
  with pytest.raises(TypeError, match="'left'.*left, right=2$"):
    registry.build({'pair': pair}, {'name': 'pair'}, extra=3)
  with pytest.raises(TypeError, match="'size'.*; it takes no arguments$"):
    registry.build({'empty': lambda: 0}, {'name': 'empty', 'size': 1})
