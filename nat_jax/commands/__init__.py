"""What the program can do: a module for each mode, which owns its flags.

  train      a config -> trained runs, their table and their report; plan: which runs
  evaluate   a checkpoint -> its figures on every evaluation set
  predict    a folder of pictures -> a class for each, or "none of these"
  posthoc    a checkpoint -> other confidences
  generate   a GAN's checkpoint -> images
  report     many workdirs -> one report
"""

from nat_jax.commands import (
    evaluate,
    generate,
    posthoc,
    predict,
    report,
    train,
)

# Mode -> function of the arguments that are no flags.
COMMANDS = {
    'train': train.run, 'evaluate': evaluate.run, 'predict': predict.run,
    'posthoc': posthoc.run, 'generate': generate.run, 'report': report.run,
}
