"""One servo: units, limits, speed, torque and memory behave as the STS3215's do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.arms.joints import encode_sign_magnitude
from lerobot_vla_plugin.twin.feetech import STS3215_REGISTERS
from lerobot_vla_plugin.twin.servo import NO_LOAD_SPEED_TICKS_S, Servo

CALIBRATION = JointCalibration(id=3, drive_mode=0, homing_offset=-1200, range_min=900, range_max=3100)


def _servo(position_ticks: int = 2000) -> Servo:
    servo = Servo(CALIBRATION, position_ticks)
    servo.advance(0.0)
    return servo


def _write(servo: Servo, name: str, value: int, time_s: float = 0.0) -> None:
    row = STS3215_REGISTERS[name]
    raw = value if row.sign_bit is None else encode_sign_magnitude(value, row.sign_bit)
    servo.write(row.address, raw.to_bytes(row.length, "little"), time_s)


def _read(servo: Servo, name: str, time_s: float) -> int:
    row = STS3215_REGISTERS[name]
    return int.from_bytes(servo.read(row.address, row.length, time_s), "little")


def test_eeprom_holds_the_calibration_from_the_start() -> None:
    servo = _servo()
    assert (servo.id, servo.register("Homing_Offset")) == (3, -1200)
    assert (servo.register("Min_Position_Limit"), servo.register("Max_Position_Limit")) == (900, 3100)
    assert servo.position_ticks == 2000
    assert _read(servo, "Homing_Offset", 0.0) == 1200 | 1 << 11


@given(st.integers(0, 4095), st.integers(-2047, 2047))
def test_present_is_encoder_minus_offset_and_never_leaves_the_turn(position: int, offset: int) -> None:
    servo = _servo(position)
    _write(servo, "Homing_Offset", offset)
    encoder = (position + CALIBRATION.homing_offset) % 4096
    assert _read(servo, "Present_Position", 0.0) == (encoder - offset) % 4096


def test_it_moves_to_the_goal_no_faster_than_its_speed() -> None:
    servo = _servo()
    _write(servo, "Torque_Enable", 1)
    _write(servo, "Goal_Position", 2500)
    assert _read(servo, "Present_Position", 0.1) == 2000 + round(NO_LOAD_SPEED_TICKS_S * 0.1)
    assert _read(servo, "Moving", 0.1) == 1
    assert _read(servo, "Present_Velocity", 0.1) == NO_LOAD_SPEED_TICKS_S
    assert _read(servo, "Present_Position", 1.0) == 2500
    assert (_read(servo, "Moving", 1.1), _read(servo, "Present_Load", 1.1)) == (0, 0)


def test_goal_velocity_lowers_the_speed_and_sign_bits_tell_the_direction() -> None:
    servo = _servo()
    _write(servo, "Goal_Velocity", 100)
    _write(servo, "Torque_Enable", 1)
    _write(servo, "Goal_Position", 1000)
    assert _read(servo, "Present_Position", 1.0) == 1900
    assert _read(servo, "Present_Velocity", 1.0) == 100 | 1 << 15
    assert _read(servo, "Present_Load", 1.0) == 900 | 1 << 10


@given(st.lists(st.floats(0, 2), min_size=1, max_size=20).map(sorted), st.integers(-32767, 32767))
def test_where_it_stands_depends_on_the_time_only(moments: list[float], goal: int) -> None:
    often, once = _servo(), _servo()
    for servo in (often, once):
        _write(servo, "Torque_Enable", 1)
        _write(servo, "Goal_Position", goal)
    for moment in moments:
        often.advance(moment)
        assert 900 <= often.position_ticks <= 3100
    once.advance(moments[-1])
    assert abs(often.position_ticks - once.position_ticks) <= 1


@pytest.mark.parametrize(("goal", "end"), [(0, 900), (4095, 3100), (-500, 900), (1500, 1500)])
def test_goals_are_kept_inside_the_limits(goal: int, end: int) -> None:
    servo = _servo()
    _write(servo, "Torque_Enable", 1)
    _write(servo, "Goal_Position", goal)
    assert _read(servo, "Present_Position", 5.0) == end


def test_torque_on_goes_to_the_stale_goal() -> None:
    servo = _servo(1500)
    _write(servo, "Goal_Position", 2315)
    servo.advance(1.0)
    assert servo.position_ticks == 1500
    _write(servo, "Torque_Enable", 1, 1.0)
    assert _read(servo, "Present_Position", 2.0) == 2315


def test_a_hand_moves_it_only_without_torque() -> None:
    servo = _servo()
    assert servo.set_position_by_hand(1234.4, 0.1)
    assert servo.position_ticks == 1234
    _write(servo, "Torque_Enable", 1, 0.1)
    assert not servo.set_position_by_hand(3000, 0.1)
    assert servo.position_ticks == 1234


def test_centre_command_makes_the_present_position_the_middle() -> None:
    servo = _servo(1000)
    _write(servo, "Torque_Enable", 128)
    assert (servo.position_ticks, servo.torque_enabled) == (2048, False)
    servo.power_cycle()
    assert servo.position_ticks == 2048


def test_lock_decides_what_survives_a_power_cycle() -> None:
    servo = _servo()
    _write(servo, "P_Coefficient", 16)
    assert servo.register("P_Coefficient") == 16
    servo.power_cycle()
    assert servo.register("P_Coefficient") == STS3215_REGISTERS["P_Coefficient"].default
    _write(servo, "Lock", 0)
    _write(servo, "P_Coefficient", 16)
    _write(servo, "Acceleration", 254)
    servo.power_cycle()
    assert (servo.register("P_Coefficient"), servo.register("Acceleration")) == (16, 0)
    assert servo.register("Goal_Position") == servo.position_ticks


@given(st.integers(0, 255), st.binary(max_size=40))
def test_read_only_registers_and_holes_cannot_be_written(address: int, data: bytes) -> None:
    servo = _servo()
    names = [name for name, row in STS3215_REGISTERS.items() if not row.writable and row.address < 56]
    before = {name: servo.register(name) for name in names}
    servo.write(address, data, 0.0)
    assert {name: servo.register(name) for name in names} == before
    assert len(servo.read(address, 60, 1.0)) == 60


def test_goal_writes_are_counted_and_a_kept_write_acts_once() -> None:
    servo = _servo()
    row = STS3215_REGISTERS["Goal_Position"]
    servo.write_later(row.address, (2100).to_bytes(2, "little"))
    assert servo.goal_writes == 0
    assert servo.act(0.0)
    assert not servo.act(0.0)
    assert (servo.goal_writes, servo.register("Goal_Position")) == (1, 2100)


def test_a_moment_in_the_past_changes_nothing() -> None:
    servo = _servo()
    _write(servo, "Torque_Enable", 1, 1.0)
    _write(servo, "Goal_Position", 3000, 1.0)
    servo.advance(0.5)
    assert servo.position_ticks == 2000
