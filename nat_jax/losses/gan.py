"""GAN objectives over sigmoid, K or K + 1 outputs: the losses of D and G per example.

    objective = make_gan_objective({'name': 'nat_gan'}, num_classes=10)
    passes = {'real': Pass(D(images), labels, weight, marginal), 'fake': Pass(...)}
    d_losses = objective.disc(passes, axis)      # {'real': [n], 'fake': [n]}
    g_losses = objective.gen(passes, axis)       # [n]

D(x) = softmax(l) of the outputs l, u = (1/K, ..., 1/K), e_y is one-hot, and
H(q, p) = -sum_k q_k log p_k, H(p) = H(p, p). The label y of a generated image is either
*dynamic*, D's current prediction, or *predefined*, the class that G was conditioned on;
the config key `trainer.labels` chooses.

H(m), the entropy of the mean prediction m = mean_i p_i of a batch, is written as a loss
per example, H(p_i, m). The mean of H(p_i, m) is H(m), and with m held constant so is
its gradient, since sum_k p_ik = 1.

The score of D (`GanObjective.score`) is l where D has one output or an output l beside
class logits, and the log-odds of real where there is a fake class. Objectives without a
fake class, in which D is unsure of fakes, have the score KL(u || D): the mean of
-log D_k, minus log K. It is 0 where D is uniform, the best answer to a fake; unlike
KL(D || u) it grows without bound with the gap of the logits, as l does.

References: Li, Jia, Jing, "Negative-Aware Training", ECAI 2020, equations 7-11;
Zhou et al., "Activation Maximization Generative Adversarial Nets", ICLR 2018.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from nat_jax.losses import gan_terms as terms
from nat_jax.losses.gan_terms import GanObjective, Loss
from nat_jax.losses.gan_unlabelled import UNLABELLED
from nat_jax.losses.negative_aware import check_direction, cross_entropy, uniform_kl

ClassLoss = Callable[[jax.Array, jax.Array], jax.Array]  # ([n, K], [n]) -> [n]


def gan(num_classes: int, smoothing: float = 0.0) -> GanObjective:
  """The unconditional GAN with G's non-saturating loss; one logit l, D_r = sigmoid(l).

  D: -(1 - s) log D_r - s log(1 - D_r) (real), -log(1 - D_r) (fake, negative).
  G: -log D_r.

  Args:
    num_classes: not used.
    smoothing: s, of one-sided label smoothing: D's target for real examples is 1 - s.

  Raises:
    ValueError: a smoothing that is not in [0, 0.5), where the target would be no
      nearer to real than to fake.

  Reference: Goodfellow et al., NeurIPS 2014, section 3; smoothing: Salimans et al.,
  "Improved Techniques for Training GANs", NeurIPS 2016, section 3.4.
  """
  del num_classes
  if not 0 <= smoothing < 0.5:
    raise ValueError(f'smoothing must be in [0, 0.5), got {smoothing}')

  def real(outputs, labels, marginal):
    del labels, marginal
    loss = jax.nn.softplus(-outputs[:, 0])
    # -log(1 - D_r) - (-log D_r) = l
    return loss + smoothing * outputs[:, 0] if smoothing else loss

  return terms.per_set(
      1, None, real=real,
      fake=lambda outputs, labels, marginal: jax.nn.softplus(outputs[:, 0]),
      gen=lambda outputs, labels, marginal: jax.nn.softplus(-outputs[:, 0]))


def hinge(num_classes: int) -> GanObjective:
  """The unconditional hinge GAN; one logit l.

  D: max(0, 1 - l) (real), max(0, 1 + l) (fake, negative). G: -l.

  Reference: Miyato et al., "Spectral Normalization", ICLR 2018.
  """
  del num_classes
  return terms.per_set(
      1, None,
      real=lambda outputs, labels, marginal: jax.nn.relu(1 - outputs[:, 0]),
      fake=lambda outputs, labels, marginal: jax.nn.relu(1 + outputs[:, 0]),
      gen=lambda outputs, labels, marginal: -outputs[:, 0])


def wgan(num_classes: int) -> GanObjective:
  """The unconditional Wasserstein GAN; one score l, which is not a logit.

  D: -l (real), l (fake, negative). G: -l. D's loss has a minimum only among functions
  of bounded slope: it needs the penalty `gradient` (WGAN-GP) or spectral norm. l has no
  zero: only differences of it have a meaning.

  Reference: Arjovsky, Chintala, Bottou, "Wasserstein Generative Adversarial Networks",
  ICML 2017.
  """
  del num_classes
  return terms.per_set(
      1, None,
      real=lambda outputs, labels, marginal: -outputs[:, 0],
      fake=lambda outputs, labels, marginal: outputs[:, 0],
      gen=lambda outputs, labels, marginal: -outputs[:, 0],
  )._replace(bounded=False, realness=terms.unknown)


def label_gan(num_classes: int) -> GanObjective:
  """LabelGAN: K classes and a fake class K + 1 in one softmax.

  D: H(e_y, D) (real), H(e_{K+1}, D) (fake, negative). G: -log sum_{i<=K} D_i.

  Raises:
    ValueError: fewer than two classes.

  Reference: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016,
  section 5.
  """
  return _fake_class(
      'label_gan', num_classes,
      gen=lambda outputs, labels, marginal: terms.not_last(outputs))


def am_gan(num_classes: int) -> GanObjective:
  """AM-GAN: D has LabelGAN's K + 1 outputs, and G aims at a single class y <= K.

  D: H(e_y, D) (real), H(e_{K+1}, D) (fake, negative). G: H(e_y, D), over all K + 1.

  Raises:
    ValueError: fewer than two classes.

  Reference: Zhou et al., ICLR 2018; equations 7 and 8 of the NAT paper.
  """
  return _fake_class(
      'am_gan', num_classes,
      gen=lambda outputs, labels, marginal: cross_entropy(outputs, labels))


def ac_gan(num_classes: int, fakes_labelled: bool = True) -> GanObjective:
  """AC-GAN: outputs [l, K class logits], D_r = sigmoid(l), C = softmax(class logits).

  D: -log D_r + H(e_y, C) (real), -log(1 - D_r) + H(e_y, C) (fake), -log(1 - D_r)
  (negative: no class label fits it). G: -log D_r + H(e_y, C).

  Args:
    num_classes: K.
    fakes_labelled: whether D has the class loss on fakes (the original AC-GAN); False
      is AC-GAN*.

  Raises:
    ValueError: fewer than two classes.

  Reference: Odena, Olah, Shlens, "Conditional Image Synthesis with Auxiliary Classifier
  GANs", ICML 2017; AC-GAN*: Zhou et al., ICLR 2018.
  """
  on_fake = cross_entropy if fakes_labelled else None
  return _auxiliary('ac_gan', num_classes, on_fake, None)


def ac_gan_plus(num_classes: int) -> GanObjective:
  """AC-GAN*+: AC-GAN* whose class head is trained to be uniform on fakes and negatives.

  D on fakes and negatives: -log(1 - D_r) + H(u, C), where H(u, C) = KL(u || C) + log K.

  Raises:
    ValueError: fewer than two classes.

  Reference: Zhou et al., ICLR 2018.
  """

  def unsure(class_logits: jax.Array, labels: jax.Array) -> jax.Array:
    del labels
    return uniform_kl(class_logits) + math.log(num_classes)

  return _auxiliary('ac_gan_plus', num_classes, unsure, unsure)


def cat_gan(num_classes: int) -> GanObjective:
  """CatGAN as in the NAT paper: cross-entropies in place of entropies.

  D: H(e_y, D) - H(mean_data D) (real), -H(e_a, D) with a = argmax D (fake, negative).
  G: H(e_y, D) - H(mean_G D).

  D's loss on fakes uses the argmax even where G's labels are predefined: with the
  argmax it is at least -log K, while -H(e_y, D) of another class has no lower bound.

  Raises:
    ValueError: fewer than two classes.

  Reference: equations 10 and 11 of the NAT paper, which are maximised there; here their
  negatives are minimised.
  """
  terms.check_num_classes('cat_gan', num_classes)

  def sure(outputs, labels, marginal):
    return cross_entropy(outputs, labels) - terms.marginal_entropy(outputs, marginal)

  def unsure(outputs, labels, marginal):
    del labels, marginal
    return -cross_entropy(outputs, jnp.argmax(outputs, axis=1))

  return terms.per_set(
      num_classes, lambda outputs: outputs, real=sure, fake=unsure, gen=sure,
      whole_batch=True, score=uniform_kl)._replace(realness=terms.largest)


def cat_gan_springenberg(num_classes: int, labelled: float = 0.0) -> GanObjective:
  """CatGAN as first published: unsupervised, with entropies only.

  D: H(D) - H(mean_data D) + labelled H(e_y, D) (real), -H(D) (fake, negative).
  G: H(D) - H(mean_G D).

  Args:
    num_classes: K.
    labelled: the weight of the semi-supervised term; real examples with the label -1
      do not have that term.

  Raises:
    ValueError: fewer than two classes, or a negative weight.

  Reference: Springenberg, "Unsupervised and Semi-supervised Learning with Categorical
  Generative Adversarial Networks", ICLR 2016.
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
      gen=sure, whole_batch=True, score=uniform_kl)._replace(realness=terms.largest)


def nat_gan(
    num_classes: int, direction: str = 'uniform_first', marginal: float = 0.0
) -> GanObjective:
  """NAT-GAN: K outputs, no fake class; D predicts uniformly on fakes and negatives.

  D: H(e_y, D) (real), KL(u || D) (fake, negative). G: H(e_y, D) - marginal H(mean_G D).

  Args:
    num_classes: K.
    direction: of the KL divergence, one of `DIRECTIONS` (see `uniform_kl`).
    marginal: the weight of a marginal-entropy term in G's loss, which balances the
      classes that dynamic labels choose; 0 in the paper.

  Raises:
    ValueError: fewer than two classes, an unknown direction, or a negative weight.

  Reference: equations 7 and 9 of the NAT paper.
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
      gen=gen, whole_batch=marginal > 0, score=uniform_kl,
  )._replace(realness=terms.largest)


def _fake_class(name: str, num_classes: int, *, gen: Loss) -> GanObjective:
  """An objective over K + 1 softmax outputs, the last of which is the fake class."""
  terms.check_num_classes(name, num_classes)
  return terms.per_set(
      num_classes + 1, lambda outputs: outputs[:, :-1],
      real=lambda outputs, labels, marginal: cross_entropy(outputs, labels),
      fake=lambda outputs, labels, marginal: cross_entropy(
          outputs, jnp.full_like(labels, num_classes)),
      gen=gen, score=terms.log_odds)


def _auxiliary(
    name: str,
    num_classes: int,
    on_fake: ClassLoss | None,
    on_negative: ClassLoss | None,
) -> GanObjective:
  """An objective over one sigmoid logit and K class logits.

  `on_fake` and `on_negative` are D's class losses on fakes and negatives; None: none.
  """
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
      real=real, fake=unreal(on_fake), negative=unreal(on_negative), gen=real,
      score=terms.first)


PER_SET = {
    'gan': gan,
    'hinge': hinge,
    'wgan': wgan,
    'label_gan': label_gan,
    'ac_gan': ac_gan,
    'ac_gan_plus': ac_gan_plus,
    'cat_gan': cat_gan,
    'cat_gan_springenberg': cat_gan_springenberg,
    'am_gan': am_gan,
    'nat_gan': nat_gan,
    **UNLABELLED,
}
