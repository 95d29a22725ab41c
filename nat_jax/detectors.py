"""Confidence scores of a trained classifier that need more than its logits.

    score = make_scorer(run, 'knn')                 # fitted to training positives
    logits, confidence = score(images)              # [n, k], [n]

`SCORES` are those that --mode=posthoc compares. --mode=calibrate chooses a threshold of
any of them, and what one is fitted to is kept beside calibration.json. A score is a
function of logits, features and the output layer; some are fitted to training
positives, none to a test set. A background output is ignored by all of them.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import data, runs
from nat_jax.metrics import confidences, selective
from nat_jax.runtime import files, inference
from nat_jax.task import Run
from nat_jax.tasks import images as images_lib
from nat_jax.tasks.classify import evaluate

FITTED = 'calibration_fit.npz'  # in the workdir, beside calibration.json
NUM_TRAIN = 10_000  # most training positives that scores are fitted to
SEED = 0  # of the samples of training positives and of test images
NEIGHBOURS = 50
ODIN = dict(temperature=1000.0, epsilon=0.0014)  # epsilon: of pixels in [0, 1]


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


def sample(
    arrays: data.Arrays, most: int | None
) -> tuple[data.Arrays, list[int]]:
  """Returns (`data.Arrays`, [number used, number there]).

  Args:
    arrays: images.
    most: of more images a sample of this number is drawn with `SEED`. None: all images
      are used; those that are read from disk when they are asked for are not loaded.
  """
  total = len(arrays.label)
  if most is None or total <= most:
    return arrays, [total, total]
  rows = np.sort(np.random.default_rng(SEED).permutation(total)[:most])
  return data.Arrays(arrays.image[rows], arrays.label[rows]), [most, total]


def make_program(
    restored: Run, odin: bool, batch_size: int | None = None
) -> Callable[[np.ndarray], Outputs]:
  """Compiles images [n, h, w, c] -> `Outputs`, with the background output if any.

  Args:
    restored: of a classifier.
    odin: whether the logits of the images perturbed by ODIN are computed.
    batch_size: images per batch; None: `eval_batch_size`.
  """
  config, state, heads = restored.config, restored.state, restored.trainer.heads
  several = [heads['features'], heads['logits']]
  one = np.zeros((1, *restored.shape), np.uint8)
  widths = [jax.eval_shape(head, state, one).shape[1] for head in several]
  if odin:
    mean, std = (np.asarray(config['data'][key], np.float32) for key in ('mean', 'std'))
    # Vectors are standardised: a step of all columns alike.
    unit = 1.0 if data.is_vectors(restored.shape) else std.reshape(1, 1, 1, -1)
    several.append(odin_head(
        _float32_logits(restored), config['num_classes'],
        functools.partial(data.normalise, mean=mean, std=std),
        **{**ODIN, 'epsilon': ODIN['epsilon'] / unit}))
  predict = inference.make_predict(
      lambda state, images: jnp.concatenate(
          [head(state, images) for head in several], axis=1),
      restored.mesh, batch_size or config['eval_batch_size'])

  def run(images):
    parts = np.split(predict(state, images), np.cumsum(widths)[:len(several) - 1], 1)
    return Outputs(*parts)

  return run


def make_fit(run: Run, outputs: Outputs, labels: np.ndarray) -> Fit:
  """What scores are fitted to.

  Args:
    run: of a classifier.
    outputs: of training positives, with a background output if there is one.
    labels: int [m] of these.

  Raises:
    ValueError: the logits are not a layer 'head' of the features.
  """
  kernel, bias = output_layer(run.state, outputs.features, outputs.logits)
  num = run.config['num_classes']
  return Fit(outputs.features, outputs.logits[:, :num], kernel[:, :num], bias[:num],
             labels)


def of_classes(outputs: Outputs, num_classes: int) -> Outputs:
  """The outputs without the background output."""
  return Outputs(outputs.features, *(
      None if x is None else x[:, :num_classes] for x in outputs[1:]))


# For thresholds.


def fit_to_training(run: Run, score: str) -> Fit | None:
  """Fits a score to (a sample of) the training positives of a run; None: it needs none.

  Args:
    run: of a classifier.
    score: a name in `SCORES`.

  Raises:
    ValueError, OSError: the training positives cannot be read; or see `make_fit`.
  """
  if score in UNFITTED:
    return None
  train, _ = sample(images_lib.load_sets(run.config, False)[0], NUM_TRAIN)
  return make_fit(run, make_program(run, odin=False)(train.image), train.label)


def make_scorer(
    run: Run, score: str, fit: Fit | None, batch_size: int | None = None
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]:
  """Compiles a classifier together with a score.

  Args:
    run: of a classifier.
    score: a name in `SCORES` or in `selective.LOGIT_SCORES`.
    fit: from `fit_to_training`.
    batch_size: images per batch; None: `eval_batch_size`.

  Returns:
    images [n, h, w, c] -> (logits [n, k], score [n], or None where it is a function of
    the logits).
  """
  if score in selective.LOGIT_SCORES:
    predict = evaluate.predictor(run, batch_size)
    return lambda images: (predict(images), None)
  program = make_program(run, score == 'odin', batch_size)
  num = run.config['num_classes']

  def apply(images):
    outputs = program(images)
    return outputs.logits, SCORES[score](of_classes(outputs, num), fit)

  return apply


def write_fit(workdir: str, fit: Fit | None, step: int, crc32: int) -> None:
  """Keeps what a threshold's score is fitted to; removes what was kept before.

  Args:
    workdir: of the run.
    fit: from `fit_to_training`.
    step, crc32: of the checkpoint.
  """
  path = os.path.join(workdir, FITTED)
  if fit is not None:
    files.write_npz(path, step=step, crc32=crc32, **fit._asdict())
  elif os.path.exists(path):
    os.remove(path)


def read_fit(workdir: str, score: str, about: Mapping[str, Any]) -> Fit | None:
  """Reads what the score of calibration.json is fitted to; None: it needs none.

  Args:
    workdir: of the run.
    score: a name in `SCORES` or in `selective.LOGIT_SCORES`.
    about: content of calibration.json.

  Raises:
    ValueError: there is no such file, or it is of another checkpoint.
  """
  if score in selective.LOGIT_SCORES or score in UNFITTED:
    return None
  path = os.path.join(workdir, FITTED)
  again = f'calibrate again: --mode=calibrate --workdir {workdir} --score {score}'
  try:
    found = files.read_npz(path, again, ('step', 'crc32', *Fit._fields))
  except FileNotFoundError:
    raise ValueError(
        f'{path}, to which the score {score!r} is fitted, is missing; {again}'
    ) from None
  if (found['step'], found['crc32']) != (about['step'], about['crc32']):
    raise ValueError(
        f'{path}, to which the score {score!r} is fitted, is of another checkpoint; '
        f'{again}')
  return Fit(*(found[name] for name in Fit._fields))


# ODIN, and the output layer.


def odin_head(
    head: Callable[[Any, jax.Array], jax.Array], num_classes: int,
    normalise: Callable[[jax.Array], jax.Array], temperature: float,
    epsilon: float | np.ndarray,
) -> Callable[[Any, jax.Array], jax.Array]:
  """Makes a head that returns the logits of ODIN's perturbed images.

  x' = x + epsilon sign(d/dx log max_j p_j),  p = softmax(o(x) / T), x normalised.

  Args:
    head: (state, images [n, h, w, c]) -> logits [n, k]; it must not mix images.
    num_classes: outputs 0..num_classes-1 are classes.
    normalise: of uint8 images, as in training; returns float32 images as they are.
    temperature: T.
    epsilon: size of the perturbation, in normalised units: a number or [1, 1, 1, c].

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


def output_layer(
    state: Any, features: np.ndarray, logits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Kernel and bias of the layer 'head'.

  Args:
    state: of a classifier.
    features: [n, d] of some images.
    logits: [n, k] of these.

  Raises:
    ValueError: it does not compute the logits from the features.
  """
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
