"""Checks that arrays which a config asks for can fit in this machine's memory.

    check_memory(num * 8 * 8, 'num=10**12 images', 'lower num')
"""

import os


def check_memory(num_bytes: float, what: str, remedy: str) -> None:
  """Raises ValueError if this machine's memory is smaller than `num_bytes`.

  Args:
    num_bytes: a lower bound of the arrays' size; arrays that pass may still not fit.
    what: the arrays, for the message "... would take about ... GB".
    remedy: what the user can do, for the end of the message.
  """
  total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  if num_bytes > total:
    raise ValueError(
        f'{what} would take about {num_bytes / 1e9:,.0f} GB of memory, and this '
        f'machine has {total / 1e9:,.0f} GB; {remedy}')
