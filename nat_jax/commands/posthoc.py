"""Evaluates post-hoc confidence scores (energy, KNN, ViM, ...) of a checkpoint.

    found = posthoc('runs/digits')                  # all scores, the newest checkpoint
    found = posthoc('runs/digits', scores=['energy', 'gen'], per_set=1000)
    found['scores']['gen']['noise']['auroc']
    print(text(found))

It takes any classifier, trained with negatives or without, and writes posthoc.json. The
scores are functions of logits, features and the output layer; some are fitted to
training positives, none to a test set. A background output is ignored by all of them;
eval.json has the run's own confidence, with the background.
"""

import functools
import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import data, metrics, runs, schema
from nat_jax.commands import flags
from nat_jax.metrics import confidences, detection_metrics
from nat_jax.reports import tables
from nat_jax.runtime import files, inference, writers
from nat_jax.tasks import images as images_lib
from nat_jax.tasks.classify import inputs

POSTHOC = 'posthoc.json'
NUM_TRAIN = 10_000  # most training positives that scores are fitted to
SEED = 0  # of the samples of training positives and of test images
NEIGHBOURS = 50
ODIN = dict(temperature=1000.0, epsilon=0.0014)
ODIN_WORK = 3  # passes per image: forward, back to the image, forward of the moved one
BATCHES = 8  # per call of the network, between two reports of progress
TIMED = 8  # fewer batches are not timed: the time of a few varies too much
REPORT = 5.0  # least seconds between two lines of progress within a set


class Outputs(NamedTuple):
  """The outputs of the network for an evaluation set.

  Attributes:
    features: [n, d].
    logits: [n, c].
    odin_logits: [n, c], the logits of the images perturbed by ODIN; None where they are
      not computed.
  """

  features: np.ndarray
  logits: np.ndarray
  odin_logits: np.ndarray | None = None


class Fit(NamedTuple):
  """The training data and the output layer, which some scores are fitted to.

  Attributes:
    features: [m, d] of training positives.
    logits: [m, c] of training positives.
    kernel: [d, c] of the output layer.
    bias: [c] of the output layer.
    labels: [m] of training positives.
  """

  features: np.ndarray
  logits: np.ndarray
  kernel: np.ndarray
  bias: np.ndarray
  labels: np.ndarray

  @property
  def neighbours(self) -> int:
    """k of knn: 50, but at most a tenth of the examples per class.

    So the k nearest neighbours of a positive can all be of its class.
    """
    return max(1, min(NEIGHBOURS, len(self.features) // (10 * len(self.bias))))


SCORES: dict[str, Callable[[Outputs, Fit], np.ndarray]] = {
    'max_softmax': lambda x, fit: confidences.max_softmax(x.logits),
    'max_logit': lambda x, fit: confidences.max_logit(x.logits),
    'energy': lambda x, fit: confidences.energy(x.logits),
    'gen': lambda x, fit: confidences.gen(x.logits),
    'odin': lambda x, fit: confidences.max_softmax(x.odin_logits, ODIN['temperature']),
    'ash': lambda x, fit: confidences.ash(x.features, fit.kernel, fit.bias),
    'react': lambda x, fit: confidences.react(
        x.features, fit.features, fit.kernel, fit.bias),
    'she': lambda x, fit: confidences.she(
        x.features, x.logits, fit.features, fit.logits, fit.labels),
    'knn': lambda x, fit: confidences.knn(x.features, fit.features, fit.neighbours),
    'vim': lambda x, fit: confidences.vim(
        x.features, x.logits, fit.features, fit.logits, fit.kernel, fit.bias),
    'mahalanobis': lambda x, fit: confidences.mahalanobis(
        x.features, fit.features, fit.labels),
    'relative_mahalanobis': lambda x, fit: confidences.mahalanobis(
        x.features, fit.features, fit.labels, relative=True),
}
UNFITTED = ('max_softmax', 'max_logit', 'energy', 'gen', 'odin')  # these need no `Fit`
LAYER_ONLY = ('ash',)  # use the output layer of `Fit` only
# Short names that the literature uses.
ALIASES = {'msp': 'max_softmax', 'mls': 'max_logit', 'mds': 'mahalanobis',
           'rmds': 'relative_mahalanobis'}


def choose(names: Sequence[str] | None) -> list[str]:
  """The names in `SCORES` that `names` asks for, in the order of `SCORES`.

  Args:
    names: of scores, full or as in `ALIASES`; None: all.

  Raises:
    ValueError: an unknown name, or none at all.
  """
  if names is None:
    return list(SCORES)
  wanted = {ALIASES.get(name, name) for name in names}
  unknown = sorted(wanted - set(SCORES))
  if unknown or not wanted:
    what = f'unknown score {unknown[0]!r}' if unknown else 'no score is named'
    raise ValueError(f'{what}; valid: {", ".join(SCORES)}; or, for short: ' + ', '.join(
        f'{short} = {name}' for short, name in ALIASES.items()))
  return [name for name in SCORES if name in wanted]


def posthoc(
    workdir: str, step: int | None = None, scores: Sequence[str] | None = None,
    per_set: int | None = None,
) -> dict[str, Any]:
  """Computes detection metrics of every test set; writes posthoc.json.

  Args:
    workdir: of a run.
    step: of the checkpoint; None: the newest.
    scores: names for `choose`; None: all.
    per_set: of a test set with more images a random sample of this number, drawn with
      seed 0, is used; None: all images.

  Returns:
    The content of posthoc.json: 'scores' {name in SCORES: {negative set: detection
    metrics}}, 'seen_in_training' {negative set: bool}, 'step', 'reference',
    'num_images' {set: [used, in the set]}, 'num_train' [used, in the training set],
    'seed' of the samples, 'neighbours' (k of knn; None without a fitted score), and
    'milliseconds' per image of the network, {'forward', 'with_odin'}; None where fewer
    than 8 batches were timed.

  Raises:
    ValueError: an unknown score, `per_set` below 1, no checkpoint, none of that step,
      or, for a score that is fitted, a network whose logits are not a 'head' layer of
      its features.
  """
  chosen = choose(scores)
  if per_set is not None and per_set < 1:
    raise ValueError(f'per_set must be 1 or more images, got {per_set}')
  restored = runs.restore(workdir, step, 'classify')
  config, num_classes = restored.config, restored.config['num_classes']
  forward = _program(restored, odin=False)
  measure = _program(restored, odin=True) if 'odin' in chosen else forward
  work = ODIN_WORK if 'odin' in chosen else 1

  train, num_train = None, [0, 0]
  if set(chosen) - set(UNFITTED):
    train, num_train = _take(images_lib.load_sets(config, False)[0], NUM_TRAIN)
  sets = _test_sets(config)
  taken = {name: _take(one.arrays, per_set) for name, one in sets.items()}
  report = _Report(num_train[0] + work * sum(used for _, (used, _) in taken.values()))
  if work > 1:
    report.say(
        f'odin takes {ODIN_WORK} passes of the network per test image instead of one, '
        'which is most of the time; --scores without odin, or --per_set, saves it')

  fit, times = None, {'forward': [], 'with_odin': []}
  if train is not None:
    found, took = _apply(forward, train.image, config, functools.partial(
        report, 'training positives', 1))
    times['forward'].append(took)
    kernel, bias = _output_layer(restored.state, found.features, found.logits)
    fit = Fit(found.features, found.logits[:, :num_classes], kernel[:, :num_classes],
              bias[:num_classes], train.label)
  confidence = {}
  for name, (one, _) in taken.items():
    found, took = _apply(
        measure, one.image, config, functools.partial(report, name, work))
    times['with_odin' if work > 1 else 'forward'].append(took)
    outputs = Outputs(found.features, *(
        None if x is None else x[:, :num_classes] for x in found[1:]))
    confidence[name] = {score: SCORES[score](outputs, fit) for score in chosen}
  reference = confidence[config['reference']]
  negative = [name for name, one in sets.items() if not one.positive]
  content = {
      'step': restored.step, 'reference': config['reference'], 'seed': SEED,
      'num_images': {name: number for name, (_, number) in taken.items()},
      'num_train': num_train,
      'neighbours': fit and fit.neighbours,
      'milliseconds': {what: _per_image(took, config['eval_batch_size'])
                       for what, took in times.items()},
      'seen_in_training': {name: sets[name].seen for name in negative},
      'scores': {
          score: {name: detection_metrics(reference[score], confidence[name][score])
                  for name in negative}
          for score in chosen},
  }
  if jax.process_index() == 0:
    files.write_json(os.path.join(workdir, POSTHOC), content)
  return content


def _test_sets(config):
  """The sets of part 'test', but for corrupted images."""
  sets = inputs.load_evals(config, parts=[schema.TEST])
  return {name: one for name, one in sets.items() if not one.corrupt}


def text(found: dict[str, Any]) -> str:
  """The result of `posthoc` as two tables, AUROC and FPR95, by score and set."""
  def count(pair):
    return f'{pair[0]:,} of {pair[1]:,}' if pair[0] < pair[1] else f'{pair[1]:,}'

  reference, images = found['reference'], found['num_images']
  names = {name: f'{name} ({"seen" if seen else "unseen"}, {count(images[name])})'
           for name, seen in found['seen_in_training'].items()}
  about = f' of each score, against {reference!r} ({count(images[reference])}).'
  fitted = [name for name in found['scores'] if name not in UNFITTED + LAYER_ONLY]
  if fitted:
    about += (f' Fitted to {count(found["num_train"])} training positives: '
              f'{", ".join(fitted)}')
    about += f' (knn: k = {found["neighbours"]}).' if 'knn' in fitted else '.'
  if any(used < there for used, there in (*images.values(), found['num_train'])):
    about += f' Samples are drawn with seed {found["seed"]}.'
  ms = found['milliseconds']
  if ms['with_odin'] and ms['forward']:
    share = max(1 - ms['forward'] / ms['with_odin'], 0)
    about += (f' odin took {share:.0%} of the time of the network: '
              f'{ms["with_odin"]:.3g} ms per image with it, {ms["forward"]:.3g} ms '
              'without.')

  def table(key, words):
    metric = metrics.METRICS[key]
    return tables.Table(
        f'{metric.title} ({metric.better} is better){words}',
        ['score', *names.values()],
        [[score, *(f'{figures[name][key]:.{metric.digits}f}' for name in names)]
         for score, figures in found['scores'].items()])

  return '\n'.join(table(key, words).markdown() for key, words in {
      'auroc': about,
      'fpr95_id_positive': ': share of negatives accepted where 95 % of positives are.',
  }.items())


def _take(arrays, most):
  """Returns (`data.Arrays`, [number used, number there]).

  Of more than `most` images a sample is drawn with `SEED`. Without it, images that are
  read from disk when they are asked for stay there. None: no sample.
  """
  total = len(arrays.label)
  if most is None or total <= most:
    return arrays, [total, total]
  rows = np.sort(np.random.default_rng(SEED).permutation(total)[:most])
  return data.Arrays(arrays.image[rows], arrays.label[rows]), [most, total]


def _program(restored, odin):
  """images [n, h, w, c] -> `Outputs` of all outputs of the network, by one program."""
  config, state, heads = restored.config, restored.state, restored.trainer.heads
  several = [heads['features'], heads['logits']]
  one = np.zeros((1, *restored.shape), np.uint8)
  widths = [jax.eval_shape(head, state, one).shape[1] for head in several]
  if odin:
    normalise = functools.partial(
        data.normalise, mean=config['data']['mean'], std=config['data']['std'])
    several.append(odin_head(
        _float32_logits(restored), config['num_classes'], normalise, **ODIN))
  predict = inference.make_predict(
      lambda state, images: jnp.concatenate(
          [head(state, images) for head in several], axis=1),
      restored.mesh, config['eval_batch_size'])

  def run(images):
    parts = np.split(predict(state, images), np.cumsum(widths)[:len(several) - 1], 1)
    return Outputs(*parts)

  return run


def _apply(program, images, config, report):
  """Applies a program to images, some batches at a time.

  Returns:
    (`Outputs`, (seconds, batches) after the first batch, which includes compilation).
  """
  size, found, began = config['eval_batch_size'], [], None
  ends = [0, *range(size, len(images), BATCHES * size), len(images)]
  for low, high in itertools.pairwise(ends):
    found.append(program(images[low:high]))
    report(high - low, high, len(images))
    began = began or time.monotonic()
  outputs = Outputs(*(None if parts[0] is None else np.concatenate(parts)
                      for parts in zip(*found, strict=True)))
  return outputs, (time.monotonic() - began, -(-(len(images) - ends[1]) // size))


def _per_image(took, size):
  """Milliseconds per image of a list of (seconds, batches of `size`); None for few."""
  seconds, batches = map(sum, zip(*took, strict=True)) if took else (0, 0)
  return 1e3 * seconds / batches / size if batches >= TIMED else None


class _Report:
  """Lines of progress: images of a set, and the time left for all sets."""

  def __init__(self, total: int):
    """Starts the clock; `total` is the number of passes of single images to do."""
    self.total, self.done, self.work, self.before = total, 0, 0, 0
    self.start = self.shown = self.latest = time.monotonic()

  def __call__(self, name: str, work: int, new: int, done: int, images: int) -> None:
    """Counts `new` images with `work` passes each; `done` of the set's `images` are."""
    if work != self.work:  # another program, whose passes may be slower
      self.work, self.start, self.before = work, self.latest, self.done
    self.done += work * new
    self.latest = time.monotonic()
    if done < images and self.latest - self.shown < REPORT:
      return
    self.shown = self.latest
    left = ((self.latest - self.start) / (self.done - self.before)
            * (self.total - self.done))
    self.say(f'{name}: {done:,} of {images:,} images  ETA {writers.clock(left)}')

  def say(self, line: str) -> None:
    """Prints a line, by the first process only."""
    if jax.process_index() == 0:
      print(line, flush=True)


def odin_head(
    head: Callable[[Any, jax.Array], jax.Array], num_classes: int,
    normalise: Callable[[jax.Array], jax.Array], temperature: float, epsilon: float,
) -> Callable[[Any, jax.Array], jax.Array]:
  """Makes a head that returns the logits of ODIN's perturbed images.

  x' = x + epsilon sign(d/dx log max_j p_j),  p = softmax(o(x) / T), x normalised.

  Args:
    head: (state, images [n, h, w, c]) -> logits [n, k]; it must not mix images.
    num_classes: outputs 0..num_classes-1 are classes.
    normalise: of uint8 images, as in training; returns float32 images as they are.
    temperature: T.
    epsilon: size of the perturbation, in normalised units.

  Returns:
    (state, images) -> logits [n, k] of the perturbed images.

  Reference: Liang, Li, Srikant, "Enhancing The Reliability of Out-of-distribution
  Image Detection in Neural Networks", ICLR 2018.
  """

  def log_p(images, state):
    logits = head(state, images)[:, :num_classes]
    # The factor T keeps the size of the gradient and does not change its sign.
    return temperature * jax.nn.log_softmax(logits / temperature).max(axis=1).sum()

  def moved(state, images):
    images = normalise(images)
    return head(state, images + epsilon * jnp.sign(jax.grad(log_p)(images, state)))

  return moved


def _float32_logits(restored):
  """The head 'logits' in float32.

  In bfloat16 most of ODIN's perturbations would be rounded to 0 and the others would be
  ten times as large.
  """
  model = restored.config['model']
  if model.get('dtype', 'float32') == 'float32':
    return restored.trainer.heads['logits']
  config = {**restored.config, 'model': {**model, 'dtype': 'float32'}}
  trainer = runs.build_trainer(config, restored.shape)
  return trainer.heads['logits']


def _output_layer(state, features, logits):
  """Kernel and bias of the layer 'head'; ValueError unless it computes the logits."""
  params = state.ema.get('model', state.nets['model'].variables)['params']
  flat = flax.traverse_util.flatten_dict(params)
  found = {path[-1]: np.asarray(x) for path, x in flat.items() if 'head' in path[-2:-1]}
  if set(found) == {'kernel', 'bias'} and len(found['kernel']) == features.shape[1]:
    made = features @ found['kernel'] + found['bias']
    if np.allclose(made, logits, rtol=1e-2, atol=1e-2 * np.abs(logits).max()):
      return found['kernel'], found['bias']
  raise ValueError(
      "post-hoc scores need a network whose logits are a Dense layer 'head' of its "
      "aux['features'] (models.layers.head makes one); the parameters are: "
      + ', '.join('/'.join(path) for path in flat))


def run(argv: Sequence[str] = ()) -> None:
  """--mode=posthoc: evaluates post-hoc confidence scores of a checkpoint."""
  del argv
  workdir = flags.needed(flags.WORKDIR, 'posthoc')
  found = posthoc(
      workdir, flags.STEP.value, flags.SCORES.value, flags.PER_SET.value)
  if jax.process_index() == 0:
    print(text(found))
    print(f'written: {os.path.join(workdir, POSTHOC)}')
