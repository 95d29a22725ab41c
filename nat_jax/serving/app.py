"""The routes of the page and of the JSON interface.

    app = make_app(Classifier.restore('runs/pets'), Limits())
    uvicorn.run(app)

    GET  /              the page; POST / shows the result for the picture of its form
    POST /api/predict   the bytes of a picture, or a form with the file `image`
    GET  /api/schema    the JSON interface as OpenAPI 3.1
    GET  /hardest       the held-out negatives with the highest scores
    GET  /health        counts, latency, size of batches

No route reads a file of this machine: what the pages show is in memory, and within the
pages as data: URLs. Nothing that is sent is kept.
"""

import asyncio
import base64
import collections
import contextlib
import io
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from nat_jax import classifier
from nat_jax.classifier import Classifier
from nat_jax.data import decode
from nat_jax.serving import api, batching, guards
from nat_jax.serving.similar import Similar
from nat_jax.tasks.classify import rule

BATCH = classifier.FEW[-1]  # pictures per batch at most
SHOWN = 10  # classes with a bar, the likeliest ones
DEFAULTS = guards.Limits()
FORM = 'image'  # name of the file in a form
PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
    trim_blocks=True, lstrip_blocks=True)


class Hard(NamedTuple):
  """A held-out negative that is like a positive to the classifier.

  Attributes:
    image: uint8 [h, w, c].
    name: of its class for the classifier, or 'none'.
    probability: of this class; None for 'none'.
  """

  image: np.ndarray
  name: str
  probability: float | None


class Answer(NamedTuple):
  """The answer for one picture.

  Attributes:
    order: int [c], the classes from the likeliest to the least likely.
    probability: [c] of each class.
    score: of the picture.
    accepted: whether it is accepted.
  """

  order: np.ndarray
  probability: np.ndarray
  score: float
  accepted: bool


class Counts:
  """What `/health` tells: the number of pictures, and the latest latencies."""

  def __init__(self):
    """Starts the clock."""
    self.began = time.monotonic()
    self.pictures = self.refused = 0
    self.errors: collections.Counter[int] = collections.Counter()
    self.seconds: collections.deque[float] = collections.deque(maxlen=1000)

  def latency(self) -> dict[str, float | int]:
    """Milliseconds within which half, 95 % and 99 % of the latest were answered."""
    if not self.seconds:
      return {'n': 0}
    half, most, nearly_all = np.percentile(self.seconds, (50, 95, 99)) * 1e3
    return {'n': len(self.seconds), 'p50': round(half, 1), 'p95': round(most, 1),
            'p99': round(nearly_all, 1)}


def make_app(
    clf: Classifier, limits: guards.Limits = DEFAULTS,
    search: Callable[[np.ndarray], Sequence[Similar]] | None = None,
    hardest: Mapping[str, Sequence[Hard]] | None = None, hosts: Sequence[str] = ('*',),
) -> Starlette:
  """Makes the ASGI application of a classifier.

  Args:
    clf: the classifier.
    limits: what requests may cost.
    search: from `similar.make_search`; None: no similar pictures are shown.
    hardest: name of each negative set -> its hardest pictures, for /hardest.
    hosts: names by which the server may be asked (the header Host), so that no other
      site can be made to look like this one; '*': any.
  """
  service = Service(clf, limits, search, hardest or {})

  @contextlib.asynccontextmanager
  async def lifespan(app):
    task = asyncio.create_task(service.batcher.run())
    yield
    task.cancel()

  return Starlette(
      routes=[
          Route('/', service.page, methods=['GET']),
          Route('/', service.result, methods=['POST']),
          Route('/api/predict', service.predict, methods=['POST']),
          Route('/api/schema', service.schema),
          Route('/hardest', service.hard_page),
          Route('/health', service.health)],
      middleware=[
          Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)),
          Middleware(guards.BodyLimit, max_bytes=limits.max_bytes)],
      exception_handlers={HTTPException: service.failed, Exception: service.broken},
      lifespan=lifespan)


class Service:
  """The routes, which share the classifier, its batches and the counts."""

  def __init__(self, clf, limits, search, hardest):
    """See `make_app`."""
    self.clf, self.limits, self.search, self.hardest = clf, limits, search, hardest
    self.counts, self.buckets = Counts(), guards.Buckets(limits.rate)
    self.batcher = batching.Batcher(self.decide, BATCH)

  def decide(self, pictures: list[np.ndarray]) -> list[Answer]:
    """The answers for at most `BATCH` pictures, uint8 [h, w, c]."""
    num = next(num for num in classifier.FEW if len(pictures) <= num)
    decided = self.clf.decide(np.stack(pictures), num)
    return [Answer(*values) for values in zip(*decided, strict=True)]

  async def answer(self, request: Request) -> tuple[np.ndarray, Answer, list[Similar]]:
    """Reads, decodes and classifies the picture of a request.

    Returns:
      (pixels uint8 [h, w, c] as the network sees them, answer, similar pictures).

    Raises:
      HTTPException: see `guards`; 503, too many pictures are waiting.
    """
    began = time.monotonic()
    client = request.client.host if request.client else ''
    if wait := self.buckets.take(client):
      raise HTTPException(
          429, f'expected at most {self.limits.rate:g} pictures per second',
          {'Retry-After': str(max(1, round(wait)))})
    body = await self._body(request)
    pixels = await run_in_threadpool(
        guards.open_picture, body, self.clf.view.size, self.clf.view.mode,
        self.limits.max_pixels)
    try:
      found = await self.batcher.ask(pixels)
    except batching.Busy:
      raise HTTPException(
          503, 'too many pictures are waiting', {'Retry-After': '1'}) from None
    similar = await run_in_threadpool(self.search, pixels) if self.search else []
    self.counts.pictures += 1
    self.counts.refused += not found.accepted
    self.counts.seconds.append(time.monotonic() - began)
    return pixels, found, similar

  async def _body(self, request):
    """The bytes of the picture: the body, or the file of a form."""
    form = request.headers.get('content-type', '').lower().startswith('multipart/')
    try:
      async with asyncio.timeout(self.limits.seconds):
        if not form:
          return await request.body()
        async with request.form(max_files=1, max_fields=1) as fields:
          file = fields.get(FORM)
          if not hasattr(file, 'read'):
            raise HTTPException(400, f'expected a form with the file {FORM!r}')
          return await file.read()
    except TimeoutError:
      raise HTTPException(
          408, f'expected the request within {self.limits.seconds:g} seconds') from None
    except ClientDisconnect:  # nobody reads the answer
      raise HTTPException(400, 'expected the whole request, got a part') from None

  async def predict(self, request: Request) -> JSONResponse:
    """POST /api/predict."""
    _, found, similar = await self.answer(request)
    names, first = self.clf.classes_, found.order[0]
    return JSONResponse({
        'verdict': 'accepted' if found.accepted else rule.NONE,
        'class': str(names[first]), 'probability': float(found.probability[first]),
        'score': float(found.score), 'threshold': self.clf.basis.rule.threshold,
        'probabilities': {
            str(names[k]): float(found.probability[k]) for k in found.order},
        'similar': [{'name': one.name, 'positive': one.positive,
                     'similarity': one.similarity} for one in similar],
        'checkpoint': {'step': self.clf.run.step, 'crc32': self.clf.run.crc32}},
        headers=HEADERS)

  async def page(self, request: Request) -> HTMLResponse:
    """GET /."""
    return self._html()

  async def result(self, request: Request) -> HTMLResponse:
    """POST /."""
    pixels, found, similar = await self.answer(request)
    names = self.clf.classes_
    bars = [(str(names[k]), float(found.probability[k])) for k in found.order[:SHOWN]]
    return self._html(
        picture=data_url(pixels), accepted=found.accepted, bars=bars,
        rest=len(names) - len(bars), score=float(found.score),
        similar=[(one, data_url(one.image)) for one in similar])

  async def hard_page(self, request: Request) -> HTMLResponse:
    """GET /hardest."""
    return self._html(hardest=[
        (name, [(one, data_url(one.image)) for one in found])
        for name, found in self.hardest.items()], show_hardest=True)

  async def schema(self, request: Request) -> JSONResponse:
    """GET /api/schema."""
    return JSONResponse(
        api.openapi(self.clf.classes_.tolist(), self.limits), headers=HEADERS)

  async def health(self, request: Request) -> JSONResponse:
    """GET /health."""
    sizes, counts = self.batcher.sizes, self.counts
    return JSONResponse({
        'status': 'ok', 'checkpoint': {
            'step': self.clf.run.step, 'crc32': self.clf.run.crc32},
        'seconds': round(time.monotonic() - counts.began, 1),
        'pictures': counts.pictures, 'refused': counts.refused,
        'errors': {str(status): n for status, n in sorted(counts.errors.items())},
        'latency_ms': counts.latency(),
        'batch_size': round(sum(sizes) / len(sizes), 2) if sizes else None},
        headers=HEADERS)

  async def failed(self, request: Request, error: Exception):
    """The answer to a request that is not valid: JSON, or the page with a message."""
    assert isinstance(error, HTTPException)
    self.counts.errors[error.status_code] += 1
    if request.method == 'POST' and request.url.path == '/':
      return self._html(error.status_code, error.headers, error=error.detail)
    return JSONResponse({'error': error.detail}, error.status_code,
                        {**HEADERS, **(error.headers or {})})

  async def broken(self, request: Request, error: Exception):
    """The answer where the program fails; Starlette then raises the error again, so
    that it is logged."""
    del error
    return await self.failed(request, HTTPException(
        500, 'the server failed at this request; its log has the reason'))

  def _html(self, status=200, headers=None, **shown):
    nonce, basis = secrets.token_urlsafe(16), self.clf.basis
    config = self.clf.run.config
    text = PAGES.get_template('page.html.jinja').render(
        nonce=nonce, title=f'{config["name"]} {config["variant"]}'.strip(),
        classes=self.clf.classes_.tolist(), uniform=1 / len(self.clf.classes_),
        rule=basis.rule, least=least_probability(basis.rule), refusal=rule.NONE,
        megabytes=self.limits.max_bytes / 1e6, has_hardest=bool(self.hardest),
        formats=guards.FORMATS, form=FORM, step=self.clf.run.step, **shown)
    policy = (f"default-src 'none'; img-src data: blob:; style-src 'nonce-{nonce}'; "
              f"script-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; "
              "frame-ancestors 'none'")
    return HTMLResponse(text, status, {
        **HEADERS, **(headers or {}), 'Content-Security-Policy': policy})


HEADERS = {'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff',
           'Referrer-Policy': 'no-referrer'}


def least_probability(used: rule.Rule) -> float | None:
  """The least maximum probability that is accepted; None for other scores."""
  if used.score != rule.selective.MAX_PROBABILITY:
    return None
  return rule.probability(used.threshold)


def data_url(image: np.ndarray) -> str:
  """A picture, uint8 [h, w, c], as a data: URL of a PNG."""
  file = io.BytesIO()
  decode.to_image(image).save(file, 'PNG')
  return 'data:image/png;base64,' + base64.b64encode(file.getvalue()).decode()
