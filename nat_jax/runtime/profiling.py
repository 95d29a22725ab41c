"""Traces some updates with the profiler of JAX, for TensorBoard or Perfetto.

    with tracer('runs/digits', start=0, end=1000, num=50) as trace:
      with trace(step):      # traced if it is one of 50 updates after the first 100
        state, metrics = step_fn(...)
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import jax
from absl import logging

FOLDER = 'profile'  # folder in the workdir
SKIPPED = 100  # updates before the trace: programs are compiled, buffers get filled


@contextlib.contextmanager
def tracer(
    workdir: str, start: int, end: int, num: int
) -> Iterator[Callable[[int], contextlib.AbstractContextManager]]:
  """Yields a function step -> context manager for the updates from this step on.

  The trace begins with the first context whose step is at least start + 100 (or the
  middle of the remaining updates, if fewer than 200 remain). It ends with the first
  context at least `num` updates later, or with the run. Process 0 writes it to
  `workdir/profile`.

  Args:
    workdir: of the run.
    start: completed updates when this process starts.
    end: updates of the run.
    num: number of updates to trace; 0: none.
  """
  first = start + min(SKIPPED, (end - start) // 2)
  began = None

  def stop():
    nonlocal num, began
    jax.profiler.stop_trace()
    logging.warning('Wrote the trace of the updates from %d on to %s.', began,
                    os.path.join(workdir, FOLDER))
    num, began = 0, None

  def trace(step):
    nonlocal began
    if began is not None and step >= began + num:
      stop()
    if num and began is None and step >= first and jax.process_index() == 0:
      jax.profiler.start_trace(os.path.join(workdir, FOLDER))
      began = step
    return jax.profiler.StepTraceAnnotation('update', step_num=step)

  try:
    yield trace
  finally:
    if began is not None:
      stop()
