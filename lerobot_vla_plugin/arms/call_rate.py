"""How often a policy is asked for an action, against how often it was taught to be."""

import statistics

# An arm must not move faster than it was taught, and nothing but a wrong --fps makes a loop faster. A slow computer
# drops frames, though: down to a third fewer is let pass, which still finds 30 where 50 was taught.
_FASTEST, _SLOWEST = 1.25, 0.65
_WINDOW = 16  # intervals
_CLOCK_S = 1e-6  # finer than any clock: no interval is zero


class CallRate:
    """Measures the rate of calls, once, from the first intervals between them.

    An interval that holds an inference says how fast the computer is, not which rate was asked for; such intervals
    are left out, unless every interval is one. Too fast is judged by the median. Too slow is judged by the fastest
    quarter: a loop with a lower --fps sleeps it out every time, one that was held up for a moment does not.

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
        fast_s, median_s, _ = (max(value_s, _CLOCK_S) for value_s in statistics.quantiles(self._intervals_s))
        if 1 / median_s > _FASTEST * self.taught_hz:
            return 1 / median_s
        if 1 / fast_s < _SLOWEST * self.taught_hz and not self._plans_every_call:
            return 1 / fast_s
        return None
