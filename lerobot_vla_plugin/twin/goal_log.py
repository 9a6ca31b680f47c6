"""The log of goal writes, and what it says about whoever drives the arm."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GoalWrite:
    """One instruction that wrote goal positions.

    Attributes:
        time_s: When it took effect, on the clock of the bus.
        goals_ticks: Joint -> value of the goal register.
    """

    time_s: float
    goals_ticks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GoalStatistics:
    """What the log of goal writes says about whoever drives the arm.

    Attributes:
        writes: Number of instructions that wrote goals.
        ticks_written: Number of goals written, over all joints.
        rate_hz: Mean rate between the first and the last one; 0 for fewer than two.
        longest_pause_s: Longest time between two of them; 0 for fewer than two.
        spans_ticks: Joint -> lowest and highest goal; joints without any are absent.
        out_of_range: Joints with a goal outside the position limits of their servo.
    """

    writes: int
    ticks_written: int
    rate_hz: float
    longest_pause_s: float
    spans_ticks: Mapping[str, tuple[int, int]]
    out_of_range: tuple[str, ...]

    @property
    def goals_in_range(self) -> bool:
        """Whether every goal lay inside the position limits of its servo."""
        return not self.out_of_range


def summarize_goals(log: Sequence[GoalWrite], limits_ticks: Mapping[str, tuple[int, int]]) -> GoalStatistics:
    """Rate, pauses and range of goal writes.

    Args:
        log: Goal writes, oldest first.
        limits_ticks: Joint -> lowest and highest goal that its servo accepts, in [ticks].
    """
    goals = {joint: [write.goals_ticks[joint] for write in log if joint in write.goals_ticks] for joint in limits_ticks}
    spans = {joint: (min(values), max(values)) for joint, values in goals.items() if values}
    outside = [
        joint
        for joint, (lowest, highest) in spans.items()
        if lowest < limits_ticks[joint][0] or highest > limits_ticks[joint][1]
    ]
    pauses_s = [later.time_s - earlier.time_s for earlier, later in itertools.pairwise(log)]
    return GoalStatistics(
        writes=len(log),
        ticks_written=sum(map(len, goals.values())),
        rate_hz=len(pauses_s) / sum(pauses_s) if pauses_s else 0.0,
        longest_pause_s=max(pauses_s, default=0.0),
        spans_ticks=spans,
        out_of_range=tuple(outside),
    )
