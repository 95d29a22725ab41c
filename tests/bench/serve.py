"""Latency and throughput of the server, over loopback.

    python -m nat_jax.main --config configs/digits.py --workdir runs/digits
    python tests/bench/serve.py runs/digits --clients 1 8 32 --requests 400

Starts `--mode=serve` on a free port of 127.0.0.1, sends it random pictures of the size
of the network from so many clients at a time, each of which waits for its answer before
it asks again, and prints latencies, pictures per second and the mean size of a batch.
"""

import argparse
import concurrent.futures
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image
from steps import machine

from nat_jax import runs


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('workdir')
  parser.add_argument('--clients', type=int, nargs='+', default=[1, 8, 32])
  parser.add_argument('--requests', type=int, default=400, help='per row of the table')
  args = parser.parse_args()
  height, width, channels = runs.about(args.workdir)['image_shape']
  bodies = pictures((height, width, channels), 64)
  print(f'{machine()}; {args.requests} pictures of {height} x {width}, PNG')
  print(f'{"clients":>8}{"p50 ms":>9}{"p95 ms":>9}{"p99 ms":>9}{"pictures/s":>12}')
  command = [sys.executable, '-m', 'nat_jax.main', '--mode=serve', '--workdir',
             args.workdir, '--port=0', '--rate=1e9']
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                        env=os.environ | {'PYTHONUNBUFFERED': '1'}) as server:
    port = int(next(found[1] for line in server.stdout
                    if (found := re.match(r'http://127\.0\.0\.1:(\d+)', line))))
    try:
      ask(port, bodies, args.requests)  # not counted: first use of threads and caches
      for clients in args.clients:
        print_row(clients, port, bodies, args.requests)
    finally:
      server.send_signal(signal.SIGINT)


def pictures(shape, num):
  """PNG files of random pixels."""
  found = []
  for image in np.random.default_rng(0).integers(0, 256, (num, *shape), np.uint8):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, 'PNG')
    found.append(file.getvalue())
  return found


def print_row(clients, port, bodies, requests):
  """Measures one number of clients."""
  began = time.monotonic()
  with concurrent.futures.ThreadPoolExecutor(clients) as pool:
    each = [pool.submit(ask, port, bodies, requests // clients)
            for _ in range(clients)]
    seconds = [one for job in each for one in job.result()]
  rate = len(seconds) / (time.monotonic() - began)
  p50, p95, p99 = np.percentile(seconds, (50, 95, 99)) * 1e3
  print(f'{clients:8}{p50:9.1f}{p95:9.1f}{p99:9.1f}{rate:12.0f}', flush=True)


def ask(port, bodies, requests):
  """The seconds of `requests` requests, one after the other on one connection."""
  connection, seconds = http.client.HTTPConnection('127.0.0.1', port), []
  for k in range(requests):
    began = time.monotonic()
    connection.request('POST', '/api/predict', bodies[k % len(bodies)])
    answer = connection.getresponse()
    content = json.loads(answer.read())
    if answer.status != 200:
      raise SystemExit(f'status {answer.status}: {content}')
    seconds.append(time.monotonic() - began)
  return seconds


if __name__ == '__main__':
  main()
