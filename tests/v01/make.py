"""Makes the workdirs of version 0.1 beside this file, with the code of that version.

    git worktree add --detach /tmp/v01 7e1835d
    PYTHONPATH=/tmp/v01 python tests/v01/make.py

It does not run with the code of any other version. Of the GAN the checkpoint of step 2
alone is kept, as if it had been cut off there; its eval.json is that of step 4.
"""

import pathlib
import shutil

from nat_jax import presets, train

HERE = pathlib.Path(__file__).parent
KEPT = ('config.json', 'checkpoints', 'eval.json', 'metrics.jsonl', 'scores')
RUN = dict(log_every=2, checkpoint_every=2, updates_per_call=2, tensorboard=False)


def fake(classes, shape, seed=0):
  return {'name': 'fake', 'num': 24, 'shape': shape, 'seed': seed, 'classes': classes}


CLASSIFIER = dict(
    name='old', variant='nat', steps=4, num_classes=3, seed=1,
    model={'name': 'small_conv', 'widths': [4]}, ema_decay=0.5,
    optimizer={'name': 'sgd', 'momentum': 0.9},
    data=dict(
        positives=fake([0, 1, 2], (8, 8, 1)),
        negatives={'three': {'source': fake([3], (8, 8, 1))}}, batch_size=8,
        negatives_per_batch=2),
    evals={
        'test': {'source': fake([0, 1, 2], (8, 8, 1), 1), 'positive': True},
        'held_out': {'source': fake([3], (8, 8, 1), 1)}},
    eval_batch_size=16, run=RUN)
GAN = dict(
    name='old', variant='nat2', steps=4, num_classes=3, seed=1,
    trainer={'name': 'gan'}, ema_decay=0.5,
    generator={'name': 'mlp_generator', 'latent': 5, 'widths': [8]},
    discriminator={
        'name': 'mlp_discriminator', 'widths': [], 'norm': 'spectral'},
    schedule={'name': 'linear', 'learning_rate': 0.01},
    data=dict(
        positives=fake([0, 1, 2], (4, 4, 1)),
        negatives={'three': {'source': fake([3], (4, 4, 1))}}, batch_size=8,
        negatives_per_batch=2),
    measures=dict(num_samples=16, batch_size=8, neighbours=2), run=RUN)

for folder, config in ('classifier', CLASSIFIER), ('gan', GAN):
  workdir = HERE / folder
  shutil.rmtree(workdir, ignore_errors=True)
  train.train(presets.experiment(**config), str(workdir))
  for path in workdir.iterdir():
    if path.name not in KEPT:
      (shutil.rmtree if path.is_dir() else pathlib.Path.unlink)(path)
shutil.rmtree(HERE / 'gan' / 'checkpoints' / '4')
for path in HERE.rglob('commit_success.txt'):  # orbax names the folder it wrote to
  path.write_text('Checkpoint commit was successful.\n')
