"""What is measured: numpy on the host, in float64.

Samples come as arrays [n]; a higher score means "more like a positive".
"""

from nat_jax.metrics import confidences
from nat_jax.metrics.bootstrap import auroc_interval, proportion_interval
from nat_jax.metrics.calibration import expected_calibration_error
from nat_jax.metrics.detection import detection_metrics
from nat_jax.metrics.ncr import (
    THRESHOLDS,
    accuracy,
    negative_confidence_rate,
    positive_acceptance_rate,
)
from nat_jax.metrics.scores import scores_from_logits
from nat_jax.metrics.summary import negative_summary, positive_summary

__all__ = [
    'THRESHOLDS',
    'accuracy',
    'auroc_interval',
    'confidences',
    'detection_metrics',
    'expected_calibration_error',
    'negative_confidence_rate',
    'negative_summary',
    'positive_acceptance_rate',
    'positive_summary',
    'proportion_interval',
    'scores_from_logits',
]
