"""Negative-Aware Training in JAX: classifiers that know what they do not know."""

__version__ = '0.2.0'
