"""How sure a success rate is."""

from math import sqrt

_Z = 1.959963984540054  # two-sided 95 % of the normal distribution


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Interval that holds the true success rate with 95 % confidence.

    Wilson, 1927. Unlike the textbook's normal interval it stays inside [0, 1] and is right at few trials.

    Args:
        successes: How many trials succeeded.
        trials: How many there were.

    Returns:
        Lower and upper bound, in [0, 1].

    Raises:
        ValueError: There were no trials, or fewer than successes.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"expected at least one trial and at most that many successes, got {successes} of {trials}")
    rate, z2 = successes / trials, _Z**2
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z * sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)
