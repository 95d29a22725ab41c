"""The tasks, families of runs: classifiers, GANs of images, GANs of points, attacks.

    task = TASKS[config['task']]           # a nat_jax.task.Task

To add a task, add a package here and a row to `TASKS`.
"""

from nat_jax.tasks import advgan, classify, gaan, gan, points

TASKS = {'advgan': advgan.TASK, 'classify': classify.TASK, 'gan': gan.TASK,
         'gaan': gaan.TASK, 'points': points.TASK}
