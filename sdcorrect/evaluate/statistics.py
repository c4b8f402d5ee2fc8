"""Confidence intervals of means, and tests whether two variants differ."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, wilcoxon

from sdcorrect.evaluate.results import Comparison, Mean

RESAMPLES = 2000
BATCH = 100  #: resamples in memory at a time
CONFIDENCE = 0.95
#: With fewer pairs, a two-sided signed-rank test cannot reach p < 0.05: its minimum is 2 / 2^n.
LEAST_PAIRS = 6

Values = NDArray[np.float64]


def mean_of(values: Values) -> Mean:
    """The mean of the finite values with its percentile bootstrap interval."""
    finite = values[np.isfinite(values)]
    low, high = _interval(finite)
    return Mean(
        n=len(finite),
        mean=float(finite.mean()) if len(finite) else None,
        low=low,
        high=high,
        not_finite=len(values) - len(finite),
    )


def compare(
    variant: Mapping[str, float], base: Mapping[str, float], *, higher_is_better: bool
) -> Comparison:
    """Compare two variants on the pictures that both have, by a two-sided Wilcoxon signed-rank test.

    Args:
        variant, base: the values of one metric by picture.
    """
    pairs = np.array([(value, base[path]) for path, value in variant.items() if path in base])
    pairs = pairs.reshape(-1, 2)
    differences = np.subtract(*pairs[np.isfinite(pairs).all(axis=1)].T)
    low, high = _interval(differences)
    better = differences > 0 if higher_is_better else differences < 0
    some = len(differences) > 0
    return Comparison(
        n=len(differences),
        difference=float(differences.mean()) if some else None,
        low=low,
        high=high,
        better=float(better.mean()) if some else None,
        p=_p_value(differences) if len(differences) >= LEAST_PAIRS else None,
    )


def _p_value(differences: Values) -> float:
    # without any difference, the test has nothing to rank
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def _interval(values: Values) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=BATCH,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=0,
    ).confidence_interval
    return float(found.low), float(found.high)
