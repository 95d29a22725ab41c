"""Classes that are recognised by a description alone: GDAN, no download, CPU.

    python -m nat_jax.main --config configs/zero_shot.py --workdir runs/zero-shot

Generated features of 20 classes, each described by 16 attributes; 5 classes are unseen.
Variants, which differ in the weights of the losses:

    gdan         the losses of the paper, with its weights
    no_mismatch  the discriminator has no pairs of an example and another class
    cvae         the generator is a plain conditional VAE, and the regressor is trained
                 by its own error only; the discriminator has all its negatives
    official     settings of the authors' code for CUB, on published files: the features
                 and splits of Xian et al. `official:FOLDER`, or official and
                 --config.data.source.path=FOLDER; res101.mat and att_splits.mat are in
                 FOLDER

Measured: docs/zero_shot.md. A run takes about half a minute on two CPU cores; official
needs a GPU, and has never been run on the real files.
"""

import os

from nat_jax import names
from nat_jax.schema import presets

WEIGHTS = {  # mismatch, adversarial, cycle, regression, dual
    'gdan': (1.0, 1.0, 0.1, 0.1, 0.1),
    'no_mismatch': (0.0, 1.0, 0.1, 0.1, 0.1),
    'cvae': (1.0, 0.0, 0.0, 0.1, 0.0),
    'official': (1.0, 1.0, 0.1, 0.1, 0.1),
}
KEYS = ('mismatch_weight', 'adversarial_weight', 'cycle_weight', 'regression_weight',
        'dual_weight')
CUB = 7057  # training rows


def dense(*widths, dropout=0.0):
  if dropout:
    return {'name': 'mlp_discriminator', 'widths': widths, 'norm': 'none', 'noise': 0.0,
            'dropout': dropout}
  return {'name': 'toy_discriminator', 'widths': widths}


def get_config(variant='gdan'):
  base, _, path = variant.partition(':')
  if base not in WEIGHTS or path and base != 'official':
    raise ValueError(names.unknown('variant', variant, WEIGHTS))
  trainer = {'name': 'gdan', **dict(zip(KEYS, WEIGHTS[base], strict=True)),
             'kl_weight': 1.0, 'output': 'relu', 'pretrain': 0}
  if base != 'official':
    return presets.experiment(
        task='zero_shot', name='attributes', variant=base, steps=4000, trainer=trainer,
        data=dict(source={'name': 'attributes', 'seed': 0}),
        run=dict(log_every=500, checkpoint_every=0))
  # One rate for 670 epochs of the CVAE alone and the 180 of the checkpoint that the
  # authors chose for CUB.
  steps = {epochs: presets.steps(epochs, CUB, 128) for epochs in (670, 850)}
  return presets.experiment(
      task='zero_shot', name=os.path.basename(os.path.normpath(path)) or 'files',
      variant=base, steps=steps[850], latent=100,
      trainer=trainer | {'pretrain': steps[670]},
      # The authors' regressor ends in a ReLU, and their weight decay is coupled.
      encoder=dense(1200, 600, dropout=0.3), decoder=dense(600), regressor=dense(512),
      discriminator=dense(800),
      optimizer={'name': 'adamw', 'b1': 0.8, 'b2': 0.999, 'weight_decay': 0.01},
      schedule={'name': 'constant', 'learning_rate': 1e-5},
      data=dict(source={'name': 'mat', 'path': os.path.abspath(os.path.expanduser(path))
                        if path else ''}, batch_size=128),
      num_generated=500,
      run=dict(log_every=500, checkpoint_every=5000, eval_every=5000))
