"""Wilson's interval against worked examples and its own definition."""

from math import sqrt

import pytest

from lerobot_vla_plugin.success_interval import wilson_interval


def test_worked_examples() -> None:
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe, 1998
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)  # Newcombe, 1998
    assert wilson_interval(60, 60) == pytest.approx((0.9398, 1.0), abs=1e-4)


@pytest.mark.parametrize(("successes", "trials"), [(1, 2), (7, 9), (28, 30), (59, 60)])
def test_a_bound_is_a_rate_from_which_the_result_is_just_as_far_off_as_chance_allows(successes, trials) -> None:
    for bound in wilson_interval(successes, trials):
        assert abs(successes / trials - bound) == pytest.approx(1.959964 * sqrt(bound * (1 - bound) / trials))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_result_is_refused(successes, trials) -> None:
    with pytest.raises(ValueError, match="at least one trial"):
        wilson_interval(successes, trials)
