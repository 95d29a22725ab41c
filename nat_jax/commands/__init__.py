"""The modes of the program: a module for each, which defines its flags.

  train      trains the runs of a config and reports on them (plan: which runs)
  evaluate   evaluates a checkpoint on every evaluation set
  predict    classifies a folder of pictures, or answers "none of these"
  posthoc    evaluates post-hoc confidence scores of a checkpoint
  generate   generates images with a GAN's checkpoint
  report     writes one report on many workdirs
"""

from nat_jax.commands import (
    evaluate,
    generate,
    posthoc,
    predict,
    report,
    train,
)

# Mode -> function of the positional arguments.
COMMANDS = {
    'train': train.run, 'evaluate': evaluate.run, 'predict': predict.run,
    'posthoc': posthoc.run, 'generate': generate.run, 'report': report.run,
}
