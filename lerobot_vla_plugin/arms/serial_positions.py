"""Positions that a joint cannot have reached since the last reading are not believed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN

# Followers turn at 300 to 400 deg/s without load; a hand whirls the wrist of a leader at twice that.
FASTEST_JOINT_DEG_S = 1000.0
# After a longer pause a joint could be nearly anywhere: such a reading needs a second one that agrees.
LONGEST_PAUSE_S = 0.1
_READINGS = 6
_SLACK_TICKS = 8  # encoder noise, and the time that passes between the servo's measurement and the reply
_FASTEST_TICKS_S = FASTEST_JOINT_DEG_S * TICKS_PER_TURN / 360


@dataclass(frozen=True, slots=True)
class Believed:
    """A reading that two independent questions confirm.

    Attributes:
        ticks: Joint -> position in [ticks].
        jumped: Joints that stand where they cannot have moved to; two readings agree about it.
    """

    ticks: dict[str, int]
    jumped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Sample:
    ticks: int
    asked_s: float


class PositionFilter:
    """Compares each reading with the one before.

    A reading is accepted where every joint can have moved to it from the last accepted one. One that contradicts
    it is read again, after a silence, until two independent readings agree; they are then right, and the joint
    jumped. Without a reference (the first reading, or the first after a pause) two readings must agree.

    What this cannot see: a wrong value near the right one, as a reading of the cycle before is.

    Args:
        wraps: Whether a joint that turns past tick 4095 reads 0.
        on_contradiction: Called before a contradicted reading is repeated.
    """

    def __init__(self, *, wraps: bool, on_contradiction: Callable[[], None]) -> None:
        self._wraps = wraps
        self._on_contradiction = on_contradiction
        self._accepted: dict[str, _Sample] = {}

    def forget(self, names: Sequence[str]) -> None:
        """Drop the references of joints, so that their next reading needs a second one."""
        for name in names:
            self._accepted.pop(name, None)

    def read(self, names: Sequence[str], ask: Callable[[], Mapping[str, int]]) -> Believed:
        """Read until the positions can be believed.

        Args:
            names: Joints.
            ask: Reads their positions once, in [ticks].

        Raises:
            ConnectionError: No two of six readings agree.
        """
        reference = self._reference(names)
        earlier = [reference] if reference else []
        for _ in range(_READINGS):
            asked_s = time.monotonic()
            ticks = dict(ask())
            if any(not self._contradictions(ticks, other) for other in earlier):
                return self._accept(ticks, asked_s)
            if earlier:
                self._on_contradiction()
            earlier.append({name: _Sample(position, asked_s) for name, position in ticks.items()})
        raise ConnectionError(
            f"{_READINGS} readings of {list(names)} contradict each other, the last is {ticks}; "
            "check cables and connectors, and that no other program has the port open"
        )

    def _reference(self, names: Sequence[str]) -> dict[str, _Sample] | None:
        since_s = time.monotonic() - LONGEST_PAUSE_S
        accepted = self._accepted
        known = all(name in accepted and accepted[name].asked_s >= since_s for name in names)
        return {name: accepted[name] for name in names} if known else None

    def _contradictions(self, ticks: Mapping[str, int], other: Mapping[str, _Sample]) -> list[str]:
        now_s = time.monotonic()
        return [
            name
            for name, position in ticks.items()
            if self._distance_ticks(position, other[name].ticks) > _reach_ticks(other[name], now_s)
        ]

    def _accept(self, ticks: dict[str, int], asked_s: float) -> Believed:
        jumped = [name for name, position in ticks.items() if self._jumps(name, position)]
        self._accepted.update((name, _Sample(position, asked_s)) for name, position in ticks.items())
        return Believed(ticks, tuple(jumped))

    def _jumps(self, name: str, position_ticks: int) -> bool:
        last = self._accepted.get(name)
        if last is None:
            return False
        distance = self._distance_ticks(position_ticks, last.ticks)
        # Nothing turns an arm's joint that far, pause or not: its servo has started anew and forgotten its turns.
        return distance > TICKS_PER_TURN // 2 or distance > _reach_ticks(last, time.monotonic())

    def _distance_ticks(self, one: int, other: int) -> int:
        distance = abs(one - other)
        # Only positions of one turn are neighbours across its seam; a value far beyond is no position at all.
        return min(distance, TICKS_PER_TURN - distance) if self._wraps and distance < TICKS_PER_TURN else distance


def _reach_ticks(sample: _Sample, now_s: float) -> float:
    return _SLACK_TICKS + _FASTEST_TICKS_S * (now_s - sample.asked_s)
