"""Joint units of this package beside those of LeRobot's motor bus, in one process, taking turns.

    python benchmarks/joint_units.py

Prints the share of encoder ticks that come back as another tick after ticks -> unit -> float32 -> ticks, which is the
way of a position through a data set, and the time of a 6-joint dict both ways (medians). No arm is needed: LeRobot's
bus converts without opening its port.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from lerobot.motors import Motor, MotorCalibration, MotorNormMode
from lerobot.motors.dynamixel import DynamixelMotorsBus
from lerobot.motors.feetech import FeetechMotorsBus

from lerobot_vla_plugin.arms.calibration import JointCalibration, example_calibration, load_calibration
from lerobot_vla_plugin.arms.joints import JointConverter, NormMode, joint_modes

FEETECH, DYNAMIXEL = (FeetechMotorsBus, "sts3215"), (DynamixelMotorsBus, "xl330-m288")
EXAMPLES = {
    "so_follower": ("so101_follower", FEETECH),
    "so_leader": ("so101_leader", FEETECH),
    "koch_follower": ("koch_follower", DYNAMIXEL),
    "koch_leader": ("koch_leader", DYNAMIXEL),
}


class Pair:
    """LeRobot's bus and our converter for the same arm and units."""

    def __init__(self, calibration: dict[str, JointCalibration], modes: dict[str, NormMode], brand: tuple) -> None:
        kind, model = brand
        motors = {name: Motor(calibration[name].id, model, MotorNormMode(mode.value)) for name, mode in modes.items()}
        theirs = {name: MotorCalibration(**asdict(joint)) for name, joint in calibration.items()}
        self.bus = kind("", motors, theirs)
        self.converter = JointConverter(calibration, modes, inverts_in_software=kind.apply_drive_mode)
        self.ids = {name: motor.id for name, motor in motors.items()}

    def wrong_shares(self) -> tuple[float, float]:
        """Share of ticks that come back wrong: LeRobot's and ours."""
        theirs = ours = count = 0
        for name, id_ in self.ids.items():
            joint = self.bus.calibration[name]
            ticks = range(joint.range_min, joint.range_max + 1)
            count += len(ticks)
            theirs += sum(self._lerobot_round_trip(id_, tick) != tick for tick in ticks)
            ours += sum(self._our_round_trip(name, tick) != tick for tick in ticks)
        return theirs / count, ours / count

    def _lerobot_round_trip(self, id_: int, tick: int) -> int:
        return self.bus._unnormalize({id_: float(np.float32(self.bus._normalize({id_: tick})[id_]))})[id_]

    def _our_round_trip(self, name: str, tick: int) -> int:
        units = self.converter.dict_to_units({name: tick})
        return self.converter.dict_to_ticks({name: float(np.float32(units[name]))})[name]

    def times_us(self, repeats: int) -> tuple[float, float]:
        """Median time of a 6-joint dict to units and back, in [us]: LeRobot's and ours."""
        by_id = dict.fromkeys(self.ids.values(), 2000)
        by_name = dict.fromkeys(self.ids, 2000)
        theirs, ours = [], []
        for _ in range(repeats):
            theirs.append(_microseconds(lambda: self.bus._unnormalize(self.bus._normalize(by_id))))
            ours.append(_microseconds(lambda: self.converter.dict_to_ticks(self.converter.dict_to_units(by_name))))
        return statistics.median(theirs), statistics.median(ours)


def _microseconds(job: Callable[[], object], number: int = 20) -> float:
    start = time.perf_counter()
    for _ in range(number):
        job()
    return (time.perf_counter() - start) / number * 1e6


def main() -> None:
    """Print one line for each arm and unit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200, help="measurements of 20 conversions each")
    parser.add_argument("--calibration", type=Path, nargs="*", default=[], help="more files, of SO-100/101 arms")
    arguments = parser.parse_args()
    arms = {name: (example_calibration(name, file), brand) for name, (file, brand) in EXAMPLES.items()}
    arms |= {path.stem: (load_calibration(path), FEETECH) for path in arguments.calibration}
    print(f"{'':16}{'':9}  ticks that come back wrong    6 joints both ways [us]")
    print(f"{'arm':16}{'unit':9}{'LeRobot':>15}{'ours':>10}{'LeRobot':>15}{'ours':>10}")
    for name, (calibration, brand) in arms.items():
        for degrees in (True, False):
            pair = Pair(calibration, joint_modes(calibration, degrees=degrees), brand)
            (theirs, ours), (their_us, our_us) = pair.wrong_shares(), pair.times_us(arguments.repeats)
            unit = "degrees" if degrees else "percent"
            print(f"{name:16}{unit:9}{theirs:15.1%}{ours:10.1%}{their_us:15.1f}{our_us:10.1f}")


if __name__ == "__main__":
    main()
