"""GANs of images: a generator and a discriminator, with external negatives or without.

  build       a config -> the images and the trainer; the table of trainers
  step        n updates of the discriminator, one of the generator
  players     what such steps are made of: samples, passes, penalties
  metrics     the running metrics, and the signs of a collapse
  evaluate    samples of a generator, and the measures of them
  features    what the measures rest on: pixels, a classifier of ours, Inception
  neighbours  samples beside the training images nearest to them
  report, tables, figures    of many runs
"""

from nat_jax.task import Task
from nat_jax.tasks.gan import build, evaluate, report
from nat_jax.tasks.gan.build import TRAINERS
from nat_jax.tasks.gan.evaluate import EVALUATORS
from nat_jax.tasks.gan.features import FEATURES
from nat_jax.tasks.gan.step import gan

TASK = Task(
    title='GANs',
    load=build.load,
    build=build.build,
    evaluator=evaluate.make_evaluator,
    tables=report.tables,
    figures=report.figures,
    commands=('evaluate', 'generate'),
)

__all__ = ['EVALUATORS', 'FEATURES', 'TASK', 'TRAINERS', 'gan']
