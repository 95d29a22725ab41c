"""Evaluates a classifier on the evaluation sets of its config; writes eval.json.

    evaluator = make_evaluator(config, workdir, inputs, trainer, mesh, others)
    figures, scores = evaluator.run(state, ['test', 'cifar100_test'], final=True)
    figures['cifar100_test']['ncr']['0.8']
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from nat_jax import data, losses, metrics, schema
from nat_jax.runtime import inference, results, writers
from nat_jax.task import Evaluator, Inputs, Others, Run, Trainer
from nat_jax.tasks import images
from nat_jax.tasks.classify import attention_maps, duplicates, inputs

NUM_MISTAKES = 36  # images on the sheet of mistakes

Predict = Callable[[np.ndarray], np.ndarray]  # images [n, h, w, c] -> logits [n, k]


def make_evaluator(
    config: Mapping[str, Any], workdir: str, given: Inputs, trainer: Trainer, mesh,
    others: Others,
) -> Evaluator:
  """Returns the `Evaluator` of a classifier.

  Args:
    config: of a classifier.
    workdir: folder to which results are written.
    given: the inputs of the run.
    trainer: with the heads 'logits' and 'aux'.
    mesh: the devices.
    others: opens the runs that negatives are drawn from.

  Raises:
    ValueError: a mistake in the evaluation sets, or in the key `best`.
  """
  images.check_types(config['evals'], EVALUATORS, schema.ACCURACY_NCR)
  sets = inputs.load_evals(
      config, given.negatives, others=others, class_names=given.class_names)
  shape = sets[config['reference']].arrays.image.shape[1:]
  if shape != given.shape:
    raise ValueError(
        f'evaluation set {config["reference"]!r} has images of shape {shape}, the '
        f'training images have {given.shape}; set size and mode of its source to match '
        'the training images')
  check_best(config, sets)
  _warn_of_other_sources(config)
  predict = inference.make_predict(
      trainer.heads['logits'], mesh, config['eval_batch_size'])
  classes = config['num_classes']
  width = losses.make_objective(config['loss'], classes).num_outputs
  threshold, *_ = metrics.informative(
      metrics.THRESHOLDS, classes, background=width > classes)

  def run(state, names, final):
    return evaluate_sets(
        config, sets, functools.partial(predict, state), names, bootstrap=final)

  def save(state, step, figures, scores):
    maps = attention_maps.compute(trainer, state, mesh, {
        name: one for name, one in of_part(sets, schema.TEST).items()
        if not one.corrupt})
    return save_evaluation(
        workdir, config, step, given.class_names, sets, figures, scores, maps)

  return Evaluator(
      periods(config, sets), run, save,
      functools.partial(summary, threshold=str(threshold)), _num_bytes(config, sets),
      brief, functools.partial(duplicates.write, config, workdir, given, sets))


def _warn_of_other_sources(config):
  """Warns of corrupted positives that are not those of the reference set."""
  evals, reference = config['evals'], config['reference']
  wrong = [name for name, spec in evals.items() if spec.get('type') == schema.CORRUPTION
           and spec['source'] != evals[reference]['source']]
  if wrong:
    logging.warning(
        'The %d sets of corrupted positives are pictures of another source than those '
        'of %r, with which they are compared (the first is %r). Give them one source, '
        'or leave the sets out.', len(wrong), reference, wrong[0])


def periods(
    config: Mapping[str, Any], sets: Mapping[str, inputs.EvalSet]
) -> dict[str, int]:
  """Returns the period in updates of each set; 0: after the last update only.

  A set without the key `every` has the period `run.eval_every` if it is of part
  'validation', or if no set is of that part; otherwise it is evaluated after the last
  update only. Test results that are seen during training could influence decisions
  about the training.

  Args:
    config: of a classifier.
    sets: from `inputs.load_evals`.
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
  """Bytes of the scores (per image: logits and 40 bytes) and of the mistakes."""
  scores = sum(len(one.arrays.label) for one in sets.values()) * (
      4 * (config['num_classes'] + 1) + 40)
  return scores + sum(
      NUM_MISTAKES * one.arrays.image[0].size for one in sets.values())


def of_part(sets: Mapping[str, inputs.EvalSet], part: str) -> dict[str, inputs.EvalSet]:
  """Returns the sets of a part, in their order."""
  return {name: one for name, one in sets.items() if one.part == part}


def summary(figures: Mapping[str, Any], threshold: str) -> str:
  """Returns a line with accuracy and ECE, or AUROC and NCR_t, of each set.

  For a set of another type it shows the first number among the figures.

  Args:
    figures: {set: figures}, from `evaluate_sets`.
    threshold: t of NCR_t.
  """
  parts = []
  for name, values in _shown(figures).items():
    numbers = {metrics.describe(key).title: x for key, x in values.items()
               if isinstance(x, float)}
    if isinstance(values.get('ncr'), Mapping):
      numbers[f'NCR_{threshold}'] = values['ncr'].get(threshold)
    found = [key for key in ('accuracy', 'ECE', 'AUROC', f'NCR_{threshold}')
             if numbers.get(key) is not None] or list(numbers)[:1]
    if found:
      parts.append(' '.join([name, *(f'{key} {numbers[key]:.3f}' for key in found)]))
  return ', '.join(parts)


def brief(figures: Mapping[str, Any]) -> str:
  """Returns the lowest AUROC of the sets that `summary` shows; '' without any.

  Args:
    figures: {set: figures}, from `evaluate_sets`.
  """
  found = [values['auroc'] for values in _shown(figures).values()
           if isinstance(values.get('auroc'), float)]
  return f'AUROC {min(found):.3f}' if found else ''


def _shown(figures):
  """The figures of the sets of part 'test', or of all sets if none is of that part."""
  of_test = {name: values for name, values in figures.items()
             if values.get('part', schema.TEST) == schema.TEST
             and values.get('type') != schema.CORRUPTION}
  return of_test or figures


def accuracy_ncr(
    scores: Mapping[str, np.ndarray], eval_set: inputs.EvalSet,
    positives: Mapping[str, np.ndarray], bootstrap: bool,
) -> dict[str, Any]:
  """Returns the figures of the evaluation type 'accuracy_ncr'.

  They are accuracy and ECE for a positive set, and NCR_t, PAR_t and AUROC for a
  negative set.

  Args:
    scores: of the n images of the set: the arrays of `metrics.scores_from_logits`,
      'label' int32 [n], 'index' int32 [n] and 'logits' float32 [n, k].
    eval_set: the set.
    positives: scores of the positive set that a negative set is compared with.
    bootstrap: whether to add the interval of the AUROC, from 1,000 bootstrap samples.

  Returns:
    {name: number, list, or {threshold: number}}.
  """
  if eval_set.positive:
    return metrics.positive_summary(scores, eval_set.arrays.label)
  return {
      **metrics.negative_summary(positives, scores, bootstrap=bootstrap),
      'seen_in_training': eval_set.seen,
      'overlap_with_training_negatives': eval_set.overlap,
  }


def corruption(
    scores: Mapping[str, np.ndarray], eval_set: inputs.EvalSet,
    positives: Mapping[str, np.ndarray], bootstrap: bool,
) -> dict[str, Any]:
  """Returns the figures of the evaluation type 'corruption'.

  They are the accuracy of corrupted positives, and the share of them that is accepted.
  See `accuracy_ncr` for the arguments.
  """
  del bootstrap
  spec = eval_set.corrupt
  return {
      'corruption': spec['name'], 'strength': spec['strength'],
      **metrics.corruption_summary(scores, eval_set.arrays.label, positives)}


# `type` of an entry of `evals` -> function with the arguments and the return type of
# `accuracy_ncr`.
EVALUATORS: dict[str, Callable[..., dict[str, Any]]] = {
    schema.ACCURACY_NCR: accuracy_ncr, schema.CORRUPTION: corruption}


def evaluate_sets(
    config: Mapping[str, Any],
    sets: Mapping[str, inputs.EvalSet],
    predict: Predict,
    names: Sequence[str],
    bootstrap: bool = True,
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
  """Evaluates a classifier on some evaluation sets, each by the function of its type.

  A negative set is compared with the positive set of its own part.

  Args:
    config: of the run.
    sets: from `inputs.load_evals`: all sets, or all sets of some parts.
    predict: images [n, h, w, c] -> logits [n, k].
    names: of the sets to evaluate. Positive sets that they are compared with are
      predicted too, but their figures are not returned.
    bootstrap: whether to add the intervals of the AUROC.

  Returns:
    ({set: figures} as in eval.json, {set: {name: array [n, ...]}} of scores).
  """
  compared = inputs.references(config)
  alone = {name for name in names
           if sets[name].positive and sets[name].type != schema.CORRUPTION}
  needed = {*names, *(compared[sets[name].part] for name in {*names} - alone)}
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


def check_best(
    config: Mapping[str, Any], sets: Mapping[str, inputs.EvalSet]
) -> None:
  """Raises ValueError unless `best` is '' or a figure of a set of part 'validation'.

  With early stopping each evaluation of this set must be at a checkpoint.

  Args:
    config: of a classifier.
    sets: from `inputs.load_evals`.
  """
  if not config['best']:
    if config['patience']:
      raise ValueError(
          f'patience={config["patience"]} needs the key best, the figure that shall '
          'improve, such as best=validation/accuracy')
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
        f'{schema.VALIDATION!r}, because test sets must not select a checkpoint. '
        + (f'Valid: {", ".join(known)}' if known else
           "There is no such set: add one to evals, or leave best=''")
    )
  name = config['best'].partition('/')[0]
  _check_patience(config, name, periods(config, sets)[name])


def _check_patience(config, name, period):
  """Raises ValueError unless each evaluation of `best` is saved, for early stopping."""
  patience, saved = config['patience'], config['run']['checkpoint_every']
  if not patience:
    return
  if not period or patience % period:
    raise ValueError(
        f'patience={patience} must be a multiple of the period of the evaluations of '
        f'{name!r}, got {period} updates; set --config.run.eval_every (0: at the end '
        'only)')
  if not saved or period % saved:
    raise ValueError(
        f'early stopping (patience={patience}) needs a checkpoint at each evaluation '
        f'of {name!r}, after every {period} updates, got run.checkpoint_every='
        f'{saved}; set --config.run.checkpoint_every={period}')


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
  """Writes eval.json, the scores per image, the worst mistakes and the attention maps.

  Args:
    workdir: folder to which the files are written.
    config: of the run.
    step: number of completed updates.
    class_names: of the positives; () if there are none.
    sets: from `inputs.load_evals`.
    figures, scores: from `evaluate_sets`.
    maps: from `attention_maps.compute`; {} if there are none.

  Returns:
    The content of eval.json.

  Raises:
    OSError: a file could not be written.
  """
  evaluation = {
      'reference': config['reference'],
      'num_classes': config['num_classes'], 'class_names': list(class_names),
      'background': any(one['logits'].shape[1] > config['num_classes']
                        for one in scores.values()),
      'evals': figures,
  }
  reference = scores.get(config['reference'])
  if reference:
    evaluation['classes'] = metrics.class_summary(
        reference, reference['label'], config['num_classes'])
  arrays = {f'{results.SCORES}/{name}': values for name, values in scores.items()}
  for name, values in scores.items():
    one = sets[name]
    if (not one.positive and one.part == schema.TEST
        and not data.is_vectors(one.arrays.image.shape[1:])):
      arrays[f'{results.MISTAKES}/{name}'] = _worst(config, one, values)
  if maps:
    arrays[results.ATTENTION] = maps
  return results.write_evaluation(workdir, config, step, evaluation, arrays)


def _worst(config, eval_set, scores):
  """The negatives with the highest confidence scores, most confident first."""
  worst = np.argsort(-scores['score'], kind='stable')[:NUM_MISTAKES]
  images, settings = eval_set.arrays.image[worst], config['data']
  if images.dtype != np.uint8:
    images = data.quantise(images, settings['mean'], settings['std'])
  return {'image': images, 'max_prob': scores['max_prob'][worst],
          'prediction': scores['prediction'][worst]}


def predictor(run: Run, batch_size: int | None = None) -> Predict:
  """Returns images [n, h, w, c] -> logits [n, k] of a restored classifier.

  Args:
    run: of a classifier.
    batch_size: images per batch of the compiled program; None: `eval_batch_size`.
  """
  predict = inference.make_predict(
      run.trainer.heads['logits'], run.mesh,
      batch_size or run.config['eval_batch_size'])
  return functools.partial(predict, run.state)
