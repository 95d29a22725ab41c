"""A checkpoint -> figures on every evaluation set of its config -> eval.json.

    evaluation = evaluate('runs/digits')             # the newest checkpoint
    evaluation['evals']['cifar100_test']['ncr']['0.8']
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nat_jax import attention_maps, data, experiment, inputs, metrics, schema
from nat_jax.runtime import parallel, results, writers

NUM_MISTAKES = 36  # pictures on the sheet of mistakes

Predict = Callable[[np.ndarray], np.ndarray]  # images [n, h, w, c] -> logits [n, k]


class Evaluator(NamedTuple):
  """How the loop looks at what it trains.

  Attributes:
    run: (state, step, final) -> (figures by set, what `save` needs besides); unless
      `final`, of the sets alone that choices on the way are made by.
    save: (state, step, figures, the same) -> what it wrote to eval.json.
    summary: figures -> a line for the terminal.
    num_bytes: disk space that `save` will need, at most.
  """

  run: Callable[..., tuple[dict[str, Any], Any]]
  save: Callable[..., dict[str, Any]]
  summary: Callable[[Mapping[str, Any]], str]
  num_bytes: int


def make_evaluator(
    config: Mapping[str, Any], workdir: str, training: inputs.Training, trainer, mesh
) -> Evaluator:
  """The `Evaluator` of a classifier.

  Raises:
    ValueError: what is wrong with the evaluation sets.
  """
  sets = inputs.load_evals(config, training.negatives)
  shape = sets[config['reference']].arrays.image.shape[1:]
  if shape != training.image_shape:
    raise ValueError(
        f'evaluation set {config["reference"]!r} has images of shape {shape}, the '
        f'training images are {training.image_shape}; choose size and mode of its '
        'source to match')
  check_best(config, sets)
  predict = make_predict(trainer.heads['logits'], mesh, config['eval_batch_size'])
  # What is looked at on the way may steer who looks: not the test, if it can be helped.
  watched = of_part(sets, schema.VALIDATION) or sets

  def run(state, step, final):
    del step
    return evaluate_sets(
        config, sets if final else watched, functools.partial(predict, state), final)

  def save(state, step, figures, scores):
    maps = attention_maps.compute(trainer, state, mesh, of_part(sets, schema.TEST))
    return save_evaluation(
        workdir, config, step, training.class_names, sets, figures, scores, maps)

  return Evaluator(run, save, summary, _num_bytes(config, sets))


def _num_bytes(config, sets):
  """Of the scores of every image (logits, and 40 bytes besides) and the mistakes."""
  scores = sum(len(one.arrays.label) for one in sets.values()) * (
      4 * (config['num_classes'] + 1) + 40)
  return scores + sum(
      NUM_MISTAKES * one.arrays.image[0].size for one in sets.values())


def of_part(sets: Mapping[str, inputs.EvalSet], part: str) -> dict[str, inputs.EvalSet]:
  """The sets of a part, in their order."""
  return {name: one for name, one in sets.items() if one.part == part}


def summary(figures: Mapping[str, Any]) -> str:
  """Accuracy of each positive set, AUROC of each negative one, which needs no t.

  Of the test sets; of all where there is none among them.
  """
  of_test = {name: values for name, values in figures.items()
             if values.get('part', schema.TEST) == schema.TEST}
  return ', '.join(
      f'{name} accuracy {values["accuracy"]:.3f}' if values['positive'] else
      f'{name} AUROC {values["auroc"]:.3f}'
      for name, values in (of_test or figures).items())


def make_predict(head, mesh, batch_size: int) -> Callable[[Any, np.ndarray], Any]:
  """Returns (state, any number of images) -> their logits.

  The tail is padded to a whole batch and cut off again: every image counts once.
  """
  num_devices = mesh.devices.size
  batch_size = -(-batch_size // num_devices) * num_devices
  run = parallel.wrap_head(head, mesh)

  def predict(state, images):
    pending, done = [], []
    for start in range(0, len(images), batch_size):
      batch = np.asarray(images[start : start + batch_size])
      missing = batch_size - len(batch)
      batch = np.pad(batch, [(0, missing), *[(0, 0)] * (batch.ndim - 1)])
      pending.append(run(state, batch))
      if len(pending) > 2:  # the device is kept two batches ahead
        done.append(np.asarray(pending.pop(0)))
    done += [np.asarray(logits) for logits in pending]
    return np.concatenate(done)[: len(images)]

  return predict


def evaluate_sets(
    config: Mapping[str, Any],
    sets: Mapping[str, inputs.EvalSet],
    predict: Predict,
    bootstrap: bool = True,
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
  """Evaluates a classifier on some sets, each for itself or beside its own part.

  Args:
    config: of the run.
    sets: of `inputs.load_evals`: all of them, or all of some parts.
    predict: images -> logits.
    bootstrap: whether to add the AUROC's intervals.

  Returns:
    (figures by set as in eval.json, per-image scores by set).
  """
  compared, figures, scores = inputs.references(config), {}, {}
  for name, eval_set in sets.items():
    logits = predict(eval_set.arrays.image)
    scores[name] = {
        **metrics.scores_from_logits(logits, config['num_classes']),
        'label': eval_set.arrays.label,
        'index': np.arange(len(logits), dtype=np.int32),
        'logits': logits,
    }
  for name, eval_set in sets.items():
    about = {'positive': eval_set.positive, 'part': eval_set.part}
    if eval_set.positive:
      figures[name] = {**about, **metrics.positive_summary(
          scores[name], eval_set.arrays.label)}
    else:
      figures[name] = {
          **about,
          **metrics.negative_summary(
              scores[compared[eval_set.part]], scores[name], bootstrap=bootstrap),
          'seen_in_training': eval_set.seen,
          'overlap_with_training_negatives': eval_set.overlap,
      }
  return figures, scores


def lower_is_better(figure: str) -> bool:
  """Whether 'set/name/...' is a figure whose best value is the lowest."""
  return bool(re.search('/(ncr|fpr95|ece)', figure))


def check_best(
    config: Mapping[str, Any], sets: Mapping[str, inputs.EvalSet]
) -> None:
  """Raises ValueError unless the config's `best` is '' or a figure of validation."""
  if not config['best']:
    return
  few = {
      name: one._replace(arrays=data.Arrays(one.arrays.image[:2], one.arrays.label[:2]))
      for name, one in of_part(sets, schema.VALIDATION).items()
  }
  width = config['num_classes']
  known = dict(writers.flat(evaluate_sets(
      config, few, lambda images: np.zeros((len(images), width), np.float32),
      bootstrap=False)[0]))
  if config['best'] not in known:
    raise ValueError(
        f'best={config["best"]!r} must be a figure of an evaluation set of part '
        f'{schema.VALIDATION!r}: what chose a checkpoint cannot test it. '
        + (f'There will be: {", ".join(known)}' if known else
           "There is no such set: add one to evals, or leave best=''")
    )


def save_evaluation(
    workdir: str,
    config: Mapping[str, Any],
    step: int,
    class_names: Sequence[str],
    sets: Mapping[str, inputs.EvalSet],
    figures: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, np.ndarray]],
    maps: Mapping[str, np.ndarray],
) -> dict[str, Any]:
  """Writes eval.json (returned), the per-image scores, the worst mistakes and the
  attention maps."""
  evaluation = {
      'name': config['name'], 'variant': config['variant'], 'seed': config['seed'],
      'step': step, 'reference': config['reference'],
      'num_classes': config['num_classes'], 'class_names': list(class_names),
      'background': any(one['logits'].shape[1] > config['num_classes']
                        for one in scores.values()),
      'evals': figures,
  }
  arrays = {f'{results.SCORES}/{name}': values for name, values in scores.items()}
  for name, values in scores.items():
    if not sets[name].positive and sets[name].part == schema.TEST:
      arrays[f'{results.MISTAKES}/{name}'] = _worst(config, sets[name], values)
  if maps:
    arrays[results.ATTENTION] = maps
  results.write_evaluation(workdir, evaluation, arrays)
  return evaluation


def _worst(config, eval_set, scores):
  """The negatives that a classifier is surest of."""
  worst = np.argsort(-scores['score'], kind='stable')[:NUM_MISTAKES]
  images, settings = eval_set.arrays.image[worst], config['data']
  if images.dtype != np.uint8:
    images = data.quantise(images, settings['mean'], settings['std'])
  return {'image': images, 'max_prob': scores['max_prob'][worst],
          'prediction': scores['prediction'][worst]}


def evaluate(workdir: str, step: int | None = None) -> dict[str, Any]:
  """Restores a checkpoint and evaluates it; needs nothing but the workdir.

  Args:
    workdir: of a run.
    step: of the checkpoint; None: the newest.

  Raises:
    ValueError: no checkpoint, or none of that step.
  """
  restored = experiment.restore(workdir, step, 'classifier')
  sets = inputs.load_evals(restored.config)
  figures, scores = evaluate_sets(restored.config, sets, predictor(restored))
  maps = attention_maps.compute(
      restored.trainer, restored.state, restored.mesh, of_part(sets, schema.TEST))
  return save_evaluation(
      workdir, restored.config, restored.step, restored.class_names, sets, figures,
      scores, maps,
  )


def predictor(restored: experiment.Restored) -> Predict:
  """Images -> logits, by a restored classifier."""
  predict = make_predict(
      restored.trainer.heads['logits'], restored.mesh,
      restored.config['eval_batch_size'],
  )
  return functools.partial(predict, restored.state)
