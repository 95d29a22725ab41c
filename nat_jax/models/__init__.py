"""Networks: `model.apply(variables, images, train=..., mask=...) -> (logits, aux)`.

    model = registry.build(
        MODELS, {'name': 'wide_resnet', 'depth': 40}, what='model', num_outputs=10,
        axis_name=None)

Images are [n, h, w, c], already normalised; networks that are not in FOR_PICTURES also
take vectors [n, d]. Logits are float32 [n, num_outputs] whatever the compute dtype;
parameters are float32. aux holds named feature maps, among them 'features', the input
of the output layer. mask [n] marks the filled slots (0 = empty), which alone count in
BatchNorm statistics. axis_name does not change the variables: train with 'data' under
pmap and evaluate with None.

GENERATORS and DISCRIMINATORS hold the networks of GANs. All generators share one
signature, and all discriminators another (`...`: further arguments of a network):

    generator(latent, image_shape, num_classes=0, axis_name=None, ...)
    generator.apply(variables, z, labels=None, mask=None) -> images
    discriminator(image_shape, num_outputs, axis_name=None, ...)
    discriminator.apply(variables, x, keys=None, mask=None, train=...) -> outputs, aux

Images of GANs are float32 in [-1, 1] (points: image_shape (d,), any value). keys [n]
hold one key per example, for its noise and dropout. BatchNorm in GANs always uses the
statistics of the batch; only spectral norm keeps a state, the vector u in
'batch_stats', which is updated if `train` is set (in generators: always) and the
collection is mutable. A discriminator whose attribute `projection`, a number of
classes, is above 0 also takes labels=[n]; one whose attribute `mixes` is true has
outputs that depend on the whole batch, and is not trained with penalties.
"""

import functools

from nat_jax.models.biggan import BigGANGenerator
from nat_jax.models.bottleneck import BottleneckResNet, resnet50
from nat_jax.models.dcgan import DCGANDiscriminator, DCGANGenerator
from nat_jax.models.efficientnet_lite import EfficientNetLite, efficientnet_lite0
from nat_jax.models.fast import Fast
from nat_jax.models.gan_resnet import ResNetDiscriminator, ResNetGenerator
from nat_jax.models.layers import BatchNorm
from nat_jax.models.pixels import PatchDiscriminator, UNet
from nat_jax.models.recurrent import LSTM
from nat_jax.models.resnet import ResNet, resnet, resnet18
from nat_jax.models.small import MLP, SmallConv
from nat_jax.models.stacked import stacked
from nat_jax.models.toy import (
    IdentityGenerator,
    MLPDiscriminator,
    MLPGenerator,
    ToyDiscriminator,
    ToyGenerator,
)
from nat_jax.models.vit import ViT, vit_s16
from nat_jax.models.wide_resnet import WideResNet, wide_resnet

MODELS = {
    'efficientnet_lite0': efficientnet_lite0,
    'fast': Fast,
    'small_conv': SmallConv,
    'mlp': MLP,
    'resnet': resnet,
    'resnet18': resnet18,
    'resnet50': resnet50,
    'vit_s16': vit_s16,
    'wide_resnet': wide_resnet,
}
FOR_PICTURES = tuple(sorted(set(MODELS) - {'mlp'}))  # not for vectors
GENERATORS = {
    'biggan_generator': BigGANGenerator,
    'dcgan_generator': DCGANGenerator,
    'mlp_generator': MLPGenerator,
    'resnet_generator': ResNetGenerator,
    'toy_generator': ToyGenerator,
}
GENERATORS['stacked'] = functools.partial(stacked, GENERATORS)
DISCRIMINATORS = {
    'dcgan_discriminator': DCGANDiscriminator,
    'mlp_discriminator': MLPDiscriminator,
    'resnet_discriminator': ResNetDiscriminator,
    'toy_discriminator': ToyDiscriminator,
}
PIXEL_MODELS = {'patch_discriminator': PatchDiscriminator, 'unet': UNet}

__all__ = [
    'PIXEL_MODELS', 'PatchDiscriminator', 'UNet',
    'DISCRIMINATORS', 'FOR_PICTURES', 'GENERATORS', 'MODELS', 'MLP', 'BatchNorm',
    'BigGANGenerator', 'BottleneckResNet', 'DCGANDiscriminator', 'DCGANGenerator',
    'EfficientNetLite', 'Fast', 'IdentityGenerator', 'MLPDiscriminator',
    'MLPGenerator', 'ResNet', 'ResNetDiscriminator', 'ResNetGenerator', 'SmallConv',
    'ToyDiscriminator', 'ToyGenerator', 'ViT', 'WideResNet', 'efficientnet_lite0',
    'resnet', 'resnet18', 'resnet50', 'vit_s16', 'wide_resnet',
    'LSTM',
]
