"""Training moves nothing to the device but batches, once per call and explicitly."""

import jax
import pytest

from nat_jax import train
from nat_jax.runtime import feed
from nat_jax.schema import presets

FAKE = {'name': 'fake', 'num': 40, 'shape': (4, 4, 1)}
RUN = dict(log_every=4, checkpoint_every=8, updates_per_call=2, tensorboard=False)
CLASSIFIER = dict(
    model={'name': 'mlp', 'width': 4}, num_classes=4, ema_decay=0.5,
    data=dict(positives=FAKE, batch_size=8, negatives_per_batch=(1, 3), negatives={
        'noise': {'source': {'name': 'uniform_noise', 'num': 20}}}),
    evals={'test': {'source': FAKE, 'positive': True}})
CONFIGS = {
    'resident': CLASSIFIER,
    'streamed': {**CLASSIFIER, 'run': {**RUN, 'placement': 'streamed'}},
    'pmap': {**CLASSIFIER, 'run': {**RUN, 'mode': 'pmap'}},
    'gan': dict(
        task='gan', num_classes=4, data=dict(positives=FAKE, batch_size=8),
        generator={'name': 'mlp_generator', 'latent': 3, 'widths': [4]},
        discriminator={'name': 'mlp_discriminator', 'widths': [4]},
        measures=dict(num_samples=20, batch_size=8, neighbours=2)),
    'points': dict(
        task='points', num_seeds=2, data={'name': 'gaussian1d', 'num': 40},
        num_samples=20, run=dict(RUN, eval_every=4)),
}


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.slow) if name in ('gan', 'points') else name
    for name in CONFIGS])
def test_updates_transfer_nothing_implicitly(name, tmp_path, monkeypatch):
  """The batches of a call are put on the device explicitly, and nothing else is."""
  made, guarded = feed.make_feed, []

  def make_feed(*args):
    step_fn, source, items = made(*args)

    def guarded_step(*given):
      if len(guarded) < 1:  # the first call compiles and makes its constants
        guarded.append('')
        return step_fn(*given)
      guarded.append(name)
      with jax.transfer_guard('disallow'):
        return step_fn(*given)

    return guarded_step, source, items

  monkeypatch.setattr(feed, 'make_feed', make_feed)
  config = {'name': 'toy', 'steps': 8, 'run': RUN, **CONFIGS[name]}
  train.train(presets.experiment(**config), str(tmp_path))
  assert guarded.count(name) >= 3
