"""Images/s of every way to run updates, as ratios to the bare compiled step.

    python tests/bench/throughput.py        # digits, WRN-16-1 at 32x32, a GAN of digits
    python tests/bench/throughput.py digits --rounds 5

Forms, in one process; each measurement stands beside the mean of the bare step's right
before and right after it, and the median of these ratios over the rounds is printed:
  bare      the compiled step on one batch that stays on the device: the yardstick
            (the faster of one dispatch a step and, except on CPU, a scan of k)
  calls     k updates a call from resident data (runtime.parallel.wrap_step)
  single    one update a call from resident data
  streamed  batches gathered by grain's threads on the host
  loop      `train.train` with everything on: metrics, logging, TensorBoard events and
            checkpoints (digits: one in 5 s); from its own metrics.jsonl without the
            first record (compilation) and without evaluations
"""

import argparse
import statistics

from steps import loop, machine, make_bare, timed

from nat_jax import runs
from nat_jax.runtime import feed, parallel
from nat_jax.schema import presets


def digits():
  """configs/digits.py:nat in what matters for speed, six times as long."""
  def source(*classes):
    return {'name': 'digits', 'split': 'train', 'classes': classes}

  return presets.experiment(
      name='bench_digits', num_classes=6, steps=6000,
      optimizer={'name': 'sgd', 'momentum': 0.9, 'weight_decay': 5e-4},
      data=dict(
          positives=source(0, 1, 2, 3, 4, 5),
          negatives={'6_7': {'source': source(6, 7)}},
          **presets.NORMALISATION['digits'], batch_size=128, negatives_per_batch=16),
      evals={'test': {'source': source(0, 1, 2, 3, 4, 5), 'positive': True}},
      run=dict(log_every=100, checkpoint_every=3000),
  )


def wide_resnet():
  """WRN-16-1 on 32x32 images with 16 negatives to 128 positives."""
  fake = {'name': 'fake', 'num': 2000, 'shape': (32, 32, 3), 'num_classes': 10}
  return presets.experiment(
      name='bench_wide_resnet', num_classes=10, steps=40,
      model={'name': 'wide_resnet', 'depth': 16, 'widen': 1},
      data=dict(
          positives=fake, negatives={'fake': {'source': {**fake, 'seed': 1}}},
          **presets.NORMALISATION['cifar10'], batch_size=128, negatives_per_batch=16,
          augment=presets.CROP_FLIP),
      evals={'test': {'source': {**fake, 'num': 10}, 'positive': True}},
      run=dict(log_every=10, checkpoint_every=0, updates_per_call=10),
  )


def gan():
  """configs/gan/digits.py:nat0 in what matters for speed."""
  size = dict(widths=(128, 128))
  return presets.experiment(
      task='gan', name='bench_gan', num_classes=6, steps=3000,
      generator={'name': 'mlp_generator', 'latent': 32, **size},
      discriminator={'name': 'mlp_discriminator', **size},
      data=dict(positives={'name': 'digits', 'classes': (0, 1, 2, 3, 4, 5)}),
      measures=dict(num_samples=100), run=dict(log_every=100, checkpoint_every=1500),
  )


BENCHES = {'digits': digits, 'wide_resnet': wide_resnet, 'gan': gan}


def forms(config, steps):
  """Yields (name, fn) where fn(state) makes `steps` updates."""
  bare = make_bare(config)

  def repeat(fn, calls):
    def run(state):
      for _ in range(calls):
        state, _ = fn(state, bare.batch)
      return state
    return run

  def fed(placement, k):
    fn, source, items = feed.make_feed(
        {**config, 'run': {**config['run'], 'placement': placement}}, bare.training,
        bare.trainer, bare.mesh,
        feed.periods(config['run'], [config['run']['eval_every']]))
    def run(state):
      for step in range(0, steps, k):
        state, _ = fn(state, {}, source, items(step, k), k)
      return state
    return run

  result = {'bare': repeat(bare.step, steps)}
  if parallel.scans(bare.mesh):
    result['bare scan'] = repeat(bare.scanned, steps // bare.k)
  result['calls'] = fed('resident', bare.k)
  result['single'] = fed('resident', 1)
  result['streamed'] = fed('streamed', bare.k)
  return result, bare.state, bare.training.stream.num_slots * steps


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('names', nargs='*', default=list(BENCHES))
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()
  print(machine())
  for name in args.names:
    config = runs.resolve(BENCHES[name]())
    made, state, num_images = forms(config, max(config['steps'] // 10, 10))
    states = {form: run(state()) for form, run in made.items()}  # compiles

    def measure(form):
      if form == 'loop':
        return loop(config)  # noqa: B023  called in this turn alone
      states[form], seconds = timed(made[form], states[form])  # noqa: B023
      return num_images / seconds  # noqa: B023

    def bare():
      return max(measure(form) for form in made if form.startswith('bare'))  # noqa: B023

    rates = {form: [] for form in ['bare', *made, 'loop']}
    ratios = {form: [] for form in rates}
    before = bare()
    for _ in range(args.rounds):
      for form in [f for f in rates if not f.startswith('bare')]:
        rate, after = measure(form), bare()
        rates[form].append(rate)
        ratios[form].append(rate / statistics.fmean([before, after]))
        rates['bare'].append(after)
        ratios['bare'].append(1.0)
        before = after
    print(f'\n{name}: medians of {args.rounds} rounds; ratio (lowest, highest)')
    for form in rates:
      if rates[form]:
        low, middle, high = (
            f(ratios[form]) for f in (min, statistics.median, max))
        print(f'  {form:10} {statistics.median(rates[form]):12,.0f} images/s  '
              f'{middle:6.1%} ({low:.1%}, {high:.1%})')


if __name__ == '__main__':
  main()
