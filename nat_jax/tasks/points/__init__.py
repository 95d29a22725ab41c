"""GANs of points on a line or in a plane: many seeds side by side, no data needed.

  step        the points, and the update of all seeds as one program
  evaluate    samples and boundary on the way, distances to the data
  measures    distances, steadiness of the boundary, tests over seeds
  figures     density and boundary over time, as a figure and an animation
  report      tables and figures of many runs
"""

from nat_jax.task import Task
from nat_jax.tasks.points import evaluate, report, step
from nat_jax.tasks.points.step import NOISES

TASK = Task(
    title='GANs of points',
    load=step.load,
    build=step.build,
    evaluator=evaluate.make_evaluator,
    tables=report.tables,
    figures=report.figures,
)

__all__ = ['NOISES', 'TASK']
