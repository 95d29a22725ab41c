"""The valid values of every config key: types, and intervals of numbers.

    >>> BOUNDS['schedule.learning_rate'].holds(0.1)
    True
    >>> check('optimizer.momentum', 'optimizer.momentum', 2)
    Traceback (most recent call last):
    ValueError: optimizer.momentum must be a number in [0, 1), got 2

Numbers are finite and bounded on both sides, so that none is infinite in float32 or
makes an endless loop or array. Conditions on several values, such as a batch size and
the memory, are checked where both are known.
"""

import numbers
import re
from collections.abc import Callable
from typing import Any, NamedTuple


class Bound(NamedTuple):
  """A set of valid values.

  Attributes:
    what: its description, for messages "KEY must be ...".
    holds: value -> whether it is valid.
  """

  what: str
  holds: Callable[[Any], bool]


def number(interval: str) -> Bound:
  """A number, of numpy too, in an interval such as '(0, 1]'; neither NaN nor a bool."""
  inside = _inside(interval)
  return Bound(f'a number in {interval}', lambda x: (
      isinstance(x, numbers.Real) and not isinstance(x, bool) and inside(x)))


def whole(interval: str) -> Bound:
  """An int in an interval such as '[1, 1e9]'; not a bool."""
  inside = _inside(interval)
  return Bound(f'a whole number in {interval}', lambda x: (
      isinstance(x, int) and not isinstance(x, bool) and inside(x)))


def text(most: int) -> Bound:
  """Text of one line and at most `most` bytes."""
  return Bound(f'text of one line and at most {most} bytes', lambda x: (
      isinstance(x, str) and not re.search(r'[\x00-\x1f\x7f]', x)
      and len(x.encode(errors='surrogatepass')) <= most))


def listed(item: Bound, least: int = 0, most: int = 1000) -> Bound:
  """A list of `least` to `most` values, each of which is valid for `item`."""
  count = f'{least}' if least == most else f'{least} to {most}'
  return Bound(f'a list of {count}, each {item.what}', lambda x: (
      isinstance(x, list | tuple) and least <= len(x) <= most
      and all(map(item.holds, x))))


def either(*bounds: Bound) -> Bound:
  """A value that is valid for at least one of `bounds`."""
  return Bound(', or '.join(bound.what for bound in bounds), lambda x: any(
      bound.holds(x) for bound in bounds))


def _inside(interval):
  low, high = (float(end) for end in interval[1:-1].split(','))
  return lambda x: (
      (x > low if interval[0] == '(' else x >= low)
      and (x < high if interval[-1] == ')' else x <= high))


def one_of(names: tuple[str, ...]) -> Bound:
  """One of the texts in `names`."""
  return Bound(f'one of {", ".join(map(repr, names))}', lambda x: (
      isinstance(x, str) and x in names))


# What an evaluation set is for: to report results, to choose checkpoints, to choose
# thresholds. The first is the default.
PARTS = ('test', 'validation', 'calibration')

FLAG = Bound('True or False', lambda x: isinstance(x, bool))
NONE = Bound('None', lambda x: x is None)
PROGRAM = Bound('left out: the program sets it', lambda x: False)
NAME = text(100)  # becomes part of file names
TEXT = text(4096)
SEED = whole('[0, 4294967295]')  # jax keys may be equal for seeds beyond 32 bits
UPDATES = whole('[1, 1e9]')
PERIOD = whole('[0, 1e9]')
COUNT = whole('[1, 1e6]')  # examples in memory at once
WIDTH = whole('[1, 65536]')
WIDTHS = listed(WIDTH, most=64)
WEIGHT = number('[0, 1e6]')
SHARE = number('(0, 1]')

BOUNDS: dict[str, Bound] = {
    'task': NAME,
    'name': NAME,
    'variant': NAME,
    'seed': SEED,
    'steps': UPDATES,
    'num_classes': whole('[2, 1e5]'),
    'grad_clip': number('[0, 1e9]'),
    'ema_decay': number('[0, 1)'),
    'weights': TEXT,
    'layer_decay': SHARE,
    'eval_batch_size': COUNT,
    'reference': NAME,
    'best': TEXT,
    'patience': PERIOD,
    'compare_with': TEXT,

    'run.mode': NAME,
    'run.placement': NAME,
    'run.updates_per_call': whole('[1, 1e5]'),
    'run.log_every': UPDATES,
    'run.eval_every': PERIOD,
    'run.checkpoint_every': PERIOD,
    'run.keep': whole('[1, 1e5]'),
    'run.tensorboard': FLAG,

    'data.image_size': either(whole('[0, 1e4]'), listed(whole('[1, 1e4]'), 2, 2)),
    'data.skip_unreadable': FLAG,
    'data.mean': listed(number('[-1e30, 1e30]'), most=65536),
    'data.std': listed(number('[1e-30, 1e30]'), most=65536),
    'data.backbone': Bound('a dict, as a file of --mode=embed holds it', lambda x: (
        isinstance(x, dict) and (not x or isinstance(x.get('name'), str)))),
    'data.batch_size': COUNT,
    'data.negatives_per_batch': either(
        whole('[0, 1e5]'),
        listed(whole('[0, 1e5]'), 2, 2)._replace(what='a pair (lowest, highest)')),
    'data.labels_per_class': COUNT,
    'data.labelled_per_batch': COUNT,
    'data.class_weights': either(
        one_of(('', 'balanced')), listed(number('[1e-6, 1e6]'), 2, 100_000)),
    'data.inside': FLAG,
    'data.drop': TEXT,
    'data.keep': TEXT,
    'data.micro_batches': whole('[1, 1000]'),
    'data.duplicates': either(whole('[0, 64]'), NONE),
    'data.negatives.*.weight': number('(0, 1e6]'),
    'evals.*.positive': FLAG,
    'evals.*.seen': either(FLAG, NONE),
    'evals.*.optional': FLAG,
    'evals.*.part': one_of(PARTS),
    'evals.*.type': NAME,
    'evals.*.every': either(PERIOD, NONE),

    'measures.num_samples': whole('[2, 1e7]'),
    'measures.num_quick': whole('[2, 1e7]'),
    'measures.batch_size': whole('[2, 1e5]'),
    'measures.splits': COUNT,
    'measures.neighbours': COUNT,
    'measures.truncation': number('[0, 100]'),
    'measures.threshold': number('[0, 1)'),
    'measures.attack_steps': whole('[1, 1000]'),

    # GANs of points.
    'num_seeds': whole('[1, 1e4]'),
    'batch_size': COUNT,
    'negatives': FLAG,
    'negatives_per_batch': COUNT,
    'negative_weight': either(WEIGHT, NONE),
    'num_samples': whole('[2, 1e6]'),
    'tolerance': number('[0, 1e9]'),

    # Detectors of outliers.
    'num_generators': whole('[1, 1000]'),
    'freeze_after': PERIOD,
    'hidden': whole('[0, 65536]'),
    'data.outliers': listed(either(whole('[0, 1e9]'), TEXT), most=100_000),
    'data.low': listed(number('[-1e30, 1e30]'), most=65536),
    'data.high': listed(number('[-1e30, 1e30]'), most=65536),
    'neighbours': COUNT,
    'lof_neighbours': COUNT,

    # Segmenters.
    'rare': listed(whole('[0, 254]'), most=255),
    'data.void': whole('[0, 255]'),
    'data.pasted_per_batch': whole('[0, 1e6]'),
    'data.rare_share': number('[0, 1]'),
    'trainer.l1_weight': WEIGHT,
    'trainer.synthetic_from': PERIOD,
    'source.names': listed(NAME, most=255),
    'source.num_rare': whole('[0, 1e9]'),
    'source.kinds': listed(NAME),
    'pixel_model.widths': listed(WIDTH, 1, 64),

    # Detectors of anomalies in time series.
    'latent': WIDTH,
    'width': WIDTH,
    'gen_updates': whole('[1, 100]'),  # each is unrolled in the compiled step
    'data.validation': number('(0, 1)'),
    'data.time': TEXT,
    'data.time_format': TEXT,
    'data.fill': whole('[0, 1e4]'),
    'data.time_step': number('[0, 1e12]'),
    'data.columns': listed(TEXT, most=65536),
    'data.window': whole('[2, 1e5]'),
    'data.stride': COUNT,
    'data.negative_kinds': listed(NAME),
    'data.negative_share': number('[0, 10]'),
    'measures.stride': COUNT,
    'measures.inversion_steps': whole('[1, 1e5]'),
    'measures.inversion_rate': number('(0, 1e3]'),
    'measures.disc_weight': number('[0, 1]'),
    'measures.false_alarm_rate': number('(0, 1)'),
    'measures.pca_components': COUNT,

    # Zero-shot classifiers.
    'num_attributes': whole('[0, 65536]'),
    'calibrate': FLAG,
    'num_generated': COUNT,
    'data.crc32': either(whole('[0, 4294967295]'), NONE),

    # Arguments of specs, as 'kind of spec'.'argument', for all names of that kind.
    'trainer.threshold': number('[0, 1]'),
    'trainer.teacher': TEXT,
    'trainer.teacher_step': either(PERIOD, NONE),
    'trainer.teacher_crc32': either(whole('[0, 4294967295]'), NONE),
    'trainer.beta': WEIGHT,
    'trainer.groups': listed(NAME),
    'trainer.weight': WEIGHT,
    'trainer.views': whole('[1, 4]'),
    'trainer.alpha': number('[1e-3, 1e6]'),
    'trainer.noise': number('[0, 1e3]'),
    'trainer.scale': number('[1e-3, 1e3]'),
    'trainer.n_critic': whole('[1, 100]'),  # each is unrolled in the compiled step
    'trainer.negatives_every': UPDATES,
    'trainer.joint': FLAG,
    'trainer.negative_weight': either(WEIGHT, NONE),
    'trainer.simultaneous': FLAG,
    'trainer.labels': NAME,
    'trainer.recon_weight': number('[0, 1]'),
    'trainer.distance_weight': WEIGHT,
    'trainer.reconstruction': NAME,
    'trainer.updates_generator': FLAG,
    'trainer.space': NAME,
    'trainer.form': NAME,
    'trainer.fade': listed(number('[0, 1]'), 0, 2),
    'trainer.prior': NAME,
    'trainer.adversarial_weight': WEIGHT,
    'trainer.gan_weight': WEIGHT,
    'trainer.unlabelled_weight': WEIGHT,
    'trainer.fake_weight': WEIGHT,
    'trainer.hinge_weight': WEIGHT,
    'trainer.hinge': number('[0, 1]'),
    'trainer.kappa': WEIGHT,
    'trainer.budget': SHARE,
    'trainer.steps': whole('[1, 1000]'),  # each is unrolled in the compiled step
    'trainer.attack': PROGRAM,
    'trainer.diversity': WEIGHT,
    'trainer.fitness_samples': whole('[0, 1e6]'),
    'trainer.reward': WEIGHT,
    'trainer.made_weight': WEIGHT,
    'trainer.see': PROGRAM,
    'trainer.extra_loss': PROGRAM,
    'trainer.extra_on': PROGRAM,
    'trainer.metrics': PROGRAM,

    'trainer.mismatch_weight': WEIGHT,
    'trainer.cycle_weight': WEIGHT,
    'trainer.regression_weight': WEIGHT,
    'trainer.dual_weight': WEIGHT,
    'trainer.kl_weight': WEIGHT,
    'trainer.output': NAME,
    'trainer.pretrain': PERIOD,

    'loss.direction': NAME,
    'loss.weight': WEIGHT,
    'loss.logit_norm': number('[1e-4, 1e4]'),
    'loss.m_in': number('[-1e6, 1e6]'),
    'loss.m_out': number('[-1e6, 1e6]'),
    'loss.fakes_labelled': FLAG,
    'loss.labelled': WEIGHT,
    'loss.marginal': WEIGHT,
    'loss.smoothing': number('[0, 0.49]'),
    'loss.disc': NAME,
    'loss.gen': NAME,
    'loss.layer': NAME,
    'loss.num_outputs': WIDTH,
    'loss.sigma': number('[1e-6, 1e6]'),
    'loss.bounds': listed(number('[0, 1e6]'), 2, 2),
    'penalty.weight': WEIGHT,
    'penalty.target': WEIGHT,

    'optimizer.momentum': number('[0, 1)'),
    'optimizer.nesterov': FLAG,
    'optimizer.historical': WEIGHT,
    'optimizer.orthogonal': WEIGHT,
    'optimizer.weight_decay': number('[0, 1e3]'),
    'optimizer.decay': NAME,
    'optimizer.b1': number('[0, 1)'),
    'optimizer.b2': number('[0, 1)'),
    'optimizer.ratio': number('(0, 1e3]'),
    'optimizer.ns_steps': whole('[1, 20]'),
    'optimizer.eps': number('[1e-30, 1]'),  # much smaller numbers are 0 in float32
    'optimizer.eps_root': number('[0, 1]'),

    'schedule.learning_rate': number('[1e-30, 1e38]'),  # within float32
    'schedule.end': number('[0, 1e6]'),
    # May exceed the number of steps, so that short trial runs can keep a recipe.
    'schedule.warmup': PERIOD,
    'schedule.over': PERIOD,
    'schedule.factor': number('(0, 1e38]'),
    'schedule.at': listed(number('(0, 1)'), 1),

    'treatment.alpha': number('[1e-3, 1e6]'),
    'treatment.mode': NAME,
    'treatment.portion': SHARE,
    'treatment.keep': either(whole('[1, 1e6]'), SHARE),

    'augment.num': whole('[1, 1e4]'),
    'augment.rounds': whole('[1, 20]'),
    'augment.beta': number('[1e-2, 1e3]'),
    'augment.seed': SEED,
    'augment.pad': whole('[0, 1000]'),
    'augment.mode': NAME,
    'augment.size': whole('[1, 1e4]'),
    'augment.small': whole('[1, 1e4]'),
    'augment.area': listed(number('(0, 1]'), 2, 2),
    'augment.ratio': listed(number('[0.01, 100]'), 2, 2),
    'augment.layers': whole('[1, 20]'),
    'augment.magnitude': number('[0, 30]'),
    'augment.brightness': number('[0, 1]'),
    'augment.contrast': number('[0, 1]'),
    'augment.saturation': number('[0, 1]'),

    'source.num': whole('[1, 1e9]'),
    'source.shape': listed(whole('[1, 1e5]'), 3, 3),
    'source.num_classes': whole('[1, 1e5]'),
    'source.seed': SEED,
    'source.patches': whole('[2, 1e4]'),
    'source.classes': either(listed(whole('[0, 1e9]'), 1, 100_000), NONE),
    'source.per_class': either(COUNT, NONE),
    'source.outliers': either(whole('[0, 212]'), NONE),
    'source.split': TEXT,
    'source.workdir': TEXT,
    'source.step': either(PERIOD, NONE),
    'source.crc32': either(whole('[0, 4294967295]'), NONE),
    'source.classifier': TEXT,
    'source.classifier_step': either(PERIOD, NONE),
    'source.classifier_crc32': either(whole('[0, 4294967295]'), NONE),
    'source.confidence': either(listed(number('[0, 1]'), 2, 2), NONE),
    'source.distance': either(listed(number('[0, 1e9]'), 2, 2), NONE),
    'source.path': TEXT,
    'source.size': either(
        whole('[1, 1e4]'), listed(whole('[1, 1e4]'), 2, 2), NONE),
    'source.mode': NAME,
    'source.skip_unreadable': FLAG,
    'source.lazy': either(FLAG, one_of(('auto',))),
    'source.part': one_of(('train', *PARTS)),
    'source.negatives': FLAG,
    'source.rows': NAME,
    'source.keep_constant': FLAG,
    'source.dataset': TEXT,
    'source.data_dir': either(TEXT, NONE),
    'source.cache_dir': either(TEXT, NONE),

    'series.num': whole('[2, 1e9]'),
    'series.segments': PERIOD,
    'series.start': PERIOD,
    'series.noise': number('[0, 1e3]'),
    'series.seed': SEED,
    'series.path': TEXT,
    'series.label': TEXT,
    'series.normal': TEXT,
    'series.header': whole('[0, 1e6]'),

    'corruption.strength': whole('[1, 5]'),
    'corruption.num': whole('[0, 1e9]'),
    'corruption.seed': SEED,

    'target.workdir': TEXT,
    'target.step': either(PERIOD, NONE),
    'target.crc32': either(whole('[0, 4294967295]'), NONE),
    'target.config': TEXT,

    'features.workdir': TEXT,
    'features.step': either(PERIOD, NONE),
    'features.config': TEXT,
    'features.path': TEXT,
    'features.bias': FLAG,

    'model.width': WIDTH,
    'model.widths': either(WIDTHS, NONE),
    'model.depth': whole('[0, 1000]'),
    'model.widen': whole('[1, 1000]'),
    'model.blocks': listed(whole('[0, 1000]'), 1, 10),
    'model.stem_stride': whole('[1, 1000]'),
    'model.frozen': whole('[0, 1000]'),
    'model.dtype': NAME,
    'model.parent': PROGRAM,

    'generator.latent': WIDTH,
    'generator.width': WIDTH,
    'generator.widths': WIDTHS,
    'generator.activation': NAME,
    'generator.initializer': NAME,
    'generator.bound': number('[0, 1e6]'),
    'generator.norm': NAME,
    'generator.batch_norm': NAME,
    'generator.attention': whole('[0, 1024]'),
    'generator.shared': WIDTH,
    'generator.dtype': NAME,
    'generator.num': whole('[1, 1000]'),
    'generator.parent': PROGRAM,

    'discriminator.width': WIDTH,
    'discriminator.widths': WIDTHS,
    'discriminator.norm': NAME,
    'discriminator.spectral_gain': number('[1e-3, 1e3]'),
    'discriminator.batch_norm': FLAG,
    'discriminator.attention': whole('[0, 1024]'),
    'discriminator.wide': FLAG,
    'discriminator.initializer': NAME,
    'discriminator.noise': number('[0, 1e3]'),
    'discriminator.dropout': number('[0, 0.99]'),  # 1 would drop everything
    'discriminator.kernels': whole('[0, 1e4]'),
    'discriminator.projection': whole('[0, 1e5]'),
    'discriminator.black': number('[-1e3, 1e3]'),
    'discriminator.dtype': NAME,
    'discriminator.parent': PROGRAM,

    'points.num': whole('[1, 1e9]'),
    'points.mean': number('[-1e6, 1e6]'),
    'points.std': number('(0, 1e6]'),
    'points.spacing': number('(0, 1e6]'),
    'points.radius': number('(0, 1e6]'),
    'points.noise': number('[0, 1e3]'),
    'points.negatives': listed(listed(number('[-1e6, 1e6]'), 2, 2), 1),
    'points.seed': SEED,
    'zero_shot.num_classes': whole('[3, 1e5]'),
    'zero_shot.num_unseen': COUNT,
    'zero_shot.num_held_out': whole('[0, 1e5]'),
    'zero_shot.num_attributes': whole('[2, 1000]'),
    'zero_shot.num_features': WIDTH,
    'zero_shot.per_class': COUNT,
    'zero_shot.spread': number('[0, 1e3]'),
    'zero_shot.noise': number('[0, 1e3]'),
    'zero_shot.seed': SEED,
    'zero_shot.path': TEXT,
    'zero_shot.validation': number('(0, 1)'),
    'zero_shot.held_out': number('(0, 1)'),

    'noise.reach': number('(0, 1e6]'),
    'noise.jitter': number('[0, 1e6]'),
}

# Config key of a spec -> kind of spec, the first part of its keys in `BOUNDS`. '*' is
# any entry of a dict or list.
SPECS = {
    **{key: key for key in (
        'trainer', 'model', 'loss', 'optimizer', 'schedule', 'generator',
        'discriminator', 'noise')},
    'disc_schedule': 'schedule',
    'disc_optimizer': 'optimizer',
    'data.series': 'series',
    'data.test': 'series',
    'gan_loss': 'loss',
    'gan_optimizer': 'optimizer',
    'gan_schedule': 'schedule',
    'segmenter': 'pixel_model',
    'data.pairs': 'source',
    'encoder': 'model',
    'perturber': 'model',
    'student': 'model',
    'target': 'target',
    'evals.*.classifier': 'target',
    'trainer.encoder': 'model',
    'trainer.classifier': 'model',
    'penalties.*': 'penalty',
    'generator.generator': 'generator',
    'data': 'points',
    'data.examples': 'source',
    'data.source': 'zero_shot',
    'decoder': 'discriminator',
    'regressor': 'discriminator',
    'data.positives': 'source',
    'data.negatives.*.source': 'source',
    'data.augment.*': 'augment',
    'data.treatment': 'treatment',
    'evals.*.source': 'source',
    'evals.*.corrupt': 'corruption',
    'measures.reference': 'source',
    'measures.held_out': 'source',
    'measures.features': 'features',
    'measures.independent': 'features',
}
OPTIONAL = ('disc_optimizer', 'data.test', 'gan_schedule', 'generator', 'discriminator',
            'disc_schedule', 'student', 'evals.*.classifier', 'data.treatment',
            'measures.reference', 'measures.held_out',
            'measures.independent')  # specs that may be {}


def check(path: str, key: str, value: Any) -> None:
  """Raises ValueError unless `value` is valid for a key of a config.

  Args:
    path: full key of the value, for the message.
    key: in `BOUNDS` or `SPECS`. A key in neither is not checked here: the function that
      takes the argument rejects unknown ones.
    value: in plain JSON types.
  """
  if key in SPECS:
    _check_spec(path, key, value)
  elif key in BOUNDS and not BOUNDS[key].holds(value):
    raise ValueError(f'{path} must be {BOUNDS[key].what}, got {shown(value)}')


def _check_spec(path, key, spec):
  if spec == {} and key in OPTIONAL:
    return
  if not isinstance(spec, dict) or not isinstance(spec.get('name'), str):
    raise ValueError(f"{path} must be {{'name': ..., arguments}}, got {shown(spec)}")
  for argument, value in spec.items():
    if argument != 'name':
      check(f'{path}.{argument}', f'{SPECS[key]}.{argument}', value)


def shown(value: Any) -> str:
  """The repr of a value for a message, truncated to 200 characters."""
  written = repr(value)
  return written if len(written) <= 200 else f'{written[:200]}...'
