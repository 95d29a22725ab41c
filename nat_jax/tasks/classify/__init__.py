"""Classifiers that know what they do not know.

  build               a config -> the trainer; the table of trainers
  step                the update: cross-entropy on positives, KL on negatives
  treatments          what is done to the negatives of a batch before it
  attention_transfer  a student that looks where its teacher looks
  inputs              a config -> the images, for training and for evaluation
  evaluate            figures on every evaluation set
  attention_maps      where a network looks, for the report
  report              tables and figures
"""

from nat_jax.task import Task
from nat_jax.tasks.classify import build, evaluate, inputs, report
from nat_jax.tasks.classify.attention_transfer import attention_transfer
from nat_jax.tasks.classify.build import TRAINERS
from nat_jax.tasks.classify.evaluate import EVALUATORS
from nat_jax.tasks.classify.step import supervised
from nat_jax.tasks.classify.treatments import TREATMENTS

TASK = Task(
    title='classifiers',
    load=inputs.load,
    build=build.build,
    evaluator=evaluate.make_evaluator,
    tables=report.tables,
    figures=report.figures,
    commands=('evaluate', 'predict', 'posthoc'),
    resolve=build.resolve,
)

__all__ = ['EVALUATORS', 'TASK', 'TRAINERS', 'TREATMENTS', 'attention_transfer',
           'supervised']
