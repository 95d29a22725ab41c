"""Negative-Aware Training in JAX: classifiers that can answer "none of these"."""

__version__ = '0.2.0'
