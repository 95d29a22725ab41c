"""A classifier -> figures on every evaluation set of its config -> eval.json.

    evaluator = make_evaluator(config, workdir, inputs, trainer, mesh, others)
    figures, scores = evaluator.run(state, ['test', 'cifar100_test'], final=True)
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
  _check_types(sets)
  check_best(config, sets)
  predict = inference.make_predict(
      trainer.heads['logits'], mesh, config['eval_batch_size'])

  def run(state, names, final):
    return evaluate_sets(
        config, sets, functools.partial(predict, state), names, bootstrap=final)

  def save(state, step, figures, scores):
    maps = attention_maps.compute(trainer, state, mesh, of_part(sets, schema.TEST))
    return save_evaluation(
        workdir, config, step, given.class_names, sets, figures, scores, maps)

  return Evaluator(
      periods(config, sets), run, save, summary, _num_bytes(config, sets))


def periods(
    config: Mapping[str, Any], sets: Mapping[str, inputs.EvalSet]
) -> dict[str, int]:
  """Every how many updates each set is evaluated; 0: at the last one alone.

  A set whose entry has no `every` is evaluated as often as `run.eval_every` says if it
  is of part 'validation', and at the end alone otherwise: what is seen during training
  can steer who trains, which the test must not. Without a validation set
  `run.eval_every` holds for all sets.
  """
  watched = of_part(sets, schema.VALIDATION) or sets
  found = {}
  for name in sets:
    every = config['evals'][name].get('every')
    if every is None:
      every = config['run']['eval_every'] if name in watched else 0
    found[name] = every
  return found


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

  Of the test sets; of all where there is none among them. Of a set of another type the
  first number.
  """
  of_test = {name: values for name, values in figures.items()
             if values.get('part', schema.TEST) == schema.TEST}
  parts = []
  for name, values in (of_test or figures).items():
    numbers = {key: x for key, x in values.items() if isinstance(x, float)}
    metric = next((key for key in ('accuracy', 'auroc', *numbers) if key in numbers),
                  None)
    if metric:
      title = metrics.describe(metric).title
      parts.append(f'{name} {title} {numbers[metric]:.3f}')
  return ', '.join(parts)


def accuracy_ncr(
    scores: Mapping[str, np.ndarray], eval_set: inputs.EvalSet,
    positives: Mapping[str, np.ndarray], bootstrap: bool,
) -> dict[str, Any]:
  """The figures of a type of evaluation: accuracy and ECE; NCR_t, PAR_t and AUROC.

  Args:
    scores: of the n images of the set: what `metrics.scores_from_logits` returns,
      'label', 'index' and 'logits'.
    eval_set: the set.
    positives: the scores of the positive set that a negative one is compared with.
    bootstrap: whether to add the AUROC's interval, which takes a thousand draws.

  Returns:
    Name -> number, list, or {threshold: number}.
  """
  if eval_set.positive:
    return metrics.positive_summary(scores, eval_set.arrays.label)
  return {
      **metrics.negative_summary(positives, scores, bootstrap=bootstrap),
      'seen_in_training': eval_set.seen,
      'overlap_with_training_negatives': eval_set.overlap,
  }


# What is measured on an evaluation set, by the `type` of its entry in `evals`. A
# function takes the arguments of `accuracy_ncr` and returns figures as it does.
EVALUATORS: dict[str, Callable[..., dict[str, Any]]] = {
    inputs.ACCURACY_NCR: accuracy_ncr}


def evaluate_sets(
    config: Mapping[str, Any],
    sets: Mapping[str, inputs.EvalSet],
    predict: Predict,
    names: Sequence[str],
    bootstrap: bool = True,
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
  """Evaluates a classifier on some sets, each by its type and beside its own part.

  Args:
    config: of the run.
    sets: of `inputs.load_evals`: all of them, or all of some parts.
    predict: images -> logits.
    names: of the sets to evaluate. The positive set that a negative one is compared
      with is predicted besides.
    bootstrap: whether to add the AUROC's intervals.

  Returns:
    (figures by set as in eval.json, per-image scores by set).
  """
  compared = inputs.references(config)
  needed = {*names, *(compared[sets[name].part] for name in names
                      if not sets[name].positive)}
  figures, scores = {}, {}
  for name in (name for name in sets if name in needed):
    logits = predict(sets[name].arrays.image)
    scores[name] = {
        **metrics.scores_from_logits(logits, config['num_classes']),
        'label': sets[name].arrays.label,
        'index': np.arange(len(logits), dtype=np.int32),
        'logits': logits,
    }
  for name in names:
    one = sets[name]
    figures[name] = {
        'type': one.type, 'positive': one.positive, 'part': one.part,
        **EVALUATORS[one.type](
            scores[name], one, scores.get(compared.get(one.part)), bootstrap)}
  return figures, {name: scores[name] for name in names}


def _check_types(sets):
  for name, one in sets.items():
    if one.type not in EVALUATORS:
      raise ValueError(
          f'unknown type {one.type!r} of evals.{name}; valid: {", ".join(EVALUATORS)}')


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
      list(few), bootstrap=False)[0]))
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
