"""Trainers: bundles of pure functions; nothing here knows of devices or disks."""

from nat_jax.trainers.attention_transfer import attention_transfer
from nat_jax.trainers.gan import gan
from nat_jax.trainers.negatives import TREATMENTS
from nat_jax.trainers.supervised import supervised

TRAINERS = {
    'attention_transfer': attention_transfer, 'gan': gan, 'supervised': supervised}

__all__ = ['TRAINERS', 'TREATMENTS', 'attention_transfer', 'gan', 'supervised']
