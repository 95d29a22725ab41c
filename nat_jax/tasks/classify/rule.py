"""The rule by which a classifier accepts an image or answers "none of these".

    rule = Rule('max_probability', temperature=1.3, threshold=2.1)
    found = decide(logits, num_classes, rule)
    found.accepted, found.order[:, 0]           # [n], and the likeliest class of each
    read(workdir, step, crc32)                  # calibration.json, None without one
"""

import os
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from nat_jax import schema
from nat_jax.metrics import selective
from nat_jax.runtime import files

CALIBRATION = 'calibration.json'
NUMBERS = ('temperature', 'threshold', 'accept', 'confidence', 'n')


class Rule(NamedTuple):
  """An image is accepted if its score is at least the threshold.

  Attributes:
    score: a name in `metrics.selective.LOGIT_SCORES`.
    temperature: by which logits are divided before the softmax.
    threshold: least score of an accepted image.
  """

  score: str
  temperature: float
  threshold: float


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
  """The rule that accepts maximum probabilities of at least `threshold`."""
  return Rule(
      selective.MAX_PROBABILITY, temperature, float(special.logit(threshold)))


def decide(logits: np.ndarray, num_classes: int, rule: Rule) -> Decisions:
  """Applies a rule to logits.

  Args:
    logits: [n, k], k = num_classes, or more with a background output, which takes its
      share of the probability.
    num_classes: outputs 0..num_classes-1 are classes.
    rule: the rule.

  Raises:
    ValueError: logits that are not finite.
  """
  logits = np.asarray(logits, np.float64)
  score = confidence(logits, num_classes, rule.score, rule.temperature)
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


def check_score(score: str) -> None:
  """Raises ValueError unless `score` is a name in `selective.LOGIT_SCORES`."""
  if score not in selective.LOGIT_SCORES:
    raise ValueError(
        f'unknown score {score!r}; valid: {", ".join(selective.LOGIT_SCORES)}')


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
  whole = found.get('score') in selective.LOGIT_SCORES and all(
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
