"""Angles of the simulated arm against LeRobot's units, through the ticks of a calibration."""

import numpy as np
import pytest

from lerobot_vla_plugin.arms.calibration import example_calibration
from lerobot_vla_plugin.arms.joints import JointConverter, joint_modes
from lerobot_vla_plugin.twin.arm_model import JOINTS
from lerobot_vla_plugin.twin.joint_map import JointMap

JAW_RAD = (-0.17, 1.75)
ARMS = [("so_follower", "so101_follower", True), ("koch_follower", "koch_follower", False)]


def arm(folder, name, inverts):
    calibration = example_calibration(folder, name)
    return calibration, JointMap(calibration, JAW_RAD, inverts_in_software=inverts)


@pytest.mark.parametrize("example", ARMS, ids=lambda example: example[1])
def test_every_tick_comes_back(example):
    calibration, joint_map = arm(*example)
    ranges = [(calibration[joint].range_min, calibration[joint].range_max) for joint in JOINTS]
    ticks = np.linspace([low for low, _ in ranges], [high for _, high in ranges], 4096)

    np.testing.assert_allclose(joint_map.to_exact_ticks(joint_map.to_rad(ticks)), ticks, atol=1e-9)


@pytest.mark.parametrize("example", ARMS, ids=lambda example: example[1])
def test_angles_are_lerobots_degrees_and_the_jaws_travel_its_percent(example):
    calibration, joint_map = arm(*example)
    converter = JointConverter(calibration, joint_modes(JOINTS, degrees=True), inverts_in_software=example[2])
    units = np.array([[10.0, -20.0, 30.0, -40.0, 5.0, 25.0], [-1.0, 2.0, -3.0, 4.0, -5.0, 100.0]])
    wanted_rad = np.deg2rad(units)
    wanted_rad[:, -1] = JAW_RAD[0] + units[:, -1] / 100 * (JAW_RAD[1] - JAW_RAD[0])

    np.testing.assert_allclose(joint_map.to_rad(converter.to_exact_ticks(units)), wanted_rad, atol=1e-9)


def test_a_jaw_told_to_close_beyond_its_stop_keeps_its_slope():
    _, joint_map = arm(*ARMS[0])
    closed, squeezed = joint_map.to_exact_ticks([[0, 0, 0, 0, 0, JAW_RAD[0]], [0, 0, 0, 0, 0, JAW_RAD[0] - 0.1]])

    assert (closed - squeezed)[-1] == pytest.approx(0.1 * joint_map.ticks_per_rad[-1])
