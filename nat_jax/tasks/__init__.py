"""The families of runs. A new one is a package here and its row in `TASKS`.

    task = TASKS[config['task']]           # see nat_jax.task.Task
"""

from nat_jax.tasks import classify, gaan, gan, points

TASKS = {'classify': classify.TASK, 'gan': gan.TASK, 'gaan': gaan.TASK,
         'points': points.TASK}
