"""Classifiers of classes that have no examples, only embeddings: GDAN.

  build       the examples, the batches of the model and of its twin, the trainer
  step        one update of a conditional VAE, a regressor and a discriminator of pairs
  scores      scores of all classes, by the networks and by ridge regression
  evaluate    accuracies on unseen and on seen classes; `predict`, of new rows
  figures     accuracies of each class, real and generated features
  report      tables and figures of many runs
"""

from nat_jax.task import Task
from nat_jax.tasks.zero_shot import build, evaluate, report
from nat_jax.tasks.zero_shot.evaluate import predict
from nat_jax.tasks.zero_shot.step import TRAINERS

TASK = Task(
    title='zero-shot classifiers',
    load=build.load,
    build=build.build,
    evaluator=evaluate.make_evaluator,
    tables=report.tables,
    figures=report.figures,
    resolve=build.resolve,
    verdict=report.verdict,
)

__all__ = ['TASK', 'TRAINERS', 'predict']
