"""Puts the pictures of requests that arrive together into one batch.

    batcher = Batcher(decide)                  # decide: list of pictures -> answers
    task = asyncio.create_task(batcher.run())
    answer = await batcher.ask(picture)
"""

import asyncio
import collections
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

WAIT = 0.004  # seconds that the first picture of a batch waits for others
LONGEST = 256  # pictures that wait at most; further requests are refused


class Busy(Exception):
  """More pictures are waiting than the server takes on."""


class Batcher:
  """Collects pictures and has them answered batch by batch, one batch at a time.

  Attributes:
    sizes: of the latest batches.
  """

  def __init__(
      self, decide: Callable[[list[Any]], Sequence[Any]], most: int = 64,
      wait: float = WAIT, longest: int = LONGEST,
  ):
    """Makes a batcher, whose `run` does the work.

    Args:
      decide: list of pictures -> as many answers; called in a thread.
      most: pictures per batch at most.
      wait: seconds that the first picture of a batch waits for others.
      longest: pictures that wait at most.
    """
    self.decide, self.most, self.wait, self.longest = decide, most, wait, longest
    self.sizes: collections.deque[int] = collections.deque(maxlen=1000)
    self._waiting: collections.deque = collections.deque()
    self._arrived = asyncio.Event()

  async def ask(self, picture: Any) -> Any:
    """Returns the answer for a picture.

    Raises:
      Busy: `longest` pictures are waiting.
      Exception: what `decide` raised for the batch of the picture.
    """
    if len(self._waiting) >= self.longest:
      raise Busy
    answer = asyncio.get_running_loop().create_future()
    self._waiting.append((picture, answer))
    self._arrived.set()
    return await answer

  async def run(self) -> None:
    """Answers pictures until the task is cancelled."""
    while True:
      await self._arrived.wait()
      if len(self._waiting) < self.most:
        await asyncio.sleep(self.wait)
      batch = [self._waiting.popleft()
               for _ in range(min(self.most, len(self._waiting)))]
      if not self._waiting:
        self._arrived.clear()
      # The client of a cancelled request has gone.
      batch = [one for one in batch if not one[1].done()]
      if batch:
        await self._answer(batch)

  async def _answer(self, batch):
    self.sizes.append(len(batch))
    try:
      found = await asyncio.to_thread(self.decide, [picture for picture, _ in batch])
    except Exception as error:  # of any kind: the next batch is to be answered
      for _, answer in batch:
        if not answer.done():
          answer.set_exception(error)
      return
    for (_, answer), one in zip(batch, found, strict=True):
      with contextlib.suppress(asyncio.InvalidStateError):  # cancelled meanwhile
        answer.set_result(one)
