"""The figures that the paper printed, to stand beside ours.

    ncr('cifar10', 'nat', 'cifar100_test', '0.4')   # 0.072, or None

Source: Li, Jia, Jing, "Negative-Aware Training", ECAI 2020, Tables 1-3; one run each,
full size. `at`: its earlier draft, "Be Neutral on Negative Samples". The paper's SVHN
is the whole official training split.
"""

SETS = ('cifar100_train', 'cifar100_test', 'ilsvrc', 'noise')

# (experiment, variant) -> for each threshold the figures of SETS.
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

# Table 3: other columns, ILSVRC samples being the training negatives.
ILSVRC = {
    '0.4': {'ilsvrc_train': 0, 'ilsvrc': .079, 'cifar100_test': .597, 'noise': 1},
    '0.6': {'ilsvrc_train': 0, 'ilsvrc': .047, 'cifar100_test': .464, 'noise': 1},
    '0.8': {'ilsvrc_train': 0, 'ilsvrc': .025, 'cifar100_test': .349, 'noise': .051},
    '0.9': {'ilsvrc_train': 0, 'ilsvrc': .014, 'cifar100_test': .262, 'noise': 0},
}

ACCURACY = {('cifar10', 'baseline'): .9554, ('cifar10', 'nat'): .9503,
            ('cifar10', 'background'): .91}


def ncr(experiment: str, variant: str, eval_set: str, threshold: str) -> float | None:
  """The paper's NCR_t, or None. A `_small` experiment stands beside the full one."""
  experiment = experiment.removesuffix('_small')
  if (experiment, variant) == ('cifar10', 'ilsvrc'):
    return ILSVRC.get(threshold, {}).get(eval_set)
  figures = NCR.get((experiment, variant), {}).get(threshold)
  return figures[SETS.index(eval_set)] if figures and eval_set in SETS else None
