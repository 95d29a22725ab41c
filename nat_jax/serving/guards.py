"""Limits on what a request may cost: bytes, pixels, time, requests per second.

    pixels = open_picture(body, (32, 32), 'RGB', max_pixels=50_000_000)
    buckets = Buckets(rate=10)
    buckets.take('127.0.0.1')                # seconds to wait; 0: go on
"""

import io
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from nat_jax.data import decode

# Pillow reads many more formats, by decoders that are tested less.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF')
MOST_CLIENTS = 10_000  # whose rate is remembered


class Limits(NamedTuple):
  """What requests may cost.

  Attributes:
    max_bytes: of a request.
    max_pixels: of a picture, width times height.
    rate: pictures per second of one client, over longer than a few seconds.
    seconds: to send a request.
  """

  max_bytes: int = 10_000_000
  max_pixels: int = 50_000_000
  rate: float = 10.0
  seconds: float = 30.0


class Buckets:
  """A token bucket for each client: `rate` per second, and twice as many at once."""

  def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic):
    """Makes empty buckets.

    Args:
      rate: pictures per second.
      clock: returns seconds.
    """
    self.rate, self.clock = rate, clock
    self._left: dict[str, tuple[float, float]] = {}  # client -> tokens, at which time

  def take(self, client: str) -> float:
    """Takes a token; returns the seconds until there is one, or 0 if it was taken."""
    now, most = self.clock(), max(2 * self.rate, 1.0)
    tokens, since = self._left.pop(client, (most, now))
    tokens = min(most, tokens + (now - since) * self.rate)
    wait = 0.0 if tokens >= 1 else (1 - tokens) / self.rate
    self._left[client] = (tokens if wait else tokens - 1, now)
    if len(self._left) > MOST_CLIENTS:  # forgets whoever has not asked for longest
      del self._left[next(iter(self._left))]
    return wait


class BodyLimit:
  """ASGI middleware that ends requests of more than `max_bytes` with status 413."""

  def __init__(self, app: ASGIApp, max_bytes: int):
    """Wraps an application."""
    self.app, self.max_bytes = app, max_bytes

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Counts the bytes as they arrive, whatever the header Content-Length says."""
    read = 0

    async def counted():
      nonlocal read
      message = await receive()
      read += len(message.get('body', b''))
      if read > self.max_bytes:
        raise HTTPException(413, too_large(self.max_bytes))
      return message

    await self.app(scope, counted if scope['type'] == 'http' else receive, send)


def too_large(max_bytes: int) -> str:
  """The message on a request of too many bytes."""
  return f'expected at most {max_bytes / 1e6:g} MB per request, got more'


def open_picture(
    body: bytes, size: tuple[int, int], mode: str, max_pixels: int
) -> np.ndarray:
  """Decodes the bytes of a picture as in training; nothing is read from disk.

  Args:
    body: a file in one of `FORMATS`.
    size: (h, w) of the result.
    mode: 'RGB' or 'L'.
    max_pixels: of the picture, which are compared before it is decoded.

  Returns:
    uint8 [h, w, c].

  Raises:
    HTTPException: 415, no picture in one of the formats, or a damaged one; 413, too
      many pixels.
  """
  if not body:
    raise HTTPException(415, 'expected a picture, and the body of the request is empty')
  try:
    image = Image.open(io.BytesIO(body), formats=FORMATS)
  except Image.DecompressionBombError:
    raise HTTPException(413, _too_many(max_pixels)) from None
  except Exception:  # nearly any, see `decode.decode`
    raise HTTPException(
        415, f'expected a picture, as {", ".join(FORMATS)}; this cannot be read as one'
    ) from None
  with image:
    if image.width * image.height > max_pixels:
      raise HTTPException(413, _too_many(max_pixels))
    try:
      return decode.decode(image, size, mode)
    except Exception as error:
      raise HTTPException(415, f'the picture is damaged: {error}') from None


def _too_many(max_pixels):
  return f'expected a picture of at most {max_pixels / 1e6:g} million pixels, got more'
