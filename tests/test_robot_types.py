"""What is said of arms and servos is what LeRobot's own classes do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lerobot.motors import Motor, MotorNormMode
from lerobot.motors.dynamixel import DynamixelMotorsBus
from lerobot.motors.feetech import FeetechMotorsBus
from lerobot.robots.koch_follower import KochFollower
from lerobot.robots.so_follower import SOFollower
from lerobot.teleoperators.koch_leader import KochLeader
from lerobot.teleoperators.so_leader import SOLeader

from lerobot_vla_plugin.arms.robot_types import DYNAMIXEL, FEETECH, JOINT_NAMES, device_type, servo_family

DEVICES = [SOFollower, SOLeader, KochFollower, KochLeader]
BUSES = {
    "feetech": (FEETECH, FeetechMotorsBus("", {"joint": Motor(1, "sts3215", MotorNormMode.DEGREES)})),
    "dynamixel": (DYNAMIXEL, DynamixelMotorsBus("", {"joint": Motor(1, "xl330-m288", MotorNormMode.DEGREES)})),
}


@pytest.mark.parametrize("device_class", DEVICES, ids=lambda device_class: device_class.__name__)
def test_names_folders_joints_and_servos_are_lerobots(device_class, tmp_path) -> None:
    config = device_class.config_class(port="", id="arm", calibration_dir=tmp_path)
    device = device_class(config)
    ours = device_type(config.type)
    assert ours == device_type(device.name)
    assert ours.name == device.name
    assert ours.folder == device_class.__module__.split(".")[1]
    assert tuple(device.bus.motors) == JOINT_NAMES
    assert ours.servos.inverts_in_software == device.bus.apply_drive_mode


@pytest.mark.parametrize("brand", BUSES)
@given(encoder_ticks=st.integers(0, 4095))
def test_the_homing_offset_moves_the_reading_the_way_lerobot_expects(brand: str, encoder_ticks: int) -> None:
    """LeRobot's offset for an arm in the middle of its range must make the servo report the middle."""
    servos, bus = BUSES[brand]
    offset = bus._get_half_turn_homings({"joint": encoder_ticks})["joint"]
    assert encoder_ticks + servos.homing_sign * offset == 2047


@pytest.mark.parametrize("brand", BUSES)
def test_the_largest_offset_fits_the_register_that_lerobot_writes(brand: str) -> None:
    servos, bus = BUSES[brand]
    for offset in (servos.largest_offset_ticks, -servos.largest_offset_ticks):
        encoded = bus._encode_sign("Homing_Offset", {1: offset})
        assert bus._decode_sign("Homing_Offset", encoded) == {1: offset}


def test_pairs_of_arms_have_the_servos_of_one() -> None:
    assert servo_family("bi_so_follower") is FEETECH
    with pytest.raises(ValueError, match=r"unknown arm 'aloha'; there are .*'koch'"):
        servo_family("bi_aloha")
