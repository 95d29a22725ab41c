"""A classifier -> figures on every evaluation set of its config -> eval.json.

    evaluator = make_evaluator(config, workdir, inputs, trainer, mesh, others)
    figures, scores = evaluator.run(state, step, final=True)
    figures['cifar100_test']['ncr']['0.8']
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nat_jax import data, metrics, schema
from nat_jax.runtime import inference, results, writers
from nat_jax.task import Evaluator, Inputs, Others, Run, Trainer
from nat_jax.tasks.classify import attention_maps, inputs

NUM_MISTAKES = 36  # pictures on the sheet of mistakes

Predict = Callable[[np.ndarray], np.ndarray]  # images [n, h, w, c] -> logits [n, k]


def make_evaluator(
    config: Mapping[str, Any], workdir: str, given: Inputs, trainer: Trainer, mesh,
    others: Others,
) -> Evaluator:
  """The `Evaluator` of a classifier.

  Raises:
    ValueError: what is wrong with the evaluation sets.
  """
  del others
  sets = inputs.load_evals(config, given.negatives)
  shape = sets[config['reference']].arrays.image.shape[1:]
  if shape != given.shape:
    raise ValueError(
        f'evaluation set {config["reference"]!r} has images of shape {shape}, the '
        f'training images are {given.shape}; choose size and mode of its '
        'source to match')
  check_best(config, sets)
  predict = inference.make_predict(
      trainer.heads['logits'], mesh, config['eval_batch_size'])
  # What is looked at on the way may steer who looks: not the test, if it can be helped.
  watched = of_part(sets, schema.VALIDATION) or sets

  def run(state, step, final):
    del step
    return evaluate_sets(
        config, sets if final else watched, functools.partial(predict, state), final)

  def save(state, step, figures, scores):
    maps = attention_maps.compute(trainer, state, mesh, of_part(sets, schema.TEST))
    return save_evaluation(
        workdir, config, step, given.class_names, sets, figures, scores, maps)

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
  return results.write_evaluation(workdir, evaluation, arrays)


def _worst(config, eval_set, scores):
  """The negatives that a classifier is surest of."""
  worst = np.argsort(-scores['score'], kind='stable')[:NUM_MISTAKES]
  images, settings = eval_set.arrays.image[worst], config['data']
  if images.dtype != np.uint8:
    images = data.quantise(images, settings['mean'], settings['std'])
  return {'image': images, 'max_prob': scores['max_prob'][worst],
          'prediction': scores['prediction'][worst]}


def predictor(run: Run) -> Predict:
  """Images -> logits, by a restored classifier."""
  predict = inference.make_predict(
      run.trainer.heads['logits'], run.mesh, run.config['eval_batch_size'])
  return functools.partial(predict, run.state)
