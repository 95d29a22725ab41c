"""GANs of images: a generator and a discriminator, with external negatives or without.

  build       the images and the trainer of a config; the table of trainers
  step        n updates of the discriminator, one of the generator
  evolution   E-GAN: several updated copies of the generator, of which one stays
  active      a classifier, of whose uncertainty the generator's reward is made
  adaptive_mix  mixed images, of which D's features are to be those of both, mixed
  players     the parts of such steps: samples, passes, penalties
  metrics     training metrics, among them signs of mode collapse
  evaluate    samples of a generator, and their metrics
  features    evaluation classifiers: pixels, a classifier of ours, Inception
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
    commands=('evaluate', 'generate', 'influence'),
    resolve=build.resolve,
    verdict=report.verdict,
    sampler=evaluate.sampler_of,
)

__all__ = ['EVALUATORS', 'FEATURES', 'TASK', 'TRAINERS', 'gan']
