"""Whether arrays that a config asks for can be held at all.

    check_memory(num * 8 * 8, 'num=10**12 images', 'lower num')
"""

import os


def check_memory(num_bytes: float, what: str, remedy: str) -> None:
  """Raises ValueError where this machine's memory is smaller than `num_bytes`.

  Args:
    num_bytes: of the arrays, estimated low: what passes may still be too much.
    what: the arrays, as they precede 'take about ... GB'.
    remedy: what to do.
  """
  total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  if num_bytes > total:
    raise ValueError(
        f'{what} would take about {num_bytes / 1e9:,.0f} GB of memory, and this '
        f'machine has {total / 1e9:,.0f} GB; {remedy}')
