"""What LeRobot's arms and ours read while the servo bus misbehaves: every fault, both arms, followers and leaders.

    python benchmarks/servo_faults.py                                    # the whole matrix, about ten minutes
    python benchmarks/servo_faults.py --faults late --arms so101 --observations 200

An emulated arm is moved by a tick or two between observations, so that a reading of the cycle before is wrong by
exactly that. Each observation ends as correct, wrong (a value that is not the arm's, and no error) or an exception.
Faults of the wire hit 1 % of the replies (`_often`: 10 %); an arm has six replies to an observation. Faults of a servo
and of the cable happen once, after a third of the observations, and are mended half a second later. Recovery is the
time from the first observation that was not correct to the next correct one. `hits` counts the replies that were
spoilt, `doubted` those of them that passed our bus's check of the frame and were refused because no joint moves so.
"""

import argparse
import contextlib
import logging
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from arms_on_twins import KINDS, LEROBOTS, ArmOnTwin

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.arms.joints import JointConverter
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.faults import Fault, FaultKind

EVENT_S = 0.5
VICTIM = "elbow_flex"
LEROBOT, OURS = "lerobot", "ours"
ROLES = ("follower", "leader")

# 60 ms is later than LeRobot waits, and within the 70 ms after which our bus asks again; 200 ms is beyond that.
WIRE_FAULTS = {
    "none": (),
    "drop": (Fault(FaultKind.DROP, 0.01),),
    "corrupt": (Fault(FaultKind.CORRUPT, 0.01),),
    "garble": (Fault(FaultKind.GARBLE, 0.01),),
    "wrong_id": (Fault(FaultKind.WRONG_ID, 0.01),),
    "truncate": (Fault(FaultKind.TRUNCATE, 0.01),),
    "late": (Fault(FaultKind.LATE, 0.01, delay_s=0.06),),
    "very_late": (Fault(FaultKind.LATE, 0.01, delay_s=0.2),),
    # What the wire itself cannot tell, often enough to measure how much of it gets through.
    "garble_often": (Fault(FaultKind.GARBLE, 0.1),),
    "very_late_often": (Fault(FaultKind.LATE, 0.1, delay_s=0.2),),
    "duplicate": (Fault(FaultKind.DUPLICATE, 0.01),),
    "noise": (Fault(FaultKind.NOISE, 0.01),),
}
SERVO_FAULTS = {
    kind.value: Fault(kind, joint=VICTIM, count=1)
    for kind in (FaultKind.STUCK, FaultKind.OVERLOAD, FaultKind.BROWN_OUT, FaultKind.MOTOR_GONE)
}
FAULTS = (*WIRE_FAULTS, *SERVO_FAULTS, "unplug")


@dataclass
class Tally:
    """How the observations of one cell of the matrix ended.

    Attributes:
        correct: Readings that were the arm's.
        wrong: Readings that were not, without an error.
        exceptions: Observations that raised.
        worst_ticks: Largest error of a wrong reading, in [ticks].
        recoveries_s: Times from the first observation that was not correct to the next correct one, in [s].
        died: Whether no observation was correct after the last fault.
        named: Whether an error or a log line names the joint whose servo failed.
        hits: Replies that faults hit.
        doubted: Readings that were refused as implausible; only our bus does.
    """

    correct: int = 0
    wrong: int = 0
    exceptions: int = 0
    worst_ticks: float = 0.0
    recoveries_s: list[float] = field(default_factory=list)
    died: bool = False
    named: bool = False
    hits: int = 0
    doubted: int = 0
    _bad_since_s: float | None = None
    HEADER: ClassVar[str] = (
        f"{'correct':>7s} {'wrong':>6s} {'worst':>6s} {'raised':>7s} {'recovery':>16s} {'hits':>5s} {'doubted':>7s}"
    )

    def add(self, error_ticks: float | None, started_s: float) -> None:
        """Count one observation.

        Args:
            error_ticks: Largest error of a joint in [ticks]; None where it raised.
            started_s: When it began, in [s].
        """
        if error_ticks is not None and error_ticks < 0.5:
            self.correct += 1
            if self._bad_since_s is not None:
                self.recoveries_s.append(time.perf_counter() - self._bad_since_s)
            self._bad_since_s = None
        else:
            self.wrong += error_ticks is not None
            self.exceptions += error_ticks is None
            self.worst_ticks = max(self.worst_ticks, error_ticks or 0.0)
            self._bad_since_s = self._bad_since_s or started_s
        self.died = self._bad_since_s is not None

    def row(self) -> str:
        """The tally as columns of the table."""
        recovery = "never" if self.died else "-"
        if self.recoveries_s and not self.died:
            recovery = f"{statistics.median(self.recoveries_s) * 1e3:.0f} / {max(self.recoveries_s) * 1e3:.0f} ms"
        worst = f"{self.worst_ticks:.0f}" if self.wrong else "-"
        outcomes = f"{self.correct:7d} {self.wrong:6d} {worst:>6s} {self.exceptions:7d}"
        return f"{outcomes} {recovery:>16s} {self.hits:5d} {self.doubted:7d}"


class Walk:
    """Positions that differ from observation to observation, slowly enough for a real joint."""

    def __init__(self, calibration: Mapping[str, JointCalibration], seed: int) -> None:
        self._random = random.Random(seed)
        self._calibration = calibration
        self.ticks = {name: (joint.range_min + joint.range_max) // 2 for name, joint in calibration.items()}

    def step(self) -> dict[str, int]:
        """The next positions in [ticks]."""
        for name, joint in self._calibration.items():
            moved = self.ticks[name] + self._random.choice((-2, -1, 1, 2))
            self.ticks[name] = min(max(moved, joint.range_min + 10), joint.range_max - 10)
        return self.ticks


@contextlib.contextmanager
def connected(arm: ArmOnTwin, types: str) -> Iterator[Any]:
    """LeRobot's device for an arm, or ours."""
    device = connect(arm, types)
    try:
        yield device
    finally:
        with contextlib.suppress(Exception):  # a port that is gone: LeRobot's device cannot be disconnected
            device.disconnect()


def connect(arm: ArmOnTwin, types: str) -> Any:
    """Connect without faults; LeRobot's buses do not survive a busy computer's pause of 50 ms there."""
    for attempt in range(5):
        device = arm.device(LEROBOTS) if types == LEROBOT else arm.device(reconnect=True)
        try:
            device.connect()
        except ConnectionError:
            if attempt == 4:
                raise
        else:
            return device


class Messages(logging.Handler):
    """Everything that is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.texts.append(record.getMessage())


def observe(device: Any, arm: ArmOnTwin, walk: Walk, converter: JointConverter) -> tuple[float | None, str]:
    """Move the arm, read it, compare.

    Returns:
        How far the worst joint is from where it stood while it was read, in [ticks], None where the reading raised;
        and the message of the error.
    """
    arm.bus.teleport(walk.step())
    before = arm.bus.positions_ticks()
    try:
        read = device.get_observation() if arm.role == "follower" else device.get_action()
    except Exception as error:  # whatever it is, it reaches the control loop
        return None, str(error)
    # A device that reconnects in between may move its gripper itself.
    after = arm.bus.positions_ticks()
    # By way of units, because LeRobot's percent end at the ends of the range.
    stood = converter.to_exact_ticks([list(converter.dict_to_units(ticks).values()) for ticks in (before, after)])
    read_ticks = converter.to_exact_ticks([read[f"{name}.pos"] for name in converter.names])
    outside_ticks = np.maximum(stood.min(axis=0) - read_ticks, read_ticks - stood.max(axis=0))
    return float(outside_ticks.max()), ""


def run_cell(fault: str, kind: str, types: str, role: str, observations: int) -> Tally:
    """Observe one device under one fault."""
    tally, messages = Tally(), Messages()
    logging.getLogger().addHandler(messages)
    try:
        with ArmOnTwin(kind, role) as arm, connected(arm, types) as device:
            walk, converter = Walk(arm.calibration, seed=0), arm.converter()
            observe(device, arm, walk, converter)
            arm.bus.inject(*WIRE_FAULTS.get(fault, ()), seed=1)
            for i in range(observations):
                if i == observations // 3 and fault not in WIRE_FAULTS:
                    happen(fault, arm.bus)
                started_s = time.perf_counter()
                error_ticks, message = observe(device, arm, walk, converter)
                messages.texts.append(message)
                tally.add(error_ticks, started_s)
            tally.hits = sum(arm.bus.fault_hits().values())
            tally.doubted = device.bus.statistics.implausible if types == OURS else 0
            arm.bus.clear_faults()
    finally:
        logging.getLogger().removeHandler(messages)
    tally.named = any(VICTIM in text for text in messages.texts)
    return tally


def happen(fault: str, bus: ServoBus) -> None:
    """Let a servo or the cable fail, and mend it after a while."""
    if fault == "unplug":
        bus.unplug()
        mend = bus.replug
    else:
        bus.inject(SERVO_FAULTS[fault])
        mend = bus.clear_faults
    timer = threading.Timer(EVENT_S, mend)
    timer.daemon = True
    timer.start()


def main() -> None:
    """Print the matrix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observations", type=int, default=1000, help="for each cell")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--arms", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--roles", nargs="+", choices=ROLES, default=ROLES)
    parser.add_argument("--types", nargs="+", choices=(LEROBOT, OURS), default=(LEROBOT, OURS))
    args = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)
    logging.lastResort = None
    cells = [
        (fault, arm, role, types) for fault in args.faults for arm in args.arms for role in args.roles
        for types in args.types
    ]  # fmt: skip
    print(f"{'fault':15s} {'arm':5s} {'role':8s} {'types':7s} {Tally.HEADER}", flush=True)
    for fault, arm, role, types in tqdm(cells, leave=False):
        tally = run_cell(fault, arm, types, role, args.observations)
        named = {True: "yes", False: "no"}[tally.named] if fault in SERVO_FAULTS else "-"
        tqdm.write(f"{fault:15s} {arm:5s} {role:8s} {types:7s} {tally.row()} {named:>5s}")


if __name__ == "__main__":
    main()
