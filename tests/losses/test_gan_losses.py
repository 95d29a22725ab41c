"""GAN objectives: values, gradients at the logits, identities, extremes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax import losses
from nat_jax.losses import gan
from nat_jax.task import GLOBAL, Pass

K = 4
SPECS = [{'name': name} for name in gan.PER_SET] + [
    {'name': 'gan', 'smoothing': 0.1},
    {'name': 'ac_gan', 'fakes_labelled': False},
    {'name': 'cat_gan_springenberg', 'labelled': 0.5},
    {'name': 'nat_gan', 'direction': 'uniform_second', 'marginal': 0.5},
]
TERMS = ('real', 'fake', 'negative', 'gen')
LABELS = np.array([0, 2, 3, 1, 2])
log, L2 = np.log, np.log(2)


class Terms:
  """The losses of an objective as functions of (outputs, labels, marginal)."""

  def __init__(self, objective):
    self.num_outputs, self.class_logits = objective[:2]
    for name in ('real', 'fake', 'negative'):
      setattr(self, name, self.term(lambda passes, axis, name=name: objective.disc(
          passes, axis)[name], name))
    self.gen = self.term(objective.gen, 'fake')

  @staticmethod
  def term(loss, name):
    def fn(outputs, labels, marginal=None):
      weight = np.ones(len(outputs), np.float32)
      return loss({name: Pass(outputs, labels, weight, marginal)}, GLOBAL)

    return fn


def make(name, num_classes=K, **options):
  return Terms(losses.make_gan_objective({'name': name, **options}, num_classes))


def random_outputs(objective, scale=2.0):
  shape = (len(LABELS), objective.num_outputs)
  return np.random.default_rng(3).normal(scale=scale, size=shape).astype(np.float32)


def softmax(outputs):
  o = np.asarray(outputs, np.float64)
  e = np.exp(o - o.max(axis=1, keepdims=True))
  return e / e.sum(axis=1, keepdims=True)


def marginal_of(objective, outputs):
  if objective.class_logits is None:
    return None
  return softmax(objective.class_logits(outputs)).mean(axis=0).astype(np.float32)


def grads(fns, outputs, labels=LABELS):
  """The gradient of each of the losses; row i is that of the loss of example i."""
  return jax.device_get(jax.jit(lambda o: [
      jax.grad(lambda o, fn=fn: fn(o, labels).sum())(o) for fn in fns])(outputs))


ENTROPY = 3 / 8 * L2 + 2 / 8 * 2 * L2 + 5 / 8 * log(8 / 5)  # of (1, 2, 5)/8
MARGINAL = 11 / 8 * L2  # H((1, 2, 5)/8, (1, 1, 2)/4)
KL = -log(3) - log(10 / 512) / 3  # KL(u || (1, 2, 5)/8)
UNSURE = log(4) + log(16 / 3) / 2  # -log(1/4) + H(u, (1, 3)/4)


@pytest.mark.parametrize(
    'spec, weights, label, expected',
    [  # exp(logits), and the losses as in TERMS
        ('gan', (3,), 0, (log(4 / 3), log(4), log(4), log(4 / 3))),
        # The target 3/4 has the cross-entropy -3/4 log(3/4) - 1/4 log(1/4).
        ('gan+', (3,), 0, (2 * L2 - 0.75 * log(3), log(4), log(4), log(4 / 3))),
        ('wgan', (3,), 0, (-log(3), log(3), log(3), -log(3))),
        ('hinge', (1.5,), 0, (1 - log(1.5), 1 + log(1.5), 1 + log(1.5), -log(1.5))),
        ('hinge', (0.1,), 0, (1 - log(0.1), 0.0, 0.0, -log(0.1))),
        ('label_gan', (1, 2, 5), 1, (2 * L2, log(8 / 5), log(8 / 5), log(8 / 3))),
        ('am_gan', (1, 2, 5), 1, (2 * L2, log(8 / 5), log(8 / 5), 2 * L2)),
        ('ac_gan', (3, 1, 3), 0, (log(16 / 3), log(16), log(4), log(16 / 3))),
        ('ac_gan*', (3, 1, 3), 0, (log(16 / 3), log(4), log(4), log(16 / 3))),
        ('ac_gan_plus', (3, 1, 3), 0, (log(16 / 3), UNSURE, UNSURE, log(16 / 3))),
        ('cat_gan', (1, 2, 5), 1, (
            2 * L2 - MARGINAL, log(5 / 8), log(5 / 8), 2 * L2 - MARGINAL)),
        ('cat_gan_springenberg', (1, 2, 5), 1, (
            ENTROPY - MARGINAL, -ENTROPY, -ENTROPY, ENTROPY - MARGINAL)),
        ('cat_gan_springenberg+', (1, 2, 5), 1, (
            ENTROPY - MARGINAL + L2, -ENTROPY, -ENTROPY, ENTROPY - MARGINAL)),
        ('nat_gan', (1, 2, 5), 1, (2 * L2, KL, KL, 2 * L2)),
        ('nat_gan+', (1, 2, 5), 1, (
            2 * L2, log(3) - ENTROPY, log(3) - ENTROPY, 2 * L2 - MARGINAL / 2)),
    ],
)
def test_literal_values(spec, weights, label, expected):
  options = {
      'gan+': {'smoothing': 0.25},
      'ac_gan*': {'fakes_labelled': False},
      'cat_gan_springenberg+': {'labelled': 0.5},
      'nat_gan+': {'direction': 'uniform_second', 'marginal': 0.5},
  }.get(spec, {})
  name = spec.rstrip('*+')
  num_classes = 2 if name in ('label_gan', 'am_gan', 'ac_gan', 'ac_gan_plus') else 3
  objective = make(name, num_classes, **options)
  # A second example, so that no reduction goes unnoticed.
  outputs = np.log(np.float32([weights, weights[::-1]]))
  marginal = None if num_classes == 2 else np.float32([0.25, 0.25, 0.5])
  found = jax.jit(lambda *args: [getattr(objective, term)(*args)[0] for term in TERMS])(
      outputs, np.array([label, 0]), marginal)
  np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-7)


def test_gradients_of_fakes_at_the_logits():
  """The table of what sets the discriminators apart, on a fake and on a negative."""
  def check(name, outputs, expected, atol=1e-6):
    objective = make(name)
    for found in grads([objective.fake, objective.negative], outputs):
      np.testing.assert_allclose(found, expected, rtol=0, atol=atol)

  for name in ('am_gan', 'label_gan'):  # sigma - e_{c+1}
    o = random_outputs(make(name))
    check(name, o, softmax(o) - np.eye(K + 1)[K])

  o = random_outputs(make('nat_gan'))
  p = softmax(o)
  entropy = -np.sum(p * log(p), axis=1, keepdims=True)
  check('cat_gan_springenberg', o, p * (log(p) + entropy))
  check('cat_gan', o, np.eye(K)[p.argmax(axis=1)] - p)
  check('nat_gan', o, p - 1 / K)
  check('nat_gan', np.full_like(o, 7), np.zeros_like(o), atol=0)

  o = random_outputs(make('gan'))
  check('gan', o, 1 / (1 + np.exp(-o)))
  check('hinge', o, np.float32(o > -1), atol=0)


def test_gradients_of_the_auxiliary_classifiers_at_the_logits():
  o = random_outputs(make('ac_gan'))
  real_fake, p = 1 / (1 + np.exp(-o[:, :1])), softmax(o[:, 1:])
  labelled, unsure, none = p - np.eye(K)[LABELS], p - 1 / K, np.zeros_like(p)
  for objective, expected in (
      (make('ac_gan'), (labelled, labelled, none, labelled)),
      (make('ac_gan', fakes_labelled=False), (labelled, none, none, labelled)),
      (make('ac_gan_plus'), (labelled, unsure, unsure, labelled)),
  ):
    found = grads([getattr(objective, term) for term in TERMS], o)
    for term, one, classes in zip(TERMS, found, expected, strict=True):
      first = real_fake - (term in ('real', 'gen'))
      np.testing.assert_allclose(one, np.hstack([first, classes]), atol=1e-6)


def test_gradients_of_real_examples_and_of_the_generator_are_p_minus_label():
  am, nat = make('am_gan'), make('nat_gan')
  for objective, fns in (
      (am, [make('label_gan').real, am.real, am.gen]), (nat, [nat.real, nat.gen])):
    o = random_outputs(objective)
    expected = softmax(o) - np.eye(o.shape[1])[LABELS]
    for found in grads(fns, o):
      np.testing.assert_allclose(found, expected, atol=1e-6)


def test_generator_gradient_of_label_gan_overlays_the_classes():
  objective = make('label_gan')
  o = random_outputs(objective)
  p = softmax(o)
  d_r = p[:, :K].sum(axis=1, keepdims=True)
  expected = np.hstack([-p[:, :K] / d_r * (1 - d_r), 1 - d_r])
  np.testing.assert_allclose(grads([objective.gen], o)[0], expected, atol=1e-6)


def test_am_gan_is_label_gan_plus_an_auxiliary_classifier():
  am, label = make('am_gan'), make('label_gan')
  o = random_outputs(am)

  def split(o, y):
    return label.gen(o, y) + losses.cross_entropy(label.class_logits(o), y)

  found, expected = jax.jit(lambda o: [am.gen(o, LABELS), split(o, LABELS)])(o)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  found, expected = grads([am.gen, split], o)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_springenberg_unlabelled_examples_have_no_class_loss():
  plain, semi = (make('cat_gan_springenberg', labelled=x) for x in (0.0, 2.0))
  o, m = random_outputs(plain), np.full(K, 0.25, np.float32)
  labels = np.where(np.arange(5) == 1, -1, LABELS)
  with_class_loss, without, class_loss = jax.device_get(jax.jit(lambda o: [
      semi.real(o, labels, m), plain.real(o, labels, m),
      losses.cross_entropy(o, labels)])(o))
  found = with_class_loss - without
  np.testing.assert_allclose(found, 2 * class_loss, atol=1e-5)
  assert found[1] == 0 < found[0]


def test_cat_gan_term_on_fakes_is_bounded_whatever_the_labels():
  objective = make('cat_gan')
  o = random_outputs(objective, 50.0)
  loss = jax.jit(objective.fake)
  for label in range(K):
    assert (np.asarray(loss(o, np.full_like(LABELS, label))) >= -log(K)).all()


@pytest.mark.parametrize('spec', SPECS, ids=str)
def test_shapes_and_jit_equals_eager(spec):
  objective = make(**spec)
  name = spec['name']
  widths = dict(gan=1, hinge=1, wgan=1, label_gan=5, am_gan=5, ac_gan=5, ac_gan_plus=5)
  assert objective.num_outputs == widths.get(name, K)
  o = random_outputs(objective)
  m = marginal_of(objective, o)
  if name in ('gan', 'hinge', 'wgan'):
    assert objective.class_logits is None
  else:
    classes = o[:, 1:] if name.startswith('ac_') else o[:, :K]
    np.testing.assert_array_equal(objective.class_logits(o), classes)

  def all_terms(*args):
    return [getattr(objective, term)(*args) for term in TERMS]

  args = jax.device_put((o, LABELS, m))
  eager, compiled = all_terms(*args), jax.jit(all_terms)(*args)
  assert {(x.shape, x.dtype) for x in eager} == {(LABELS.shape, jnp.dtype('float32'))}
  np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-6)
  half = jax.eval_shape(all_terms, o.astype(jnp.bfloat16), LABELS, m)
  assert {x.dtype for x in half} == {jnp.dtype('float32')}


@pytest.mark.parametrize('spec', SPECS, ids=str)
def test_finite_at_logits_of_ten_thousand(spec):
  objective = make(**spec)
  n = objective.num_outputs

  @jax.jit
  def values_and_grads(o, m):
    found = []
    for term in TERMS:
      value, pull = jax.vjp(lambda o: getattr(objective, term)(o, LABELS, m), o)  # noqa: B023
      found.append((value, *pull(jnp.ones_like(value))))
    return found

  signs = np.float32([[1] * n, [-1] * n, [1] + [-1] * (n - 1),
                      [-1] * (n - 1) + [1], [1] + [0] * (n - 1)])
  for o in (1e4 * signs, 1e4 * np.repeat(signs[2:3], 5, axis=0)):  # m with zeros
    found = values_and_grads(o, marginal_of(objective, o))
    for term, pair in zip(TERMS, found, strict=True):
      assert all(np.isfinite(x).all() for x in pair), term


def test_values_at_logits_of_ten_thousand():
  o, y = np.float32([[1e4, 0, -1e4], [-1e4, 0, 1e4]]), np.array([1, 1])
  am_fake, am_gen, label_gen, nat_fake, fake = jax.jit(lambda o: [
      make('am_gan', 2).fake(o, y), make('am_gan', 2).gen(o, y),
      make('label_gan', 2).gen(o, y), make('nat_gan', 3).fake(o, y),
      make('gan').fake(o[:, :1], y)])(o)
  np.testing.assert_array_equal(am_fake, [2e4, 0])
  np.testing.assert_array_equal(am_gen, [1e4, 1e4])
  np.testing.assert_array_equal(label_gen, [0, 1e4])
  np.testing.assert_allclose(nat_fake, 1e4 - log(3), rtol=1e-6)
  np.testing.assert_array_equal(fake, [1e4, 0])


def test_bad_arguments_say_what_is_wrong():
  for name in set(gan.PER_SET) - {'gan', 'hinge', 'wgan'}:
    with pytest.raises(ValueError, match=rf"{name}.*\b2\b.*\b1\b.*'gan'"):
      make(name, 1)
  assert make('gan', 1).num_outputs == make('hinge', 1).num_outputs == 1
  with pytest.raises(ValueError, match="'lsgan'.*ac_gan,"):
    make('lsgan')
  with pytest.raises(TypeError, match="'nat_gan'.*'temperature'.*direction.*marginal"):
    make('nat_gan', temperature=2.0)
  with pytest.raises(ValueError, match="'reverse'.*uniform_first, uniform_second"):
    make('nat_gan', direction='reverse')
  with pytest.raises(ValueError, match='marginal.*-1'):
    make('nat_gan', marginal=-1.0)
  with pytest.raises(ValueError, match='labelled.*nan'):
    make('cat_gan_springenberg', labelled=float('nan'))
  with pytest.raises(ValueError, match=r'marginal.*\[K\].*None'):
    jax.eval_shape(make('cat_gan').gen, np.zeros((5, K), np.float32), LABELS)
  for smoothing in (-0.1, 0.5):
    with pytest.raises(ValueError, match=rf'smoothing.*0.5.*{smoothing}'):
      make('gan', smoothing=smoothing)
  with pytest.raises(AssertionError):  # one output too many
    make('nat_gan').real(np.zeros((5, K + 1), np.float32), LABELS)


def test_the_smoothed_loss_is_least_at_its_target():
  loss = make('gan', smoothing=0.1).real
  logit = np.full((1, 1), log(9.0), np.float32)
  np.testing.assert_allclose(grads([loss], logit, LABELS[:1])[0], 0, atol=1e-6)


def test_realness_is_what_each_kind_of_discriminator_takes_for_real():
  cases = {
      'gan': (1, 1 / 2), 'label_gan': (2, 3 / 8), 'am_gan': (2, 3 / 8),
      'ac_gan': (2, 1 / 2), 'nat_gan': (3, 5 / 8), 'cat_gan': (3, 5 / 8),
      'cat_gan_springenberg': (3, 5 / 8), 'nat_gan_unlabelled': (3, 5 / 8),
      'implicit_gan': (3, 8 / 9), 'mmd': (1, np.nan), 'wgan': (1, np.nan),
      'relativistic': (1, np.nan)}
  found = jax.jit(lambda o: {
      name: losses.make_gan_objective({'name': name}, num_classes).realness(o)
      for name, (num_classes, _) in cases.items()})(np.log(np.float32([[1, 2, 5]])))
  for name, (_, expected) in cases.items():
    np.testing.assert_allclose(found[name], [expected], rtol=1e-6, err_msg=name)
