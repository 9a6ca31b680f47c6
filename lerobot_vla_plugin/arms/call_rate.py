"""How often a policy is asked for an action, against how often it was taught to be."""

import statistics

# An arm must not move faster than it was taught, and nothing but a wrong --fps makes a loop faster. A slow computer
# drops frames, though: up to 30 % fewer are let pass, which still finds 30 where 50 was taught.
_FASTEST, _SLOWEST = 1.25, 0.7
_WINDOW = 16  # intervals: a second or two
_CLOCK_S = 1e-6  # finer than any clock: no interval is zero


class CallRate:
    """Measures the rate of calls, once, from the first intervals between them.

    An interval that holds an inference says how fast the computer is, not which rate was asked for; such intervals
    are left out, unless every interval is one. The median decides: a loop makes up for a call that came late by the
    next one, and is not blamed for a moment in which it was held up.

    Args:
        taught_hz: Rate of the training data, in [Hz].
        plans_every_call: Whether each call plans anew; then a low --fps cannot be told from a slow model.

    Attributes:
        taught_hz: As given.
    """

    def __init__(self, taught_hz: float, *, plans_every_call: bool) -> None:
        self.taught_hz = taught_hz
        self._plans_every_call = plans_every_call
        self._intervals_s: list[float] = []
        self._last_s: float | None = None
        self._misfit_hz: float | None = None

    def pause(self) -> None:
        """Forget when the last call was; an episode ended."""
        self._last_s = None

    def call(self, now_s: float, *, plans: bool) -> float | None:
        """Count a call.

        Args:
            now_s: When it came, on a monotonic clock, in [s].
            plans: Whether this call plans a chunk, so that the interval after it holds an inference.

        Returns:
            The measured rate in [Hz] if it does not fit, from the call on that completes the measurement; else None.
        """
        if len(self._intervals_s) < _WINDOW:
            if self._last_s is not None:
                self._intervals_s.append(now_s - self._last_s)
            self._last_s = None if plans and not self._plans_every_call else now_s
            if len(self._intervals_s) == _WINDOW:
                self._misfit_hz = self._judge()
        return self._misfit_hz

    def _judge(self) -> float | None:
        measured_hz = 1 / max(statistics.median(self._intervals_s), _CLOCK_S)
        too_slow = measured_hz < _SLOWEST * self.taught_hz and not self._plans_every_call
        return measured_hz if too_slow or measured_hz > _FASTEST * self.taught_hz else None
