"""Classifiers of which few training examples are labelled: semi-supervised learning.

  build  the labelled and the unlabelled examples, and the trainer of a config
  step   one update of the classifier, which is a discriminator, and of a generator

They are evaluated and reported as other classifiers are.
"""

from nat_jax.tasks import classify
from nat_jax.tasks.semi_supervised import build
from nat_jax.tasks.semi_supervised.build import TRAINERS, choose
from nat_jax.tasks.semi_supervised.step import semi_supervised

TASK = classify.TASK._replace(
    title='semi-supervised classifiers', load=build.load, build=build.build,
    commands=('evaluate', 'generate'), resolve=lambda config, others: config)

__all__ = ['TASK', 'TRAINERS', 'choose', 'semi_supervised']
