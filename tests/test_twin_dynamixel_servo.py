"""One Dynamixel: units, limits, turns, protection and watchdog behave as the e-manual says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.twin.dynamixel import ALERT, StatusError
from lerobot_vla_plugin.twin.dynamixel_registers import VELOCITY_UNIT_TICKS_S, XL330_M288, XL430_W250, Model
from lerobot_vla_plugin.twin.dynamixel_servo import (
    CURRENT_POSITION_MODE,
    EXTENDED_POSITION_MODE,
    POSITION_MODE,
    WATCHDOG_EXPIRED,
    DynamixelServo,
)


def _servo(position_ticks: int = 2000, model: Model = XL330_M288, drive_mode: int = 0, homing: int = -500):
    calibration = JointCalibration(3, drive_mode, homing, 900, 3100)
    servo = DynamixelServo(model, calibration, position_ticks)
    servo.advance(0.0)
    return servo


def _write(servo: DynamixelServo, name: str, value: int, time_s: float = 0.0) -> StatusError:
    row = XL330_M288.registers[name]
    return servo.write(row.address, row.encode(value), time_s)


def _read(servo: DynamixelServo, name: str, time_s: float = 0.0) -> int:
    row = XL330_M288.registers[name]
    data = servo.read(row.address, row.length, time_s)
    assert data is not None
    return row.decode(data)


@given(st.integers(0, 4095), st.integers(-4095, 4095), st.integers(0, 1), st.integers(-4095, 4095))
def test_present_is_actual_plus_homing_and_inverted_before_it(
    position: int, homing: int, drive_mode: int, new_homing: int
) -> None:
    servo = _servo(position, drive_mode=drive_mode, homing=homing)
    assert _read(servo, "Present_Position") == position
    assert _write(servo, "Homing_Offset", new_homing) is StatusError.NONE
    assert _read(servo, "Present_Position") == position - homing + new_homing
    _write(servo, "Drive_Mode", 1 - drive_mode)
    assert _read(servo, "Present_Position") == homing - position + new_homing


@pytest.mark.parametrize("drive_mode", [0, 1])
def test_it_moves_to_the_goal_no_faster_than_its_speed(drive_mode: int) -> None:
    servo = _servo(drive_mode=drive_mode)
    _write(servo, "Profile_Velocity", 100)
    _write(servo, "Torque_Enable", 1)
    _write(servo, "Goal_Position", 6000)
    assert _read(servo, "Present_Position", 1.0) == 2000 + round(100 * VELOCITY_UNIT_TICKS_S)
    assert (_read(servo, "Present_Velocity", 1.0), _read(servo, "Moving", 1.0)) == (100, 1)
    assert _read(servo, "Present_Position", 9.0) == 6000  # beyond one turn, as in extended position mode
    assert (_read(servo, "Moving", 9.1), _read(servo, "Present_Current", 9.1)) == (0, 0)


@given(st.integers(-20_000, 20_000), st.integers(-4095, 4095), st.integers(0, 1))
def test_turns_are_lost_at_a_power_cycle_and_the_horn_stays(position: int, homing: int, drive_mode: int) -> None:
    servo = _servo(position, drive_mode=drive_mode, homing=homing)
    servo.power_cycle()
    reported = _read(servo, "Present_Position")
    assert servo.position_ticks == position
    assert homing <= reported < homing + 4096
    assert (position - reported) % 4096 == 0
    assert _read(servo, "Goal_Position") == reported
    servo.set_position_by_hand(position + 100, 1.0)
    assert _read(servo, "Present_Position", 1.0) == reported + 100
    servo.teleport(position - 50, 2.0)
    assert (_read(servo, "Present_Position", 2.0), servo.position_ticks) == (reported - 50, position - 50)
    servo.set_position_by_hand(position + 5000, 3.0)
    servo.power_cycle()
    assert servo.position_ticks == position + 5000


def test_clear_resets_the_turns_only_while_it_stands() -> None:
    servo = _servo(3000 + 4096)
    _write(servo, "Torque_Enable", 1)
    _write(servo, "Goal_Position", 9000)
    assert servo.clear_turns(0.01) is StatusError.RESULT_FAIL
    servo.advance(5.0)
    assert servo.clear_turns(5.1) is StatusError.NONE
    assert _read(servo, "Present_Position", 5.1) == 9000 - 2 * 4096
    assert servo.position_ticks == 9000


def test_position_mode_keeps_to_one_turn_its_limits_and_small_offsets() -> None:
    servo = _servo(5000)
    assert _write(servo, "Operating_Mode", POSITION_MODE) is StatusError.NONE
    assert _read(servo, "Present_Position") == 5000 - 4096
    assert _write(servo, "Goal_Position", 3101) is StatusError.DATA_LIMIT
    assert _write(servo, "Goal_Position", 3100) is StatusError.NONE
    servo = _servo(2000, homing=-1500)
    _write(servo, "Operating_Mode", POSITION_MODE)
    assert _read(servo, "Present_Position") == 3500  # an offset beyond 1024 is ignored in this mode


def test_a_new_mode_resets_gains_and_profile() -> None:
    servo = _servo()
    _write(servo, "Position_P_Gain", 1500)
    _write(servo, "Profile_Velocity", 7)
    _write(servo, "Operating_Mode", EXTENDED_POSITION_MODE)
    assert _read(servo, "Position_P_Gain") == 1500  # no change of mode
    _write(servo, "Operating_Mode", CURRENT_POSITION_MODE)
    assert (_read(servo, "Position_P_Gain"), _read(servo, "Profile_Velocity")) == (400, 0)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("Present_Position", 5, StatusError.ACCESS),
        ("Model_Number", 5, StatusError.ACCESS),
        ("Return_Delay_Time", 255, StatusError.DATA_RANGE),
        ("Operating_Mode", 2, StatusError.DATA_RANGE),
        ("Drive_Mode", 4, StatusError.DATA_RANGE),
        ("Goal_Position", 1_048_576, StatusError.DATA_RANGE),
        ("Bus_Watchdog", -1, StatusError.DATA_RANGE),
        ("Goal_Velocity", 446, StatusError.DATA_LIMIT),
        ("Goal_Current", -1750, StatusError.NONE),
    ],
)
def test_what_a_register_cannot_hold_is_refused_and_changes_nothing(name: str, value: int, error: StatusError) -> None:
    servo = _servo()
    before = servo.register(name)
    assert _write(servo, name, value) is error
    assert servo.register(name) == (before if error else value)


def test_a_model_takes_only_its_own_modes_and_registers() -> None:
    servo = _servo(model=XL430_W250)
    assert _write(servo, "Operating_Mode", CURRENT_POSITION_MODE) is StatusError.DATA_RANGE
    assert _write(servo, "Goal_Current", 5) is StatusError.ACCESS


def test_eeprom_is_locked_under_torque_and_survives_a_power_cycle() -> None:
    servo = _servo()
    _write(servo, "Torque_Enable", 1)
    assert _write(servo, "Return_Delay_Time", 0) is StatusError.ACCESS
    _write(servo, "Torque_Enable", 0)
    assert _write(servo, "Return_Delay_Time", 0) is StatusError.NONE
    _write(servo, "LED", 1)
    servo.power_cycle()
    assert (_read(servo, "Return_Delay_Time"), _read(servo, "LED")) == (0, 0)


def test_a_write_over_several_registers_is_all_or_nothing() -> None:
    servo = _servo()
    profile = XL330_M288.registers["Profile_Velocity"].address
    both = (50).to_bytes(4, "little") + (2222).to_bytes(4, "little")
    assert servo.write(profile, both, 0.0) is StatusError.NONE
    assert (_read(servo, "Profile_Velocity"), _read(servo, "Goal_Position")) == (50, 2222)
    too_far = (60).to_bytes(4, "little") + (2_000_000).to_bytes(4, "little")
    assert servo.write(profile, too_far, 0.0) is StatusError.DATA_RANGE
    assert servo.write(profile, both[:6], 0.0) is StatusError.DATA_LENGTH
    assert (_read(servo, "Profile_Velocity"), _read(servo, "Goal_Position")) == (50, 2222)


def test_the_watchdog_stops_it_when_nobody_speaks() -> None:
    servo = _servo()
    _write(servo, "Profile_Velocity", 100)
    _write(servo, "Bus_Watchdog", 5)  # 100 ms
    _write(servo, "Torque_Enable", 1)
    _write(servo, "Goal_Position", 9000)
    for moment in (0.05, 0.1, 0.15):
        servo.hear(moment)
    assert _read(servo, "Bus_Watchdog", 0.2) == 5
    stopped = 2000 + round(0.25 * 100 * VELOCITY_UNIT_TICKS_S)
    assert _read(servo, "Present_Position", 3.0) == stopped
    assert _read(servo, "Bus_Watchdog", 3.0) == WATCHDOG_EXPIRED
    assert servo.torque_enabled
    assert _write(servo, "Goal_Position", 2500, 3.0) is StatusError.DATA_RANGE
    assert _write(servo, "Bus_Watchdog", 0, 3.0) is StatusError.NONE
    assert _read(servo, "Present_Position", 4.0) == stopped  # it waits for a new goal
    assert _write(servo, "Goal_Position", 2500, 4.0) is StatusError.NONE
    assert _read(servo, "Present_Position", 6.0) == 2500


def test_the_watchdog_rests_without_torque() -> None:
    servo = _servo()
    _write(servo, "Bus_Watchdog", 1)
    assert _read(servo, "Bus_Watchdog", 5.0) == 1


def test_overload_shuts_down_until_a_restart() -> None:
    servo = _servo()
    _write(servo, "Torque_Enable", 1)
    servo.overload()
    assert not servo.torque_enabled
    assert servo.status(StatusError.NONE) == ALERT
    assert _write(servo, "Torque_Enable", 1) is StatusError.RESULT_FAIL
    assert not servo.torque_enabled
    servo.power_cycle()
    assert _write(servo, "Torque_Enable", 1) is StatusError.NONE
    assert servo.status(StatusError.NONE) == 0


@pytest.mark.parametrize(("model", "shuts_down"), [(XL330_M288, True), (XL430_W250, False)])
def test_the_shutdown_register_decides_whether_a_low_voltage_ends_the_torque(model: Model, shuts_down: bool) -> None:
    servo = _servo(model=model)
    servo.brown_out()
    assert servo.status(StatusError.NONE) == ALERT
    assert (_write(servo, "Torque_Enable", 1) is StatusError.RESULT_FAIL) is shuts_down


def test_a_hand_moves_it_without_torque_and_against_a_limited_current() -> None:
    servo = _servo()
    _write(servo, "Torque_Enable", 1)
    assert not servo.set_position_by_hand(2500, 0.1)
    _write(servo, "Torque_Enable", 0, 0.1)
    _write(servo, "Operating_Mode", CURRENT_POSITION_MODE, 0.1)
    _write(servo, "Goal_Position", 2600, 0.1)
    _write(servo, "Torque_Enable", 1, 0.1)
    assert servo.set_position_by_hand(2200, 0.2)
    assert _read(servo, "Present_Position", 0.22) == 2200
    assert _read(servo, "Present_Position", 2.0) == 2600  # springs back once it is let go


def test_torque_on_goes_to_the_stale_goal() -> None:
    servo = _servo()
    _write(servo, "Goal_Position", 2315)
    assert _read(servo, "Present_Position", 1.0) == 2000
    _write(servo, "Torque_Enable", 1, 1.0)
    assert _read(servo, "Present_Position", 2.0) == 2315
