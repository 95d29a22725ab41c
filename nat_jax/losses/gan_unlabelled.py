"""GAN objectives of K outputs whose losses on real examples need no labels.

    objective = make_gan_objective({'name': 'implicit_gan'}, num_classes=10)

The task 'semi_supervised' trains a classifier on labelled examples and, by such an
objective, on unlabelled ones. `gan_terms` defines the notation.
"""

import jax
import jax.numpy as jnp

from nat_jax import names
from nat_jax.losses import gan_terms as terms
from nat_jax.losses.gan_terms import GanObjective
from nat_jax.losses.negative_aware import check_direction, cross_entropy, uniform_kl


def implicit_gan(num_classes: int, gen: str = 'real') -> GanObjective:
  """K + 1 classes with an implicit logit: that of the fake class is fixed to 0.

  D_r = 1 - softmax(l_1..l_K, 0)_{K+1} = sigmoid(logsumexp(l)), the probability of all
  classes together. D: -log D_r (real), -log(1 - D_r) (fake, negative).

  K outputs are enough, since softmax does not change if a constant is added to all
  logits. The probabilities of the classes of a real example are softmax(l).

  Args:
    num_classes: K.
    gen: G's loss: 'real', -log D_r, or 'class', that of AM-GAN, H(e_y, (l, 0)) over
      the K + 1 classes with a label y <= K.

  Raises:
    ValueError: fewer than two classes, or an unknown `gen`.

  Reference: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016,
  section 5.
  """
  terms.check_num_classes('implicit_gan', num_classes)

  def score(outputs):
    return jax.nn.logsumexp(outputs, axis=1)

  def is_real(outputs, labels, marginal):
    del labels, marginal
    return jax.nn.softplus(-score(outputs))

  def is_fake(outputs, labels, marginal):
    del labels, marginal
    return jax.nn.softplus(score(outputs))

  def is_class(outputs, labels, marginal):
    del marginal
    return cross_entropy(jnp.pad(outputs, ((0, 0), (0, 1))), labels)

  of_gen = {'real': is_real, 'class': is_class}
  if gen not in of_gen:
    raise ValueError(names.unknown('gen', gen, of_gen))
  return terms.per_set(
      num_classes, lambda outputs: outputs, real=is_real, fake=is_fake,
      gen=of_gen[gen], score=score)


def nat_gan_unlabelled(
    num_classes: int, direction: str = 'uniform_first', marginal: float = 0.0
) -> GanObjective:
  """NAT-GAN without labels: D is sure of real examples and uniform on fakes.

  D: H(D) - marginal H(mean_data D) (real), KL(u || D) (fake, negative).
  G: H(D) - marginal H(mean_G D).

  H(D) stands where NAT-GAN has H(e_y, D), which needs a label y. On fakes, CatGAN's
  -H(D) has no gradient where D is sure; KL(u || D) has the gradient D - u.

  Args:
    num_classes: K.
    direction: of the KL divergence, one of `DIRECTIONS` (see `uniform_kl`).
    marginal: the weight of the entropies of the mean predictions, which balance the
      classes.

  Raises:
    ValueError: fewer than two classes, an unknown direction, or a negative weight.
  """
  terms.check_num_classes('nat_gan_unlabelled', num_classes)
  check_direction(direction)
  terms.check_weight('marginal', marginal)

  def sure(outputs, labels, mean):
    del labels
    loss = terms.entropy(outputs)
    return loss - marginal * terms.marginal_entropy(outputs, mean) if marginal else loss

  return terms.per_set(
      num_classes, lambda outputs: outputs, real=sure,
      fake=lambda outputs, labels, mean: uniform_kl(outputs, direction),
      gen=sure, whole_batch=marginal > 0, score=uniform_kl,
  )._replace(realness=terms.largest)


UNLABELLED = {'implicit_gan': implicit_gan, 'nat_gan_unlabelled': nat_gan_unlabelled}
