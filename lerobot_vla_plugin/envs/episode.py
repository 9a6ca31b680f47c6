"""What is known of one episode of an evaluation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Ending(StrEnum):
    """Why an episode ended."""

    SUCCESS = "success"
    FAILURE = "failure"  # somebody said so
    TIME = "time limit"
    DISCARDED = "discarded"  # somebody said that it shall not count
    INTERRUPTED = "interrupted"

    @property
    def counts(self) -> bool:
        """Whether the episode says anything about the policy."""
        return self not in (Ending.DISCARDED, Ending.INTERRUPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRate:
    """How regularly actions were sent.

    Attributes:
        median_hz: Actions a second, from the median interval, in [Hz].
        p95_interval_s: 95 % of the intervals between two actions were at most this, in [s].
        longest_pause_s: The longest interval, in [s].
        late_steps: Intervals that were longer than the period by a tenth of it or more.
    """

    median_hz: float
    p95_interval_s: float
    longest_pause_s: float
    late_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Jerk:
    """Smoothness: root mean square of the third derivative, over time and body joints, in [deg/s^3].

    Attributes:
        commanded: Of the goals that were sent.
        measured: Of the positions that were read. One tick of a servo alone makes about 0.11 fps^3 of it.
    """

    commanded: float
    measured: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One row of the report. What nobody knows is None or empty.

    Attributes:
        index: Its number in the report, from 0.
        task: Name of the kind of scene, or what the environment calls it.
        instruction: What the policy was told.
        success: Whether the instruction was carried out.
        ending: Why it ended.
        seconds: How long it took, in the time of the arm, in [s].
        steps: Actions.
        seed: Of the scene.
        color: Of the cube that the instruction names.
        taken: Color of the cube to which it was done first, named or not.
        interventions: Kind -> how often the guard sent something else than the policy wanted.
        jerk: Smoothness.
        control_rate: Of the loop, by the computer's clock; None where nothing had to keep a rate.
        layout: Where things stood.
        frames: Folder of the pictures, relative to the report.
    """

    index: int
    task: str
    instruction: str
    success: bool
    ending: Ending
    seconds: float
    steps: int
    seed: int | None = None
    color: str | None = None
    taken: str | None = None
    interventions: Mapping[str, int] = field(default_factory=dict)
    jerk: Jerk | None = None
    control_rate: ControlRate | None = None
    layout: Mapping[str, Any] = field(default_factory=dict)
    frames: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in the report."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Episode":
        """The episode that `to_json` gave.

        Args:
            row: One line of `episodes.jsonl`.

        Raises:
            TypeError: A field is missing, there is one too many, or one is of another type.
            ValueError: There is no such ending.
        """
        jerk, rate = row.get("jerk"), row.get("control_rate")
        _check_types(row, _TYPES)
        _check_types(jerk or {}, dict.fromkeys(jerk or {}, _NUMBER))
        _check_types(rate or {}, dict.fromkeys(rate or {}, _NUMBER))
        typed = {
            "ending": Ending(row["ending"]),
            "jerk": Jerk(**jerk) if jerk else None,
            "control_rate": ControlRate(**rate) if rate else None,
        }
        return cls(**{**row, **typed})


_NUMBER, _TEXT = (int, float), (str, type(None))
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "index": int,
    "task": str,
    "instruction": str,
    "success": bool,
    "ending": str,
    "seconds": _NUMBER,
    "steps": int,
    "seed": (int, type(None)),
    "color": _TEXT,
    "taken": _TEXT,
    "interventions": dict,
    "layout": dict,
    "frames": _TEXT,
}


def _check_types(row: Mapping[str, Any], types: Mapping[str, type | tuple[type, ...]]) -> None:
    for name, expected in types.items():
        if name in row and not isinstance(row[name], expected):
            raise TypeError(f"{name} cannot be {row[name]!r}")
