"""AdvGAN: a generator of small changes of pictures that mislead a trained classifier.

  target      classifiers of other runs: the target, and those that it transfers to
  build       the pictures and the trainer of a config
  step        the update of the student, the discriminator and the generator
  evaluate    the attack beside noise, FGSM and PGD; adversarial.npz
  report      the tables, the figure and the verdict of many runs

Reference: Xiao, Li, Zhu, He, Liu, Song, "Generating Adversarial Examples with
Adversarial Networks", IJCAI 2018.
"""

from nat_jax.task import Task
from nat_jax.tasks.advgan import build, evaluate, report
from nat_jax.tasks.advgan.build import TRAINERS
from nat_jax.tasks.advgan.evaluate import EVALUATORS
from nat_jax.tasks.advgan.target import TARGETS

TASK = Task(
    title='attacks by AdvGAN',
    load=build.load,
    build=build.build,
    evaluator=evaluate.make_evaluator,
    tables=report.tables,
    figures=report.figures,
    resolve=build.resolve,
    verdict=report.verdict,
)

__all__ = ['EVALUATORS', 'TARGETS', 'TASK', 'TRAINERS']
