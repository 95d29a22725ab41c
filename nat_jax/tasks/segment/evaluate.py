"""Evaluates segmenters: IoU per class, and how confident they are in the void.

    evaluator = make_evaluator(config, workdir, inputs, trainer, mesh, others)
    figures, examples = evaluator.run(state, ['test'], final=True)
    figures['test']['miou'], figures['test']['ncr']['0.8']
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nat_jax import data, metrics, schema
from nat_jax.metrics import segmentation
from nat_jax.runtime import inference, parallel, results
from nat_jax.task import Evaluator, Inputs, Others, State, Trainer
from nat_jax.tasks.segment import build

EXAMPLES, SYNTHETIC = 'examples', 'synthetic'  # folder and name of .npz files
NUM_EXAMPLES = 8


def make_evaluator(
    config: Mapping[str, Any], workdir: str, given: Inputs, trainer: Trainer, mesh,
    others: Others,
) -> Evaluator:
  """Returns the `Evaluator` of a segmenter.

  Args:
    config, workdir, given, trainer, mesh, others: see `task.Task.evaluator`.

  Raises:
    ValueError: a mistake in a source, pictures with other channels than those of the
      training, or no set `reference`, or one without a class.
  """
  del others
  if config['reference'] not in config['evals']:
    raise ValueError(
        f'evals must have the set reference={config["reference"]!r}, got '
        f'{list(config["evals"])}')
  predict = inference.make_predict(
      trainer.heads['pixels'], mesh, config['eval_batch_size'])
  sets = {name: _load(config, name, given.shape[-1] - 1) for name in config['evals']}

  def run(state, names, final):
    del final
    found = {name: measure(config, name, sets[name], lambda x: predict(state, x))
             for name in names}
    return ({name: figures for name, (figures, _) in found.items()},
            {name: examples for name, (_, examples) in found.items()})

  def save(state, step, figures, examples):
    arrays = {f'{EXAMPLES}/{name}': one for name, one in examples.items()}
    made = synthetic(config, given, trainer, state, mesh)
    if made is not None:
      arrays[f'{EXAMPLES}/{SYNTHETIC}'] = made
    evaluation = {
        'num_classes': config['num_classes'], 'rare': config['rare'],
        'class_names': list(given.class_names), 'reference': config['reference'],
        'evals': figures}
    return results.write_evaluation(workdir, config, step, evaluation, arrays)

  periods = schema.periods(config)
  num_bytes = 4 * NUM_EXAMPLES * (len(sets) + 1) * math.prod(given.shape)
  return Evaluator(
      periods, run, save, summary, num_bytes, lambda figures: (
          f'mIoU {figures[config["reference"]]["miou"]:.3f}'
          if config['reference'] in figures else ''))


def _load(config, name, channels):
  pairs = build.load_pairs(config, config['evals'][name]['source'])
  if pairs.image.shape[-1] != channels:
    raise ValueError(
        f'evaluation set {name!r} has pictures with {pairs.image.shape[-1]} channels, '
        f'the training pictures have {channels}; set mode of its source to match')
  if name == config['reference'] and (pairs.mask == data.VOID).all():
    raise ValueError(
        f'evaluation set {name!r}, the reference, must have pixels of classes, and its '
        f'{len(pairs.mask)} masks are void everywhere (data.void='
        f'{config["data"]["void"]}); correct the masks, or choose another reference')
  return pairs


def measure(
    config: Mapping[str, Any], name: str, pairs: data.Pairs,
    predict: Callable[[np.ndarray], np.ndarray],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The figures of an evaluation set, and some pictures with predictions.

  miou            mean over classes of the intersection over union, which is not the
                  pixel accuracy; a class that no pixel of the set has, by label or
                  prediction, is left out
  iou             of each class; None for a class that is left out
  rare_iou        mean over the classes `rare` of the config
  pixel_accuracy  share of the pixels of all classes that are predicted correctly
  par, void_ncr   share of the pixels with a class, and of the void, with a maximum
                  probability above t; without void_ncr if there is no void

  IoUs are of the pixels of all pictures together; the void is in none of them. The
  pictures are the first ones, those with a rare class before others.

  Args:
    config: of a segmenter.
    name: of the set.
    pairs: its pictures and masks.
    predict: uint8 pictures -> [n, h, w, 2], see `step.segment`.
  """
  classes, size = config['num_classes'], config['eval_batch_size']
  counts, inside, outside = 0, [], []
  for start in range(0, len(pairs.mask), size):
    rows = slice(start, start + size)
    mask = pairs.mask[rows]
    prediction, confidence = np.moveaxis(predict(pairs.image[rows]), -1, 0)
    counts = counts + segmentation.confusion(
        prediction.astype(np.int32), mask, classes)
    inside.append(confidence[mask != data.VOID])
    outside.append(confidence[mask == data.VOID])
  entry, iou = config['evals'][name], segmentation.intersection_over_union(counts)
  inside, outside = np.concatenate(inside), np.concatenate(outside)
  figures = {
      'n': len(pairs.mask), 'part': entry.get('part', schema.TEST),
      'miou': _mean(iou), 'rare_iou': _mean(iou[config['rare']]),
      'pixel_accuracy': segmentation.pixel_accuracy(counts), 'iou': iou.tolist(),
      'void_pixels': len(outside)}
  if entry.get('seen') is not None:
    figures['seen_in_training'] = entry['seen']
  if len(inside):
    figures['par'] = metrics.positive_acceptance_rate(inside)
  if len(outside):
    figures['void_ncr'] = metrics.negative_confidence_rate(outside)
  has_rare = np.isin(pairs.mask, config['rare']).any((1, 2))
  rows = np.argsort(~has_rare, kind='stable')[:NUM_EXAMPLES]
  return figures, {
      'image': pairs.image[rows], 'mask': pairs.mask[rows],
      'prediction': predict(pairs.image[rows])[..., 0].astype(np.uint8)}


def _mean(values):
  """The mean of what is not NaN; NaN where all is."""
  known = values[~np.isnan(values)]
  return float(known.mean()) if known.size else float('nan')


def synthetic(
    config: Mapping[str, Any], given: Inputs, trainer: Trainer, state: State, mesh,
) -> dict[str, np.ndarray] | None:
  """The first synthetic pairs, as a step of this state makes them of the first batch.

  Args:
    config: of a segmenter.
    given: the inputs of the run; without a pool they are loaded.
    trainer, state, mesh: of the run.

  Returns:
    {'image', 'mask'}; None if the run has no synthetic pairs.
  """
  if not config['data']['pasted_per_batch']:
    return None
  if given.pool is None:
    given = build.load(config, mesh.devices.size)
  batch = data.gather(given.pool, given.stream.index(0))
  head = parallel.wrap_head(
      trainer.heads['synthetic'], parallel.make_mesh(jax.local_devices()[:1]))
  local, _ = parallel.on_one_device(state)
  made = np.asarray(head(local, {key: batch[key] for key in ('base', 'region')}))
  return {'image': made[:NUM_EXAMPLES, ..., :-1], 'mask': made[:NUM_EXAMPLES, ..., -1]}


def summary(figures: Mapping[str, Any]) -> str:
  """mIoU, rare IoU and the NCR of the void of each set in a line."""
  parts = []
  for name, one in figures.items():
    text = f'{name} mIoU {one["miou"]:.3f}, rare IoU {one["rare_iou"]:.3f}'
    if 'void_ncr' in one:
      text += f', void NCR.8 {one["void_ncr"]["0.8"]:.3f}'
    parts.append(text)
  return '; '.join(parts)

