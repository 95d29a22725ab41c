"""The rule by which a classifier accepts an image or answers "none of these".

    rule = Rule('max_probability', temperature=1.3, threshold=2.1)
    found = decide(logits, num_classes, rule)
    found.accepted, found.order[:, 0]           # [n], and the likeliest class of each
    find(workdir, config, step, crc32).rule     # of calibration.json, or the default
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from nat_jax import names, schema
from nat_jax.metrics import detection, selective
from nat_jax.runtime import files, results
from nat_jax.tasks.classify import inputs

NONE = inputs.NONE  # the answer for an image that is not accepted
CALIBRATION = 'calibration.json'
GIVEN, DEFAULT = 'given', 'default'  # besides CALIBRATION, where a rule is from
MARGIN = 1e-5  # of a threshold, relative; more than scores differ by rounding
LARGEST = float(np.finfo(np.float32).max)  # exports compute scores in float32
NUMBERS = ('temperature', 'threshold', 'accept', 'confidence', 'n')


def lowered(threshold: float) -> float:
  """A threshold below the score that it was taken from, by more than rounding.

  Programs that differ, such as exports, or batches of another size, give scores that
  differ in their last digits; the image of that score is accepted by all of them.
  """
  return threshold - MARGIN * max(1.0, abs(threshold))


def known_scores() -> tuple[str, ...]:
  """The names of the scores that a threshold may be of."""
  return (*selective.LOGIT_SCORES, *selective.FEATURE_SCORES)


class Rule(NamedTuple):
  """An image is accepted if its score is at least the threshold.

  Attributes:
    score: a name in `LOGIT_SCORES` or `FEATURE_SCORES` of `metrics.selective`.
    temperature: by which logits are divided before the softmax.
    threshold: least score of an accepted image.
  """

  score: str
  temperature: float
  threshold: float


class Basis(NamedTuple):
  """A rule and where it is from.

  Attributes:
    rule: the rule.
    origin: `GIVEN`, `CALIBRATION` or `DEFAULT`.
    accept: least share of new positives that it is to accept; None: not known.
    calibration: content of calibration.json, if the rule is from there.
    note: why calibration.json is not used although there is one; '' otherwise.
    n: number of positives that a `DEFAULT` threshold was taken from; None: another one.
  """

  rule: Rule
  origin: str
  accept: float | None
  calibration: Mapping[str, Any] | None = None
  note: str = ''
  n: int | None = None


class Decisions(NamedTuple):
  """What a rule decides on n images of c classes.

  Attributes:
    order: int [n, c], the classes from the likeliest to the least likely; it does not
      depend on the temperature.
    probability: [n, c], of each class; with a background output their sum is below 1.
    score: [n].
    accepted: bool [n].
  """

  order: np.ndarray
  probability: np.ndarray
  score: np.ndarray
  accepted: np.ndarray


def at_probability(threshold: float, temperature: float = 1.0) -> Rule:
  """The rule that accepts maximum probabilities of at least `threshold`.

  The log-odds of 0 and 1 are the largest numbers of float32 with their sign instead of
  infinity, which JSON does not have: 0 accepts everything, and 1 nothing.
  """
  log_odds = np.clip(special.logit(threshold), -LARGEST, LARGEST)
  return Rule(selective.MAX_PROBABILITY, temperature, float(log_odds))


def probability(threshold: float) -> float:
  """The least maximum probability that a threshold of log-odds accepts."""
  return float(special.expit(threshold))


def decide(
    logits: np.ndarray, num_classes: int, rule: Rule, score: np.ndarray | None = None
) -> Decisions:
  """Applies a rule to logits.

  Args:
    logits: [n, k], k = num_classes, or more with a background output, which takes its
      share of the probability.
    num_classes: outputs 0..num_classes-1 are classes.
    rule: the rule.
    score: [n]; None: it is a function of the logits, in `selective.LOGIT_SCORES`.

  Raises:
    ValueError: logits that are not finite.
  """
  logits = np.asarray(logits, np.float64)
  own = confidence(logits, num_classes, (
      rule.score if score is None else selective.MAX_PROBABILITY), rule.temperature)
  score = own if score is None else np.asarray(score, np.float64)
  return Decisions(
      np.argsort(-logits[:, :num_classes], axis=1, kind='stable'),
      special.softmax(logits / rule.temperature, axis=1)[:, :num_classes],
      score, score >= rule.threshold)


def confidence(
    logits: np.ndarray, num_classes: int, score: str, temperature: float
) -> np.ndarray:
  """The score [n] of logits [n, k], higher means "more like a positive".

  Raises:
    ValueError: logits that are not finite.
  """
  logits = np.asarray(logits, np.float64)
  if not np.isfinite(logits).all():
    raise ValueError(
        'expected finite logits, got NaN or infinity; did the training diverge?')
  return selective.LOGIT_SCORES[score](logits, num_classes, temperature)


# Name -> the score of that name in `selective.LOGIT_SCORES`, of JAX arrays, with the
# same arguments. Exported programs compute it.
ON_DEVICE: dict[str, Callable[[jax.Array, int, float], jax.Array]] = {
    selective.MAX_PROBABILITY: lambda logits, num_classes, temperature: (
        _log_odds(logits / temperature, num_classes)),
    'max_logit': lambda logits, num_classes, temperature: (
        logits[:, :num_classes].max(1)),
    'energy': lambda logits, num_classes, temperature: (
        jax.nn.logsumexp(logits[:, :num_classes], axis=1)),
    'gen': lambda logits, num_classes, temperature: _gen(logits[:, :num_classes]),
}


def decide_on_device(
    logits: jax.Array, num_classes: int, rule: Rule
) -> dict[str, jax.Array]:
  """Applies a rule to logits in JAX, in float32.

  Args:
    logits: float32 [n, k].
    num_classes: outputs 0..num_classes-1 are classes.
    rule: the rule.

  Returns:
    'probabilities' [n, num_classes], 'score' [n] and 'accepted' [n], as in `Decisions`.

  Raises:
    ValueError: a score that is not in `ON_DEVICE`.
  """
  if rule.score not in ON_DEVICE:
    raise ValueError(names.unknown('score of an export,', rule.score, ON_DEVICE))
  score = ON_DEVICE[rule.score](logits, num_classes, rule.temperature)
  probabilities = jax.nn.softmax(logits / rule.temperature)[:, :num_classes]
  return {'probabilities': probabilities, 'score': score,
          'accepted': score >= rule.threshold}


def _log_odds(logits, num_classes):
  """log(p_j / (1 - p_j)), j the likeliest of the classes, as `scores_from_logits`."""
  top = jax.nn.one_hot(logits[:, :num_classes].argmax(1), logits.shape[1])
  highest = logits[:, :num_classes].max(1, keepdims=True)
  others = jnp.where(top > 0, -jnp.inf, logits - highest)
  return -jax.nn.logsumexp(others, axis=1)


def _gen(logits, gamma=0.1, top=100):
  """`metrics.confidences.gen` of logits [n, c], c at least 2."""
  log_p = jax.nn.log_softmax(-jnp.sort(-logits, axis=1), axis=1)
  first = jax.nn.logsumexp(log_p[:, 1:], axis=1, keepdims=True)
  log_rest = jnp.concatenate([first, jnp.log1p(-jnp.exp(log_p[:, 1:]))], axis=1)
  return -jnp.exp(gamma * (log_p + log_rest))[:, :top].sum(axis=1)


def check_score(score: str) -> None:
  """Raises ValueError unless `score` is a name that `Rule` accepts."""
  if score not in known_scores():
    raise ValueError(names.unknown('score', score, known_scores()))


def read(workdir: str, step: int, crc32: int) -> dict[str, Any] | None:
  """Reads calibration.json of a workdir; None if there is no such file.

  Args:
    workdir: of the run.
    step: of the checkpoint that the calibration must belong to.
    crc32: checksum of this checkpoint.

  Raises:
    files.Unreadable: the file is damaged.
    schema.Newer: a later version of nat_jax wrote the file.
    ValueError: the calibration belongs to another checkpoint.
  """
  path = os.path.join(workdir, CALIBRATION)
  command = f'python -m nat_jax.main --mode=calibrate --workdir {workdir} --step {step}'
  try:
    found = files.read_json(path, f'calibrate again: {command}')
  except FileNotFoundError:
    return None
  schema.check_format(found, path)
  whole = found.get('score') in known_scores() and all(
      type(found.get(key)) in (int, float) for key in NUMBERS)
  if not whole or found['temperature'] <= 0:
    raise files.Unreadable(
        path, 'it holds no calibration', f'calibrate again: {command}')
  if (found.get('step'), found.get('crc32')) != (step, crc32):
    other = (f'step {found.get("step")}' if found.get('step') != step
             else f'another checkpoint of step {step}')
    raise ValueError(
        f'{path} is the calibration of {other}, not of checkpoint {step}; renew it: '
        f'{command} --accept {found["accept"]:g} --score {found["score"]}')
  return found


def of_calibration(found: dict[str, Any]) -> Rule:
  """The rule of the content of calibration.json."""
  return Rule(*(found[key] for key in Rule._fields))


def find(
    workdir: str, config: Mapping[str, Any], step: int, crc32: int,
    threshold: float | None = None, keep: float = 0.95,
) -> Basis:
  """Finds the rule of a checkpoint: that of calibration.json, or the default.

  The default is the highest threshold of the maximum probability that keeps the share
  `keep` of the positives of part 'calibration', by the last evaluation.

  Args:
    workdir: of the run.
    config: of the run.
    step: of the checkpoint.
    crc32: checksum of this checkpoint.
    threshold: least maximum probability of an accepted image (after the temperature of
      calibration.json, if that belongs to the checkpoint); None: see above.
    keep: only used for the default.

  Raises:
    ValueError: no probability, the calibration of another checkpoint (unless a
      threshold is given), no positives to take a threshold from, or no evaluation of
      this checkpoint on them.
  """
  check_threshold(threshold)
  note, calibration = '', None
  try:
    calibration = read(workdir, step, crc32)
  except ValueError as error:
    if threshold is None:
      raise
    note = (f'{CALIBRATION} is not used, and probabilities have temperature 1: {error}')
  if threshold is not None:
    temperature = calibration['temperature'] if calibration else 1.0
    return Basis(at_probability(threshold, temperature), GIVEN, None, note=note)
  if calibration:
    return Basis(of_calibration(calibration), CALIBRATION, calibration['accept'],
                 calibration)
  scores = _calibration_scores(workdir, config, step)
  threshold = lowered(detection.threshold_at_recall(scores, keep))
  return Basis(Rule(selective.MAX_PROBABILITY, 1.0, threshold), DEFAULT, keep,
               n=len(scores))


def check_threshold(threshold: float | None) -> None:
  """Raises ValueError unless a threshold is None or a probability."""
  if threshold is not None and not schema.bounds.number('[0, 1]').holds(threshold):
    raise ValueError(f'threshold must be a probability, from 0 to 1, got {threshold!r}')


def _calibration_scores(workdir, config, step):
  """The log-odds of the calibration positives, by the last evaluation."""
  calibration = inputs.references(config).get(schema.CALIBRATION)
  if calibration is None:
    raise ValueError(
        f'the run in {workdir} held out no positives to take a threshold from (a '
        f'positive evaluation set of part {schema.CALIBRATION!r}), and it must not be '
        'chosen by the test; give --threshold (from Python threshold=), between 0 '
        'and 1')
  evaluation = results.read_evaluation(workdir)
  evaluated = evaluation['step'] if evaluation else None
  scores = None if evaluated != step else results.read_arrays(
      workdir, f'{results.SCORES}/{calibration}', step, ['score'])
  if scores is None:
    found = ('none' if evaluated is None else f'that of step {evaluated}'
             if evaluated != step else f'no {results.SCORES}/{calibration}.npz')
    raise ValueError(
        f'the threshold needs the evaluation of checkpoint {step}, and {workdir} '
        f'has {found}; give --threshold (from Python threshold=), or run: python -m '
        f'nat_jax.main --mode=calibrate --workdir {workdir} --step {step}, or: python '
        f'-m nat_jax.main --mode=evaluate --workdir {workdir} --step {step}')
  return scores['score']
