"""Metrics of classifiers and of generated images: numpy on the host, in float64.

    scores = scores_from_logits(logits, num_classes=10)        # of one evaluation set
    negative_summary(positive_scores, scores)['auroc']
    figures, conventions = generative_summary(sample, reference, num_classes=10)

Scores are arrays [n]; a higher score means "more like a positive". Generated images are
given as features [n, d], class probabilities [n, k] and labels [n].
"""

from nat_jax.metrics import confidences, selective
from nat_jax.metrics.calibration import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from nat_jax.metrics.detection import detection_metrics, threshold_at_recall
from nat_jax.metrics.frechet import (
    ClassAwareDistance,
    GaussianStats,
    class_aware_fid,
    fid,
    frechet_distance,
    gaussian_stats,
    rank_note,
)
from nat_jax.metrics.generative import (
    am_score,
    class_histogram,
    class_kl,
    generative_summary,
    inception_score,
)
from nat_jax.metrics.intervals import (
    accepted_interval,
    auroc_interval,
    proportion_interval,
)
from nat_jax.metrics.manifold import (
    diversity_ratio,
    intra_class_diversity,
    kid,
    memorisation,
    nearest_neighbours,
    prdc,
)
from nat_jax.metrics.ncr import (
    THRESHOLDS,
    accuracy,
    informative,
    negative_confidence_rate,
    positive_acceptance_rate,
)
from nat_jax.metrics.scores import scores_from_logits
from nat_jax.metrics.summary import (
    class_summary,
    corruption_summary,
    negative_summary,
    positive_summary,
)
from nat_jax.metrics.table import (
    METRICS,
    Metric,
    describe,
    directions,
    lower_is_better,
)
from nat_jax.metrics.zero_shot import choose_constant, class_accuracies, generalised

__all__ = [
    'METRICS',
    'THRESHOLDS',
    'ClassAwareDistance',
    'GaussianStats',
    'Metric',
    'accuracy',
    'am_score',
    'accepted_interval',
    'auroc_interval',
    'class_aware_fid',
    'class_histogram',
    'class_kl',
    'class_summary',
    'confidences',
    'corruption_summary',
    'describe',
    'detection_metrics',
    'directions',
    'diversity_ratio',
    'expected_calibration_error',
    'fid',
    'fit_temperature',
    'frechet_distance',
    'gaussian_stats',
    'generative_summary',
    'inception_score',
    'informative',
    'intra_class_diversity',
    'kid',
    'lower_is_better',
    'memorisation',
    'nearest_neighbours',
    'negative_confidence_rate',
    'negative_log_likelihood',
    'negative_summary',
    'positive_acceptance_rate',
    'positive_summary',
    'prdc',
    'proportion_interval',
    'rank_note',
    'scores_from_logits',
    'selective',
    'threshold_at_recall',
    'choose_constant',
    'class_accuracies',
    'generalised',
]
