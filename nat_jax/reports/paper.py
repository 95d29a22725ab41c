"""The values that the NAT paper printed, for comparison in reports.

    >>> ncr('cifar10', 'nat', 'cifar100_test', '0.4')
    0.072
    >>> generated('gan_cifar10', 'nat3')['fid']
    14.58
    >>> published('gan_cifar10', 'nat3', 'samples', 'kid', '') is None
    True
    >>> updates, losses = gen_loss('gan_mnist', 'nat0')
    >>> updates[0], losses[0]
    (10000, 0.883)

Source: Li, Jia, Jing, "Negative-Aware Training", ECAI 2020, Tables 1-4, and Figure 6,
read off its vector graphics on the paper's site. Each value is of one full-size run.
`at` is the paper's earlier draft, "Be Neutral on Negative Samples". The paper's SVHN
classifiers train on the whole official training split.
"""

import re

FORMS = r'(_small(01)?|_paper)*$'  # endings that recipes add to names of experiments
SETS = ('cifar100_train', 'cifar100_test', 'ilsvrc', 'noise')

# (experiment, variant) -> {threshold: NCR_t of each set of SETS}.
NCR = {
    ('cifar10', 'baseline'): {
        '0.4': (.960, .971, .949, .736), '0.6': (.817, .839, .764, .145),
        '0.8': (.649, .671, .563, .006), '0.9': (.534, .558, .434, .0001)},
    ('cifar10', 'nat'): {
        '0.4': (.028, .072, .063, 0), '0.6': (.012, .045, .036, 0),
        '0.8': (.005, .026, .019, 0), '0.9': (.002, .018, .012, 0)},
    ('cifar10', 'nat8'): {
        '0.4': (.123, .155, .218, .142), '0.6': (.077, .111, .154, .001),
        '0.8': (.045, .073, .104, 0), '0.9': (.029, .052, .076, 0)},
    ('cifar10', 'nat32'): {
        '0.4': (.025, .087, .139, .082), '0.6': (.010, .059, .099, .002),
        '0.8': (.004, .039, .069, 0), '0.9': (.002, .027, .051, 0)},
    ('cifar10', 'nat64'): {
        '0.4': (.010, .082, .132, .608), '0.6': (.003, .054, .093, .144),
        '0.8': (.001, .035, .064, .011), '0.9': (.0003, .027, .047, .008)},
    ('svhn', 'baseline'): {
        '0.4': (.928, .934, .921, .944), '0.6': (.727, .738, .706, .760),
        '0.8': (.520, .530, .489, .561), '0.9': (.388, .402, .357, .429)},
    ('svhn', 'nat'): {
        '0.4': (.0003, .003, .002, 0), '0.6': (.0001, .001, .0009, 0),
        '0.8': (0, .0008, .0005, 0), '0.9': (0, .0006, .0004, 0)},
    ('at', 'student_baseline'): {
        '0.4': (.974, .974, .946, .966), '0.6': (.835, .837, .776, .647),
        '0.8': (.661, .657, .591, .311), '0.9': (.542, .538, .462, .150)},
    ('at', 'student_nat'): {
        '0.4': (.194, .230, .190, 0), '0.6': (.116, .151, .115, 0),
        '0.8': (.063, .097, .066, 0), '0.9': (.038, .062, .042, 0)},
}

# Table 3, where ILSVRC samples are the training negatives: {threshold: {set: NCR_t}}.
ILSVRC = {
    '0.4': {'ilsvrc_train': 0, 'ilsvrc': .079, 'cifar100_test': .597, 'noise': 1},
    '0.6': {'ilsvrc_train': 0, 'ilsvrc': .047, 'cifar100_test': .464, 'noise': 1},
    '0.8': {'ilsvrc_train': 0, 'ilsvrc': .025, 'cifar100_test': .349, 'noise': .051},
    '0.9': {'ilsvrc_train': 0, 'ilsvrc': .014, 'cifar100_test': .262, 'noise': 0},
}


def ncr(experiment: str, variant: str, eval_set: str, threshold: str) -> float | None:
  """The paper's NCR_t, or None; small and paper forms of an experiment have it too."""
  experiment = re.sub(FORMS, '', experiment)
  if (experiment, variant) == ('cifar10', 'ilsvrc'):
    return ILSVRC.get(threshold, {}).get(eval_set)
  figures = NCR.get((experiment, variant), {}).get(threshold)
  return figures[SETS.index(eval_set)] if figures and eval_set in SETS else None


# Table 4: metrics of 50,000 samples.
MEASURES = ('inception_score', 'am_score', 'fid')
GENERATED = {
    'gan_cifar10': {
        'am': (8.88, .073, 13.49), 'catgan0': (9.02, .085, 14.20),
        'catgan1': (9.06, .078, 15.27), 'catgan3': (9.05, .078, 14.89),
        'catgan10': (9.08, .078, 15.43), 'nat0': (9.11, .056, 13.03),
        'nat1': (9.21, .034, 15.12), 'nat3': (9.26, .043, 14.58),
        'nat10': (9.25, .036, 15.09)},
    'gan_tiny_imagenet': {
        'am': (5.91, .641, 43.85), 'catgan0': (10.46, .453, 28.93),
        'catgan1': (10.66, .444, 29.07), 'catgan3': (10.65, .446, 28.63),
        'catgan10': (10.60, .452, 28.38), 'nat0': (11.48, .440, 25.54),
        'nat1': (11.60, .436, 24.52), 'nat3': (11.78, .428, 24.38),
        'nat10': (11.73, .436, 25.02)},
}

# Figure 6: the smoothed generator loss of NAT-GAN X; 'updates' are in thousands.
GEN_LOSS = {
    'gan_cifar10': {
        'updates': (35, 70, 140, 210, 280, 350, 420, 490, 560, 630, 693),
        'nat0': (1.200, 1.177, 1.160, 1.150, 1.144, 1.138, 1.135, 1.131, 1.128, 1.125,
                 1.123),
        'nat1': (1.115, 1.085, 1.059, 1.042, 1.031, 1.022, 1.015, 1.008, 1.002, .997,
                 .993),
        'nat3': (1.165, 1.132, 1.102, 1.085, 1.072, 1.064, 1.055, 1.047, 1.042, 1.035,
                 1.032),
        'nat10': (1.119, 1.089, 1.063, 1.047, 1.036, 1.027, 1.019, 1.013, 1.006, 1.002,
                  .998)},
    'gan_tiny_imagenet': {
        'updates': (25, 50, 100, 150, 200, 250, 300, 350, 400, 450, 495),
        'nat0': (2.325, 2.244, 2.173, 2.137, 2.112, 2.094, 2.078, 2.065, 2.054, 2.042,
                 2.033),
        'nat1': (2.322, 2.243, 2.169, 2.133, 2.113, 2.092, 2.078, 2.064, 2.052, 2.041,
                 2.031),
        'nat3': (2.317, 2.237, 2.167, 2.130, 2.106, 2.087, 2.071, 2.057, 2.045, 2.033,
                 2.026),
        'nat10': (2.325, 2.239, 2.169, 2.132, 2.108, 2.088, 2.071, 2.058, 2.048, 2.035,
                  2.026)},
    'gan_svhn': {
        'updates': (30, 40, 50, 60, 70, 80, 90, 99),
        'nat0': (1.041, 1.020, 1.003, .992, .980, .974, .966, .962),
        'nat1': (1.009, .990, .973, .961, .948, .939, .931, .926),
        'nat3': (1.003, .980, .964, .953, .941, .933, .926, .918),
        'nat10': (1.003, .981, .963, .953, .943, .933, .926, .920)},
    'gan_mnist': {
        'updates': (10, 20, 30, 40, 50, 60, 70, 80, 90, 99),
        'nat0': (.883, .843, .816, .803, .791, .778, .768, .758, .749, .743),
        'nat1': (.803, .777, .757, .740, .731, .723, .714, .702, .694, .688),
        'nat3': (.793, .782, .761, .744, .731, .723, .713, .705, .698, .690),
        'nat10': (.787, .775, .758, .745, .727, .717, .708, .700, .691, .685)},
}


def generated(experiment: str, variant: str) -> dict[str, float] | None:
  """The paper's values of `MEASURES`, or None; small forms have them too."""
  variant = {'catgan': 'catgan0'}.get(variant, variant)
  found = GENERATED.get(re.sub(FORMS, '', experiment), {}).get(variant)
  return dict(zip(MEASURES, found, strict=True)) if found else None


def published(
    experiment: str, variant: str, eval_set: str, metric: str, threshold: str
) -> float | None:
  """The paper's value of a metric, NCR_t or one of `MEASURES`, or None."""
  if metric == 'ncr':
    return ncr(experiment, variant, eval_set, threshold)
  of_samples = eval_set == 'samples' and metric in MEASURES
  found = generated(experiment, variant) if of_samples else None
  return found and found[metric]


def gen_loss(experiment: str, variant: str) -> tuple[tuple, tuple] | None:
  """(updates, losses) of the paper's generator-loss curve, or None.

  Only full-size experiments have one, since the curve depends on the schedule.
  """
  curves = GEN_LOSS.get(experiment, {})
  if variant not in curves or variant == 'updates':
    return None
  return tuple(1000 * k for k in curves['updates']), curves[variant]
