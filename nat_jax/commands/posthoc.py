"""Evaluates post-hoc confidence scores (energy, KNN, ViM, ...) of a checkpoint.

    found = posthoc('runs/digits')                  # all scores, the newest checkpoint
    found = posthoc('runs/digits', scores=['energy', 'gen'], per_set=1000)
    found['scores']['gen']['noise']['auroc']
    print(text(found))

It takes any classifier, trained with negatives or without, and writes posthoc.json. The
scores are those of `nat_jax.detectors`, which ignore a background output; eval.json has
the run's own confidence, with the background.
"""

import functools
import itertools
import os
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from nat_jax import detectors, metrics, runs, schema
from nat_jax.commands import flags
from nat_jax.metrics import detection_metrics
from nat_jax.reports import tables
from nat_jax.runtime import files, writers
from nat_jax.tasks import images as images_lib
from nat_jax.tasks import unchanged
from nat_jax.tasks.classify import inputs

POSTHOC = 'posthoc.json'
ODIN_WORK = 3  # passes per image: forward, back to the image, forward of the moved one
BATCHES = 8  # per call of the network, between two reports of progress
TIMED = 8  # fewer batches are not timed: the time of a few varies too much
REPORT = 5.0  # least seconds between two lines of progress within a set


def posthoc(
    workdir: str, step: int | None = None, scores: Sequence[str] | None = None,
    per_set: int | None = None,
) -> dict[str, Any]:
  """Computes detection metrics of every test set; writes posthoc.json.

  Args:
    workdir: of a run.
    step: of the checkpoint; None: the newest.
    scores: names for `detectors.choose`; None: all.
    per_set: of a test set with more images a random sample of this number, drawn with
      seed 0, is used; None: all images.

  Returns:
    The content of posthoc.json: 'scores' {name in `detectors.SCORES`: {negative set:
    detection metrics}}, 'seen_in_training' {negative set: bool}, 'step', 'reference',
    'num_images' {set: [used, in the set]}, 'num_train' [used, in the training set],
    'seed' of the samples, 'neighbours' (k of knn; None without a fitted score), and
    'milliseconds' per image of the network, {'forward', 'with_odin'}; None where fewer
    than 8 batches were timed.

  Raises:
    ValueError: an unknown score, `per_set` below 1, no checkpoint, none of that step,
      or, for a score that is fitted, a network whose logits are not a 'head' layer of
      its features.
  """
  chosen = detectors.choose(scores)
  if per_set is not None and per_set < 1:
    raise ValueError(f'per_set must be 1 or more images, got {per_set}')
  restored = runs.restore(workdir, step, 'classify')
  config = restored.config
  forward = detectors.make_program(restored, odin=False)
  measure = detectors.make_program(restored, odin=True) if 'odin' in chosen else forward
  work = ODIN_WORK if 'odin' in chosen else 1

  train, num_train = None, [0, 0]
  if set(chosen) - set(detectors.UNFITTED):
    train, num_train = detectors.sample(
        images_lib.load_sets(config, False)[0], detectors.NUM_TRAIN)
  sets = _test_sets(workdir, restored)
  taken = {name: detectors.sample(one.arrays, per_set) for name, one in sets.items()}
  report = _Report(num_train[0] + work * sum(used for _, (used, _) in taken.values()))
  if work > 1:
    report.say(
        f'odin takes {ODIN_WORK} passes of the network per test image instead of one, '
        'which is most of the time; --scores without odin, or --per_set, saves it')

  fit, times = None, {'forward': [], 'with_odin': []}
  if train is not None:
    found, took = _apply(forward, train.image, config, functools.partial(
        report, 'training positives', 1))
    times['forward'].append(took)
    fit = detectors.make_fit(restored, found, train.label)
  confidence = {}
  for name, (one, _) in taken.items():
    found, took = _apply(
        measure, one.image, config, functools.partial(report, name, work))
    times['with_odin' if work > 1 else 'forward'].append(took)
    outputs = detectors.of_classes(found, restored.config['num_classes'])
    confidence[name] = {
        score: detectors.SCORES[score](outputs, fit) for score in chosen}
  reference = confidence[config['reference']]
  negative = [name for name, one in sets.items() if not one.positive]
  content = {
      'step': restored.step, 'reference': config['reference'], 'seed': detectors.SEED,
      'num_images': {name: number for name, (_, number) in taken.items()},
      'num_train': num_train,
      'neighbours': fit and fit.neighbours,
      'milliseconds': {what: _per_image(took, config['eval_batch_size'])
                       for what, took in times.items()},
      'seen_in_training': {name: sets[name].seen for name in negative},
      'scores': {
          score: {name: detection_metrics(reference[score], confidence[name][score])
                  for name in negative}
          for score in chosen},
  }
  if jax.process_index() == 0:
    files.write_json(os.path.join(workdir, POSTHOC), content)
  return content


def _test_sets(workdir, restored):
  """The sets of part 'test', but for corrupted images."""
  unchanged.check(workdir, restored.config, restored.config['evals'], runs.OTHERS)
  sets = inputs.load_evals(
      restored.config, parts=[schema.TEST], others=runs.OTHERS,
      class_names=restored.class_names)
  return {name: one for name, one in sets.items() if not one.corrupt}


def text(found: dict[str, Any]) -> str:
  """The result of `posthoc` as two tables, AUROC and FPR95, by score and set."""
  def count(pair):
    return f'{pair[0]:,} of {pair[1]:,}' if pair[0] < pair[1] else f'{pair[1]:,}'

  reference, images = found['reference'], found['num_images']
  names = {name: f'{name} ({"seen" if seen else "unseen"}, {count(images[name])})'
           for name, seen in found['seen_in_training'].items()}
  about = f' of each score, against {reference!r} ({count(images[reference])}).'
  unfitted = detectors.UNFITTED + detectors.LAYER_ONLY
  fitted = [name for name in found['scores'] if name not in unfitted]
  if fitted:
    about += (f' Fitted to {count(found["num_train"])} training positives: '
              f'{", ".join(fitted)}')
    about += f' (knn: k = {found["neighbours"]}).' if 'knn' in fitted else '.'
  if any(used < there for used, there in (*images.values(), found['num_train'])):
    about += f' Samples are drawn with seed {found["seed"]}.'
  ms = found['milliseconds']
  if ms['with_odin'] and ms['forward']:
    share = max(1 - ms['forward'] / ms['with_odin'], 0)
    about += (f' odin took {share:.0%} of the time of the network: '
              f'{ms["with_odin"]:.3g} ms per image with it, {ms["forward"]:.3g} ms '
              'without.')

  def table(key, words):
    metric = metrics.METRICS[key]
    return tables.Table(
        f'{metric.title} ({metric.better} is better){words}',
        ['score', *names.values()],
        [[score, *(f'{figures[name][key]:.{metric.digits}f}' for name in names)]
         for score, figures in found['scores'].items()])

  return '\n'.join(table(key, words).markdown() for key, words in {
      'auroc': about,
      'fpr95_id_positive': ': share of negatives accepted where 95 % of positives are.',
  }.items())


def _apply(program, images, config, report):
  """Applies a program to images, some batches at a time.

  Returns:
    (`Outputs`, (seconds, batches) after the first batch, which includes compilation).
  """
  size, found, began = config['eval_batch_size'], [], None
  ends = [0, *range(size, len(images), BATCHES * size), len(images)]
  for low, high in itertools.pairwise(ends):
    found.append(program(images[low:high]))
    report(high - low, high, len(images))
    began = began or time.monotonic()
  outputs = detectors.Outputs(*(None if parts[0] is None else np.concatenate(parts)
                      for parts in zip(*found, strict=True)))
  return outputs, (time.monotonic() - began, -(-(len(images) - ends[1]) // size))


def _per_image(took, size):
  """Milliseconds per image of a list of (seconds, batches of `size`); None for few."""
  seconds, batches = map(sum, zip(*took, strict=True)) if took else (0, 0)
  return 1e3 * seconds / batches / size if batches >= TIMED else None


class _Report:
  """Lines of progress: images of a set, and the time left for all sets."""

  def __init__(self, total: int):
    """Starts the clock; `total` is the number of passes of single images to do."""
    self.total, self.done, self.work, self.before = total, 0, 0, 0
    self.start = self.shown = self.latest = time.monotonic()

  def __call__(self, name: str, work: int, new: int, done: int, images: int) -> None:
    """Counts `new` images with `work` passes each; `done` of the set's `images` are."""
    if work != self.work:  # another program, whose passes may be slower
      self.work, self.start, self.before = work, self.latest, self.done
    self.done += work * new
    self.latest = time.monotonic()
    if done < images and self.latest - self.shown < REPORT:
      return
    self.shown = self.latest
    left = ((self.latest - self.start) / (self.done - self.before)
            * (self.total - self.done))
    self.say(f'{name}: {done:,} of {images:,} images  ETA {writers.clock(left)}')

  def say(self, line: str) -> None:
    """Prints a line, by the first process only."""
    if jax.process_index() == 0:
      print(line, flush=True)


def run(argv: Sequence[str] = ()) -> None:
  """--mode=posthoc: evaluates post-hoc confidence scores of a checkpoint."""
  del argv
  workdir = flags.needed(flags.WORKDIR, 'posthoc')
  found = posthoc(
      workdir, flags.STEP.value, flags.SCORES.value, flags.PER_SET.value)
  if jax.process_index() == 0:
    print(text(found))
    print(f'written: {os.path.join(workdir, POSTHOC)}')
