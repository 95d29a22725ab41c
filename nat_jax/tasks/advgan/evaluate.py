"""Evaluates an AdvGAN beside noise, FGSM and PGD of the same budget; adversarial.npz.

    evaluator = make_evaluator(config, workdir, inputs, trainer, mesh, others)
    figures, examples = evaluator.run(state, ['test'], final=True)
    figures['test']['success']['advgan']

Changed pictures are rounded to 8 bits, as they would be in a file, before a classifier
gets them.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nat_jax import data, losses, metrics, schema
from nat_jax.runtime import inference, parallel, results
from nat_jax.task import Evaluator, Inputs, Others, Run, State, Trainer
from nat_jax.tasks import attacks, images
from nat_jax.tasks.advgan import target as target_lib

ADVERSARIAL, EXAMPLES = 'adversarial', 'examples'  # names of .npz files
NUM_EXAMPLES = 16
# Attack -> its title. Those of the student use its gradients only.
TITLES = {
    'noise': 'random signs',
    'advgan': 'AdvGAN',
    'fgsm': 'FGSM',
    'pgd': 'PGD',
    'pgd_confident': 'PGD for confidence',
    'fgsm_student': 'FGSM on the student',
    'pgd_student': 'PGD on the student',
}

# ({'target': its state, 'student': that of the AdvGAN}, {'image', 'label', 'key'}) ->
# images
Head = Callable[[Mapping[str, State], Mapping[str, jax.Array]], jax.Array]
# (state of the AdvGAN, uint8 images, labels) -> changed uint8 images
Attack = Callable[[State, np.ndarray, np.ndarray], np.ndarray]


def make_evaluator(
    config: Mapping[str, Any], workdir: str, given: Inputs, trainer: Trainer, mesh,
    others: Others,
) -> Evaluator:
  """Returns the `Evaluator` of an AdvGAN.

  Args:
    config: of an AdvGAN.
    workdir: folder to which results are written.
    given: the inputs of the run.
    trainer: of the run.
    mesh: the devices.
    others: restores the target and the other classifiers.

  Raises:
    ValueError: an unknown type, evaluation pictures of another shape or of other
      classes, or a classifier that does not fit them.
  """
  images.check_types(config['evals'], EVALUATORS, ATTACKS)
  restore = functools.partial(
      target_lib.open_target, config=config, image_shape=given.shape,
      class_names=given.class_names, others=others)
  target = restore(config['target'], 'target')
  made = make_attacks(config, trainer, target, given.shape, mesh)
  evaluations = {}
  for name, entry in config['evals'].items():
    shown = restore(entry['classifier'], f'evals.{name}.classifier') if entry.get(
        'classifier') else target
    evaluations[name] = functools.partial(
        EVALUATORS[entry.get('type', ATTACKS)], config, _load(config, name, given),
        make_scores(config, shown, mesh), made)

  def run(state, names, final):
    del final
    found = {name: evaluations[name](state) for name in names}
    return ({name: {'type': config['evals'][name].get('type', ATTACKS), **figures}
             for name, (figures, _) in found.items()},
            {name: examples for name, (_, examples) in found.items()})

  def save(state, step, figures, examples):
    positives = given.positives or images.load_source(
        config, config['data']['positives'])
    arrays = {ADVERSARIAL: {
        'image': made['advgan'](state, positives.image, positives.label),
        'label': positives.label}}
    if positives.names:
      arrays[ADVERSARIAL]['names'] = np.array(positives.names)
    arrays |= {f'{EXAMPLES}/{name}': found for name, found in examples.items()}
    evaluation = {
        'num_classes': config['num_classes'],
        'class_names': list(given.class_names), 'evals': figures}
    return results.write_evaluation(workdir, config, step, evaluation, arrays)

  periods = schema.periods(config)
  pictures = 2 * NUM_EXAMPLES * len(periods) + (
      len(given.positives.label) if given.positives else 0)
  return Evaluator(periods, run, save, summary, pictures * math.prod(given.shape))


def _load(config, name, given):
  """The pictures and labels of an entry of `evals`."""
  arrays = images.load_source(config, config['evals'][name]['source'])
  if arrays.image.shape[1:] != given.shape:
    raise ValueError(
        f'evaluation set {name!r} has pictures of shape {arrays.image.shape[1:]}, the '
        f'training pictures have {given.shape}; set size and mode of its source to '
        'match the training pictures')
  wrong = (arrays.label < 0) | (arrays.label >= config['num_classes'])
  if wrong.any() or not len(wrong):
    raise ValueError(
        f'evaluation set {name!r} must hold pictures of the {config["num_classes"]} '
        f'classes, got {len(wrong)} pictures, {wrong.sum()} of them with another label')
  return arrays


def make_attacks(
    config: Mapping[str, Any], trainer: Trainer, target: Run,
    image_shape: tuple[int, ...], mesh,
) -> dict[str, Attack]:
  """Returns the attacks of `TITLES` that a config has, by name.

  Random numbers depend on the seed of the config and the position of a picture.

  Args:
    config: of an AdvGAN.
    trainer: of its run.
    target: the classifier that is attacked.
    image_shape: (height, width, channels).
    mesh: the devices.
  """
  normalise = images.transforms(config['data'])['normalise']
  limits = attacks.make_limits(config['trainer']['budget'], normalise, image_shape)
  size = -(-config['eval_batch_size'] // mesh.devices.size) * mesh.devices.size

  def attack(head, state, pictures, labels):
    keys = np.random.default_rng(config['seed']).integers(
        2**32, size=(len(labels), 2), dtype=np.uint32)
    done = []
    for start in range(0, len(labels), size):
      rows = slice(start, start + size)
      shown = np.asarray(pictures[rows])
      batch = {'image': shown, 'label': labels[rows], 'key': keys[rows]}
      missing = size - len(shown)
      batch = {key: np.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)])
               for key, x in batch.items()}
      changed = np.asarray(head({'target': target.state, 'student': state}, batch))
      done.append(attacks.as_pictures(limits, shown, changed[:len(shown)]))
    return np.concatenate(done)

  return {name: functools.partial(attack, parallel.wrap_head(head, mesh))
          for name, head in _heads(config, trainer, target, limits, normalise).items()}


def _heads(config, trainer, target, limits, normalise) -> dict[str, Head]:
  """Attack -> the function that is compiled for it."""
  classes, steps = config['num_classes'], config['measures']['attack_steps']
  logits = {'target': target.trainer.heads['logits'],
            'student': trainer.heads['student']}

  def noise(states, batch):
    return attacks.sign_noise(limits, normalise(batch['image']), _keys(batch))

  def generated(states, batch):
    return trainer.heads['adversarial'](states['student'], batch['image'])

  def loss_of(which, raised, states, batch):
    return lambda x: raised(logits[which](states[which], x), batch['label'])

  def fgsm(which, states, batch):
    loss = loss_of(which, losses.cross_entropy, states, batch)
    return attacks.fgsm(limits, loss, normalise(batch['image']))

  def pgd(which, raised, states, batch):
    loss = loss_of(which, raised, states, batch)
    return attacks.pgd(limits, loss, normalise(batch['image']), _keys(batch), steps)

  fix = functools.partial
  found = {
      'noise': noise, 'advgan': generated, 'fgsm': fix(fgsm, 'target'),
      'pgd': fix(pgd, 'target', losses.cross_entropy),
      'pgd_confident': fix(pgd, 'target', fix(
          attacks.wrong_confidence, num_classes=classes))}
  if config['student']:
    found |= {'fgsm_student': fix(fgsm, 'student'),
              'pgd_student': fix(pgd, 'student', losses.cross_entropy)}
  return found


def _keys(batch):
  return jax.random.wrap_key_data(batch['key'])


def make_scores(
    config: Mapping[str, Any], run: Run, mesh
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
  """Returns uint8 images -> `metrics.scores_from_logits` of a classifier."""
  predict = inference.make_predict(
      run.trainer.heads['logits'], mesh, config['eval_batch_size'])
  return lambda pictures: metrics.scores_from_logits(
      predict(run.state, pictures), config['num_classes'])


def attack_figures(
    config: Mapping[str, Any], arrays: data.Arrays,
    scores: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    made: Mapping[str, Attack], state: State,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Evaluation of the type 'attacks', each against the same pictures.

  accuracy          of the pictures as they are
  accepted          share of the pictures, as they are, with a maximum probability above
                    `measures.threshold`
  attacked          number of pictures that are classified correctly as they are; the
                    shares below are of these
  success           share that is taken for another class after the change
  confident_errors  share that is taken for another class after the change, with a
                    maximum probability above `measures.threshold`
  accepted_errors   share that is taken for another class after the change, with a score
                    at which 95 % of the pictures are accepted as they are: so
                    classifiers of other levels of confidence compare
  change            mean change of a pixel, as a share of the range from black to white

  A background output is no class: a picture that it wins is refused. The last four are
  given for each attack; they are None if no picture is classified correctly.

  Args:
    config: of an AdvGAN.
    arrays: pictures and labels.
    scores: of the classifier that the pictures are shown to.
    made: from `make_attacks`.
    state: of the AdvGAN.

  Returns:
    (figures, pictures before and after the change for the report).
  """
  threshold, classes = config['measures']['threshold'], config['num_classes']
  pictures, labels = np.asarray(arrays.image), arrays.label
  before = scores(pictures)
  right = before['prediction'] == labels
  keeps_most = metrics.threshold_at_recall(before['score'])
  shares: dict[str, dict[str, float | None]] = {
      'success': {}, 'confident_errors': {}, 'accepted_errors': {}, 'change': {}}
  examples = {}
  for name, attack in made.items():
    changed = attack(state, pictures, labels)
    after = scores(changed)
    wrong = (after['prediction'] != labels) & (after['prediction'] < classes)
    moved = np.abs(changed.astype(float) - pictures).mean((1, 2, 3)) / 255
    for metric, values in (
        ('success', wrong), ('change', moved),
        ('confident_errors', wrong & (after['max_prob'] > threshold)),
        ('accepted_errors', wrong & (after['score'] >= keeps_most))):
      shares[metric][name] = float(values[right].mean()) if right.any() else None
    if name == 'advgan':
      rows = np.flatnonzero(right)[:NUM_EXAMPLES]
      examples = {'image': pictures[rows], 'changed': changed[rows], **{
          f'{key}_{when}': one[key][rows] for key in ('prediction', 'max_prob')
          for when, one in (('before', before), ('after', after))}}
  return {
      'n': len(labels), 'attacked': int(right.sum()), 'accuracy': float(right.mean()),
      'accepted': float((before['max_prob'] > threshold).mean()), **shares}, examples


ATTACKS = 'attacks'  # the default type
# `type` of an entry of `evals` -> function with the arguments and the return type of
# `attack_figures`.
EVALUATORS = {ATTACKS: attack_figures}


def summary(figures: Mapping[str, Any]) -> str:
  """Returns the accuracy and the success of each attack of each set, as one line."""
  parts = []
  for name, found in figures.items():
    shares = [f'{TITLES[attack]} {value:.3f}'
              for attack, value in found['success'].items() if value is not None]
    parts.append(' '.join([
        name, f'accuracy {found["accuracy"]:.3f}, success:', ', '.join(shares) or '-']))
  return '; '.join(parts)
