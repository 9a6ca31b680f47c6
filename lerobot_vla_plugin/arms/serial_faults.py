"""What servos report about themselves, said once with the joint's name and the remedy."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

logger = logging.getLogger(__name__)

_REPEAT_S = 10.0  # a fault that comes and goes is said again after this time at the earliest


@dataclass(frozen=True, slots=True)
class ServoFault:
    """A fault that a servo reports.

    Attributes:
        name: What is wrong.
        remedy: What to do about it.
    """

    name: str
    remedy: str


_VOLTAGE = ServoFault("voltage", "check the power supply and its plug, and that no cable is damaged")
_OVERHEAT = ServoFault("overheating", "let the arm rest with torque off until the servo has cooled down")
_OVERLOAD = ServoFault("overload", "the joint is blocked or carries too much: free it, then switch torque off and on")

# Error bits of every Feetech reply (STS series memory table).
FEETECH_FAULTS = {
    0x01: _VOLTAGE,
    0x02: ServoFault("angle sensor", "switch the power off and on; if it stays, the servo must be replaced"),
    0x04: _OVERHEAT,
    0x08: ServoFault("overcurrent", "the joint is blocked or carries too much: free it, then switch torque off and on"),
    0x20: _OVERLOAD,
}
_REBOOT = "then switch the arm's power off and on: until that the servo accepts no torque"
# Bits of Hardware_Error_Status (X series e-manual).
DYNAMIXEL_FAULTS = {
    0x01: ServoFault(_VOLTAGE.name, f"{_VOLTAGE.remedy}; {_REBOOT}"),
    0x04: ServoFault(_OVERHEAT.name, f"{_OVERHEAT.remedy}; {_REBOOT}"),
    0x08: ServoFault("encoder", "switch the power off and on; if it stays, the servo must be replaced"),
    0x10: ServoFault("electrical shock", f"check supply and wiring; {_REBOOT}"),
    0x20: ServoFault(_OVERLOAD.name, f"the joint is blocked or carries too much: free it; {_REBOOT}"),
}


def faults_in(bits: int, table: Mapping[int, ServoFault]) -> tuple[ServoFault, ...]:
    """Faults that the bits of a servo stand for; bits that the table lacks are named by their value."""
    known = tuple(fault for bit, fault in table.items() if bits & bit)
    unknown = bits & ~sum(table)
    return (*known, ServoFault(f"unknown fault 0x{unknown:02x}", "see the servo's manual")) if unknown else known


class ServoFaultLog:
    """Present faults of all servos; logs each when it appears and when it is gone.

    Attributes:
        present: Joint -> its faults; only joints that have some.
    """

    def __init__(self) -> None:
        self.present: dict[str, tuple[ServoFault, ...]] = {}
        self._logged_s: dict[tuple[str, ServoFault], float] = {}

    def update(self, joint: str, faults: tuple[ServoFault, ...]) -> None:
        """Take in what a servo reports now.

        Args:
            joint: Its joint.
            faults: All of its faults.
        """
        before = self.present.pop(joint, ())
        if faults:
            self.present[joint] = faults
        for fault in faults:
            if fault not in before:
                self._log_once(joint, fault)
        for fault in before:
            if fault not in faults:
                logger.info("%s: %s is over", joint, fault.name)

    def _log_once(self, joint: str, fault: ServoFault) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s.get((joint, fault), float("-inf")) >= _REPEAT_S:
            self._logged_s[joint, fault] = now_s
            logger.error("%s: its servo reports %s: %s", joint, fault.name, fault.remedy)
