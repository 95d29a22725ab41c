"""Detectors of outliers among vectors, trained against generated outliers (GAAL).

  step        the examples, and the update of a discriminator and k generators
  evaluate    scores of the examples, beside those of scikit-learn's detectors
  sample      generated outliers, as a source of negatives
  detector    `Detector`, in the conventions of scikit-learn
  report      tables of many runs
"""

from nat_jax.task import Task
from nat_jax.tasks.outliers import evaluate, report, sample, step
from nat_jax.tasks.outliers.detector import Detector

TASK = Task(
    title='detectors of outliers',
    load=step.load,
    build=step.build,
    evaluator=evaluate.make_evaluator,
    tables=report.tables,
    figures=report.figures,
    resolve=step.resolve,
    verdict=report.verdict,
    sampler=sample.make_sampler,
)

__all__ = ['TASK', 'Detector']
