"""Evaluates post-hoc confidence scores (energy, KNN, ViM, ...) of a checkpoint.

    found = posthoc('runs/digits')                  # the newest checkpoint
    found['scores']['knn']['noise']['auroc']
    print(text(found))

It takes any classifier, trained with negatives or without, and writes posthoc.json. The
scores are functions of logits, features and the output layer. A background output is
ignored by all of them; eval.json has the run's own confidence, with the background.
"""

import functools
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
from nat_jax.tasks.classify import inputs

POSTHOC = 'posthoc.json'
NUM_TRAIN = 10_000  # most training positives that knn and vim use
NEIGHBOURS = 50
ODIN = dict(temperature=1000.0, epsilon=0.0014)


class Outputs(NamedTuple):
  """The outputs of the network for an evaluation set.

  Attributes:
    features: [n, d].
    logits: [n, c].
    odin_logits: [n, c], the logits of the images perturbed by ODIN.
  """

  features: np.ndarray
  logits: np.ndarray
  odin_logits: np.ndarray


class Fit(NamedTuple):
  """The training data and the output layer, which some scores are fitted to.

  Attributes:
    features: [m, d] of training positives.
    logits: [m, c] of training positives.
    kernel: [d, c] of the output layer.
    bias: [c] of the output layer.
  """

  features: np.ndarray
  logits: np.ndarray
  kernel: np.ndarray
  bias: np.ndarray

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
    'odin': lambda x, fit: confidences.max_softmax(x.odin_logits, ODIN['temperature']),
    'knn': lambda x, fit: confidences.knn(x.features, fit.features, fit.neighbours),
    'vim': lambda x, fit: confidences.vim(x.features, x.logits, *fit),
    'ash': lambda x, fit: confidences.ash(x.features, fit.kernel, fit.bias),
}


def posthoc(workdir: str, step: int | None = None) -> dict[str, Any]:
  """Computes detection metrics of every test set for all scores; writes posthoc.json.

  Args:
    workdir: of a run.
    step: of the checkpoint; None: the newest.

  Returns:
    The content of posthoc.json: 'scores' {name in SCORES: {negative set: detection
    metrics}}, 'seen_in_training' {negative set: bool}, 'step', 'reference',
    'num_train', 'neighbours' (k of knn).

  Raises:
    ValueError: no checkpoint, none of that step, or a network whose logits are not a
      'head' layer of its features.
  """
  restored = runs.restore(workdir, step, 'classify')
  config, heads = restored.config, restored.trainer.heads
  num_classes, settings = config['num_classes'], config['data']
  normalise = functools.partial(
      data.normalise, mean=settings['mean'], std=settings['std'])

  def compiled(*several):
    """images -> the concatenated outputs of several heads, computed in one program."""
    predict = inference.make_predict(
        lambda state, images: jnp.concatenate(
            [head(state, images) for head in several], axis=1),
        restored.mesh, config['eval_batch_size'])
    return functools.partial(predict, restored.state)

  odin = odin_head(_float32_logits(restored), num_classes, normalise, **ODIN)
  plain_of = compiled(heads['features'], heads['logits'])
  all_of = compiled(heads['features'], heads['logits'], odin)

  images = data.load(settings['positives']).image
  chosen = np.random.default_rng(0).permutation(len(images))[:NUM_TRAIN]
  images = images[np.sort(chosen)]
  width = jax.eval_shape(heads['features'], restored.state, images[:1]).shape[1]
  features, logits = np.split(plain_of(images), [width], axis=1)
  kernel, bias = _output_layer(restored.state, features, logits)
  fit = Fit(features, logits[:, :num_classes], kernel[:, :num_classes],
            bias[:num_classes])

  sets = inputs.load_evals(config, parts=[schema.TEST])
  confidence = {}
  start, total = time.monotonic(), sum(len(s.arrays.label) for s in sets.values())
  done = 0
  for name, eval_set in sets.items():
    images = eval_set.arrays.image
    features, logits, moved = np.split(
        all_of(images), [width, width + kernel.shape[1]], axis=1)
    outputs = Outputs(features, logits[:, :num_classes], moved[:, :num_classes])
    confidence[name] = {score: fn(outputs, fit) for score, fn in SCORES.items()}
    done += len(images)
    if jax.process_index() == 0:
      left = (time.monotonic() - start) / done * (total - done)
      print(f'{name}: {done:,} of {total:,} images scored  ETA {writers.clock(left)}',
            flush=True)
  reference = confidence[config['reference']]
  negative = [name for name, eval_set in sets.items() if not eval_set.positive]
  found = {
      'step': restored.step, 'reference': config['reference'],
      'num_train': len(fit.features), 'neighbours': fit.neighbours,
      'seen_in_training': {name: sets[name].seen for name in negative},
      'scores': {
          score: {name: detection_metrics(reference[score], confidence[name][score])
                  for name in negative}
          for score in SCORES},
  }
  if jax.process_index() == 0:
    files.write_json(os.path.join(workdir, POSTHOC), found)
  return found


def text(found: dict[str, Any]) -> str:
  """The result of `posthoc` as two tables, AUROC and FPR95, by score and set."""
  names = {name: f'{name} ({"seen" if seen else "unseen"})'
           for name, seen in found['seen_in_training'].items()}
  about = {
      'auroc': f' of each score, against {found["reference"]!r}. knn (k = '
               f'{found["neighbours"]}) and vim use {found["num_train"]} training '
               'positives.',
      'fpr95_id_positive': ': share of negatives accepted where 95 % of positives are.',
  }

  def table(key, words):
    metric = metrics.METRICS[key]
    return tables.Table(
        f'{metric.title} ({metric.better} is better){words}',
        ['score', *names.values()],
        [[score, *(f'{figures[name][key]:.{metric.digits}f}' for name in names)]
         for score, figures in found['scores'].items()])

  return '\n'.join(table(key, words).markdown() for key, words in about.items())


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
  found = posthoc(workdir, flags.STEP.value)
  if jax.process_index() == 0:
    print(text(found))
    print(f'written: {os.path.join(workdir, POSTHOC)}')
