"""Optimisers and learning-rate schedules of optax, by name.

    schedule = make_schedule({'name': 'cosine', 'learning_rate': 0.1}, steps=1000)
    tx = make_optimizer({'name': 'sgd', 'momentum': 0.9}, schedule, grad_clip=1.0)

During a warm-up the learning rate of update i = 0, 1, ... is
learning_rate (i + 1) / warmup for i < warmup; after it, the schedule's rate of update
i - warmup. No update has a rate of 0, and the last warm-up update has the full rate.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from nat_jax import names, registry


def constant(*, steps: int, learning_rate: float, warmup: int = 0) -> optax.Schedule:
  """A constant `learning_rate`, after a linear warm-up of `warmup` updates."""
  del steps
  return _after_warmup(optax.constant_schedule(learning_rate), learning_rate, warmup)


def cosine(
    *, steps: int, learning_rate: float, warmup: int = 0, end: float = 0.0
) -> optax.Schedule:
  """Half a cosine from `learning_rate` to `end` over the updates after `warmup`."""
  decay = optax.cosine_decay_schedule(
      learning_rate, max(steps - warmup, 1), alpha=end / learning_rate
  )
  return _after_warmup(decay, learning_rate, warmup)


def linear(
    *, steps: int, learning_rate: float, over: int = 0, warmup: int = 0
) -> optax.Schedule:
  """Linear decay from `learning_rate` to 0 at update `over` (0: the end of the run)."""
  decay = optax.linear_schedule(learning_rate, 0.0, max((over or steps) - warmup, 1))
  return _after_warmup(decay, learning_rate, warmup)


def step(
    *, steps: int, learning_rate: float, factor: float = 0.1,
    at: Sequence[float] = (0.5, 0.75), warmup: int = 0,
) -> optax.Schedule:
  """A step schedule: the rate is multiplied by `factor` at each share `at` of the run.

  Raises:
    ValueError: shares in `at` that are not increasing, that fall on the same update, or
      that are within the warm-up.
  """
  updates = [round(share * steps) for share in at]
  if any(a >= b for a, b in zip([warmup, *updates], updates, strict=False)):
    raise ValueError(
        'schedule.at must be shares of the run in rising order, at different updates '
        f'after the warm-up of {warmup}; got {list(at)}, the updates {updates} of '
        f'{steps}')
  decay = optax.piecewise_constant_schedule(
      learning_rate, {update - warmup: factor for update in updates})
  return _after_warmup(decay, learning_rate, warmup)


def _after_warmup(schedule, learning_rate, warmup):
  if not warmup:
    return schedule

  def ramp(count):
    return learning_rate * (count + 1) / warmup

  return optax.join_schedules([ramp, schedule], [warmup])


SCHEDULES = {'constant': constant, 'cosine': cosine, 'linear': linear, 'step': step}


def kernels(params: Any) -> Any:
  """The weight-decay mask: True for kernels, False for biases and BatchNorm."""
  return jax.tree.map(lambda p: p.ndim > 1, params)


MASKS = {'kernels': kernels, 'all': None}


def sgd(
    learning_rate: optax.ScalarOrSchedule, *, momentum: float = 0.9,
    nesterov: bool = True, weight_decay: float = 0.0, decay: str = 'kernels',
) -> optax.GradientTransformation:
  """SGD with coupled weight decay: added to the gradient, as in PyTorch."""
  return optax.chain(
      optax.add_decayed_weights(weight_decay, mask=_mask(decay)),
      optax.sgd(learning_rate, momentum=momentum or None, nesterov=nesterov),
  )


def adamw(
    learning_rate: optax.ScalarOrSchedule, *, b1: float = 0.9, b2: float = 0.999,
    eps: float = 1e-8, eps_root: float = 0.0, weight_decay: float = 1e-4,
    decay: str = 'kernels',
) -> optax.GradientTransformation:
  """AdamW: Adam with decoupled weight decay."""
  return optax.adamw(
      learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root,
      weight_decay=weight_decay, mask=_mask(decay),
  )


def adam(
    learning_rate: optax.ScalarOrSchedule, *, b1: float = 0.9, b2: float = 0.999,
    eps: float = 1e-8, eps_root: float = 0.0,
) -> optax.GradientTransformation:
  """Adam without weight decay.

  With `eps_root` above 0, such as 1e-8, which is added under the square root, an update
  has a derivative also where a gradient has always been 0, as --mode=influence needs.
  """
  return optax.adam(learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root)


def muon(
    learning_rate: optax.ScalarOrSchedule, *, momentum: float = 0.9,
    weight_decay: float = 0.0, ratio: float = 0.1, ns_steps: int = 4,
) -> optax.GradientTransformation:
  """Muon for kernels, as matrices of outputs by all else; Adam for biases and norms.

  W <- W - rate (c U V' + weight_decay W), with U S V' the gradient's Nesterov average
  and c = sqrt(max(1, outputs / inputs)): all directions of a kernel are learned at one
  rate, which pays in few updates.

  Args:
    learning_rate: of the kernels.
    momentum: share of the average that an update keeps.
    weight_decay: of the kernels.
    ratio: Adam's rate / `learning_rate`.
    ns_steps: Newton-Schulz iterations that come near to U V'.

  Reference: Jordan et al., "Muon: An optimizer for hidden layers in neural networks",
  2024; the weight decay of Liu et al., "Muon is Scalable for LLM Training", 2025.
  """
  def matrices(params):
    return jax.tree.map(lambda p: optax.contrib.MuonDimensionNumbers(
        tuple(range(p.ndim - 1)), p.ndim - 1) if p.ndim > 1 else None, params)

  def others_rate(count):
    return ratio * (learning_rate(count) if callable(learning_rate) else learning_rate)

  return optax.contrib.muon(
      learning_rate, ns_steps=ns_steps, beta=momentum, weight_decay=weight_decay,
      adam_b2=0.99, adam_learning_rate=others_rate,
      muon_weight_dimension_numbers=matrices)


def _mask(name):
  if name not in MASKS:
    raise ValueError(
        names.unknown('optimizer.decay', name, sorted(MASKS)))
  return MASKS[name]


def layer_wise(
    tx: optax.GradientTransformation, stage: Callable[[str], int],
    rates: Sequence[float],
) -> optax.GradientTransformation:
  """An optimiser with a learning rate for each stage of a network.

  Args:
    tx: the optimiser.
    stage: path of a parameter, such as 'head/kernel' -> its stage.
    rates: of each stage, times the learning rate of `tx`. The parameters of a stage
      with rate 0 are not changed, not even by weight decay, and have no optimiser
      state.
  """
  def stages(params):
    flat = traverse_util.flatten_dict(params, sep='/')
    return traverse_util.unflatten_dict({path: stage(path) for path in flat}, sep='/')

  return optax.multi_transform({
      k: optax.chain(tx, optax.scale(rate)) if rate else optax.set_to_zero()
      for k, rate in enumerate(rates)}, stages)


class Averaged(NamedTuple):
  """The state of `historical_average`: number of updates, mean of the parameters."""

  count: jax.Array
  mean: Any


def historical_average(weight: float) -> optax.GradientTransformation:
  """Historical averaging: the gradient of weight |p - m|^2 is added to the gradient.

  m = (p_1 + ... + p_t) / t is the mean of the parameters before the updates 1 to t, of
  which p = p_t is the last; it is constant in the gradient, 2 weight (p - m).

  Args:
    weight: of the term; 0 or more.

  Reference: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016,
  section 3.3.
  """
  def init(params):
    return Averaged(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

  def update(grads, state, params):
    count = state.count + 1
    mean = jax.tree.map(lambda m, p: m + (p - m) / count, state.mean, params)
    grads = jax.tree.map(
        lambda g, p, m: g + 2 * weight * (p - m), grads, params, mean)
    return grads, Averaged(count, mean)

  return optax.GradientTransformation(init, update)


def orthogonal_regularisation(weight: float) -> optax.GradientTransformation:
  """Adds the gradient of weight |W^T W * (1 - I)|^2 for each kernel W.

  W is the kernel as [inputs, outputs], * is by elements and |.| the Frobenius norm: the
  weights of different outputs become orthogonal, and their lengths are free. The
  gradient is 4 weight W (W^T W * (1 - I)).

  Args:
    weight: of the term; 0 or more.

  Raises:
    ValueError: by `init`, of parameters without a kernel.

  Reference: Brock, Donahue, Simonyan, "Large Scale GAN Training for High Fidelity
  Natural Image Synthesis", ICLR 2019, section 3.1.
  """
  def is_kernel(path, param):
    return getattr(path[-1], 'key', None) == 'kernel' and param.ndim > 1

  def init(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not any(is_kernel(path, param) for path, param in leaves):
      raise ValueError(
          'optimizer.orthogonal regularises kernels, which this network lacks because '
          "of weight norm: set generator.norm='spectral' or 'none' (DCGAN's has no "
          'other), or optimizer.orthogonal=0')
    return optax.EmptyState()

  def add(path, grad, kernel):
    if not is_kernel(path, kernel):
      return grad
    matrix = kernel.reshape(-1, kernel.shape[-1])
    products = matrix.T @ matrix
    products -= jnp.diag(jnp.diag(products))
    return grad + 4 * weight * (matrix @ products).reshape(kernel.shape)

  def update(grads, state, params):
    return jax.tree_util.tree_map_with_path(add, grads, params), state

  return optax.GradientTransformation(init, update)


OPTIMIZERS = {'adam': adam, 'adamw': adamw, 'muon': muon, 'sgd': sgd}


def make_schedule(spec: Mapping[str, Any], steps: int) -> optax.Schedule:
  """Builds the schedule (update -> learning rate) that `spec` names in `SCHEDULES`.

  Args:
    spec: `{'name': ..., 'learning_rate': ..., **kwargs}`.
    steps: updates of the run.
  """
  # jax does not accept Python ints beyond 32 bits.
  spec = {key: float(value) if key in ('learning_rate', 'factor') else value
          for key, value in spec.items()}
  return registry.build(SCHEDULES, spec, what='schedule', steps=steps)


def make_optimizer(
    spec: Mapping[str, Any], schedule: optax.Schedule, grad_clip: float = 0.0,
    stage: Callable[[str], int] | None = None, rates: Sequence[float] = (),
) -> optax.GradientTransformation:
  """Builds the optimiser that `spec` names in `OPTIMIZERS`.

  Args:
    spec: `{'name': ..., **kwargs}`. Each optimiser also takes the weights `historical`
      of `historical_average` and `orthogonal` of `orthogonal_regularisation`.
    schedule: update -> learning rate.
    grad_clip: gradients with a larger global norm are scaled to it; 0: no clipping.
    stage, rates: see `layer_wise`; None: one learning rate for all parameters.
  """
  spec = dict(spec)
  historical, orthogonal = spec.pop('historical', 0.0), spec.pop('orthogonal', 0.0)
  tx = registry.build(OPTIMIZERS, spec, what='optimizer', learning_rate=schedule)
  if historical:
    tx = optax.chain(historical_average(historical), tx)
  if orthogonal:
    tx = optax.chain(orthogonal_regularisation(orthogonal), tx)
  if stage is not None:
    tx = layer_wise(tx, stage, rates)
  if grad_clip > 0:
    tx = optax.chain(optax.clip_by_global_norm(grad_clip), tx)
  return tx
