"""Serves a page and a JSON interface of a classifier, by default to this machine only.

    $ python -m nat_jax.main --mode=serve --workdir runs/pets
    http://127.0.0.1:8000  (Ctrl-C stops)
"""

import math
import socket
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image

from nat_jax import classifier, data
from nat_jax.classifier import Classifier
from nat_jax.commands import flags
from nat_jax.reports.frames import set_names
from nat_jax.runtime import parallel, results

SIMILAR = 5  # training pictures that are shown beside a picture
HARDEST = 24  # pictures of each negative set on the page of the hardest ones
MISTAKE = ('image', 'prediction', 'max_prob')  # arrays of saved mistakes
LOOPBACK = ('127.0.0.1', 'localhost', '::1')
EXTRA = "--mode=serve needs Starlette and uvicorn: pip install 'nat_jax[serve]'"


def serve(
    workdir: str, step: int | None = None, threshold: float | None = None,
    host: str = LOOPBACK[0], port: int = 8000, rate: float = 10.0,
) -> None:
  """Serves until it is interrupted.

  Args:
    workdir: of a run of the task 'classify'.
    step: of the checkpoint; None: the newest, and after early stopping the best.
    threshold: see `rule.find`.
    host: address to listen on.
    port: to listen on; 0: any that is free.
    rate: pictures per second and client.

  Raises:
    ValueError: an argument that is not valid, a port in use, no checkpoint, no rule
      (see `rule.find`), or the extra `serve` is not installed.
  """
  if not 0 < rate < math.inf:
    raise ValueError(f'--rate must be a number above 0, got {rate:g}')
  try:
    import python_multipart  # noqa: F401
    import uvicorn

    from nat_jax.serving import Limits, app
  except ImportError as error:
    raise ValueError(f'{EXTRA} ({error})') from None
  # Pictures of many pixels are refused.
  warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)
  with _listen(host, port) as listening:
    clf = classifier.restore(workdir, step, threshold)
    # Programs of several threads would wait for each other on several devices.
    state, mesh = parallel.on_one_device(clf.run.state)
    clf.run = clf.run._replace(state=state, mesh=mesh)
    if clf.basis.note:
      print(clf.basis.note)
    print('reading training pictures and compiling ...', flush=True)
    search = _search(clf)
    made = app.make_app(clf, Limits(rate=rate), search, _hardest(clf), _names(host))
    _warm_up(clf, search)
    shown, port = listening.getsockname()[:2]
    if host not in LOOPBACK:
      print(f'warning: {host} is open to the network; there is no password')
    print(f'http://{f"[{shown}]" if ":" in shown else shown}:{port}  (Ctrl-C stops)',
          flush=True)
    server = uvicorn.Server(uvicorn.Config(
        made, log_level='warning', limit_concurrency=512, timeout_keep_alive=5,
        server_header=False))
    try:
      server.run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn raises it once all requests are answered
      print('stopped')


def _listen(host, port):
  """A listening socket."""
  if not 0 <= port < 65536:
    raise ValueError(f'--port must be 0 to 65535, got {port}')
  try:
    kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=kind, backlog=128)
  except OSError as error:
    raise ValueError(
        f'cannot listen on --host {host} --port {port} ({error.strerror or error}); '
        '--port=0 takes any free port') from None


def _names(host):
  """The names by which browsers may ask; any where others than this machine may."""
  return ('localhost', '127.0.0.1', '[::1]') if host in LOOPBACK else ('*',)


def _search(clf: Classifier):
  """The search for similar training pictures; None where these cannot be read."""
  from nat_jax.serving import similar

  if data.is_vectors(clf.run.shape):
    return None
  try:
    return similar.make_search(clf.run, SIMILAR)
  except (ValueError, OSError) as error:
    print(f'without similar training pictures: {error}')
    return None


def _hardest(clf: Classifier):
  """The hardest negatives of the evaluation, by set."""
  from nat_jax.serving.app import Hard

  evaluation = results.read_evaluation(clf.workdir)
  if not evaluation or evaluation['step'] != clf.run.step:
    return {}
  found = {}
  for name in set_names([evaluation['evals']])[1]:
    arrays = results.read_arrays(
        clf.workdir, f'{results.MISTAKES}/{name}', clf.run.step, MISTAKE)
    if arrays and len(arrays['image']):
      found[name] = [
          Hard(image, *_class(clf, int(k), float(p))) for image, k, p in zip(
              *(arrays[key][:HARDEST] for key in MISTAKE), strict=True)]
  return found


def _class(clf, k, probability):
  """(name, probability) of prediction k; `probability` is of the likeliest class, and
  not of a background output."""
  return ((str(clf.classes_[k]), probability) if k < len(clf.classes_)
          else ('none', None))


def _warm_up(clf, search):
  """Compiles all programs, so that no request waits for it."""
  size, mode = clf.view.size, clf.view.mode
  blank = np.zeros((*size, len(mode)), np.uint8)
  for num in classifier.FEW:
    clf.decide(blank[None], num)
  if search:
    search(blank)


def run(argv: Sequence[str] = ()) -> None:
  """--mode=serve: serves a classifier until Ctrl-C."""
  del argv
  serve(
      flags.needed(flags.WORKDIR, 'serve'), flags.STEP.value, flags.THRESHOLD.value,
      flags.HOST.value, flags.PORT.value, flags.RATE.value)
