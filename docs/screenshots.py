"""Draws the screenshots of the documentation, with headless Chromium and its driver.

    python -m nat_jax.main --config configs/digits.py --workdir runs/digits
    python docs/screenshots.py runs/digits
"""

import io
import pathlib
import shutil
import sys
import tempfile
import threading

import numpy as np
import uvicorn
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By

from nat_jax import classifier, data
from nat_jax.commands import serve
from nat_jax.serving import Limits, app, similar

DOCS = pathlib.Path(__file__).parent
SIZES = {'desktop': (1000, 820), 'phone': (390, 820)}
COLOURS = 64  # of a palette, so that the files are small


def main(workdir):
  with tempfile.TemporaryDirectory() as folder:
    digit = data.digits('test', classes=(7,)).image[0].squeeze()
    picture = f'{folder}/seven.png'
    Image.fromarray(digit).resize((160, 160), Image.Resampling.BICUBIC).save(picture)
    with listening(workdir) as server:
      for name, size in SIZES.items():
        png = shot(f'http://127.0.0.1:{server.port}', size, picture)
        save(png, f'serve_{name}.png')


class listening:
  """A server of a classifier in a thread, on a free port."""

  def __init__(self, workdir):
    clf = classifier.restore(workdir)
    made = app.make_app(
        clf, Limits(), similar.make_search(clf.run, serve.SIMILAR), serve._hardest(clf))
    self.server = uvicorn.Server(uvicorn.Config(made, log_level='warning'))
    self.socket = serve._listen('127.0.0.1', 0)
    self.port = self.socket.getsockname()[1]

  def __enter__(self):
    self.thread = threading.Thread(target=self.server.run, args=([self.socket],))
    self.thread.start()
    return self

  def __exit__(self, *error):
    self.server.should_exit = True
    self.thread.join()


def shot(address, size, picture):
  """A screenshot of the answer for a picture."""
  options = webdriver.ChromeOptions()
  options.binary_location = shutil.which('chromium')
  for one in ('--headless=new', '--no-sandbox', '--hide-scrollbars',
              '--window-size={},{}'.format(*size)):
    options.add_argument(one)
  driver = webdriver.Chrome(
      options, webdriver.ChromeService(shutil.which('chromedriver')))
  try:
    # A phone's width: windows themselves have a least width.
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
        'width': size[0], 'height': size[1], 'deviceScaleFactor': 1, 'mobile': False})
    driver.get(address)
    driver.find_element(By.ID, 'file').send_keys(picture)
    driver.implicitly_wait(60)
    driver.find_element(By.ID, 'verdict')
    return driver.get_screenshot_as_png()
  finally:
    driver.quit()


def save(png, name):
  image = Image.open(io.BytesIO(png)).convert('RGB')
  image.quantize(COLOURS, dither=Image.Dither.NONE).save(DOCS / name, optimize=True)
  print(f'docs/{name}: {(DOCS / name).stat().st_size / 1e3:.0f} kB, '
        f'{np.asarray(image).shape[1]} pixels wide')


if __name__ == '__main__':
  main(sys.argv[1])
