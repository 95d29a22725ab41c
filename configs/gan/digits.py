"""GANs of scikit-learn's digits: no download, two CPU cores.

    python -m nat_jax.main --config configs/gan/digits.py --workdir runs/gan-digits

Positives: digits 0-5; external negatives: 6-9. The evaluation classifier
(configs/gan/classifier.py:digits) is trained first.

Variants: nat3 (the default), am, catgan, nat0, nat10, natm0, natm3 and any other
objective of nat_jax/schema/gan_recipes.py or row of `SETTINGS`, with any number of
negatives per batch of 100. docs/gan_objectives.md explains the methods; here acgan,
acgan_star and acganplus give G no classes (acgan_given and acganplus_given do, as all
three do there), the penalties r1, gp and wgan_gp have their published weight 10, and
hinge_sn has spectral norm in both networks. configs/gan/gaan.py has a GAN with an
encoder. The objectives of gan_recipes.py also have the forms _mixup (D sees mixed
images) and _adaptivemix (and its features of them are to be those of both images,
mixed), as in nat3_adaptivemix.

Trained on the training part of 0-5; the test part is held out, to count samples that
repeat training images. Measured, ten seeds, after 2,000 updates: docs/results.md, where
the tables of _mixup, _adaptivemix and of 5,000 updates are of an earlier version that
trained on all images. A run takes a minute on two CPU cores.
"""

from nat_jax.schema import gan_recipes, presets

TRAINERS = {'': 'gan', 'mixup': 'mixup', 'adaptivemix': 'adaptive_mix'}  # by form
HINGE = {'name': 'hinge'}
SPECTRAL = {'norm': 'spectral'}
GIVEN = {'labels': 'predefined'}  # G is given classes
PROJECTION = dict(
    loss=HINGE, trainer=GIVEN, discriminator={'projection': 6, **SPECTRAL})
SETTINGS = {  # objective -> what differs from the plain GAN
    **{name: dict(loss=loss) for name, loss in gan_recipes.OBJECTIVES.items()},
    'smooth': dict(loss={'name': 'gan', 'smoothing': 0.1}),
    'history': dict(optimizer={'name': 'adam', 'b1': 0.5, 'historical': 0.01}),
    'minibatch': dict(discriminator={'kernels': 16}),
    'matching': dict(loss={'name': 'feature_matching', 'disc': 'gan'}),
    'vbn': dict(generator={'batch_norm': 'virtual'}),
    'relativistic': dict(loss={'name': 'relativistic'}),
    'hinge_sn': dict(loss=HINGE, generator=SPECTRAL, discriminator=SPECTRAL),
    'mmd_sn': dict(  # with the gain of a layer in the code of MMD-GAN's authors
        loss={'name': 'mmd', 'num_outputs': 16},
        discriminator={'spectral_gain': 64 ** (1 / 8), **SPECTRAL}),
    'r1': dict(penalties=[{'name': 'r1'}]),
    'gp': dict(penalties=[{'name': 'gradient'}]),
    'wgan_gp': dict(
        loss={'name': 'wgan'}, trainer={'n_critic': 5},
        penalties=[{'name': 'gradient'}]),
    'egan': dict(trainer={'name': 'egan', 'diversity': 1.0}),
    'acgan_star': dict(loss={'name': 'ac_gan', 'fakes_labelled': False}),
    'acgan_given': dict(loss={'name': 'ac_gan'}, trainer=GIVEN),
    'acganplus_given': dict(loss={'name': 'ac_gan_plus'}, trainer=GIVEN),
    'projection': PROJECTION,
    'projection_cbn': dict(generator={'batch_norm': 'class'}, **PROJECTION),
}


def get_config(variant='nat3'):
  """Returns the config of a variant; raises ValueError for an unknown variant."""
  objective, count, form = gan_recipes.parse(variant, tuple(TRAINERS)[1:], SETTINGS)
  if form and objective not in gan_recipes.OBJECTIVES:
    raise ValueError(
        f'variant {variant!r}: _{form} goes with the objectives '
        f'{", ".join(gan_recipes.OBJECTIVES)}, got {objective!r}')
  settings = {
      **gan_recipes.digits(count), 'trainer': {'name': TRAINERS[form]},
      'loss': {'name': 'gan'}}
  for key, value in SETTINGS[objective].items():
    own = key in ('generator', 'discriminator', 'trainer')  # which keep other keys
    settings[key] = {**settings[key], **value} if own else value
  return presets.experiment(
      task='gan', name='gan_digits', variant=variant, **settings)
