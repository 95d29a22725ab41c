"""Adversarial pictures: small changes of pictures that raise a loss of a classifier.

    limits = make_limits(0.15, normalise, (8, 8, 1))
    loss = functools.partial(losses.cross_entropy, labels=labels)    # logits -> [n]
    changed = pgd(limits, lambda images: loss(logits(images)), images, keys)

Pictures are float32 [n, h, w, c], normalised as the classifier takes them; a change is
limited in the maximum norm. An attack raises `loss`, images -> [n], whose value of a
picture depends on that picture only.

Reference: Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial
Examples", ICLR 2015 (FGSM); Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep
Learning Models Resistant to Adversarial Attacks", ICLR 2018 (PGD).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import data

LEVEL = 1 / 255  # a grey level of a picture of 8 bits
RATE = 2.5  # a path of PGD is this many times as long as the budget

Loss = Callable[[jax.Array], jax.Array]  # images [n, h, w, c] -> [n]


class Limits(NamedTuple):
  """The pictures that an attack may make of a picture, in normalised units.

  Attributes:
    budget: largest change of a pixel, as a share of the range from black to white.
    radius: largest change of a pixel, float32 [1, 1, 1, c].
    low, high: a black and a white pixel, float32 [1, 1, 1, c].
  """

  budget: float
  radius: np.ndarray
  low: np.ndarray
  high: np.ndarray


def make_limits(
    budget: float, normalise: Callable[[np.ndarray], np.ndarray],
    image_shape: Sequence[int], key: str = 'trainer.budget',
) -> Limits:
  """Returns the limits of a budget.

  Args:
    budget: largest change of a pixel, as a share of the range from black to white.
    normalise: uint8 images [n, h, w, c] -> normalised float32 images.
    image_shape: (h, w, c).
    key: of the budget in the config, for the message.

  Raises:
    ValueError: a budget that is not in [1/255, 1], or vectors instead of pictures.
  """
  if data.is_vectors(image_shape):
    raise ValueError(
        f'{key} is a share of the range from black to white, which vectors do not '
        f'have, got examples of shape {tuple(image_shape)}; attacks need pictures')
  if not LEVEL <= budget <= 1:
    raise ValueError(
        f'{key} must be a share of the range from black to white, at least 1/255 (a '
        f'grey level) and at most 1, got {budget}; 0.15 is 38 grey levels')
  low, high = (
      np.asarray(normalise(np.full((1, 1, 1, image_shape[-1]), level, np.uint8)),
                 np.float32) for level in (0, 255))
  return Limits(budget, budget * (high - low), low, high)


def project(limits: Limits, images: jax.Array, changed: jax.Array) -> jax.Array:
  """Clips `changed` to the limits around `images`, all [n, h, w, c]."""
  inside = jnp.clip(changed, images - limits.radius, images + limits.radius)
  return jnp.clip(inside, limits.low, limits.high)


def sign_noise(limits: Limits, images: jax.Array, keys: jax.Array) -> jax.Array:
  """Adds or subtracts the whole budget at random; the baseline of all attacks.

  Args:
    limits: from `make_limits`.
    images: [n, h, w, c].
    keys: typed keys [n].
  """
  signs = jax.vmap(lambda key: jax.random.rademacher(key, images.shape[1:]))(keys)
  return project(limits, images, images + signs * limits.radius)


def fgsm(limits: Limits, loss: Loss, images: jax.Array) -> jax.Array:
  """The fast gradient sign method, x + radius sign(d loss / d x).

  Args:
    limits: from `make_limits`.
    loss: to be raised.
    images: x, [n, h, w, c].
  """
  return project(
      limits, images, images + limits.radius * jnp.sign(_slope(loss, images)))


def pgd(
    limits: Limits, loss: Loss, images: jax.Array, keys: jax.Array, steps: int = 10
) -> jax.Array:
  """Projected gradient ascent from a random start.

  x_0 = x + U(-radius, radius),
  x_{t+1} = project(x_t + (RATE radius / steps) sign(d loss / d x_t)).

  Args:
    limits: from `make_limits`.
    loss: to be raised.
    images: x, [n, h, w, c].
    keys: typed keys [n], of the start.
    steps: number of steps; each costs a forward and a backward pass. They are unrolled,
      since XLA's CPU backend runs convolutions in loops a hundred times slower.

  Returns:
    x_steps.
  """
  start = jax.vmap(
      lambda key: jax.random.uniform(key, images.shape[1:], minval=-1.0))(keys)
  changed = project(limits, images, images + limits.radius * start)
  for _ in range(steps):
    changed = project(
        limits, images,
        changed + RATE / steps * limits.radius * jnp.sign(_slope(loss, changed)))
  return changed


def margin(logits: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
  """By how much a picture is not taken for a wrong class, in logits, [n].

  max(o_y, o_b) - max_{k != y, k < K} o_k, where o_b are outputs that are no class (a
  background output): below 0 the prediction is a wrong class.

  Args:
    logits: o, [n, K] or more.
    labels: y, int [n].
    num_classes: K.
  """
  wrong = _wrong(logits, labels, num_classes)
  return (jnp.where(wrong, -jnp.inf, logits).max(1)
          - jnp.where(wrong, logits, -jnp.inf).max(1))


def wrong_confidence(
    logits: jax.Array, labels: jax.Array, num_classes: int
) -> jax.Array:
  """The log probability of the likeliest wrong class, max_{k != y, k < K} log p_k, [n].

  Arguments are those of `margin`.
  """
  return jnp.where(_wrong(logits, labels, num_classes),
                   jax.nn.log_softmax(logits), -jnp.inf).max(1)


def as_pictures(
    limits: Limits, images: np.ndarray, changed: np.ndarray
) -> np.ndarray:
  """Rounds changed pictures to 8 bits, without exceeding the budget.

  Args:
    limits: from `make_limits`.
    images: the pictures, uint8 [n, h, w, c].
    changed: what an attack made of them, float32 [n, h, w, c], normalised.

  Returns:
    uint8 [n, h, w, c], at most floor(255 budget) grey levels from `images`.
  """
  levels = int(255 * limits.budget + 1e-6)
  pixels = np.round(255 * (changed - limits.low) / (limits.high - limits.low))
  whole = images.astype(int)
  return np.clip(np.clip(pixels, whole - levels, whole + levels), 0, 255).astype(
      np.uint8)


def _slope(loss, images):
  return jax.grad(lambda x: loss(x).sum())(images)


def _wrong(logits, labels, num_classes):
  """Which outputs are classes but not the label, bool [n, k]."""
  output = jnp.arange(logits.shape[1])[None, :]
  return (output < num_classes) & (output != labels[:, None])
