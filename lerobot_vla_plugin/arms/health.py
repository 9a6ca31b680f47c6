"""What a connected arm says of itself, servo by servo, and what is wrong with it. Only reads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from lerobot.motors.motors_bus import MotorCalibration

from lerobot_vla_plugin.arms.calibration import CalibrationLike, JointCalibration
from lerobot_vla_plugin.arms.calibration_checks import CalibrationProblem
from lerobot_vla_plugin.arms.joints import JointConverter, is_gripper, joint_modes
from lerobot_vla_plugin.arms.reliable_bus import ReliableBus

_FAR_OUTSIDE_TICKS = 12  # about a degree; less is the give of an end stop
_WARM_BELOW_LIMIT_C = 10
WRITE_REMEDY = "write the file into the servo with --write-calibration, or run lerobot-calibrate"


@dataclass(frozen=True)
class _Registers:
    """LeRobot's names of the registers in which the two families differ.

    Attributes:
        firmware: Parts of the version, most significant first.
        voltage: Present supply voltage, in [0.1 V].
        highest_temperature: Temperature at which the servo switches itself off, in [deg C].
    """

    firmware: tuple[str, ...]
    voltage: str
    highest_temperature: str


_FEETECH = _Registers(("Firmware_Major_Version", "Firmware_Minor_Version"), "Present_Voltage", "Max_Temperature_Limit")
_DYNAMIXEL = _Registers(("Firmware_Version",), "Present_Input_Voltage", "Temperature_Limit")


@dataclass(frozen=True)
class ServoHealth:
    """One servo; what it did not tell is None.

    Attributes:
        joint: Name of the joint.
        id: Id on the bus.
        model: Its model, or "number N" where that is not the expected one.
        firmware: Version of the firmware.
        voltage_v: Supply voltage, in [V].
        temperature_c: Temperature, in [deg C].
        torque_enabled: Whether the motor holds.
        ticks: Present position, in [ticks].
        degrees: The same in [deg], 0 in the middle of the calibrated range; None without a calibration.
        percent: The same in [-100, 100], a gripper in [0, 100]; None without a calibration.
        calibration: "agrees" or "differs" (of file and EEPROM), "no file" or "unread".
        problems: What must be mended.
    """

    joint: str
    id: int
    model: str | None = None
    firmware: str | None = None
    voltage_v: float | None = None
    temperature_c: int | None = None
    torque_enabled: bool | None = None
    ticks: int | None = None
    degrees: float | None = None
    percent: float | None = None
    calibration: str = "unread"
    problems: list[CalibrationProblem] = field(default_factory=list)


def examine_arm(
    bus: ReliableBus, calibration: Mapping[str, JointCalibration]
) -> tuple[list[ServoHealth], list[CalibrationProblem]]:
    """Read every servo of an arm by itself, so that a dead one hides no other.

    Args:
        bus: Bus whose port is open; a handshake is not needed.
        calibration: The calibration file, joint name -> calibration; empty where there is none.

    Returns:
        One entry a joint, and the problems of the servos as a whole.

    Raises:
        ConnectionError: The port is gone.
    """
    servos = [_examine_servo(bus, joint, calibration.get(joint)) for joint in bus.motors]
    return servos, [*_strangers(bus), *_mixed_firmware(bus, servos)]


def _examine_servo(bus: ReliableBus, joint: str, calibration: JointCalibration | None) -> ServoHealth:
    motor = bus.motors[joint]
    number = bus.ping(joint)
    if number is None:
        remedy = "check its cable, its power and, with lerobot-setup-motors, its id"
        problem = CalibrationProblem(joint, f"no servo answers to id {motor.id}", remedy)
        return ServoHealth(joint, motor.id, problems=[problem])
    if number != bus.model_number_table[motor.model]:
        message = f"expected a {motor.model} at id {motor.id}, got model number {number}"
        problem = CalibrationProblem(joint, message, "swap the servo, or name the right arm with --robot.type")
        return ServoHealth(joint, motor.id, model=f"number {number}", problems=[problem])
    try:
        return _read_servo(bus, joint, calibration)
    except ConnectionError as error:
        problem = CalibrationProblem(joint, str(error), "check its cable and its power")
        return ServoHealth(joint, motor.id, model=motor.model, problems=[problem])


def _read_servo(bus: ReliableBus, joint: str, calibration: JointCalibration | None) -> ServoHealth:
    read = _reader(bus, joint)
    registers = _registers(bus)
    ticks, temperature_c = read("Present_Position"), read("Present_Temperature")
    voltage_v = read(registers.voltage) / 10
    eeprom = read_eeprom(bus, joint)
    differing = [] if calibration is None else differences(calibration, eeprom, in_firmware=not bus.apply_drive_mode)
    problems = [
        *_supply_problems(joint, voltage_v, read("Min_Voltage_Limit") / 10, read("Max_Voltage_Limit") / 10),
        *_heat_problems(joint, temperature_c, read(registers.highest_temperature)),
        *(CalibrationProblem(joint, f"it reports {f.name}", f.remedy) for f in bus.servo_errors.get(joint, ())),
        *_calibration_problems(joint, ticks, calibration, differing),
    ]
    return ServoHealth(
        joint,
        bus.motors[joint].id,
        bus.motors[joint].model,
        firmware=".".join(str(read(name)) for name in registers.firmware),
        voltage_v=voltage_v,
        temperature_c=temperature_c,
        torque_enabled=read("Torque_Enable") == 1,
        ticks=ticks,
        degrees=_in_units(bus, joint, calibration or eeprom, ticks, degrees=True),
        percent=_in_units(bus, joint, calibration or eeprom, ticks, degrees=False),
        calibration="no file" if calibration is None else "differs" if differing else "agrees",
        problems=problems,
    )


def read_eeprom(bus: ReliableBus, joint: str) -> MotorCalibration:
    """The calibration that a servo holds, whatever its values; a Feetech servo has no drive mode and gives 0.

    Raises:
        ConnectionError: The servo does not answer.
    """
    read = _reader(bus, joint)
    return MotorCalibration(
        id=bus.motors[joint].id,
        drive_mode=0 if bus.apply_drive_mode else read("Drive_Mode") & 1,
        homing_offset=read("Homing_Offset"),
        range_min=read("Min_Position_Limit"),
        range_max=read("Max_Position_Limit"),
    )


def _reader(bus: ReliableBus, joint: str) -> Callable[[str], int]:
    return lambda name: int(bus.read(name, joint, normalize=False))


def _registers(bus: ReliableBus) -> _Registers:
    return _FEETECH if bus.apply_drive_mode else _DYNAMIXEL


def _in_units(bus: ReliableBus, joint: str, calibration: CalibrationLike, ticks: int, *, degrees: bool) -> float | None:
    if calibration.range_min >= calibration.range_max or (degrees and is_gripper(joint)):
        return None
    modes = joint_modes([joint], degrees=degrees)
    converter = JointConverter({joint: calibration}, modes, inverts_in_software=bus.apply_drive_mode)
    return converter.dict_to_units({joint: ticks})[joint]


def differences(calibration: JointCalibration, eeprom: MotorCalibration, *, in_firmware: bool) -> list[str]:
    """What the calibration file says otherwise than a servo, in words.

    Args:
        calibration: The file's.
        eeprom: As `read_eeprom` gives it.
        in_firmware: Whether the servo has a drive mode.
    """
    names = ["homing_offset", "range_min", "range_max", *(["drive_mode"] if in_firmware else [])]
    pairs = [(name, getattr(calibration, name), getattr(eeprom, name)) for name in names]
    return [f"{name} is {in_file} in the file, {held} in the servo" for name, in_file, held in pairs if in_file != held]


def _supply_problems(joint: str, voltage_v: float, lowest_v: float, highest_v: float) -> Iterator[CalibrationProblem]:
    if not lowest_v <= voltage_v <= highest_v:
        message = f"{voltage_v:.1f} V, its own limits are {lowest_v:.1f} to {highest_v:.1f} V"
        yield CalibrationProblem(joint, message, "check that the power supply is the one for this arm, and its plug")


def _heat_problems(joint: str, temperature_c: int, highest_c: int) -> Iterator[CalibrationProblem]:
    if temperature_c > highest_c - _WARM_BELOW_LIMIT_C:
        message = f"{temperature_c} deg C; at {highest_c} it switches itself off"
        yield CalibrationProblem(joint, message, "let the arm rest without torque until it has cooled down")


def _calibration_problems(
    joint: str, ticks: int, calibration: JointCalibration | None, differing: list[str]
) -> Iterator[CalibrationProblem]:
    if calibration is None:
        return
    if differing:
        yield CalibrationProblem(joint, "; ".join(differing), WRITE_REMEDY)
    outside_ticks = max(calibration.range_min - ticks, ticks - calibration.range_max)
    if outside_ticks > _FAR_OUTSIDE_TICKS:
        message = f"stands at {ticks}, outside its range {calibration.range_min}..{calibration.range_max} [ticks]"
        yield CalibrationProblem(joint, message, "move it inside by hand, or run lerobot-calibrate")


def _strangers(bus: ReliableBus) -> Iterator[CalibrationProblem]:
    """Servos that this arm does not have: a daisy-chained second arm, or a servo whose id was never set."""
    found = bus.broadcast_ping() or {}
    for servo_id in sorted(set(found) - set(bus.ids)):
        message = f"a servo (model number {found[servo_id]}) answers to id {servo_id}, which this arm does not have"
        yield CalibrationProblem("arm", message, "unplug it, or give it its id with lerobot-setup-motors")


def _mixed_firmware(bus: ReliableBus, servos: list[ServoHealth]) -> Iterator[CalibrationProblem]:
    """LeRobot refuses a Feetech arm of mixed firmware; a Koch has two models with versions of their own."""
    versions = {servo.joint: servo.firmware for servo in servos if servo.firmware}
    if bus.apply_drive_mode and len(set(versions.values())) > 1:
        message = f"servos of different firmware, which LeRobot refuses: {versions}"
        yield CalibrationProblem("arm", message, "update them with Feetech's software")
