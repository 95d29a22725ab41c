"""Segmenters: pasted regions, the update, folders of masks, from config to report."""

import copy
import json
import pathlib
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from PIL import Image

from nat_jax import data, losses, models, runs, train
from nat_jax.commands import report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.metrics import segmentation
from nat_jax.reports.report import load_run
from nat_jax.runtime import parallel
from nat_jax.task import GLOBAL
from nat_jax.tasks import segment
from nat_jax.tasks.segment import build, evaluate, step
from nat_jax.tasks.segment import report as segmenters
from nat_jax.tasks.segment.predict import palette

K, SHAPE, RATE = 4, (6, 5, 3), 0.1
get_config = toy.config_file('segment.py')


def make_trainer(loss='nat', **changes):
  sgd = optax.sgd(RATE)
  return segment.TRAINERS['segment'](**dict(
      segmenter=models.UNet(K, (3,)), generator=models.UNet(3, (3,)),
      discriminator=models.PatchDiscriminator(1, (3, 2)),
      objective=losses.make_objective({'name': loss}, K), tx=sgd, gan_tx=sgd,
      num_classes=K, image_shape=SHAPE, class_weights=(1.0, 2.0, 3.0, 4.0),
      adversarial_weight=0.7, l1_weight=2.0, synthetic_from=1) | changes)


def make_items(steps, n=8):
  """Batches of every set, whose slots 1 and 6 are empty; a third of the pixels void."""
  rng = np.random.default_rng(0)
  items = {}
  for name in ('real', 'base', 'region', 'drawn'):
    image = rng.integers(0, 256, (steps, n, *SHAPE[:2], 4), np.uint8)
    mask = rng.integers(0, K, image.shape[:-1])
    void = rng.random(mask.shape) < 1 / 3
    if name == 'region':
      mask, void[:] = mask * 0 + 3, True
      void[:, :, 1:3, 2:4] = False
    image[..., 3] = np.where(void, data.VOID, mask)
    weight = np.ones((steps, n), np.float32)
    weight[:, [1, 6]] = 0
    items[name] = {
        'image': image, 'label': np.zeros((steps, n), np.int32), 'weight': weight}
  return items


pasted = jax.jit(
    lambda batch, seed: step.pasted(batch, jax.random.key(seed), GLOBAL)['image'])


def first(items):
  return jax.tree.map(lambda x: x[0], items)


# Pasting.


def make_region(rows, columns, num):
  """`num` regions of class 3 at one place of 6 x 5, whose pixels are all different."""
  image = np.full((num, *SHAPE[:2], 4), data.VOID, np.uint8)
  image[:, rows, columns, 3] = 3
  inside = image[0, ..., 3] == 3
  image[:, inside, :3] = np.arange(inside.sum() * 3).reshape(-1, 3)
  return image, inside


def test_a_region_is_pasted_whole_anywhere_and_mirrored():
  num = 400
  image, inside = make_region(slice(3, 6), slice(0, 2), num)
  cut = image[0, 3:6, :2, :3]
  base = np.full_like(image, 200)
  base[..., 3] = 0
  batch = {name: {'image': one, 'weight': np.ones(num, np.float32)}
           for name, one in (('base', base), ('region', image))}
  made = np.asarray(pasted(batch, 0))
  corners, mirrored = set(), 0
  for one in made:
    there = one[..., 3] == 3
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    assert there.sum() == inside.sum() and (len(rows), len(columns)) == (3, 2)
    corners.add((rows[0], columns[0]))
    patch = one[rows[0]:rows[0] + 3, columns[0]:columns[0] + 2, :3]
    flipped = np.array_equal(patch, cut[:, ::-1])
    assert flipped or np.array_equal(patch, cut)
    mirrored += flipped
    assert (one[~there] == base[0, 0, 0]).all()
  assert corners == {(r, c) for r in range(4) for c in range(4)}
  assert 160 < mirrored < 240


def test_pasting_depends_on_the_key_and_the_position_alone():
  items = first(make_items(1))
  short = jax.tree.map(lambda x: x[:4], items)
  made, other = (np.asarray(pasted(items, seed)) for seed in (1, 2))
  np.testing.assert_array_equal(made[:4], pasted(short, 1))
  assert (made != other).any()


# The update.


@pytest.fixture(scope='module')
def updated():
  """(an initial state, the compiled step), whose synthetic pairs enter at update 1."""
  trainer = make_trainer()
  return jax.jit(trainer.init)(jax.random.key(1)), jax.jit(trainer.step)


def test_an_update_is_that_of_the_formulas(updated):
  """D, G against the new D, S on real and synthetic pixels, written out anew."""
  trainer, items = make_trainer(), first(make_items(1))
  state, update = updated
  state = state.replace(step=np.int32(1))
  after, found = update(state, {}, items)
  disc_key, gen_key, made_key = step.step_keys(state)
  filled = np.array([0, 2, 3, 4, 5, 7])
  images, labels = {}, {}
  for name in ('real', 'drawn'):
    images[name] = items[name]['image'][filled, ..., :3] / np.float32(127.5) - 1
    mask = items[name]['image'][filled, ..., 3].astype(int)
    labels[name] = np.where(mask == 255, -1, mask)
  setup = step.Setup(**dict(
      segmenter=None, objective=None, tx=None, gan_tx=None, num_classes=K,
      image_shape=SHAPE, class_weights=(), generator=models.UNet(3, (3,))))

  def fake(params, key):
    mask = items['drawn']['image'][..., 3].astype(int)
    return step.generated(
        setup, params, np.where(mask == 255, -1, mask), key, GLOBAL)[filled]

  hot = np.eye(5, dtype=np.float32)[labels['drawn'] % 5]  # the void is class 4

  def disc(params, x):
    return models.PatchDiscriminator(1, (3, 2)).apply(
        {'params': params}, jnp.concatenate([hot, x], -1))

  def disc_loss(params):
    p, q = (jax.nn.sigmoid(disc(params, x)) for x in (
        images['drawn'], fake(state.nets['generator'].params, disc_key)))
    return -jnp.mean(jnp.log(p) + jnp.log(1 - q))

  def gen_loss(params):
    x = fake(params, gen_key)
    return (0.7 * -jnp.mean(jax.nn.log_sigmoid(
        disc(after.nets['discriminator'].params, x)))
        + 2 * jnp.mean(jnp.abs(x - images['drawn'])))

  made = np.asarray(jax.jit(trainer.heads['synthetic'])(
      state.replace(nets=after.nets), items))[filled]  # the generator of this step
  x = np.concatenate([images['real'], made[..., :3] / np.float32(127.5) - 1])
  mask = made[..., 3].astype(int)
  y = np.concatenate([labels['real'], np.where(mask == 255, -1, mask)])

  def segment_loss(params):
    p = jax.nn.softmax(models.UNet(K, (3,)).apply({'params': params}, x))
    right = jnp.take_along_axis(p, jnp.maximum(y, 0)[..., None], -1)[..., 0]
    uniform = -jnp.log(K) - jnp.log(p).mean(-1)
    return jnp.where(y < 0, uniform, -(y + 1) * jnp.log(right)).mean()

  for name, loss, figure in (
      ('discriminator', disc_loss, 'loss_disc'), ('generator', gen_loss, 'loss_gen'),
      ('segmenter', segment_loss, 'loss')):
    before = state.nets[name].params
    value, slope = jax.jit(jax.value_and_grad(loss))(before)
    # Pictures of the head are rounded to 8 bits.
    close = dict(rtol=2e-3, atol=2e-4) if name == 'segmenter' else dict(
        rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        trainer.figures(found)[figure], value, rtol=close['rtol'])
    toy.assert_descended(before, after.nets[name].params, slope, RATE, **close)
  assert trainer.figures(found)['images'] == 6


@pytest.fixture(scope='module')
def on_one():
  items = make_items(2)
  return items, toy.run_on_devices(make_trainer(), 1, 'jit', items)


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['jit', 'pmap'])
def test_devices_do_not_matter_and_every_network_learns(on_one, mode):
  items, (one, figures, before) = on_one
  other, more, _ = toy.run_on_devices(make_trainer(), 8, mode, items)
  toy.assert_trees_close(one.nets, other.nets, rtol=1e-4, atol=1e-5)
  read = make_trainer().figures
  toy.assert_figures_close(read(figures), read(more), rtol=1e-4, atol=1e-5)
  assert set(one.nets) == {'segmenter', 'generator', 'discriminator'}
  for name, net in before.items():
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(
        jax.tree.leaves(net.params), jax.tree.leaves(one.nets[name].params),
        strict=True)), name


def test_synthetic_pairs_enter_at_their_update(updated):
  """At update 1; before it the segmenter is that of an update without them."""
  state, update = updated
  items = first(make_items(1))
  none = {**items, 'base': {**items['base'], 'weight': np.zeros(8, np.float32)}}
  for at, enter in ((0, False), (1, True)):
    one, other = (
        update(state.replace(step=np.int32(at)), {}, given)[0].nets
        for given in (items, none))
    moved = [np.abs(a - b).max() for a, b in zip(
        *(jax.tree.leaves(nets['segmenter'].params) for nets in (one, other)),
        strict=True)]
    assert (max(moved) > 1e-5) == enter, (at, moved)
    assert enter or max(moved) == 0


def test_without_nat_the_void_is_in_no_gradient():
  """What a picture of void only shows changes no parameter."""
  trainer = make_trainer('cross_entropy', generator=None, discriminator=None)
  items = {'real': first(make_items(1))['real']}
  changed = copy.deepcopy(items)
  changed['real']['image'][0, ..., :3] = 7
  state = jax.jit(trainer.init)(jax.random.key(0))
  assert set(state.nets) == {'segmenter'}
  assert (items['real']['image'][0, ..., 3] != 255).any()
  for batch in (items, changed):
    batch['real']['image'][0, ..., 3] = 255
  update = jax.jit(trainer.step)
  nets = [update(state, {}, batch)[0].nets for batch in (items, changed)]
  toy.assert_trees_close(*nets, rtol=1e-6, atol=1e-7)


# Inputs.


def small(variant, **changes):
  config = get_config(variant).to_dict()
  config = toy.change(
      config, steps=4, trainer__synthetic_from=1, eval_batch_size=20,
      segmenter={'name': 'unet', 'widths': (3,)},
      run=dict(config['run'], log_every=2, checkpoint_every=2, updates_per_call=2,
               tensorboard=False))
  for entry in config['evals'].values():
    toy.change(entry, source__num=24, source__num_rare=4)
  for name in ('generator', 'discriminator'):
    if config[name]:
      config[name] = dict(config[name], widths=(3,))
  return toy.change(config, **changes)


def test_sets_of_a_batch():
  config = runs.resolve(small('gan'))
  inputs = build.load(config)
  pairs = build.load_training(config)
  assert config['rare'] == [3] and inputs.class_names[3] == 'gravel'
  rare = (pairs.mask == 3).any((1, 2))
  assert rare.sum() == 3 and inputs.shape == (16, 16, 4)
  taken = {'real': [], 'base': []}
  for at in range(15):
    index = inputs.stream.index(at)
    assert sum(map(len, index.values())) == inputs.stream.num_slots
    assert rare[index['drawn'][8:]].all() and len(index['drawn']) == 16
    assert (index['region'] >= 60).all()
    for name, rows in taken.items():
      rows += index[name].tolist()
  # Every region lies in a picture of the training.
  for row in range(60, len(inputs.pool.image)):
    inside = inputs.pool.image[row, ..., 3] == 3
    assert inside.any() and (inputs.pool.image[row, ..., 3][~inside] == 255).all()
    of = [k for k in np.flatnonzero(rare)
          if np.array_equal(pairs.image[k], inputs.pool.image[row, ..., :3])]
    assert len(of) == 1 and (pairs.mask[of[0]][inside] == 3).all()
  # Batches go through epochs of 60: 40 positions of each 16 are used here.
  for rows in taken.values():
    assert set(rows) <= set(range(60)) and len(set(rows)) > 50


def test_balanced_factors():
  config = runs.resolve(small('weighted'))
  counts = np.bincount(build.load_training(config).mask.ravel(), minlength=256)[:4]
  factors = config['data']['class_weights']
  np.testing.assert_allclose(factors, counts.sum() / 4 / counts)
  assert factors[3] > 10


@pytest.mark.parametrize('changes, named', [
    (dict(data__void=3), ['data.void=3', '0..3', '255']),
    (dict(rare=(4,)), ['rare=[4]', '0..3']),
    (dict(generator={}), ['discriminator={}']),
    (dict(trainer__synthetic_from=4), ['trainer.synthetic_from=4', 'steps=4', 'lower']),
    (dict(data__pasted_per_batch=0), ['pasted_per_batch=0', 'generator={}']),
    (dict(segmenter={'name': 'patch_discriminator'}),
     ['segmenter', '16 x 16', '8 x 8']),
    (dict(segmenter={'name': 'unet', 'widths': ()}), ['segmenter.widths']),
    (dict(loss={'name': 'background'}), ['loss', 'background']),
    (dict(data__pairs__num_rare=0), ['gravel', 'training masks']),
    (dict(data__pairs__kinds=('fog',)), ["'fog'", 'stripes']),
    (dict(num_classes=5), ['num_classes=5', '4']),
    (dict(data__class_weights=(1, 2)), ['class_weights', '4', '2']),
    (dict(reference='x'), ["reference='x'", 'test']),
    (dict(data__batch_size=12), ['batch_size 12', '8 devices']),
    (dict(data__pasted_per_batch=12), ['pasted_per_batch 12', '8 devices']),
    (dict(evals__test__positive=True), ["evals.test.'positive'", 'seen']),
    (dict(data__pairs__name='digits'), ["'digits'", 'masks, scenes'])])
def test_mistakes(changes, named, tmp_path, eight_devices):
  with pytest.raises((ValueError, TypeError)) as error:
    train.train(small('gan', **changes), str(tmp_path / 'run'))
  assert all(text in str(error.value) for text in named), error.value
  assert not (tmp_path / 'run').exists()


def test_every_variant_builds():
  names = ('real', 'weighted', 'copy_paste', 'gan', 'l1', 'nat', 'copy_paste_nat')
  with pytest.raises(ValueError) as error:
    get_config('?')
  assert all(name in str(error.value) for name in names)
  for name in names:
    config = runs.resolve(get_config(name))
    inputs = build.load(config, 8)
    trainer = runs.build_trainer(config, inputs.shape)
    if name not in ('gan', 'copy_paste_nat'):  # the others have parts of these
      continue
    batch = data.gather(inputs.pool, inputs.stream.index(0))
    state = jax.eval_shape(trainer.init, jax.random.key(0))
    after, _ = jax.eval_shape(trainer.step, state, {}, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state), name


# Runs.


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('segment') / 'whole'
  return workdir, train.train(small('gan'), str(workdir))


@pytest.mark.slow
def test_trained_resumed_evaluated_and_reported(whole, tmp_path):
  whole, evaluation = whole
  cut = tmp_path / 'cut'
  shutil.copytree(whole, cut)
  (cut / 'eval.json').unlink()
  shutil.rmtree(cut / 'checkpoints' / '4')
  train.train(small('gan'), str(cut))  # from update 2 on
  for a, b in zip(toy.final_state(whole), toy.final_state(cut), strict=True):
    np.testing.assert_array_equal(a, b)
  assert (whole / 'eval.json').read_bytes() == (cut / 'eval.json').read_bytes()
  before = toy.arrays(whole / 'examples' / 'synthetic.npz')
  evaluate_run(str(whole))
  assert json.loads((whole / 'eval.json').read_text()) == evaluation
  for name, array in toy.arrays(whole / 'examples' / 'synthetic.npz').items():
    np.testing.assert_array_equal(array, before[name])
  text = ' '.join(report.tables([str(whole)]).split())
  for words in ('mIoU', 'not the pixel accuracy', 'gravel', 'stripes (void: not seen)',
                'Rare: gravel', f'{evaluation["evals"]["test"]["miou"]:.3f}'):
    assert words in text, words
  run = load_run(str(whole))
  run['evaluation']['class_names'] = []
  table = segment.TASK.tables({'gan': [run]})[0]
  assert table.header[-4:] == [f'class {k}' for k in range(4)]
  assert 'Rare: class 3' in table.title
  page = pathlib.Path(report.write([str(whole)], str(tmp_path / 'report')))
  for name in ('predictions', 'synthetic'):
    assert (page.parent / 'figures' / f'{name}.png').stat().st_size > 1000


@pytest.mark.slow
def test_figures_are_those_of_the_pixels(whole):
  workdir, evaluation = whole
  run = runs.restore(str(workdir))
  for name in ('test', 'stripes'):
    entry, found = run.config['evals'][name], evaluation['evals'][name]
    pairs = data.load_pairs(entry['source'], 4, 255)
    logits = np.asarray(run.trainer.heads['logits'](run.state, pairs.image), float)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    kept = pairs.mask != 255
    right = (logits.argmax(-1) == pairs.mask)[kept]
    assert found['pixel_accuracy'] == pytest.approx(right.mean())
    for k in range(4):
      a, b = ((one == k)[kept] for one in (logits.argmax(-1), pairs.mask))
      union = (a | b).sum()
      assert found['iou'][k] == pytest.approx((a & b).sum() / union) if union else (
          found['iou'][k] is None)
    known = [one for one in found['iou'] if one is not None]
    assert found['miou'] == pytest.approx(np.mean(known))
    assert found['rare_iou'] == found['iou'][3]
    assert found['void_pixels'] == (~kept).sum() > 50
    assert found['void_ncr']['0.4'] == pytest.approx(
        (p.max(-1)[~kept] > 0.4).mean(), abs=2e-3)
    assert found['par']['0.4'] == pytest.approx(
        (p.max(-1)[kept] > 0.4).mean(), abs=2e-3)


def test_confusion_leaves_the_void_out():
  counts = segmentation.confusion([[0, 1], [2, 2]], [[0, 2], [255, 2]], 4)
  assert counts.sum() == 3 and counts[2].tolist() == [0, 1, 1, 0]
  np.testing.assert_allclose(
      segmentation.intersection_over_union(counts), [1, 0, 0.5, np.nan])
  assert segmentation.pixel_accuracy(counts) == pytest.approx(2 / 3)
  with pytest.raises(ValueError, match=r'0\.\.1.*2'):
    segmentation.confusion([2], [0], 2)


def test_a_reference_without_a_class_is_refused(monkeypatch):
  mask = np.full((2, 3, 3), data.VOID, np.uint8)
  pairs = data.Pairs(np.zeros((2, 3, 3, 3), np.uint8), mask)
  monkeypatch.setattr(build, 'load_pairs', lambda *args: pairs)
  config = small('real')
  with pytest.raises(ValueError, match="'test', the reference.*2 masks are void"):
    evaluate._load(config, 'test', 3)
  assert evaluate._load(config, 'blank', 3) is pairs


@pytest.mark.parametrize('found, headline, sentence', [
    ({'miou': 0.5, 'rare_iou': 0.25}, 'mIoU 0.500, rare IoU 0.250', 'about rare'),
    ({'miou': 0.5, 'rare_iou': None}, 'mIoU 0.500 on', 'accuracy is 0.750.'),
    ({'miou': None, 'rare_iou': None}, 'no IoU is known', 'show no class')])
def test_a_verdict_says_what_is_known(found, headline, sentence):
  run = {'reference': 'test', 'evals': {'test': {
      **found, 'pixel_accuracy': found['miou'] and 0.75}}}
  (said, sentences), = segment.TASK.verdict({'nat': [run]})
  assert said.startswith(f'nat: {headline}') and said.endswith(' on test.')
  assert len(sentences) == 1 and sentence in sentences[0]


def test_the_legend_has_the_colours_of_all_classes():
  """A sheet shows 16 pictures."""
  colours, names = palette(), [f'c{k}' for k in range(35)]
  found = segmenters._legend(colours, names)
  assert list(found) == [
      'classes', 'classes, from number 16', 'classes, from number 32']
  assert [shown for _, shown in found.values()] == [
      names[:16], names[16:32], names[32:]]
  np.testing.assert_array_equal(
      np.concatenate([image for image, _ in found.values()])[:, 0, 0], colours[:35])


def test_pictures_none_of_which_can_be_read(tmp_path):
  (tmp_path / 'bad.png').write_bytes(b'no picture')
  run = types.SimpleNamespace(
      config=small('real'), shape=(16, 16, 4), mesh=parallel.make_mesh(),
      trainer=types.SimpleNamespace(heads={'pixels': lambda *args: None}))
  with pytest.raises(ValueError, match='got none among 1: .*bad.png .cannot identify'):
    segment.TASK.predict(run, str(tmp_path / 'run'), [str(tmp_path)])
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_predicted_masks(whole, tmp_path, monkeypatch, capsys):
  """Of pictures of any size; the masks are those that the source 'masks' reads."""
  workdir, _ = whole
  rng = np.random.default_rng(0)
  (tmp_path / 'new').mkdir()
  pictures = {'a': (16, 16), 'b': (11, 20)}
  for name, shape in pictures.items():
    pictures[name] = rng.integers(0, 256, (*shape, 3), np.uint8)
    Image.fromarray(pictures[name]).save(tmp_path / 'new' / f'{name}.png')
  (tmp_path / 'new' / 'bad.png').write_bytes(b'no picture')
  toy.run_main(monkeypatch, '--mode=predict', f'--workdir={workdir}',
               f'--images={tmp_path / "new"}', f'--out={tmp_path / "out"}')
  shown = capsys.readouterr().out
  assert '2 pictures segmented' in shown and 'bad.png' in shown and 'ground' in shown
  with pytest.raises(SystemExit, match='of segmenters has no --top'):
    toy.run_main(monkeypatch, '--mode=predict', f'--workdir={workdir}', '--top=2',
                 f'--images={tmp_path / "new"}')
  run = runs.restore(str(workdir))
  for name, picture in pictures.items():
    p = np.asarray(jax.nn.softmax(run.trainer.heads['logits'](
        run.state, picture[None]))[0])
    with Image.open(tmp_path / 'out' / 'masks' / f'{name}.png') as mask:
      assert mask.mode == 'P'
      np.testing.assert_array_equal(np.asarray(mask), p.argmax(-1))
      np.testing.assert_array_equal(
          np.asarray(mask.convert('RGB')), palette()[p.argmax(-1)])
    with Image.open(tmp_path / 'out' / 'confidence' / f'{name}.png') as grey:
      np.testing.assert_allclose(np.asarray(grey), 255 * p.max(-1), atol=0.51)
  (tmp_path / 'new' / 'a.jpg').write_bytes(b'')
  with pytest.raises(ValueError, match="different names.*'a' twice"):
    segment.TASK.predict(run, str(workdir), [str(tmp_path / 'new')])
  assert not (workdir / 'predictions').exists()


def test_a_run_of_folders(tmp_path):
  """Grey pictures that are resized, a void of another number, names of classes."""
  rng = np.random.default_rng(0)
  for part in ('train', 'test'):
    for kind in ('images', 'masks'):
      (tmp_path / part / kind).mkdir(parents=True)
    for k in range(6):
      mask = rng.integers(0, 3, (9, 10), np.uint8)
      mask[:4], mask[5, 5] = 99, 2
      Image.fromarray(mask * 60).save(tmp_path / part / 'images' / f'{k}.png')
      Image.fromarray(mask).save(tmp_path / part / 'masks' / f'{k}.png')
  config = get_config(f'copy_paste:{tmp_path}').to_dict()
  config = toy.change(
      config, steps=2, num_classes=3, rare=(2,), data__void=99, data__batch_size=8,
      data__pasted_per_batch=8, data__image_size=8, run__tensorboard=False,
      segmenter=dict(name='unet', widths=(2,)))
  for spec in (config['data']['pairs'], config['evals']['test']['source']):
    spec.update(mode='L', names=('sky', 'road', 'car'))
  workdir = tmp_path / 'run'
  found = train.train(config, str(workdir))
  assert found['class_names'] == ['sky', 'road', 'car']
  assert 6 * 24 <= found['evals']['test']['void_pixels'] <= 6 * 32  # of 8 x 8
  segment.TASK.predict(runs.restore(str(workdir)), str(workdir),
                       [str(tmp_path / 'test' / 'images')])
  made = sorted((workdir / 'predictions' / 'masks').iterdir())
  assert len(made) == 6 and np.asarray(Image.open(made[0])).shape == (8, 8)
