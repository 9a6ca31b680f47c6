"""The last word before a goal reaches a servo: between a joint dict in LeRobot's units and encoder ticks.

Pure: it is given the time and the positions and touches no bus. It works in ticks, so its limits hold in every unit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import itemgetter

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.arms.guard_report import GuardReport, InterventionKind
from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN, JointConverter, is_gripper

_DEG_PER_TICK = 360 / TICKS_PER_TURN
# Commands further apart than this are a gap. Teleoperation and policies run at 10 to 60 Hz.
GAP_S = 0.5
# What the first command after a start or a gap may move, as time at the start speed: one period at 30 Hz. With 0 an
# arm that is commanded rarely would never move at all.
FIRST_STEP_S = 1 / 30


@dataclass
class GuardConfig:
    """Limits of the guard; `inf` switches one off.

    The defaults are above what a person does and below what harms. Three episodes of SO-101 teleoperation at 30 Hz:
    the leader's fastest joint changes by 256 deg/s (8.5 deg a command; shoulder_lift 239, elbow_flex 206), and the arm
    rests folded at 100.0 and -99.1 percent of its range, so that any margin would change ordinary recordings.
    No-load speed of the servos (data sheets): STS3215 312 deg/s at 7.4 V, 270 deg/s at 12 V (the 12 V type);
    XL430-W250 366 deg/s at 12 V; XL330-M288 618 deg/s at 5 V.

    Attributes:
        max_speed_deg_s: How fast a goal may move, per joint, in [deg/s]; 256 and the jitter of a 30 Hz loop.
        max_step_deg: How far one command may move a goal, however long ago the last one was, in [deg]; 256 deg/s at
            10 Hz.
        start_speed_deg_s: How fast the goals approach what is commanded, at the start and after a gap, until they have
            caught up, in [deg/s].
        margin_deg: How far goals of the body joints keep away from the ends of the calibrated range, in [deg]; the
            gripper has none, because it must close.

    Raises:
        ValueError: A limit is not positive, or the margin is negative.
    """

    max_speed_deg_s: float = 360.0
    max_step_deg: float = 30.0
    start_speed_deg_s: float = 45.0
    margin_deg: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            # Written so that NaN is refused, too.
            if not (value >= 0 if field.name == "margin_deg" else value > 0):
                bound = "0 or more" if field.name == "margin_deg" else "above 0 (inf switches the limit off)"
                raise ValueError(f"guard.{field.name} must be {bound}, got {value}")


@dataclass(frozen=True, slots=True)
class _JointLimits:
    """Range of one joint's goals, in [ticks] and in the joint's unit."""

    low_ticks: int
    high_ticks: int
    low_units: float
    high_units: float
    ticks_per_unit: float

    def beyond_ticks(self, units: float) -> float:
        """How far a commanded value lies outside, in [ticks]; 0 inside."""
        return max(self.low_units - units, units - self.high_units, 0.0) * self.ticks_per_unit


class ActionGuard:
    """Keeps the goals of one arm inside its range, and from moving faster or further at once than allowed.

    Args:
        config: The limits.
        calibration: Joint name -> calibration.
        converter: The arm's units; its joints are those that an action must have.

    Attributes:
        report: What it changed.

    Raises:
        ValueError: The margin leaves nothing of a joint's range.
    """

    def __init__(
        self, config: GuardConfig, calibration: Mapping[str, JointCalibration], converter: JointConverter
    ) -> None:
        self.report = GuardReport()
        self._config = config
        self._converter = converter
        self._limits = {
            name: _joint_limits(name, calibration[name], converter, config.margin_deg) for name in converter.names
        }
        # Not rounded: at 1000 Hz a slow joint moves less than a tick from one command to the next.
        self._goals_ticks: dict[str, float] = {}
        self._catching_up: set[str] = set()
        self._time_s: float | None = None

    def needs_start(self, time_s: float) -> bool:
        """Whether `start` must be called before the next command: at first, and after a gap.

        Args:
            time_s: Now, in [s] on a clock that never goes back.
        """
        return self._time_s is None or time_s - self._time_s > GAP_S

    def start(self, present_ticks: Mapping[str, int], time_s: float) -> None:
        """Take where the arm stands as reference; goals leave it at the start speed.

        Args:
            present_ticks: Joint -> a fresh reading, in [ticks].
            time_s: Now, in [s].
        """
        self._goals_ticks = {name: float(present_ticks[name]) for name in self._limits}
        self._catching_up = set(self._limits)
        self._time_s = time_s - FIRST_STEP_S

    def forget(self) -> None:
        """Call this where it is unknown whether the last goals arrived: the next command needs a start."""
        self._time_s = None

    def next_goals(self, values: Mapping[str, float], time_s: float) -> dict[str, int]:
        """What to command.

        Args:
            values: Joint -> commanded value, in LeRobot's units.
            time_s: Now, in [s].

        Returns:
            Joint -> goal in [ticks]. Inside the range; only a joint that stands outside comes back from there at the
            start speed. Between any two commands no goal moves faster than the limit, to one tick.

        Raises:
            ValueError: A joint is missing or unknown, or a value is no finite number; the last goals stand.
            RuntimeError: `start` is due.
        """
        if self._time_s is None or self.needs_start(time_s):
            raise RuntimeError("the guard knows no present position; call start() with a fresh reading first")
        targets_ticks = self._targets_ticks(values)
        self.report.commands += 1
        elapsed_s = max(time_s - self._time_s, 0.0)
        self._time_s = max(time_s, self._time_s)
        reach, start_reach = self._reach(elapsed_s, starting=False), self._reach(elapsed_s, starting=True)
        for name, target_ticks in targets_ticks.items():
            self._approach(name, target_ticks, *(start_reach if name in self._catching_up else reach))
        self.report.log(time_s)
        return {name: round(goal) for name, goal in self._goals_ticks.items()}

    def _targets_ticks(self, values: Mapping[str, float]) -> dict[str, int]:
        """The commanded positions, clamped to the range."""
        try:
            _check_joints(values, self._converter.names)
            targets_ticks = self._converter.dict_to_ticks(values)
        except (ValueError, TypeError) as error:
            self.report.add(InterventionKind.REFUSED, "action", 0.0)
            raise ValueError(f"action refused, the last goals stand: {error}") from error
        for name, limits in self._limits.items():
            beyond_ticks = limits.beyond_ticks(float(values[name]))
            if beyond_ticks > 0.5:  # less is rounding
                self.report.add(InterventionKind.RANGE, name, beyond_ticks * _DEG_PER_TICK)
            targets_ticks[name] = min(max(targets_ticks[name], limits.low_ticks), limits.high_ticks)
        return targets_ticks

    def _approach(self, name: str, target_ticks: int, kind: InterventionKind, reach_ticks: float) -> None:
        """Move one goal towards its target, as far as the limit of a kind lets it."""
        way_ticks = target_ticks - self._goals_ticks[name]
        held_back_ticks = max(abs(way_ticks) - reach_ticks, 0.0)
        self._goals_ticks[name] = target_ticks - math.copysign(held_back_ticks, way_ticks)
        if round(self._goals_ticks[name]) == target_ticks:
            self._catching_up.discard(name)
        else:
            self.report.add(kind, name, held_back_ticks * _DEG_PER_TICK)

    def _reach(self, elapsed_s: float, *, starting: bool) -> tuple[InterventionKind, float]:
        """The tightest limit, and how far it lets a joint move now, in [ticks]."""
        limits = [(InterventionKind.STEP, self._config.max_step_deg)]
        speeds = [(InterventionKind.SPEED, self._config.max_speed_deg_s)]
        if starting:
            speeds.append((InterventionKind.START, self._config.start_speed_deg_s))
        # An infinite speed times no time would be NaN.
        limits += [(kind, deg_s * elapsed_s) for kind, deg_s in speeds if math.isfinite(deg_s)]
        kind, reach_deg = min(limits, key=itemgetter(1))
        return kind, reach_deg / _DEG_PER_TICK


def _check_joints(values: Mapping[str, float], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in values]
    unknown = [name for name in values if name not in names]
    if missing or unknown:
        raise ValueError(f"expected the joints {list(names)}; missing are {missing}, unknown are {unknown}")


def _joint_limits(
    name: str, joint: JointCalibration, converter: JointConverter, body_margin_deg: float
) -> _JointLimits:
    margin_ticks = 0 if is_gripper(name) else math.ceil(body_margin_deg / _DEG_PER_TICK)
    low_ticks, high_ticks = joint.range_min + margin_ticks, joint.range_max - margin_ticks
    if low_ticks >= high_ticks:
        width_deg = (joint.range_max - joint.range_min) * _DEG_PER_TICK
        raise ValueError(
            f"guard.margin_deg={body_margin_deg} leaves nothing of {name}, whose calibrated range is {width_deg:.1f} "
            "deg; choose a smaller margin"
        )
    low_units, high_units = sorted(converter.dict_to_units({name: t})[name] for t in (low_ticks, high_ticks))
    return _JointLimits(
        low_ticks, high_ticks, low_units, high_units, (high_ticks - low_ticks) / (high_units - low_units)
    )
