"""A GAN with an encoder as a family of runs: from its config to its report."""

import json
import shutil

import jax
import numpy as np
import pytest

from nat_jax import runs, train
from nat_jax.commands import report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.schema import presets

FAKE = {'name': 'fake', 'num': 40, 'shape': (4, 4, 1)}


def make_config(**changes):
  return presets.experiment(**dict(
      task='gaan', name='toy', steps=6, num_classes=4, ema_decay=0.5,
      generator={'name': 'mlp_generator', 'latent': 3, 'widths': [4]},
      discriminator={'name': 'mlp_discriminator', 'widths': [4]},
      encoder={'name': 'mlp', 'width': 4, 'depth': 1},
      penalties=[{'name': 'gradient', 'weight': 0.1}],
      data=dict(positives=FAKE, batch_size=8),
      measures=dict(num_samples=20, batch_size=8, neighbours=2),
      run=dict(log_every=3, checkpoint_every=3, updates_per_call=3,
               tensorboard=False)) | changes)


def test_trained_resumed_evaluated_and_reported(tmp_path):
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  evaluation = train.train(make_config(), str(whole))
  assert evaluation['step'] == 6 and np.isfinite(evaluation['evals']['samples']['fid'])
  shutil.copytree(whole, cut)
  (cut / 'eval.json').unlink()
  shutil.rmtree(cut / 'checkpoints' / '6')
  train.train(make_config(), str(cut))  # from update 3 on
  states = [runs.restore(str(workdir)).state for workdir in (whole, cut)]
  assert set(states[0].nets) == {'enc', 'gen', 'disc'}
  for a, b in zip(*(jax.tree.leaves((state.nets, state.ema)) for state in states),
                  strict=True):
    np.testing.assert_array_equal(a, b)
  written = (whole / 'eval.json').read_text()
  evaluate_run(str(whole))
  assert json.loads((whole / 'eval.json').read_text()) == json.loads(written)
  assert 'FID' in report.tables([str(whole), str(cut)])


@pytest.mark.parametrize('changes, named', [
    (dict(loss={'name': 'gan'}), ['loss']),
    (dict(encoder={'name': 'small_conv', 'widths': [4]}), ['encoder', 'small_conv']),
    (dict(encoder={'name': 'nought'}), ['encoder', 'nought', 'mlp']),
    (dict(trainer={'name': 'gaan', 'recon_weight': 2.0}),
     ['trainer.recon_weight', '2.0']),
    (dict(trainer={'name': 'gaan', 'joint': True}), ['joint', 'recon_weight']),
    (dict(data=dict(positives=FAKE, batch_size=8, negatives_per_batch=2, negatives={
        'more': {'source': FAKE}})), ['data.negatives', 'more'])])
def test_mistakes(changes, named, tmp_path):
  with pytest.raises((ValueError, TypeError)) as error:
    train.train(make_config(**changes), str(tmp_path / 'run'))
  assert all(text in str(error.value) for text in named)
  assert not (tmp_path / 'run').exists()
