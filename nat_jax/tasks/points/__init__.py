"""GANs of points on a line or in a plane, many seeds in parallel; no data set needed.

  step        the points, and the update of all seeds as one program
  evaluate    snapshots of samples and decision boundary, distances to the data
  measures    distances, fluctuation of the boundary, paired tests over seeds
  figures     density and boundary over time, as a figure and an animation
  report      tables and figures of many runs
"""

from nat_jax.task import Task
from nat_jax.tasks.points import evaluate, report, step
from nat_jax.tasks.points.step import NOISES, TRAINERS

TASK = Task(
    title='GANs of points',
    load=step.load,
    build=step.build,
    evaluator=evaluate.make_evaluator,
    tables=report.tables,
    figures=report.figures,
    verdict=report.verdict,
    commands=('evaluate', 'influence'),
    sampler=evaluate.sampler_of,
)

__all__ = ['NOISES', 'TASK', 'TRAINERS']
