"""Texts for messages that list names, and that propose a valid one for a wrong one.

    >>> unknown('loss', 'nta', ['nat', 'energy'])
    "unknown loss 'nta' (did you mean 'nat'?); valid: nat, energy"
    >>> listed(range(7))
    '0, 1, 2, 3, 4 and 2 more'
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


def unknown(what: str, name: Any, valid: Iterable[str]) -> str:
  """The message that a name is not one of the valid ones.

  Args:
    what: kind of the name, such as 'loss'.
    name: what was given.
    valid: the valid names, in the order in which they are listed.
  """
  valid = list(valid)
  return f'unknown {what} {name!r}{hint(name, valid)}; valid: {", ".join(valid)}'


def hint(name: Any, valid: Iterable[str], first: Sequence[str] = ()) -> str:
  """Returns " (did you mean 'NAME'?)" for the valid name that is most similar.

  Args:
    name: what was given.
    valid: the valid names.
    first: names, of which the first one is taken instead if there are any.

  Returns:
    The text; '' if no valid name is similar.
  """
  if first:
    return f' (did you mean {first[0]!r}?)'
  by_lower = {one.lower(): one for one in valid}
  close = difflib.get_close_matches(str(name).lower(), by_lower, 1)
  return f' (did you mean {by_lower[close[0]]!r}?)' if close else ''


def listed(items: Iterable[Any], most: int = 5) -> str:
  """The first items, comma-separated, and the number of the others.

  Args:
    items: of any type; their text is shown.
    most: number of items that are shown.
  """
  texts = list(map(str, items))
  return ', '.join(texts[:most]) + (
      f' and {len(texts) - most} more' if len(texts) > most else '')
