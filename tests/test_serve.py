"""The server: its answers are the classifier's, its limits hold, its page works."""

import asyncio
import base64
import html
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
import toy
from PIL import Image
from starlette import testclient

from nat_jax import classifier, data, train
from nat_jax.commands import serve as command
from nat_jax.schema import presets
from nat_jax.serving import Limits, api, app, batching, guards, similar
from nat_jax.tasks.classify import rule

SOURCE = toy.fake(0, num=120, classes=(0, 1, 2))
HOME = 'http://localhost'


def make_config(**changes):
  return presets.experiment(**dict(
      name='toy', steps=100, num_classes=3,
      model={'name': 'mlp', 'width': 16, 'depth': 1},
      data=dict(positives=SOURCE, batch_size=16, negatives_per_batch=4,
                negatives={'three': {'source': toy.fake(0, classes=(3,))}}),
      evals={'test': {'source': SOURCE | {'seed': 1}, 'positive': True},
             'three': {'source': toy.fake(1, classes=(3,))}},
      run=dict(tensorboard=False)) | changes)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = str(tmp_path_factory.mktemp('serve') / 'run')
  train.train(make_config(), path)
  return path


@pytest.fixture(scope='module')
def clf(workdir):
  return classifier.restore(workdir, threshold=0.5)


@pytest.fixture(scope='module')
def client(clf, workdir):
  """A client of the server with all it shows, and with generous limits."""
  made = app.make_app(
      clf, Limits(rate=1e6, max_bytes=200_000, max_pixels=10_000),
      similar.make_search(clf.run, 3), command._hardest(clf), ('localhost',))
  with testclient.TestClient(made, HOME) as found:
    yield found


def png(image):
  file = io.BytesIO()
  Image.fromarray(np.asarray(image, np.uint8).squeeze()).save(file, 'PNG')
  return file.getvalue()


def form(body):
  return {'files': {'image': ('../../etc/passwd', body)}}


def post(client, body, path='/api/predict'):
  return client.post(path, content=body)


# Answers.


def test_answers_are_those_of_the_classifier(client, clf):
  images = data.load(SOURCE | {'seed': 2}).image[:12]
  found = clf.predict(images)
  for k, image in enumerate(images):
    answer = post(client, png(image)).json()
    assert answer['verdict'] == ('accepted' if found.accepted[k] else 'none of these')
    assert answer['class'] == clf.classes_[found.probabilities[k].argmax()]
    np.testing.assert_allclose(answer['score'], found.scores[k], rtol=1e-5)
    np.testing.assert_allclose(
        [answer['probabilities'][name] for name in clf.classes_],
        found.probabilities[k], rtol=1e-5)
  assert answer['threshold'] == clf.basis.rule.threshold
  assert answer['checkpoint'] == {'step': 100, 'crc32': clf.run.crc32}
  assert client.post('/api/predict', **form(png(image))).json() == answer


def test_answers_have_the_published_form(client, clf):
  published = client.get('/api/schema').json()
  assert published == json.loads(json.dumps(api.openapi(
      clf.classes_.tolist(), Limits(rate=1e6, max_bytes=200_000, max_pixels=10_000))))
  [answers] = published['paths']['/api/predict'].values()
  schema = answers['responses']['200']['content']['application/json']['schema']
  answer = post(client, png(data.load(SOURCE).image[0])).json()
  kinds = {'number': float, 'array': list, 'object': dict}
  assert set(answer) == set(schema['required']) == set(schema['properties'])
  for name, about in schema['properties'].items():
    if 'type' in about:
      assert isinstance(answer[name], kinds[about['type']]), name
    else:
      assert answer[name] in about['enum'], name
  assert set(schema['properties']['probabilities']['properties']) == set(
      answer['probabilities'])


def test_a_training_picture_is_the_most_similar_to_itself(client, clf):
  positives = data.load(SOURCE)
  found = post(client, png(positives.image[5])).json()['similar']
  assert len(found) == 3
  assert found[0]['similarity'] == pytest.approx(1, abs=1e-6)
  assert found[0]['name'] == clf.classes_[positives.label[5]] and found[0]['positive']
  negative = data.load(toy.fake(0, classes=(3,))).image[0]
  found = post(client, png(negative)).json()['similar'][0]
  assert (found['name'], found['positive']) == ('three', False)


def test_noise_that_is_normalised_is_shown_as_pixels(clf):
  config = make_config()
  config['data']['negatives'] = {'noise': {'source': {'name': 'normal_noise',
                                                      'num': 9}}}
  search = similar.make_search(clf.run._replace(config=config), 5, most=4)
  found = search(np.zeros((6, 6, 1), np.uint8))
  assert len(found) == 5 and all(one.image.dtype == np.uint8 for one in found)
  assert len(search(np.zeros((6, 6, 1), np.uint8))) == 5


def test_page_shows_the_verdict(client, clf):
  assert 'Drop a picture' in client.get('/').text
  image = data.load(SOURCE).image[5]
  text = client.post('/', **form(png(image))).text
  found = clf.predict(image)
  verdict = re.search(r'id="verdict">(.*?)</p>', text)[1]
  assert found.accepted[0] and verdict == found.names[0] == 'pattern 0'
  assert f'{100 * found.probabilities[0].max():.1f} %' in text
  assert text.count('class="uniform"') == 3  # a bar for each class
  assert '33.3 %' in text and 'passwd' not in text
  # The picture that is shown is what the network saw.
  shown = base64.b64decode(re.search(r'class="seen" src="data:.*?,(.*?)"', text)[1])
  np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown))),
                                image[..., 0])


def test_none_of_these_below_the_threshold(clf):
  strict = classifier.restore(clf.workdir, threshold=0.9999999)
  with testclient.TestClient(app.make_app(strict), HOME) as client:
    body = png(data.load(SOURCE).image[0])
    answer = post(client, body).json()
    assert answer['verdict'] == 'none of these' and answer['similar'] == []
    assert 'id="verdict">None of these</p>' in client.post('/', **form(body)).text
    assert client.get('/health').json()['refused'] == 2


@pytest.mark.parametrize('threshold', [0.0, 1.0])
def test_thresholds_at_the_ends_are_answered(clf, threshold):
  basis = clf.basis._replace(rule=rule.at_probability(threshold))
  made = app.make_app(classifier.Classifier(clf.run, basis, clf.workdir))
  with testclient.TestClient(made, HOME) as client:
    found = post(client, png(data.load(SOURCE).image[0]))
    assert found.status_code == 200
    assert (found.json()['verdict'] == 'accepted') == (threshold == 0)


def test_failures_of_the_server_are_counted(clf, monkeypatch):
  monkeypatch.setattr(app.Service, 'decide', lambda *args: 1 / 0)
  made = app.make_app(clf)
  with testclient.TestClient(made, HOME, raise_server_exceptions=False) as client:
    found = post(client, png(data.load(SOURCE).image[0]))
    assert found.status_code == 500 and 'its log' in found.json()['error']
    assert client.get('/health').json()['errors'] == {'500': 1}


def test_names_of_classes_are_no_html(clf):
  run = clf.run._replace(class_names=('<script>alert(1)</script>', '"', '&'))
  odd = classifier.Classifier(run, clf.basis, clf.workdir)
  with testclient.TestClient(app.make_app(odd), HOME) as client:
    text = client.post('/', **form(png(data.load(SOURCE).image[0]))).text
  assert '<script>alert' not in text and '&lt;script&gt;alert(1)' in text


def test_hardest_negatives_are_shown_with_their_probabilities(client, workdir):
  text = client.get('/hardest').text
  with np.load(f'{workdir}/mistakes/three.npz') as found:
    for p in found['max_prob'][:command.HARDEST]:
      assert f'{100 * p:.1f} %' in text
  assert text.count('<li>') == 12
  assert '/hardest' in client.get('/').text


def test_a_background_prediction_has_no_probability(clf, monkeypatch):
  """The probability that is saved is that of the likeliest class."""
  monkeypatch.setattr(command.results, 'read_arrays', lambda *args: {
      'image': np.zeros((2, 6, 6, 1), np.uint8), 'prediction': np.array([3, 1]),
      'max_prob': np.array([0.125, 0.75])})
  found = command._hardest(clf)
  made = app.make_app(clf, hardest=found)
  assert [(one.name, one.probability) for one in found['three']] == [
      ('none', None), ('pattern 1', 0.75)]
  with testclient.TestClient(made, HOME) as client:
    text = client.get('/hardest').text
  assert '75.0 %' in text and '12.5 %' not in text


def test_no_hardest_negatives_of_another_checkpoint(clf):
  other = classifier.Classifier(
      clf.run._replace(step=7), clf.basis, clf.workdir)
  assert command._hardest(other) == {}
  with testclient.TestClient(app.make_app(clf), HOME) as client:
    assert 'was not evaluated' in client.get('/hardest').text
    assert 'href="/hardest"' not in client.get('/').text


# Limits.


@pytest.mark.parametrize('body,status,message', [
    (b'', 415, 'picture'), (b'<svg/>', 415, 'JPEG'), (b'%PDF-1.4', 415, 'picture'),
    (png(np.random.default_rng(0).integers(0, 256, (50, 50)))[:1500], 415, 'damaged'),
    (b'x' * 200_001, 413, '0.2 MB'),
    (png(np.zeros((101, 100))), 413, '0.01 million pixels')])
def test_mistakes_of_a_request_are_answered(client, body, status, message):
  found = post(client, body)
  assert found.status_code == status and message in found.json()['error']
  error = found.json()['error']
  before = client.get('/health').json()['errors'][str(status)]
  found = client.post('/', **form(body))  # on the page, in words
  assert found.status_code == status and 'role="alert"' in found.text
  assert error[0].upper() + error[1:] in html.unescape(found.text)
  assert client.get('/health').json()['errors'][str(status)] == before + 1


def test_bomb_is_refused_before_it_is_decoded(client):
  """Half a billion pixels of zeros in half a megabyte: only the header is read."""
  def chunk(kind, content):
    body = kind + content
    return (len(content).to_bytes(4, 'big') + body
            + zlib.crc32(body).to_bytes(4, 'big'))

  size = (30_000).to_bytes(4, 'big')
  bomb = (b'\x89PNG\r\n\x1a\n'
          + chunk(b'IHDR', size + size + bytes([8, 0, 0, 0, 0]))
          + chunk(b'IDAT', zlib.compress(bytes(100_000))) + chunk(b'IEND', b''))
  found = post(client, bomb)
  assert found.status_code == 413 and 'pixels' in found.json()['error']


def test_formats_of_many_files_are_not_tried(client):
  """Pillow would run Ghostscript for an EPS, and read other files for a .fli."""
  eps = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n'
  assert post(client, eps).status_code == 415


def test_body_is_counted_where_its_length_is_not_given(client):
  found = client.post('/api/predict', content=iter([b'x' * 150_000] * 2))
  assert found.status_code == 413


def test_form_without_a_picture(client):
  found = client.post('/api/predict', files={'other': b'x'})
  assert found.status_code == 400 and "'image'" in found.json()['error']
  found = client.post('/api/predict', files={'x': ('', b'')}, data={'image': '/etc'})
  assert found.status_code == 400


def test_kind_of_body_in_any_case_and_an_empty_one(client):
  body = png(data.load(SOURCE).image[0])
  made = client.build_request('POST', '/api/predict', **form(body))
  made.headers['content-type'] = made.headers['content-type'].replace('m', 'M', 1)
  assert client.send(made).status_code == 200
  assert 'is empty' in post(client, b'').json()['error']


def test_a_client_that_goes_away_is_no_error_of_the_program(clf):
  made, sent = app.make_app(clf), []

  async def ask():
    messages = iter([{'type': 'http.request', 'body': b'x', 'more_body': True},
                     {'type': 'http.disconnect'}])

    async def receive():
      return next(messages)

    async def send(message):
      sent.append(message)

    scope = {'type': 'http', 'method': 'POST', 'path': '/api/predict', 'headers': [],
             'query_string': b'', 'client': ('a', 1), 'http_version': '1.1'}
    await made(scope, receive, send)

  asyncio.run(ask())
  assert sent[0]['status'] == 400


def test_rate_of_a_client():
  now = [0.0]
  buckets = guards.Buckets(2, lambda: now[0])
  assert [buckets.take('a') for _ in range(5)] == [0, 0, 0, 0, 0.5]
  assert buckets.take('b') == 0
  now[0] = 0.5
  assert [buckets.take('a') for _ in range(2)] == [0, 0.5]
  now[0] = 100
  assert [buckets.take('a') for _ in range(5)] == [0, 0, 0, 0, 0.5]


def test_clients_that_are_remembered_are_limited(monkeypatch):
  monkeypatch.setattr(guards, 'MOST_CLIENTS', 3)
  buckets = guards.Buckets(1, lambda: 0.0)
  for client in 'abcab':
    buckets.take(client)
  assert set(buckets._left) == {'a', 'b', 'c'}
  buckets.take('d')
  assert set(buckets._left) == {'a', 'b', 'd'}  # c did not ask for longest


def test_too_many_pictures_per_second(clf):
  with testclient.TestClient(app.make_app(clf, Limits(rate=0.01)), HOME) as client:
    body = png(data.load(SOURCE).image[0])
    assert post(client, body).status_code == 200
    found = post(client, body)
    assert found.status_code == 429 and int(found.headers['retry-after']) > 50
    assert client.get('/health').status_code == 200  # costs nothing


def test_other_names_of_the_server_are_refused(client):
  assert client.get('/', headers={'host': 'elsewhere.example'}).status_code == 400


@pytest.mark.parametrize('path', [
    '/etc/passwd', '/../../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd',
    '/page.html.jinja', '/static/app.py', '/api/../app.py'])
def test_no_file_is_readable(client, path):
  assert client.get(path).status_code == 404


def test_pages_allow_nothing_from_elsewhere(client):
  found = client.get('/')
  policy = found.headers['content-security-policy']
  assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
  assert "'unsafe" not in policy
  nonce = re.search(r"script-src 'nonce-(.*?)'", policy)[1]
  assert f'<script nonce="{nonce}">' in found.text
  assert nonce not in client.get('/').text
  assert not re.search(r'(src|href)="(?!/|data:)', found.text)
  assert found.headers['cache-control'] == 'no-store'


# Batches.


def test_requests_that_arrive_together_are_one_batch():
  async def ask_all():
    batches = []

    def decide(pictures):
      batches.append(list(pictures))
      return [2 * one for one in pictures]

    batcher = batching.Batcher(decide, most=4, wait=0.05)
    task = asyncio.create_task(batcher.run())
    found = await asyncio.gather(*(batcher.ask(k) for k in range(10)))
    task.cancel()
    return found, batches, list(batcher.sizes)

  found, batches, sizes = asyncio.run(ask_all())
  assert found == [2 * k for k in range(10)]
  assert [one for batch in batches for one in batch] == list(range(10))
  assert sizes == [len(batch) for batch in batches] == [4, 4, 2]


def test_a_failure_ends_its_batch_only():
  async def ask_all():
    def decide(pictures):
      if 1 in pictures:
        raise ValueError('one')
      return pictures

    batcher = batching.Batcher(decide, most=1)
    task = asyncio.create_task(batcher.run())
    found = await asyncio.gather(
        *(batcher.ask(k) for k in range(3)), return_exceptions=True)
    task.cancel()
    return found

  found = asyncio.run(ask_all())
  assert (found[0], found[2]) == (0, 2) and isinstance(found[1], ValueError)


def test_no_more_pictures_wait_than_there_is_room_for():
  async def ask_all():
    batcher = batching.Batcher(lambda pictures: pictures, longest=2)
    waiting = [asyncio.create_task(batcher.ask(k)) for k in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(batching.Busy):
      await batcher.ask(2)
    waiting[0].cancel()  # its client has gone
    await asyncio.sleep(0)
    task = asyncio.create_task(batcher.run())
    assert await waiting[1] == 1
    task.cancel()
    return list(batcher.sizes)

  assert asyncio.run(ask_all()) == [1]


def test_many_clients_at_once_get_their_own_answers(clf):
  images = data.load(SOURCE | {'seed': 3}).image[:24]
  found, answers = clf.predict(images), {}
  made = app.make_app(clf, Limits(rate=1e6))
  with testclient.TestClient(made, HOME) as client:
    def ask(k):
      answers[k] = post(client, png(images[k])).json()

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(len(images))]
    for one in threads:
      one.start()
    for one in threads:
      one.join()
    health = client.get('/health').json()
  for k, answer in answers.items():
    np.testing.assert_allclose(answer['score'], found.scores[k], rtol=1e-5)
  assert health['pictures'] == health['latency_ms']['n'] == len(images)
  assert health['refused'] == len(images) - found.accepted.sum()
  assert health['latency_ms']['p50'] <= health['latency_ms']['p99']


# The command.


@pytest.mark.parametrize('changes,message', [
    (dict(port=70000), '--port must be 0 to 65535, got 70000'),
    (dict(rate=0), '--rate must be a number above 0'),
    (dict(rate=float('nan')), '--rate must be a number above 0, got nan'),
    (dict(host='nowhere.invalid'), 'cannot listen on --host nowhere.invalid'),
    (dict(step=3, port=0), 'no checkpoint of step 3')])
def test_mistakes_of_the_command(workdir, changes, message):
  with pytest.raises(ValueError, match=message):
    command.serve(workdir, **changes)


def test_port_in_use(workdir):
  with command._listen('127.0.0.1', 0) as taken:
    with pytest.raises(ValueError, match='--port=0 takes any free port'):
      command.serve(workdir, port=taken.getsockname()[1])


def test_extra_that_is_not_installed(workdir, monkeypatch):
  monkeypatch.setitem(sys.modules, 'uvicorn', None)
  with pytest.raises(ValueError, match=r'nat_jax\[serve\]'):
    command.serve(workdir)


def test_training_data_that_are_gone_are_done_without(clf, capsys):
  config = make_config()
  config['data']['positives'] = {'name': 'folder', 'path': '/nowhere'}
  gone = classifier.Classifier(
      clf.run._replace(config=config), clf.basis, clf.workdir)
  assert command._search(gone) is None
  assert 'without similar training pictures' in capsys.readouterr().out


@pytest.fixture(scope='module')
def address(workdir):
  """The address of a server that was started as a user starts it."""
  with subprocess.Popen(
      [sys.executable, '-m', 'nat_jax.main', '--mode=serve', '--workdir', workdir,
       '--port=0', '--threshold=0.5'], stdout=subprocess.PIPE, text=True,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1'}) as server:
    output = toy.wait_for(server, '(Ctrl-C stops)')
    yield re.search(r'http://127\.0\.0\.1:\d+', output)[0]
    server.send_signal(signal.SIGINT)
    assert 'stopped' in server.communicate(timeout=60)[0]
  assert server.returncode == 0


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  """Headless Chromium; skipped without it, unless NAT_JAX_BROWSER=1 requires it."""
  found = shutil.which('chromium'), shutil.which('chromedriver')
  if None in found and os.environ.get('NAT_JAX_BROWSER') != '1':
    pytest.skip('needs chromium and chromedriver')
  from selenium import webdriver

  options = webdriver.ChromeOptions()
  options.binary_location = found[0]
  profile = tmp_path_factory.mktemp('chromium')
  for one in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage',
              '--disable-gpu', f'--user-data-dir={profile}'):
    options.add_argument(one)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  driver = webdriver.Chrome(options, webdriver.ChromeService(found[1]))
  yield driver
  driver.quit()


DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], 'picture.png', {type: 'image/png'}));
document.dispatchEvent(new DragEvent('drop', {dataTransfer: data}));
"""


@pytest.mark.process
@pytest.mark.parametrize('width', [1200, 390])
def test_a_picture_in_a_browser(address, browser, clf, tmp_path, width):
  from selenium.webdriver.common.by import By
  from selenium.webdriver.support import expected_conditions, wait

  def verdict():
    place = expected_conditions.presence_of_element_located((By.ID, 'verdict'))
    return wait.WebDriverWait(browser, 60).until(place)

  images = data.load(SOURCE).image[:2]
  found = clf.predict(images)
  browser.set_window_size(width, 900)
  browser.get(address)
  browser.execute_script(DROP, base64.b64encode(png(images[0])).decode())
  shown = verdict()
  assert shown.text == found.names[0]
  bars = browser.find_elements(By.CSS_SELECTOR, 'rect.bar')
  tracks = browser.find_elements(By.CSS_SELECTOR, 'rect.track')
  shares = [bar.rect['width'] / track.rect['width']
            for bar, track in zip(bars, tracks, strict=True)]
  np.testing.assert_allclose(shares, np.sort(found.probabilities[0])[::-1], atol=0.01)
  # Nothing is wider than the window.
  assert browser.execute_script(
      'return document.documentElement.scrollWidth <= window.innerWidth')
  (tmp_path / 'second.png').write_bytes(png(images[1]))
  browser.find_element(By.ID, 'file').send_keys(str(tmp_path / 'second.png'))
  wait.WebDriverWait(browser, 60).until(expected_conditions.staleness_of(shown))
  assert verdict().text == found.names[1]
  browser.find_element(By.LINK_TEXT, 'Hardest negatives').click()
  assert 'none of the classes' in browser.page_source
  assert browser.get_log('browser') == []  # neither errors nor refused styles


@pytest.mark.process
def test_the_guide_runs(address, clf, tmp_path):
  """The requests of docs/serve.md, as they are written but for the port."""
  curl = shutil.which('curl')
  if curl is None:
    pytest.skip('needs curl')
  (tmp_path / 'photo.jpg').write_bytes(png(data.load(SOURCE).image[0]))
  text = (toy.ROOT / 'docs' / 'serve.md').read_text()
  requests = re.findall(r'^curl (.*)$', text, re.M)
  assert len(requests) == 2
  for request in requests:
    words = shlex.split(request.replace('http://127.0.0.1:8000', address))
    ran = subprocess.run([curl, '-sS', *words], cwd=tmp_path, capture_output=True,
                         text=True, check=True, timeout=60)
    assert json.loads(ran.stdout)['checkpoint']['crc32'] == clf.run.crc32
