"""All keys of configs, with their defaults and meanings: a dict for each task.

A spec is `{'name': ..., **arguments}`; the comment on its line names the table in which
the name is looked up. `nat_jax.schema.bounds` holds the valid values.
"""

from typing import Any

RUN: dict[str, Any] = dict(  # these keys may be changed when a run is resumed
    mode='jit',  # or 'pmap'
    placement='resident',  # images on the device; 'streamed': gathered by the host
    updates_per_call=50,  # most updates per call, after which metrics are read
    log_every=100,  # updates
    eval_every=0,  # updates; 0: at the end only
    checkpoint_every=500,  # updates; 0: at the end only
    keep=2,  # number of newest checkpoints that are kept, besides the best
    tensorboard=True,  # write TensorBoard events
)

CLASSIFY: dict[str, Any] = dict(
    task='classify',  # nat_jax.tasks.TASKS
    name='experiment',  # printed in reports
    variant='',  # name of the variant of the config file: 'nat', 'baseline', ...
    trainer={'name': 'supervised'},  # nat_jax.tasks.classify.TRAINERS
    seed=0,  # of the parameters, the batches and the augmentation
    steps=1000,  # number of updates
    num_classes=10,
    model={'name': 'small_conv'},  # nat_jax.models.MODELS
    # Pretrained weights that training starts from, .safetensors of torchvision or timm
    # for a network in nat_jax.models.weights.LAYERS; a name without a folder is looked
    # for in ~/.cache/nat_jax/backbones too; '': random ones.
    weights='',
    # The learning rate of a stage / that of the next stage; 1: one rate for all. Stages
    # are counted by nat_jax.models.weights.stage; model.frozen of them are not trained.
    layer_decay=1.0,
    # nat_jax.losses.OBJECTIVES; each also takes logit_norm, LogitNorm's temperature.
    loss={'name': 'nat'},
    optimizer={'name': 'sgd'},  # nat_jax.runtime.optim.OPTIMIZERS
    schedule={'name': 'cosine', 'learning_rate': 0.1},  # runtime.optim.SCHEDULES
    grad_clip=0.0,  # largest global gradient norm; 0: not clipped
    ema_decay=0.0,  # moving average of the parameters, used by evaluation; 0: none
    data=dict(
        positives={'name': 'digits'},  # a source: nat_jax.data.SOURCES
        negatives={},  # name -> {'source': a source or synthetic one, 'weight': 1.0}
        # Files of rows of these sources that are left out of the training, or that are
        # used alone: nat_jax.tasks.subsets; --mode=influence writes them. '': none.
        drop='',
        keep='',
        # Side, or (h, w), of pictures in sources that have no `size`; 0: of the files.
        image_size=0,
        skip_unreadable=False,  # True: damaged pictures are skipped, in all sources
        # Per channel, of pixels in [0, 1]; or per column of vectors, and then () is the
        # mean or std of the training positives.
        mean=(0.5,),
        std=(0.5,),
        # What made the vectors of pictures, as --mode=embed writes it into its file; by
        # it --mode=predict makes vectors of pictures. {}: not known.
        backbone={},
        batch_size=128,  # positives per batch (with inside=True: all examples)
        negatives_per_batch=(5, 25),  # a number, or a range, drawn uniformly, inclusive
        # Factors of the losses of positives, one for each class, or 'balanced': n / (c
        # times the number of the class) of the n training positives. '': all are 1.
        class_weights='',
        inside=False,  # True: negatives replace positives
        # Parts of a batch with BatchNorm statistics of their own, one after the other;
        # their gradients are added, so that only a part's activations take memory.
        micro_batches=1,
        augment=[],  # nat_jax.data.AUGMENTS, in this order
        # Near-duplicates among pictures of sources with lazy='auto' are reported before
        # training: largest number of different bits of their perceptual hashes, of 64
        # bits; None: they are not looked for.
        duplicates=4,
        treatment={},  # change of the negatives: nat_jax.tasks.classify.TREATMENTS
    ),
    # name -> {'source': ..., 'positive': bool, 'seen': True|False|None, 'part': PARTS,
    #   'optional': True: left out, with a warning, if it is of tfds and not prepared,
    #   'type': nat_jax.tasks.classify.EVALUATORS, 'every': updates; 0: at the end only.
    #   Without 'every' run.eval_every holds for part 'validation', and for all sets if
    #   none is of that part,
    #   'corrupt': {'name': nat_jax.data.CORRUPTIONS, 'strength': 1 to 5, 'num': number
    #   of images; 0: all}}; an empty entry is left out
    evals={},
    # Name of the positive set that negative sets of part 'test' are compared with.
    # Negative sets of another part are compared with the one positive set of that part.
    reference='test',
    eval_batch_size=512,
    # Figure of a set of part 'validation', such as 'validation/accuracy'; the
    # checkpoint with its best value is kept, of equal values the newest. '': none.
    best='',
    # Early stopping: training ends once that checkpoint is this many updates old, a
    # multiple of the period of the set of `best`, and eval.json is of that checkpoint,
    # also if training reaches `steps`. 0: it ends at `steps`; eval.json is of the end.
    patience=0,
    # Variant of this config file that is trained and reported too, in a workdir named
    # after the part before a colon: 'baseline', 'baseline:pets' -> DIR-baseline.
    compare_with='',
    run=RUN,
)

GAN: dict[str, Any] = dict(
    task='gan',
    name='experiment',
    variant='',  # 'am', 'nat3', ...
    trainer=dict(
        name='gan',  # nat_jax.tasks.gan.TRAINERS
        n_critic=1,  # updates of the discriminator per update of the generator
        negatives_every=1,  # external negatives are used in every n-th step
        joint=True,  # one pass over negatives and generated images; False: separate
        negative_weight=None,  # of the negatives' mean; None: joint mean with generated
        simultaneous=False,  # True: the generator's loss uses D from before the step
        labels='dynamic',  # of generated images; or 'predefined'
    ),
    seed=0,
    steps=1000,  # number of updates of the generator
    num_classes=10,
    generator={'name': 'dcgan_generator', 'latent': 100},  # nat_jax.models.GENERATORS
    discriminator={'name': 'dcgan_discriminator'},  # nat_jax.models.DISCRIMINATORS
    loss={'name': 'nat_gan'},  # nat_jax.losses.GAN_OBJECTIVES
    penalties=[],  # of the discriminator: nat_jax.losses.PENALTIES
    # Of both networks; a weight 'orthogonal' is of the generator alone.
    optimizer={'name': 'adam', 'b1': 0.5, 'b2': 0.999},
    # Decreases to 0 at update `over`; over=0: at the last update.
    schedule={'name': 'linear', 'learning_rate': 4e-4, 'over': 0},
    disc_schedule={},  # of the discriminator; {}: `schedule`
    grad_clip=0.0,
    # Moving average of the generator, used for samples; lower at first; 0: none.
    ema_decay=0.0,
    data=dict(
        positives={'name': 'digits'},
        negatives={},
        drop='',  # as for classifiers
        keep='',
        # Side, or (h, w), of pictures in sources that have no `size`; 0: of the files.
        image_size=0,
        skip_unreadable=False,  # True: damaged pictures are skipped, in all sources
        mean=(0.5,),
        std=(128 / 255,),  # (x - 127.5) / 128, as in AM-GAN
        batch_size=100,  # positives per batch
        negatives_per_batch=0,  # X in the paper's "NAT-GAN X"
        micro_batches=1,  # as for classifiers; 1 where a loss compares examples
        augment=[],
    ),
    # name -> {'type': nat_jax.tasks.gan.EVALUATORS, 'every': updates; 0: at the end
    #   only; default: run.eval_every}
    evals={'samples': {'type': 'samples'}},
    measures=dict(  # settings of evaluations of the types 'samples' and 'quick'
        reference={},  # source of the real images to compare with; {}: the positives
        held_out={},  # source of positives that are not trained on; {}: none
        num_samples=10_000,  # of the generator, and the largest number of real images
        num_quick=2000,  # of the generator in evaluations of the type 'quick'
        batch_size=100,  # of the generator; its batch statistics depend on it
        truncation=0.0,  # above 0: z is drawn again where it is farther from 0
        features={'name': 'pixels'},  # nat_jax.tasks.gan.FEATURES
        independent={},  # FEATURES for a second Inception Score; {}: none
        splits=1,  # of the Inception Score
        neighbours=5,  # k of precision, recall, density and coverage
    ),
    compare_with='',
    run=RUN,
)

GAAN: dict[str, Any] = {  # GANs with an encoder; the trainer has their losses
    **{key: value for key, value in GAN.items() if key != 'loss'},
    'task': 'gaan',
    # The losses are functions of means over the whole batch.
    'data': {k: v for k, v in GAN['data'].items() if k != 'micro_batches'},
    'trainer': dict(
        name='gaan',  # nat_jax.tasks.gaan.TRAINERS
        recon_weight=0.05,  # of reconstructions in D's loss
        distance_weight=1.0,  # of the distance term in the encoder's loss
        n_critic=1,  # updates of the discriminator per update of the generator
        reconstruction='real',  # what D takes reconstructions for; or 'fake'
        updates_generator=False,  # True: the encoder's loss updates the generator too
        space='features',  # of D, in which that loss compares; or 'data'
        negative_weight=None,  # of the negatives' mean; None: joint mean with generated
        form='log',  # of D's loss; or 'hinge'
        # Shares (from, to) of the training between which recon_weight falls to 0;
        # (): it is constant.
        fade=(),
        prior='normal',  # of z; or 'uniform', in [-1, 1]
    ),
    'encoder': {'name': 'mlp'},  # nat_jax.models.MODELS, without batch statistics
}

POINTS: dict[str, Any] = dict(  # GANs of points on a line or in a plane
    task='points',
    name='experiment',
    variant='nat',
    seed=0,  # the first of num_seeds consecutive seeds
    num_seeds=10,  # trained in parallel
    steps=5000,
    data={'name': 'gaussian1d'},  # nat_jax.data.POINTS
    trainer={'name': 'gan'},  # nat_jax.tasks.points.TRAINERS, with its arguments
    loss={'name': 'gan'},  # nat_jax.losses.GAN_OBJECTIVES
    penalties=[],  # of the discriminator: nat_jax.losses.PENALTIES
    batch_size=8,
    negatives=True,  # False: none
    negatives_per_batch=8,
    negative_weight=None,  # of the negatives' mean; None: joint mean with generated
    noise={'name': 'normal'},  # nat_jax.tasks.points.NOISES
    generator={'name': 'toy_generator', 'latent': 1},
    discriminator={'name': 'toy_discriminator'},
    optimizer={'name': 'adam'},  # of both networks
    schedule={'name': 'constant', 'learning_rate': 1e-3},
    num_samples=2000,  # generated points per seed and evaluation
    tolerance=10.0,  # a seed has converged if its distance is below tolerance * floor
    compare_with='',
    # `steps` must be a multiple of eval_every, the period of the evaluations.
    run={**RUN, 'log_every': 500, 'eval_every': 100, 'checkpoint_every': 1000},
)

OUTLIERS: dict[str, Any] = dict(  # detectors of outliers among vectors: GAAL
    task='outliers',
    name='experiment',
    variant='',
    seed=0,
    steps=600,  # number of updates of the discriminator
    num_generators=10,  # 1: SO-GAAL; more: MO-GAAL
    freeze_after=200,  # number of updates of the generators; 0: they make uniform noise
    hidden=0,  # units of the discriminator; 0: sqrt(training examples), rounded up
    optimizer={'name': 'sgd', 'momentum': 0.9, 'nesterov': False},
    schedule={'name': 'constant', 'learning_rate': 1e-4},  # of the generators
    disc_schedule={'name': 'constant', 'learning_rate': 0.01},  # of the discriminator
    data=dict(
        examples={'name': 'breast_cancer', 'outliers': 10},  # a source of vectors
        # The classes that are outliers, by number or name, for the metrics only; ():
        # not known.
        outliers=(1,),
        # Per column, what is scaled to 0 and to 1; (): the smallest and the largest
        # value of the training examples.
        low=(),
        high=(),
        batch_size=500,  # examples per batch; the whole set if it is smaller
    ),
    neighbours=10,  # k of the baseline of k nearest neighbours
    lof_neighbours=20,  # k of the baseline LOF
    compare_with='',
    run=RUN,
)

ADVGAN: dict[str, Any] = dict(  # changes of pictures that mislead a classifier
    task='advgan',
    name='experiment',
    variant='',
    # The classifier that is attacked: its workdir, optionally the step of its
    # checkpoint, and config=FILE:VARIANT, which is trained first if it is missing.
    target={'name': 'checkpoint', 'workdir': ''},  # nat_jax.tasks.advgan.TARGETS
    # A classifier that is distilled from the target and attacked in its place:
    # nat_jax.models.MODELS; {}: gradients of the target itself are used.
    student={},
    trainer=dict(
        name='advgan',  # nat_jax.tasks.advgan.TRAINERS
        budget=0.03,  # largest change of a pixel, as a share of black to white
        adversarial_weight=1.0,  # of the margin by which the right class wins
        gan_weight=0.1,  # of the discriminator's term
        hinge_weight=0.0,  # of the length of the change above `hinge`
        hinge=0.0,  # length that costs nothing; 1 is the largest possible one
        kappa=0.0,  # logits by which a wrong class shall win
    ),
    seed=0,
    steps=1000,  # number of updates
    num_classes=10,
    perturber={'name': 'mlp'},  # nat_jax.models.MODELS, without batch statistics
    discriminator={'name': 'mlp_discriminator'},  # nat_jax.models.DISCRIMINATORS
    optimizer={'name': 'adam', 'b1': 0.5, 'b2': 0.999},  # of all networks
    schedule={'name': 'linear', 'learning_rate': 1e-3},
    grad_clip=0.0,
    data=dict(
        positives={'name': 'digits'},  # pictures of the target's classes
        image_size=0,  # as for classifiers
        skip_unreadable=False,
        mean=(0.5,),  # those of the target
        std=(0.5,),
        batch_size=128,
        augment=[],
    ),
    # name -> {'source': pictures with labels, 'type': nat_jax.tasks.advgan.EVALUATORS,
    #   'every': updates; 0: at the end only,
    #   'classifier': one of TARGETS, which is shown the pictures that were changed for
    #   the target; {}: the target}
    evals={},
    measures=dict(
        threshold=0.8,  # an error with a larger maximum probability is a confident one
        attack_steps=10,  # of PGD
    ),
    eval_batch_size=512,
    compare_with='',
    run=RUN,
)

SEMI_SUPERVISED: dict[str, Any] = dict(  # classifiers with few labelled examples
    task='semi_supervised',
    name='experiment',
    variant='',
    trainer=dict(
        name='semi_supervised',  # nat_jax.tasks.semi_supervised.TRAINERS
        # Factors of gan_loss, as the discriminator's, on unlabelled and on generated
        # examples; 0 and 0: the classifier learns from labelled examples alone.
        unlabelled_weight=1.0,
        fake_weight=1.0,
    ),
    seed=0,  # also of the choice of labelled examples
    steps=1000,  # number of updates
    num_classes=10,
    # The classifier: nat_jax.models.DISCRIMINATORS.
    discriminator={'name': 'mlp_discriminator'},
    generator={'name': 'mlp_generator', 'latent': 32},  # nat_jax.models.GENERATORS
    # Of labelled examples: nat_jax.losses.OBJECTIVES that use no negatives.
    loss={'name': 'cross_entropy'},
    # Of unlabelled and generated examples: nat_jax.losses.GAN_OBJECTIVES with classes.
    gan_loss={'name': 'feature_matching', 'disc': 'implicit_gan'},
    penalties=[],  # of the classifier: nat_jax.losses.PENALTIES
    optimizer={'name': 'adam', 'b1': 0.5, 'b2': 0.999},  # of both networks
    schedule={'name': 'linear', 'learning_rate': 1e-3},
    disc_schedule={},  # of the classifier; {}: `schedule`
    grad_clip=0.0,
    # Moving average of the classifier, used by evaluation; lower at first; 0: none.
    ema_decay=0.0,
    data=dict(
        positives={'name': 'digits'},
        # Number of examples of each class whose labels are used; chosen by `seed`.
        labels_per_class=10,
        image_size=0,  # as for classifiers
        skip_unreadable=False,
        mean=(0.5,),
        std=(0.5,),  # the generator's pixels are in [-1, 1]
        batch_size=100,  # unlabelled examples per batch, and generated ones
        labelled_per_batch=50,
        augment=[],
        duplicates=4,  # as for classifiers
    ),
    evals={},  # as for classifiers, with reference, eval_batch_size, best and patience
    reference='test',
    eval_batch_size=512,
    best='',
    patience=0,
    compare_with='',
    run=RUN,
)
SEGMENT: dict[str, Any] = dict(  # segmenters of pictures with rare classes
    task='segment',
    name='experiment',
    variant='',
    trainer=dict(
        name='segment',  # nat_jax.tasks.segment.TRAINERS
        # Of the terms of the generator's loss: the discriminator's, and the distance.
        adversarial_weight=1.0,
        l1_weight=10.0,
        synthetic_from=0,  # update from which on the segmenter sees synthetic pairs
    ),
    seed=0,
    steps=1000,  # number of updates
    num_classes=4,
    segmenter={'name': 'unet'},  # nat_jax.models.PIXEL_MODELS
    # From masks with pasted regions to pictures, nat_jax.models.PIXEL_MODELS; {}: the
    # pixels of the regions are pasted too.
    generator={},
    discriminator={},  # of pairs, nat_jax.models.PIXEL_MODELS; {}: none
    # Of pixels, for which the void is a negative: nat_jax.losses.OBJECTIVES.
    loss={'name': 'cross_entropy'},
    optimizer={'name': 'adam', 'b1': 0.9, 'b2': 0.999},  # of the segmenter
    schedule={'name': 'linear', 'learning_rate': 1e-3},
    gan_optimizer={'name': 'adam', 'b1': 0.5, 'b2': 0.999},  # of the other networks
    gan_schedule={},  # {}: `schedule`
    grad_clip=0.0,  # of the segmenter
    # Classes whose regions are pasted; (): those with less than a fifth of the mean
    # number of pixels of a class in the training masks.
    rare=(),
    data=dict(
        pairs={'name': 'scenes'},  # pictures with masks: nat_jax.data.PAIRS
        void=255,  # number of the pixels of no class in masks, no class itself
        image_size=0,  # as for classifiers, of pictures and masks
        batch_size=16,  # real pairs per batch
        pasted_per_batch=0,  # synthetic pairs per batch
        # Of the batch_size real pairs that train the generator, the share with a rare
        # class.
        rare_share=0.5,
        class_weights='',  # of pixels, as of images for classifiers
    ),
    # name -> {'source': one of nat_jax.data.PAIRS, 'seen': whether training pictures
    #   show void of this kind, 'part': PARTS, 'every': updates; 0: at the end only}
    evals={},
    reference='test',  # the set of the table of classes, the figure and the verdict
    eval_batch_size=64,
    compare_with='',
    run=RUN,
)
TIME_SERIES: dict[str, Any] = dict(  # detectors of anomalies in time series: MAD-GAN
    task='time_series',
    name='experiment',
    variant='',
    seed=0,
    steps=4000,  # number of updates of the discriminator
    latent=6,  # numbers of noise per time step
    width=24,  # LSTM cells of each network
    gen_updates=1,  # of the generator per update of the discriminator
    # Of the negatives' mean; None: joint mean with generated windows; 0: left out.
    negative_weight=None,
    optimizer={'name': 'adam', 'b1': 0.5, 'b2': 0.999},
    disc_optimizer={},  # of the discriminator; {}: `optimizer`
    schedule={'name': 'constant', 'learning_rate': 1e-3},
    disc_schedule={},  # of the discriminator; {}: `schedule`
    data=dict(
        # Normal, nat_jax.data.SERIES; its last part `validation` is not trained on.
        series={'name': 'sines', 'num': 8000},
        validation=0.25,  # share of `series` for standardisation and threshold
        test={'name': 'sines', 'num': 3000, 'segments': 12, 'start': 8000},  # {}: none
        time='time',  # name of the column of time in CSV files
        time_format='',  # of strptime; '': numbers, or dates of ISO 8601
        # Most successive time steps without a row or a value that are interpolated; 0:
        # a file with such steps is refused.
        fill=0,
        columns=(),  # names of the sensors; (): all columns but those of time and label
        # From one row of a file to the next, in seconds, or in the unit of a column of
        # numbers; 0: the median of the training file.
        time_step=0.0,
        # Per sensor, what is scaled to -1 and to 1; (): the smallest and the largest
        # value of the training part.
        low=(),
        high=(),
        window=30,  # time steps
        stride=1,  # time steps between the beginnings of training windows
        batch_size=64,  # windows; the whole set if it is smaller
        # Negatives are training windows that are made anomalous in one of these ways:
        # nat_jax.tasks.time_series.ANOMALIES.
        negative_kinds=('stuck', 'swapped', 'warped'),
        negative_share=0.0,  # number of negatives per batch / batch_size; 0: none
    ),
    measures=dict(
        stride=5,  # time steps between the beginnings of windows whose scores are taken
        inversion_steps=150,  # of Adam, for the noise that reproduces a window best
        inversion_rate=0.1,  # its learning rate
        # lambda of the DR score (1 - lambda) residual + lambda (1 - D), both
        # standardised on the validation part.
        disc_weight=0.5,
        # Share of the time steps of the validation part above the threshold.
        false_alarm_rate=0.01,
        pca_components=8,  # of the baseline, a PCA of training windows
    ),
    compare_with='',
    run={**RUN, 'log_every': 500, 'checkpoint_every': 1000},
)
ZERO_SHOT: dict[str, Any] = dict(  # classifiers of classes without examples: GDAN
    task='zero_shot',
    name='experiment',
    variant='',
    trainer=dict(
        name='gdan',  # nat_jax.tasks.zero_shot.TRAINERS
        # Factor of the discriminator's loss on pairs of an example and the embedding of
        # another seen class; 0: no such negatives.
        mismatch_weight=1.0,
        adversarial_weight=1.0,  # of the decoder's adversarial loss
        cycle_weight=0.1,  # theta_1: of both cycles
        regression_weight=0.1,  # theta_2: of the regressor's error
        dual_weight=0.1,  # theta_3: of pairs with an embedding that is regressed
        kl_weight=1.0,  # of the CVAE's KL divergence
        output='relu',  # what the decoder ends in; 'linear': features may be negative
        pretrain=0,  # number of the first updates, in which only the CVAE is trained
    ),
    seed=0,
    steps=4000,  # number of updates
    latent=16,  # size of the code of the CVAE
    num_attributes=0,  # size of an embedding; 0: that of the source
    # Whether networks are also trained without the held-out classes, by which the
    # constants of calibrated stacking are chosen; False: nothing is calibrated.
    calibrate=True,
    # nat_jax.models.DISCRIMINATORS, without batch statistics.
    encoder={'name': 'toy_discriminator', 'widths': (128,)},
    decoder={'name': 'toy_discriminator', 'widths': (128,)},
    regressor={'name': 'toy_discriminator', 'widths': (128,)},
    discriminator={'name': 'toy_discriminator', 'widths': (128,)},
    optimizer={'name': 'adam'},  # of all networks
    schedule={'name': 'constant', 'learning_rate': 1e-3},
    disc_schedule={},  # of the discriminator; {}: `schedule`
    data=dict(
        source={'name': 'attributes'},  # nat_jax.data.ZERO_SHOT
        crc32=None,  # checksum of the source's content; the program sets it
        batch_size=64,
    ),
    num_generated=300,  # features of each unseen class, for nearest neighbours
    eval_batch_size=512,
    compare_with='',
    run=RUN,
)
DEFAULTS = {'advgan': ADVGAN, 'classify': CLASSIFY, 'gan': GAN, 'gaan': GAAN,
            'outliers': OUTLIERS, 'points': POINTS, 'semi_supervised': SEMI_SUPERVISED,
            'segment': SEGMENT, 'time_series': TIME_SERIES, 'zero_shot': ZERO_SHOT}
