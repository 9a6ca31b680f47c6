"""How smoothly an arm moved and how regularly it was commanded, in numbers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lerobot_vla_plugin.envs.episode import ControlRate, Jerk

_LATE = 1.1  # of a period


def rms_jerk(positions_deg: ArrayLike, rate_hz: float) -> float | None:
    """Root mean square of the third derivative, over time and joints, in [deg/s^3].

    Third differences, as in the smoothness measures of motor control (Hogan and Sternad 2009, not normalised).

    Args:
        positions_deg: One row a step, shape (steps, joints), in [deg].
        rate_hz: Steps a second, in [Hz].

    Returns:
        None where there are fewer than four steps.
    """
    positions_deg = np.asarray(positions_deg, dtype=np.float64)
    if len(positions_deg) < 4:
        return None
    third = np.diff(positions_deg, n=3, axis=0) * rate_hz**3
    return float(np.sqrt(np.mean(third**2)))


def jerk(commanded_deg: ArrayLike, measured_deg: ArrayLike, rate_hz: float) -> Jerk | None:
    """Smoothness of an episode.

    Args:
        commanded_deg: Goals that were sent, shape (steps, joints), in [deg].
        measured_deg: Positions that were read, likewise.
        rate_hz: Steps a second, in [Hz].

    Returns:
        None where there are fewer than four steps.
    """
    commanded, measured = rms_jerk(commanded_deg, rate_hz), rms_jerk(measured_deg, rate_hz)
    return None if commanded is None or measured is None else Jerk(commanded=commanded, measured=measured)


def control_rate(times_s: Sequence[float], rate_hz: float) -> ControlRate | None:
    """How regularly actions were sent.

    Args:
        times_s: When, by the computer's clock, in [s].
        rate_hz: Actions a second that were wanted, in [Hz].

    Returns:
        None where there are fewer than two actions.
    """
    if len(times_s) < 2:
        return None
    intervals_s = np.diff(times_s)
    return ControlRate(
        median_hz=float(1 / np.median(intervals_s)),
        p95_interval_s=float(np.percentile(intervals_s, 95)),
        longest_pause_s=float(intervals_s.max()),
        late_steps=int(np.sum(intervals_s > _LATE / rate_hz)),
    )
