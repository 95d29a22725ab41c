"""Chooses temperature and threshold of a classifier on the calibration part alone.

    found = calibrate('runs/digits', accept=0.95)      # writes calibration.json
    found['threshold'], found['negatives']['noise']['accepted']
    print(text(found))

Nothing is trained. `predict` uses calibration.json of its checkpoint.
"""

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nat_jax import data, detectors, metrics, runs, schema
from nat_jax.commands import flags
from nat_jax.metrics import selective
from nat_jax.reports import tables
from nat_jax.reports.tables import percent
from nat_jax.runtime import files
from nat_jax.tasks import unchanged
from nat_jax.tasks.classify import inputs, rule

Outputs = tuple[np.ndarray, np.ndarray | None]  # logits [n, k], score [n] or None
OTHER_SEED = 2**31  # added to the seeds of synthetic negatives of other parts
CURVE = 100  # most points of the risk-coverage curve in calibration.json


def calibrate(
    workdir: str, step: int | None = None, accept: float = 0.95,
    score: str = selective.MAX_PROBABILITY, costs: selective.Costs | None = None,
) -> dict[str, Any]:
  """Fits the temperature and chooses the threshold; writes calibration.json.

  The temperature minimises the negative log-likelihood of the calibration positives;
  the threshold is `selective.tolerance_threshold` of their scores.

  Args:
    workdir: of a run.
    step: of the checkpoint; None: the newest, or after early stopping the best.
    accept: share of new positives that are to be accepted, with confidence 95 %.
    score: a name in `LOGIT_SCORES` or `FEATURE_SCORES` of `selective`. What a score is
      fitted to, training positives, is kept in calibration_fit.npz.
    costs: of mistakes, for which the cheapest threshold is reported too.

  Returns:
    The content of calibration.json: 'step' and 'crc32' of the checkpoint, 'score',
    'temperature', 'threshold', 'accept', 'confidence', 'n' (positives) and figures.

  Raises:
    ValueError: an argument that is not valid, no checkpoint, no positives held out for
      calibration, or too few of them. Nothing is written.
  """
  _check(accept, score, costs)
  restored = runs.restore(workdir, step, 'classify')
  sets = _load(workdir, restored)
  name = inputs.references(restored.config)[schema.CALIBRATION]
  label = sets[name].arrays.label
  selective.tolerance_threshold(np.zeros(len(label)), accept)  # raises if too few
  feature_score = score in selective.FEATURE_SCORES
  fit = detectors.fit_to_training(restored, score) if feature_score else None
  apply = detectors.make_scorer(restored, score, fit)
  outputs = {each: apply(one.arrays.image) for each, one in sets.items()}
  names = restored.class_names or [
      str(k) for k in range(restored.config['num_classes'])]
  negatives = {each: outputs[each] for each, one in sets.items() if not one.positive}
  found = {
      'format': schema.FORMAT, 'step': restored.step, 'crc32': restored.crc32,
      **figures(outputs[name], label, negatives, names, accept, score, costs)}
  for each in negatives:
    found['negatives'][each]['seen_in_training'] = sets[each].seen
  if jax.process_index() == 0:
    detectors.write_fit(workdir, fit, restored.step, restored.crc32)
    files.write_json(os.path.join(workdir, rule.CALIBRATION), found)
  return found


def _check(accept, score, costs):
  """Raises ValueError for arguments that are not valid."""
  if not schema.bounds.number('(0, 1)').holds(accept):
    raise ValueError(
        f'accept must be a share between 0 and 1, such as 0.95, got {accept!r}')
  rule.check_score(score)
  if costs is None:
    return
  for name in ('error', 'refusal'):
    value = getattr(costs, name)
    if not 0 <= value < float('inf'):
      raise ValueError(f'cost_{name} must be a number of 0 or more, got {value}')
  if not 0 <= costs.negative_share < 1:
    raise ValueError(
        f'negative_share must be 0 or more, below 1; got {costs.negative_share}')


def _load(workdir, restored):
  """The sets of part 'calibration', and synthetic negatives like its positives.

  Synthetic negatives of other parts are made again, from the calibration positives and
  another seed, so that no image of another part is used.
  """
  config = restored.config
  name = inputs.references(config).get(schema.CALIBRATION)
  if name is None:
    raise ValueError(
        f'the run in {workdir} held out no positives for calibration: its config has '
        f'no positive evaluation set of part {schema.CALIBRATION!r}. Add one to evals '
        'and train again (presets.hold_out takes it from the training data), or give '
        'predict a threshold: --mode=predict --threshold T')
  chosen = {each: spec for each, spec in config['evals'].items()
            if spec.get('part') == schema.CALIBRATION}
  unchanged.check(workdir, config, chosen, runs.OTHERS)
  sets = inputs.load_evals(
      config, {}, [schema.CALIBRATION], runs.OTHERS, restored.class_names)
  for each, spec in config['evals'].items():
    if each not in sets and spec['source']['name'] in data.SYNTHETIC:
      source = dict(spec['source'])
      source['seed'] = (source.get('seed', 0) + OTHER_SEED) % 2**32
      arrays = data.load(source, like=sets[name].arrays)
      sets[each] = inputs.EvalSet(
          arrays, False, inputs.is_seen(config, spec), 0, schema.CALIBRATION)
  return sets


def figures(
    outputs: Outputs, label: np.ndarray, negatives: Mapping[str, Outputs],
    names: Sequence[str], accept: float, score: str, costs: selective.Costs | None,
) -> dict[str, Any]:
  """The temperature, the threshold and all figures of calibration.json.

  Args:
    outputs: (logits [n, k], score [n]) of the calibration positives; the score is None
      where it is a function of the logits.
    label: int [n] of the calibration positives.
    negatives: set -> (logits [m, k], score [m] or None).
    names: of the classes.
    accept: share of new positives that are to be accepted.
    score: its name.
    costs: of mistakes, or None.
  """
  num, (logits, scores) = len(names), outputs
  temperature = metrics.fit_temperature(logits, label)
  if scores is None:
    scores = rule.confidence(logits, num, score, temperature)
  threshold = rule.lowered(selective.tolerance_threshold(scores, accept))
  chosen = rule.Rule(score, temperature, threshold)
  decided = rule.decide(logits, num, chosen, outputs[1])
  correct = decided.order[:, 0] == label
  coverage, risk = selective.risk_coverage(scores, correct)
  shown = np.unique(np.linspace(0, len(scores) - 1, CURVE).astype(int))
  passed = {name: rule.decide(each, num, chosen, its_score)
            for name, (each, its_score) in negatives.items()}
  found = {
      **chosen._asdict(), 'accept': accept, 'confidence': selective.CONFIDENCE,
      'n': len(label), 'rank': selective.tolerance_rank(len(label), accept),
      'conformal_threshold': selective.conformal_threshold(scores, accept),
      'accepted': share(decided.accepted),
      'accuracy': share(correct),
      'accuracy_of_accepted': share(correct[decided.accepted]),
      'temperature_fitted': not (np.argmax(logits, axis=1) == label).all(),
      'classes': {name: share(decided.accepted[label == k])
                  for k, name in enumerate(names) if (label == k).any()},
      'negatives': {name: share(each.accepted) for name, each in passed.items()},
      'aurc': float(risk.mean()),
      'risk_coverage': [[float(coverage[i]), float(risk[i])] for i in shown],
      **{f'{key}_{when}': value for when, t in (('before', 1.0), ('after', temperature))
         for key, value in _fit(logits, label, num, t).items()},
  }
  if score == selective.MAX_PROBABILITY:
    found['threshold_probability'] = rule.probability(threshold)
  if costs is not None:
    best = selective.cheapest_threshold(
        scores, correct, [each.score for each in passed.values()], costs)
    found['costs'] = {'error': costs.error, 'refusal': costs.refusal, **best}
  return found


def share(values: np.ndarray) -> dict[str, Any]:
  """A share with Wilson's 95 % interval: 'share', 'interval' [low, high] and 'n'."""
  n = len(values)
  if not n:
    return {'share': None, 'interval': [0.0, 1.0], 'n': 0}
  return {'share': float(np.mean(values)), 'n': n,
          'interval': list(metrics.proportion_interval(int(np.sum(values)), n))}


def _fit(logits, label, num_classes, temperature):
  """ECE and negative log-likelihood of the probabilities at a temperature."""
  scores = metrics.scores_from_logits(logits / temperature, num_classes)
  return {
      'ece': metrics.expected_calibration_error(
          scores['max_prob'], scores['prediction'] == label),
      'nll': metrics.negative_log_likelihood(logits, label, temperature)}


def shown_threshold(found: Mapping[str, Any], key: str = 'threshold') -> str:
  """A threshold as text, as a probability where the score is one."""
  value = found[key]
  if value is None:
    return 'none'
  if found['score'] == selective.MAX_PROBABILITY:
    return f'{rule.probability(value):.4f}'
  return f'{value:.4f}'


def text(found: Mapping[str, Any]) -> str:
  """The content of calibration.json as a few sentences and a table."""
  before = ('' if found['temperature_fitted'] else
            ' (no positive is misclassified: the temperature cannot be fitted)')
  lines = [
      f'Calibration of checkpoint {found["step"]} on {found["n"]} held-out positives',
      f'temperature  {found["temperature"]:.3f}{before}; '
      f'ECE {found["ece_before"]:.4f} before, {found["ece_after"]:.4f} after',
      f'threshold    {found["score"]} {shown_threshold(found)}: with '
      f'{percent(found["confidence"])} confidence at least {percent(found["accept"])} '
      'of new positives are accepted (split conformal, which holds on average only: '
      f'{shown_threshold(found, "conformal_threshold")})',
      f'accuracy     {percent(found["accuracy"]["share"])}; of accepted positives '
      f'{_text(found["accuracy_of_accepted"])}; AURC {found["aurc"]:.4f}',
  ]
  costs = found.get('costs')
  if costs:
    lines += [
        f'costs        error {costs["error"]:g}, refusal {costs["refusal"]:g}, '
        f'{percent(costs["negative_share"])} negatives: cheapest threshold '
        f'{shown_threshold({**costs, "score": found["score"]})}, cost '
        f'{costs["cost"]:.4f} per image; accepts {percent(costs["accepted"])} of '
        f'positives and {percent(costs["negatives_accepted"])} of negatives']
  rows = [['positives', *_cells(found['accepted'])]]
  rows += [[f'class {name}', *_cells(one)] for name, one in found['classes'].items()]
  rows += [[f'{name} ({"seen" if one["seen_in_training"] else "unseen"})',
            *_cells(one)] for name, one in found['negatives'].items()]
  table = tables.Table(
      'Accepted of the calibration part (the threshold was chosen on its positives).',
      ['images', 'accepted', '95 % interval', 'n'], rows)
  lines = [textwrap.fill(line, 88, subsequent_indent=' ' * 13) for line in lines]
  return '\n'.join([*lines, '', table.markdown()])


def _text(one):
  return '-' if one['share'] is None else percent(one['share'])


def _cells(one):
  low, high = one['interval']
  return [_text(one), f'{percent(low)} - {percent(high)}', f'{one["n"]:,}']


def run(argv: Sequence[str] = ()) -> None:
  """--mode=calibrate: writes calibration.json and prints its figures."""
  del argv
  workdir = flags.needed(flags.WORKDIR, 'calibrate')
  costs = (flags.COST_ERROR.value, flags.COST_REFUSAL.value)
  if (costs[0] is None) != (costs[1] is None):
    raise ValueError('--cost_error and --cost_refusal must be given together')
  if costs[0] is None and flags.NEGATIVE_SHARE.present:
    raise ValueError(
        '--negative_share needs --cost_error and --cost_refusal; give both, or leave '
        'it out')
  found = calibrate(
      workdir, flags.STEP.value, flags.ACCEPT.value, flags.SCORE.value,
      None if costs[0] is None
      else selective.Costs(*costs, flags.NEGATIVE_SHARE.value))
  if jax.process_index() == 0:
    print(text(found))
    print(f'written: {os.path.join(workdir, rule.CALIBRATION)}')
