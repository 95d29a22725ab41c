"""The tasks, families of runs: classifiers, GANs, detectors of outliers, attacks.

    task = TASKS[config['task']]           # a nat_jax.task.Task

To add a task, add a package here and a row to `TASKS`.
"""

from nat_jax.tasks import (
    advgan,
    classify,
    gaan,
    gan,
    outliers,
    points,
    segment,
    semi_supervised,
    time_series,
    zero_shot,
)

TASKS = {'advgan': advgan.TASK, 'classify': classify.TASK, 'gan': gan.TASK,
         'gaan': gaan.TASK, 'outliers': outliers.TASK, 'points': points.TASK,
         'semi_supervised': semi_supervised.TASK,
         'segment': segment.TASK, 'time_series': time_series.TASK,
         'zero_shot': zero_shot.TASK}
