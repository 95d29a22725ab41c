"""The tasks, families of runs: classifiers, GANs, detectors of outliers.

    task = TASKS[config['task']]           # a nat_jax.task.Task

To add a task, add a package here and a row to `TASKS`.
"""

from nat_jax.tasks import classify, gaan, gan, outliers, points

TASKS = {'classify': classify.TASK, 'gan': gan.TASK, 'gaan': gaan.TASK,
         'points': points.TASK, 'outliers': outliers.TASK}
