"""GAN objectives on three sets of points in a plane, ten seeds side by side.

    python -m nat_jax.main --config configs/gan/points2d.py:g8_hinge --workdir runs/x

A variant is a set of points and an objective, such as `g25_mmd`. The sets are `g8` (8
Gaussians on a circle), `g25` (25 Gaussians on a grid) and `swiss` (a Swiss roll, which
has no classes). The objectives are the keys of `OBJECTIVES`; those of `CLASSES` learn
from the number of the Gaussian as class label. docs/gan_objectives.md explains all of
them, and has the command that trains all and the table of results. `hinge_sn` has
spectral norm in both networks; in configs/gan/cifar10_resnet.py a variant of this name
has it in the discriminator alone, as `hinge_sn_d` here.

A fourth set, `dist`, is 25 Gaussians in a square of side 1, four seeds: GAAN (Tran,
Bui, Cheung, ECCV 2018) with the settings of its authors' code for points, and GANs
without an encoder with equal and with usual settings. Its variants are those of `DIST`.
"""

from nat_jax import names
from nat_jax.schema import presets

SETS = {'g8': 'gaussians8', 'g25': 'gaussians25', 'swiss': 'swiss_roll',
        'dist': 'gaussians25'}
GENERATOR = {
    'name': 'toy_generator', 'latent': 2, 'widths': (64, 64), 'activation': 'relu'}
DISCRIMINATOR = {'name': 'toy_discriminator', 'widths': (64, 64)}
SPECTRAL_D = dict(discriminator={**DISCRIMINATOR, 'norm': 'spectral'})
SPECTRAL = dict(generator={**GENERATOR, 'norm': 'spectral'}, **SPECTRAL_D)
MMD = dict(loss={'name': 'mmd', 'num_outputs': 16})
GRADIENT = [{'name': 'gradient', 'weight': 0.1}]
FIVE = {'name': 'gan', 'n_critic': 5}
GIVEN = {'name': 'gan', 'labels': 'predefined'}

OBJECTIVES = {
    'gan': {},
    'negatives': dict(negatives=True),
    'smooth': dict(loss={'name': 'gan', 'smoothing': 0.1}),
    'history': dict(optimizer={'name': 'adam', 'b1': 0.5, 'historical': 0.01}),
    'minibatch': dict(discriminator={**DISCRIMINATOR, 'kernels': 16}),
    'matching': dict(loss={'name': 'feature_matching', 'disc': 'gan'}),
    'bn': dict(generator={**GENERATOR, 'batch_norm': 'batch'}),
    'vbn': dict(generator={**GENERATOR, 'batch_norm': 'virtual'}),
    'relativistic': dict(loss={'name': 'relativistic'}),
    'hinge': dict(loss={'name': 'hinge'}),
    'hinge_sn_d': dict(loss={'name': 'hinge'}, **SPECTRAL_D),
    'hinge_sn': dict(loss={'name': 'hinge'}, **SPECTRAL),
    'mmd': MMD,
    # The gain of a layer in the authors' code.
    'mmd_sn': dict(MMD, discriminator={
        **DISCRIMINATOR, 'norm': 'spectral', 'spectral_gain': 64 ** (1 / 8)}),
    'r1': dict(penalties=[{'name': 'r1', 'weight': 0.1}]),
    'gp': dict(penalties=GRADIENT),
    'gan_5': dict(trainer=FIVE),
    'gp_5': dict(trainer=FIVE, penalties=GRADIENT),
    'wgan_gp_5': dict(trainer=FIVE, loss={'name': 'wgan'}, penalties=GRADIENT),
}
CLASSES = {
    'labelgan': dict(loss={'name': 'label_gan'}),
    'am': dict(loss={'name': 'am_gan'}),
    'catgan': dict(loss={'name': 'cat_gan'}),
    'nat0': dict(loss={'name': 'nat_gan'}),
    'acgan': dict(loss={'name': 'ac_gan'}, trainer=GIVEN),
    'acgan_star': dict(
        loss={'name': 'ac_gan', 'fakes_labelled': False}, trainer=GIVEN),
    'acgan_plus': dict(loss={'name': 'ac_gan_plus'}, trainer=GIVEN),
    'projection': dict(loss={'name': 'hinge'}, trainer=GIVEN),
    'projection_cbn': dict(
        loss={'name': 'hinge'}, trainer=GIVEN,
        generator={**GENERATOR, 'batch_norm': 'class'}),
}
# On 25 Gaussians alone: a step costs three to four times as much.
COSTLY = {
    'egan': dict(trainer={'name': 'egan', 'diversity': 1.0}),
    'gaan_gp_5': dict(
        trainer={'name': 'gaan', 'n_critic': 5, 'encoder': {
            'name': 'mlp', 'width': 64, 'depth': 2}},
        penalties=GRADIENT),
}
NUM_CLASSES = {'g8': 8, 'g25': 25}

# The code of GAAN for points: .1 (|gradient| / sqrt(2) - 1)^2, and a learning rate that
# is multiplied by .9 every 10,000 updates, of which an iteration makes seven.
DIST_STEPS = 6000
DIST_PENALTY = [{'name': 'gradient', 'weight': 0.05, 'target': 2**0.5}]
DIST_BASE = dict(
    data={'name': 'gaussians25', 'spacing': 0.24, 'std': 0.006},
    batch_size=128,
    steps=DIST_STEPS,
    num_seeds=4,
    optimizer={'name': 'adam', 'b1': 0.8},
    schedule={'name': 'step', 'learning_rate': 1e-3, 'factor': 0.9, 'at': tuple(
        10_000 * i / 7 / DIST_STEPS for i in range(1, 5))},
    noise={'name': 'uniform'},
    generator={
        **GENERATOR, 'widths': (128, 128, 128), 'initializer': 'he', 'bound': 0.55},
    discriminator={**DISCRIMINATOR, 'widths': (128, 128, 128), 'initializer': 'he'},
    penalties=DIST_PENALTY,
    run=dict(eval_every=1000, checkpoint_every=1000, log_every=1000),
)
# Usual settings of a GAN: one update of D, and a smaller constant learning rate.
USUAL = dict(
    optimizer={'name': 'adam', 'b1': 0.5},
    schedule={'name': 'constant', 'learning_rate': 2e-4},
)
ENCODER = {'name': 'mlp', 'width': 128, 'depth': 3}
GAAN = {'name': 'gaan', 'encoder': ENCODER, 'n_critic': 5, 'updates_generator': True,
        'space': 'data', 'distance_weight': 0.1}
DIST = {
    'gan_usual': dict(penalties=[], **USUAL),
    'gp_usual': USUAL,
    'gaan_usual': dict(trainer={'name': 'gaan', 'encoder': ENCODER}, **USUAL),
    'gp': dict(trainer=FIVE),
    'gaan_fake': dict(trainer={
        **GAAN, 'reconstruction': 'fake', 'recon_weight': 0.5}),
    'gaan_real': dict(trainer=GAAN),
    'egan': dict(trainer={'name': 'egan', 'diversity': 1.0, 'n_critic': 5}),
}

ROWS = {
    'g8': OBJECTIVES | CLASSES,
    'g25': OBJECTIVES | CLASSES | COSTLY,
    'swiss': OBJECTIVES,
    'dist': DIST,
}


def get_config(variant='g8_gan'):
  points, _, objective = variant.partition('_')
  if objective not in ROWS.get(points, {}):
    raise ValueError(names.unknown('variant', variant, [
        f'{points}_{objective}' for points, rows in ROWS.items()
        for objective in rows]))
  settings = dict(
      name=SETS[points],
      variant=objective,
      task='points',
      data={'name': SETS[points]},
      negatives=False,
      negatives_per_batch=64,
      batch_size=64,
      steps=3000,
      optimizer={'name': 'adam', 'b1': 0.5},
      schedule={'name': 'constant', 'learning_rate': 1e-3},
      noise={'name': 'normal'},
      generator=GENERATOR,
      discriminator=DISCRIMINATOR,
      num_samples=2000,
      run=dict(eval_every=1000, checkpoint_every=3000, log_every=1000),
  )
  if points == 'dist':
    settings |= dict(name='gaussians25_dist', **DIST_BASE)
  settings |= ROWS[points][objective]
  if objective.startswith('projection'):
    settings['discriminator'] = {
        **DISCRIMINATOR, 'norm': 'spectral', 'projection': NUM_CLASSES[points]}
  return presets.experiment(**settings)
