"""LeRobot's buses and ours on emulated servos, for the tests of the buses and their benchmark."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lerobot.motors import Motor, MotorCalibration, MotorNormMode
from lerobot.motors.dynamixel import DynamixelMotorsBus
from lerobot.motors.feetech import FeetechMotorsBus
from lerobot.motors.motors_bus import SerialMotorsBus

from lerobot_vla_plugin.arms.calibration import JointCalibration, example_calibration
from lerobot_vla_plugin.arms.dynamixel_bus import ReliableDynamixelBus
from lerobot_vla_plugin.arms.feetech_bus import ReliableFeetechBus
from lerobot_vla_plugin.arms.reliable_bus import ReliableBus
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.dynamixel_protocol import DynamixelProtocol
from lerobot_vla_plugin.twin.dynamixel_registers import XL330_M288, XL430_W250
from lerobot_vla_plugin.twin.dynamixel_servo import DynamixelServo
from lerobot_vla_plugin.twin.servo import Servo

SO101 = example_calibration("so_follower", "so101_follower")
KOCH = example_calibration("koch_follower", "koch_follower")
MODELS = {joint: XL430_W250 if joint.startswith("shoulder") else XL330_M288 for joint in KOCH}
LEROBOTS_MODELS = {joint: "xl430-w250" if joint.startswith("shoulder") else "xl330-m288" for joint in KOCH}


def middle_of(calibration: dict[str, JointCalibration]) -> dict[str, int]:
    """Joint -> middle of its range, in [ticks]."""
    return {name: (joint.range_min + joint.range_max) // 2 for name, joint in calibration.items()}


def so101_servos(link: Path | None = None) -> ServoBus:
    """Feetech servos in the middle of their ranges."""
    middle = middle_of(SO101)
    return ServoBus({name: Servo(joint, middle[name]) for name, joint in SO101.items()}, "so101", link)


def koch_servos(link: Path | None = None) -> ServoBus:
    """Dynamixel servos in the middle of their ranges."""
    middle = middle_of(KOCH)
    servos = {name: DynamixelServo(MODELS[name], joint, middle[name]) for name, joint in KOCH.items()}
    return ServoBus(servos, "koch", link, DynamixelProtocol())


def host[B: SerialMotorsBus](bus_type: type[B], port: str, *, degrees: bool = True) -> B:
    """A bus of LeRobot's or ours that knows the servos behind a port, not connected yet."""
    feetech = "Feetech" in bus_type.__name__
    calibration = SO101 if feetech else KOCH
    body = MotorNormMode.DEGREES if degrees else MotorNormMode.RANGE_M100_100
    motors = {
        name: Motor(
            joint.id,
            "sts3215" if feetech else LEROBOTS_MODELS[name],
            MotorNormMode.RANGE_0_100 if name == "gripper" else body,
        )
        for name, joint in calibration.items()
    }
    return bus_type(port, motors, {name: MotorCalibration(**asdict(joint)) for name, joint in calibration.items()})


@contextmanager
def connected[B: ReliableBus](bus_type: type[B], twin: ServoBus) -> Iterator[B]:
    """One of our buses, connected to servos that this starts and stops."""
    twin.start()
    bus = host(bus_type, twin.port)
    try:
        bus.connect()
        yield bus
    finally:
        if bus.is_connected:
            bus.disconnect(disable_torque=False)
        twin.stop()


ARMS: dict[str, tuple[Callable[..., ServoBus], type[ReliableBus], type[SerialMotorsBus], dict[str, JointCalibration]]]
ARMS = {
    "so101": (so101_servos, ReliableFeetechBus, FeetechMotorsBus, SO101),
    "koch": (koch_servos, ReliableDynamixelBus, DynamixelMotorsBus, KOCH),
}


@dataclass
class Pair:
    """Emulated servos, our bus, and the middle of each range in [ticks], where the joints stand."""

    servos: ServoBus
    bus: ReliableBus
    middle: dict[str, int]


@contextmanager
def connected_pair(arm: str) -> Iterator[Pair]:
    """A pair of one of `ARMS`."""
    make_servos, bus_type, _, calibration = ARMS[arm]
    servos = make_servos()
    with connected(bus_type, servos) as bus:
        yield Pair(servos, bus, middle_of(calibration))
        servos.clear_faults()
