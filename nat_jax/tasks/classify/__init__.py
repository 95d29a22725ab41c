"""Classifiers that are trained to be unconfident on negatives.

  build               the trainer of a config; the table of trainers
  step                the update: cross-entropy on positives, KL on negatives
  treatments          negative transforms: mixing with positives, hard-negative mining
  attention_transfer  a student trained to match its teacher's attention maps
  rotation            the rotation of positives as an auxiliary task
  adaptive_mix        positives whose features are mixed as their pixels are
  adversarial         adversarial pictures of the positives as negatives, by PGD
  mixup               positives that are mixed in pairs
  inputs              the images of a config, for training and for evaluation
  view                pictures -> inputs of a classifier, of pictures or of vectors
  duplicates          near-duplicates among the pictures of all sets
  evaluate            metrics on every evaluation set
  rule                accepts an image or answers "none of these"; calibration.json
  attention_maps      attention maps for the report
  report              tables and figures
  classes             tables of single classes and of corrupted positives
  verdict             what a report begins with: its results in words
"""

from nat_jax.task import Task
from nat_jax.tasks.classify import build, evaluate, inputs, report, verdict
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
    commands=('evaluate', 'calibrate', 'predict', 'export', 'serve', 'posthoc',
              'influence'),
    resolve=build.resolve,
    verdict=verdict.verdict,
)

__all__ = ['EVALUATORS', 'TASK', 'TRAINERS', 'TREATMENTS', 'attention_transfer',
           'supervised']
