"""Segmentation with rare classes: synthetic pairs of pasted masks, and a known void.

  build     the pairs and the trainer of a config
  step      the update of a discriminator, a generator and the segmenter
  evaluate  IoU per class, and the confidence in the void
  predict   masks of new pictures
  report    tables, figure and verdict of many runs
"""

from nat_jax.task import Task
from nat_jax.tasks.segment import build, evaluate, predict, report
from nat_jax.tasks.segment.build import TRAINERS

TASK = Task(
    title='segmenters',
    load=build.load,
    build=build.build,
    evaluator=evaluate.make_evaluator,
    tables=report.tables,
    figures=report.figures,
    resolve=build.resolve,
    verdict=report.verdict,
    commands=('evaluate', 'predict'),
    predict=predict.predict,
)

__all__ = ['TASK', 'TRAINERS']
