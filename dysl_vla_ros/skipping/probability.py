"""The logistic function, where one number is all there is: a controller's logit as a probability."""

import math


def probability_of(logit: float) -> float:
    """Return 1 / (1 + exp(-logit)), 0 to 1, without overflow; NaN where the logit is."""
    if logit >= 0.0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)
