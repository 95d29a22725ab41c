"""Networks: `model.apply(variables, images, train=..., mask=...) -> (logits, aux)`.

    model = registry.build(
        MODELS, {'name': 'wide_resnet', 'depth': 40}, what='model', num_outputs=10,
        axis_name=None)

Images are [n, h, w, c], already normalised. Logits are float32 [n, num_outputs]
whatever the compute dtype; parameters are float32. aux holds named feature maps, among
them 'features', the input of the output layer. mask [n] marks the filled slots (0 =
empty), which alone count in BatchNorm statistics. axis_name does not change the
variables: train with 'data' under pmap and evaluate with None.
"""

from nat_jax.models.layers import BatchNorm
from nat_jax.models.resnet import ResNet, resnet, resnet18
from nat_jax.models.small import MLP, SmallConv
from nat_jax.models.wide_resnet import WideResNet, wide_resnet

MODELS = {
    'small_conv': SmallConv,
    'mlp': MLP,
    'resnet': resnet,
    'resnet18': resnet18,
    'wide_resnet': wide_resnet,
}

__all__ = [
    'MODELS', 'MLP', 'BatchNorm', 'ResNet', 'SmallConv', 'WideResNet', 'resnet',
    'resnet18', 'wide_resnet',
]
