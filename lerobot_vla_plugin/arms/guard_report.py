"""What the guard changed: a log line a second at most for each kind, and a summary in the end."""

import logging
import math
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum

logger = logging.getLogger(__name__)

_LOG_PERIOD_S = 1.0


class InterventionKind(StrEnum):
    """Why the guard did not send what was commanded."""

    REFUSED = "refused"
    RANGE = "outside the joint range"
    SPEED = "speed limit"
    STEP = "step limit"
    START = "slow start"


@dataclass(slots=True)
class Tally:
    """Interventions of one kind at one joint.

    Attributes:
        count: How many.
        largest_deg: How far at most the goal stayed behind what was commanded, in [deg].
    """

    count: int = 0
    largest_deg: float = 0.0


class GuardReport:
    """Counts interventions and logs them.

    Attributes:
        commands: Actions that the guard let through, changed or not.
        tallies: (kind, joint) -> interventions.
    """

    def __init__(self) -> None:
        self.commands = 0
        self.tallies: defaultdict[tuple[InterventionKind, str], Tally] = defaultdict(Tally)
        self._not_logged: defaultdict[InterventionKind, dict[str, float]] = defaultdict(dict)
        self._logged_s: dict[InterventionKind, float] = {}

    def add(self, kind: InterventionKind, joint: str, held_back_deg: float) -> None:
        """Count one intervention.

        Args:
            kind: Why.
            joint: Name of the joint; "action" where all are meant.
            held_back_deg: How far the goal stays behind what was commanded, in [deg]; 0 where nothing was sent.
        """
        tally = self.tallies[kind, joint]
        tally.count += 1
        tally.largest_deg = max(tally.largest_deg, held_back_deg)
        if held_back_deg:  # who refuses an action raises an error, which needs no line beside it
            waiting = self._not_logged[kind]
            waiting[joint] = max(waiting.get(joint, 0.0), held_back_deg)

    def log(self, time_s: float) -> None:
        """Log what was added, one line a kind, where the last line of the kind is a second old.

        Args:
            time_s: Now, in [s].
        """
        due = [
            kind
            for kind, joints in self._not_logged.items()
            if joints and time_s - self._logged_s.get(kind, -math.inf) >= _LOG_PERIOD_S
        ]
        for kind in due:
            joints = ", ".join(f"{joint} {deg:.1f} deg" for joint, deg in self._not_logged.pop(kind).items())
            logger.warning("The guard held back: %s: %s", kind, joints)
            self._logged_s[kind] = time_s

    def count(self, kind: InterventionKind) -> int:
        """Interventions of one kind at all joints."""
        return sum(tally.count for (tallied, _), tally in self.tallies.items() if tallied is kind)

    def summary(self) -> str:
        """All interventions in one line."""
        if not self.tallies:
            return f"the guard changed none of {self.commands} actions"
        parts = [
            f"{joint} {kind} {tally.count} times"
            + (f" (up to {tally.largest_deg:.1f} deg)" if tally.largest_deg else "")
            for (kind, joint), tally in self.tallies.items()
        ]
        return f"the guard sent {self.commands} actions and intervened: {'; '.join(parts)}"
