"""What D and G minimise: GAN objectives over sigmoid, K or K + 1 outputs.

    objective = make_gan_objective({'name': 'nat_gan'}, num_classes=10)
    passes = {'real': Pass(D(images), labels, weight, marginal), 'fake': Pass(...)}
    d_losses = objective.disc(passes, axis)      # {'real': [n], 'fake': [n]}
    g_losses = objective.gen(passes, axis)       # [n]

D(x) = softmax(l) of the outputs l, u = (1/K, ..., 1/K), e_y is one-hot, and
H(q, p) = -sum_k q_k log p_k, H(p) = H(p, p). The label y of a generated image is either
*dynamic*, the class that D now gives it, or *predefined*, the one that G was asked for;
the trainer decides which.

H(m), the entropy of the mean prediction m = mean_i p_i of a batch, becomes a loss per
example as H(p_i, m): its mean is H(m), and with m held constant its gradient is H(m)'s,
since sum_k p_ik = 1.

References: Li, Jia, Jing, "Negative-Aware Training", ECAI 2020, equations 7-11;
Zhou et al., "Activation Maximization Generative Adversarial Nets", ICLR 2018.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from nat_jax.losses import gan_terms as terms
from nat_jax.losses.gan_terms import GanObjective, Loss
from nat_jax.losses.negative_aware import check_direction, cross_entropy, uniform_kl

ClassLoss = Callable[[jax.Array, jax.Array], jax.Array]  # ([n, K], [n]) -> [n]


def gan(num_classes: int) -> GanObjective:
  """GAN with G's non-saturating loss; one logit l, D_r = sigmoid(l).

  D: -log D_r (real), -log(1 - D_r) (fake, negative). G: -log D_r. It knows no classes.

  Reference: Goodfellow et al., NeurIPS 2014, section 3.
  """
  del num_classes
  return terms.per_set(
      1, None,
      real=lambda outputs, labels, marginal: jax.nn.softplus(-outputs[:, 0]),
      fake=lambda outputs, labels, marginal: jax.nn.softplus(outputs[:, 0]),
      gen=lambda outputs, labels, marginal: jax.nn.softplus(-outputs[:, 0]))


def hinge(num_classes: int) -> GanObjective:
  """Hinge GAN; one logit l.

  D: max(0, 1 - l) (real), max(0, 1 + l) (fake, negative). G: -l. It knows no classes.

  Reference: Miyato et al., "Spectral Normalization", ICLR 2018.
  """
  del num_classes
  return terms.per_set(
      1, None,
      real=lambda outputs, labels, marginal: jax.nn.relu(1 - outputs[:, 0]),
      fake=lambda outputs, labels, marginal: jax.nn.relu(1 + outputs[:, 0]),
      gen=lambda outputs, labels, marginal: -outputs[:, 0])


def label_gan(num_classes: int) -> GanObjective:
  """LabelGAN: K classes and a fake class K + 1 in one softmax.

  D: H(e_y, D) (real), H(e_{K+1}, D) (fake, negative). G: -log sum_{i<=K} D_i.

  Raises:
    ValueError: fewer than two classes, as for all objectives below.

  Reference: Salimans et al., "Improved Techniques", NeurIPS 2016, section 5.
  """
  return _fake_class(
      'label_gan', num_classes,
      gen=lambda outputs, labels, marginal: terms.not_last(outputs))


def am_gan(num_classes: int) -> GanObjective:
  """AM-GAN: D as LabelGAN's, and a single class y <= K as G's aim.

  D: H(e_y, D) (real), H(e_{K+1}, D) (fake, negative). G: H(e_y, D), over all K + 1.

  Reference: Zhou et al., ICLR 2018; NAT's equations 7 and 8.
  """
  return _fake_class(
      'am_gan', num_classes,
      gen=lambda outputs, labels, marginal: cross_entropy(outputs, labels))


def ac_gan(num_classes: int, fakes_labelled: bool = True) -> GanObjective:
  """AC-GAN: outputs [l, K class logits], D_r = sigmoid(l), C = softmax of the K.

  D: -log D_r + H(e_y, C) (real), -log(1 - D_r) + H(e_y, C) (fake), -log(1 - D_r)
  (negative: no class label fits it). G: -log D_r + H(e_y, C).

  Args:
    num_classes: K.
    fakes_labelled: the class loss on fakes in D, the original; False is AC-GAN*.

  Reference: Odena, Olah, Shlens, ICML 2017.
  """
  on_fake = cross_entropy if fakes_labelled else None
  return _auxiliary('ac_gan', num_classes, on_fake, None)


def ac_gan_plus(num_classes: int) -> GanObjective:
  """AC-GAN*+: AC-GAN*, and the class head is to be unsure of what is no class.

  D on fakes and negatives: -log(1 - D_r) + H(u, C), which is KL(u || C) + log K.

  Reference: Zhou et al., ICLR 2018.
  """

  def unsure(class_logits: jax.Array, labels: jax.Array) -> jax.Array:
    del labels
    return uniform_kl(class_logits) + math.log(num_classes)

  return _auxiliary('ac_gan_plus', num_classes, unsure, unsure)


def cat_gan(num_classes: int) -> GanObjective:
  """CatGAN as the NAT paper has it: cross-entropies in place of entropies.

  D: H(e_y, D) - H(mean_data D) (real), -H(e_a, D) with a = argmax D (fake, negative).
  G: H(e_y, D) - H(mean_G D).

  D's term keeps to the argmax even where G's labels are predefined: it is then
  -log K or more, while -H(e_y, D) of another class has no lower bound.

  Reference: NAT's equations 10 and 11, which are maximised, with the sign changed.
  """
  terms.check_num_classes('cat_gan', num_classes)

  def sure(outputs, labels, marginal):
    return cross_entropy(outputs, labels) - terms.marginal_entropy(outputs, marginal)

  def unsure(outputs, labels, marginal):
    del labels, marginal
    return -cross_entropy(outputs, jnp.argmax(outputs, axis=1))

  return terms.per_set(
      num_classes, lambda outputs: outputs, real=sure, fake=unsure, gen=sure)


def cat_gan_springenberg(num_classes: int, labelled: float = 0.0) -> GanObjective:
  """CatGAN as first published: unsupervised, with entropies alone.

  D: H(D) - H(mean_data D) + labelled H(e_y, D) (real), -H(D) (fake, negative).
  G: H(D) - H(mean_G D).

  Args:
    num_classes: K.
    labelled: the weight of the semi-supervised term, which real examples with the
      label -1 do not have.

  Raises:
    ValueError: fewer than two classes, or a negative weight.

  Reference: Springenberg, "Categorical Generative Adversarial Networks", ICLR 2016.
  """
  terms.check_num_classes('cat_gan_springenberg', num_classes)
  terms.check_weight('labelled', labelled)

  def sure(outputs, labels, marginal):
    del labels
    return terms.entropy(outputs) - terms.marginal_entropy(outputs, marginal)

  def sure_and_right(outputs, labels, marginal):
    return (sure(outputs, labels, marginal)
            + labelled * cross_entropy(outputs, labels))

  return terms.per_set(
      num_classes, lambda outputs: outputs,
      real=sure_and_right,
      fake=lambda outputs, labels, marginal: -terms.entropy(outputs),
      gen=sure)


def nat_gan(
    num_classes: int, direction: str = 'uniform_first', marginal: float = 0.0
) -> GanObjective:
  """NAT-GAN: K outputs and no fake class; D is to be unsure of fakes and negatives.

  D: H(e_y, D) (real), KL(u || D) (fake, negative). G: H(e_y, D) - marginal H(mean_G D).

  Args:
    num_classes: K.
    direction: of the divergence, as for `uniform_kl`.
    marginal: the weight of a marginal entropy in G's loss, which balances the classes
      that dynamic labels choose; 0 in the paper.

  Raises:
    ValueError: fewer than two classes, an unknown direction, or a negative weight.

  Reference: NAT's equations 7 and 9.
  """
  terms.check_num_classes('nat_gan', num_classes)
  check_direction(direction)
  terms.check_weight('marginal', marginal)

  def gen(outputs, labels, mean):
    loss = cross_entropy(outputs, labels)
    return loss - marginal * terms.marginal_entropy(outputs, mean) if marginal else loss

  return terms.per_set(
      num_classes, lambda outputs: outputs,
      real=lambda outputs, labels, mean: cross_entropy(outputs, labels),
      fake=lambda outputs, labels, mean: uniform_kl(outputs, direction),
      gen=gen)


def _fake_class(name: str, num_classes: int, *, gen: Loss) -> GanObjective:
  """Of K + 1 outputs in one softmax, the last for what is not real."""
  terms.check_num_classes(name, num_classes)
  return terms.per_set(
      num_classes + 1, lambda outputs: outputs[:, :-1],
      real=lambda outputs, labels, marginal: cross_entropy(outputs, labels),
      fake=lambda outputs, labels, marginal: cross_entropy(
          outputs, jnp.full_like(labels, num_classes)),
      gen=gen)


def _auxiliary(
    name: str,
    num_classes: int,
    on_fake: ClassLoss | None,
    on_negative: ClassLoss | None,
) -> GanObjective:
  """Of a sigmoid logit and K class logits, with class losses on what is not real."""
  terms.check_num_classes(name, num_classes)

  def real(outputs, labels, marginal):
    del marginal
    return jax.nn.softplus(-outputs[:, 0]) + cross_entropy(outputs[:, 1:], labels)

  def unreal(class_loss: ClassLoss | None) -> Loss:
    def fn(outputs, labels, marginal):
      del marginal
      loss = jax.nn.softplus(outputs[:, 0])
      return loss if class_loss is None else loss + class_loss(outputs[:, 1:], labels)

    return fn

  return terms.per_set(
      num_classes + 1, lambda outputs: outputs[:, 1:],
      real=real, fake=unreal(on_fake), negative=unreal(on_negative), gen=real)


PER_SET = {
    'gan': gan,
    'hinge': hinge,
    'label_gan': label_gan,
    'ac_gan': ac_gan,
    'ac_gan_plus': ac_gan_plus,
    'cat_gan': cat_gan,
    'cat_gan_springenberg': cat_gan_springenberg,
    'am_gan': am_gan,
    'nat_gan': nat_gan,
}
