"""Metrics of generated images as differentiable functions of a generator's state.

    target = parse('fid')
    measure = make_measure(run, target, others)
    soft, slopes, hard = measure(state)        # slopes: by the floats of the state

The images are made from fixed noise. The classifier of the metrics is that of the run,
`measures.features` of its config, which must be a classifier of this program.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import data, metrics, names
from nat_jax.influence import adjoint, targets
from nat_jax.runtime import parallel
from nat_jax.task import Others, Run
from nat_jax.tasks.gan import features

MOST = 2000  # generated images
EPS = 1e-6  # added to eigenvalues, whose square roots have no derivative at 0


def inception_score(found: Mapping[str, jax.Array], real: Any = None) -> jax.Array:
  """The Inception Score, exp mean_i KL(p_i || p) with p = mean_i p_i, of one split.

  Args:
    found: 'logits' [n, k] of generated images.
    real: not used.

  Returns:
    A float32 scalar.

  Reference: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016.
  """
  del real
  log_p = jax.nn.log_softmax(found['logits'].astype(jnp.float32))
  log_mean = jax.nn.logsumexp(log_p, axis=0) - math.log(len(log_p))
  return jnp.exp((jnp.exp(log_p) * (log_p - log_mean[None])).sum(1).mean())


def frechet(found: Mapping[str, jax.Array], real: metrics.GaussianStats) -> jax.Array:
  """The Frechet distance of features of generated images from those of real ones.

  |m - m_r|^2 + tr(C + C_r) - 2 tr((R C R)^(1/2)), R = C_r^(1/2), where EPS is added to
  the eigenvalues of R C R.

  Args:
    found: 'features' [n, d] of generated images.
    real: mean m_r and covariance C_r of real features.

  Returns:
    A float32 scalar.
  """
  x = found['features'].astype(jnp.float32)
  values, vectors = np.linalg.eigh(real.cov)
  root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
  root = root.astype(np.float32)
  mean = x.mean(0)
  centred = x - mean[None]
  cov = centred.T @ centred / (len(x) - 1)
  inner = jnp.maximum(jnp.linalg.eigvalsh(root @ cov @ root), 0)
  return (jnp.square(mean - real.mean.astype(np.float32)).sum()
          + jnp.trace(cov) + float(np.trace(real.cov))
          - 2 * jnp.sqrt(inner + EPS).sum())


METRICS = {  # name -> (differentiable metric, whether higher is better)
    'inception_score': (inception_score, True), 'fid': (frechet, False)}


def parse(text: str) -> targets.Target:
  """Reads a metric of generated images.

  Args:
    text: 'inception_score' or 'fid'; '': the first one.

  Raises:
    ValueError: another name.
  """
  text = text or 'inception_score'
  if text not in METRICS:
    raise ValueError(
        '--of of GANs of images: ' + names.unknown('metric', text, METRICS))
  return targets.Target(text, '', *METRICS[text])


def check(config: Mapping[str, Any]) -> None:
  """Raises ValueError if the run's metrics have no classifier of this program."""
  spec = config['measures']['features']
  if spec['name'] != 'checkpoint':
    raise ValueError(
        "influence on metrics of samples needs measures.features={'name': "
        "'checkpoint', 'workdir': DIR}, a classifier that was trained with this "
        f'program; the config of the run has {spec["name"]!r}')


def make_measure(
    run: Run, target: targets.Target, others: Others
) -> Callable[[Any], tuple[float, list[Any], float]]:
  """Returns state -> (metric, its derivatives by the floats of the state, metric).

  The first metric is the differentiable form; the second one is that of
  `nat_jax.metrics`, of the same images rounded to 8 bits.

  Args:
    run: of a GAN of images.
    target: from `parse`.
    others: restores the classifier.

  Raises:
    ValueError: no classifier, or one of images of another shape.
  """
  config, spec = run.config, run.config['measures']['features']
  check(config)
  settings, positives = config['measures'], config['data']['positives']
  extractor = features.checkpoint(
      spec.get('workdir', ''), spec.get('step'), mesh=run.mesh, image_shape=run.shape,
      others=others)
  real = metrics.gaussian_stats(features.reference(
      data.load(settings['reference'] or positives), settings['num_samples'],
      extractor, run.shape)[1]['features'])
  judge = others.restore(spec['workdir'], spec.get('step'), 'classify')
  size = settings['batch_size']  # BatchNorm of generators has batches of this size
  num = max(1, min(MOST, settings['num_samples']) // size) * size
  z = np.random.default_rng(0).standard_normal(
      (num, config['generator']['latent']), np.float32)
  label = np.arange(num, dtype=np.int32) % config['num_classes']

  def value_and_grad(given, nothing):
    state, judge_state, batches = given

    def value(leaves):
      changed = adjoint.with_floats(state, leaves)
      made = jax.lax.map(
          lambda noise: run.trainer.heads['samples'](changed, noise), batches)
      made = made.reshape(num, *run.shape)
      shown = _as_seen_by(judge.config['data'], config['data'], made)
      heads, k = judge.trainer.heads, judge.config['num_classes']
      return target.terms({
          'logits': heads['logits'](judge_state, shown)[:, :k],
          'features': heads['features'](judge_state, shown)}, real), made

    return jax.value_and_grad(value, has_aux=True)(adjoint.floats(state))

  compiled = parallel.wrap_head(value_and_grad, run.mesh)
  batches = {name: x.reshape(-1, size, *x.shape[1:])
             for name, x in (('z', z), ('label', label))}

  def measure(state):
    (soft, made), grads = compiled((state, judge.state, batches), {})
    found = extractor.apply(data.quantise(
        np.asarray(made), config['data']['mean'], config['data']['std']))
    return float(soft), grads, _hard(target.text, found, real)

  return measure


def _as_seen_by(theirs, ours, images):
  """Images as generated, normalised as the classifier takes them."""
  mean, std, their_mean, their_std = (
      np.asarray(x, np.float32)[None, None, None] for x in (
          ours['mean'], ours['std'], theirs['mean'], theirs['std']))
  return (jnp.clip(images * std + mean, 0, 1) - their_mean) / their_std


def _hard(name, found, real):
  if name == 'fid':
    return float(metrics.fid(found['features'], real))
  return metrics.inception_score(found['probs'])[0]
