"""The rate of calls: a wrong --fps is found, a slow computer is not blamed for one."""

import pytest

from lerobot_vla_plugin.arms.call_rate import CallRate


def measure(rate_hz: float, *, taught_hz: float, n_action_steps: int = 10, inference_s: float = 0.0, jitter=0.0):
    """Call at a rate for three seconds; returns (rate reported, when)."""
    rate = CallRate(taught_hz, plans_every_call=n_action_steps == 1)
    now_s = 0.0
    for call in range(int(3 * rate_hz)):
        plans = call % n_action_steps == 0
        measured_hz = rate.call(now_s, plans=plans)
        if measured_hz is not None:
            return measured_hz, now_s
        now_s += max(1 / rate_hz, inference_s if plans else 0) + (jitter if call % 3 == 0 else 0)
    return None, now_s


@pytest.mark.parametrize(("taught_hz", "rate_hz"), [(30, 50), (50, 30), (30, 60), (60, 30), (15, 30), (30, 15)])
@pytest.mark.parametrize("n_action_steps", [2, 10, 50])
def test_a_wrong_rate_is_found_within_seconds(taught_hz, rate_hz, n_action_steps):
    measured_hz, after_s = measure(rate_hz, taught_hz=taught_hz, n_action_steps=n_action_steps, inference_s=0.01)
    assert measured_hz == pytest.approx(rate_hz, rel=0.01)
    assert after_s < 2.5


@pytest.mark.parametrize("rate_hz", [30, 25, 22])
@pytest.mark.parametrize(("inference_s", "jitter"), [(0.0, 0.0), (0.5, 0.0), (0.1, 0.02)])
def test_a_slow_computer_and_long_inferences_are_no_wrong_rate(rate_hz, inference_s, jitter):
    assert measure(rate_hz, taught_hz=30, inference_s=inference_s, jitter=jitter)[0] is None


def test_a_loop_that_is_held_up_for_a_moment_is_not_slow():
    rate = CallRate(30, plans_every_call=False)
    intervals_s = [1 / 30] * 4 + [0.2] * 6 + [1 / 30] * 10
    times_s = [sum(intervals_s[:i]) for i in range(20)]
    assert [rate.call(now_s, plans=False) for now_s in times_s] == [None] * 20


def test_where_every_call_plans_only_too_fast_is_certain():
    assert measure(3, taught_hz=30, n_action_steps=1, inference_s=0.3)[0] is None
    assert measure(50, taught_hz=30, n_action_steps=1)[0] == pytest.approx(50, rel=0.01)


def test_pauses_between_episodes_do_not_count():
    rate = CallRate(30, plans_every_call=False)
    for call in range(100):
        assert rate.call(call // 2 * 2.0 + call % 2 / 30, plans=False) is None
        if call % 2:
            rate.pause()
