"""Dynamixel servos as motors of a Koch with physics: what registers, turns, faults and calibrations do to it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("mink")

from lerobot.robots.koch_follower import KochFollower, KochFollowerConfig
from lerobot.teleoperators.koch_leader import KochLeader, KochLeaderConfig

from lerobot_vla_plugin.arms.calibration import JointCalibration, example_calibration, example_calibration_dir
from lerobot_vla_plugin.twin.arm_model import JOINTS
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.control import TwinControl
from lerobot_vla_plugin.twin.driven_arm import DrivenArm
from lerobot_vla_plugin.twin.driven_dynamixel import DrivenDynamixelServo
from lerobot_vla_plugin.twin.dynamixel import StatusError
from lerobot_vla_plugin.twin.joint_map import JointMap
from lerobot_vla_plugin.twin.koch import FOLLOWER_MODELS, KochTwin, make_koch_bus
from lerobot_vla_plugin.twin.koch_model import KOCH
from lerobot_vla_plugin.twin.scenes import draw_layout
from lerobot_vla_plugin.twin.twin_config import TwinConfig
from lerobot_vla_plugin.twin.world import World
from lerobot_vla_plugin.twin.world_model import STEPS_PER_S

EXAMPLE = example_calibration("koch_follower", "koch_follower")
# As if the servos had been put on otherwise, and two of them counted backwards.
OTHER = {
    joint: replace(c, homing_offset=1500 - c.homing_offset, range_min=c.range_min + 60, range_max=c.range_max - 200)
    for joint, c in EXAMPLE.items()
}
OTHER |= {joint: replace(OTHER[joint], drive_mode=1) for joint in ("elbow_flex", "gripper")}
LAYOUT = draw_layout("pick-lift", 0)


class Arm:
    """World, bus and what lies between, with what the tests ask of them; the servos' time is the world's."""

    def __init__(self, world: World, calibration: dict[str, JointCalibration]) -> None:
        self.world = world
        self.map = JointMap(calibration, world.joint_limits_rad[-1], inverts_in_software=False)
        ticks, kind = dict.fromkeys(JOINTS, 2000), DrivenDynamixelServo
        self.bus = make_koch_bus(FOLLOWER_MODELS, calibration, ticks, clock=lambda: world.time_s, servo=kind)
        self.driven = DrivenArm(world, self.bus, calibration, inverts_in_software=False)
        self.driven.reset(LAYOUT)
        self.write("gripper", "Operating_Mode", 5)
        for name, value in {"Position_P_Gain": 1500, "Position_I_Gain": 0, "Position_D_Gain": 600}.items():
            self.write("elbow_flex", name, value)
        for joint in JOINTS:
            self.write(joint, "Torque_Enable", 1)

    def write(self, joint: str, name: str, value: int) -> None:
        """As a host does."""
        row = FOLLOWER_MODELS[joint].registers[name]
        with self.bus.servos() as servos:
            assert servos[joint].write(row.address, row.encode(value), self.world.time_s) is StatusError.NONE

    def read(self, joint: str, name: str) -> int:
        """As a host does."""
        row = FOLLOWER_MODELS[joint].registers[name]
        with self.bus.servos() as servos:
            return row.decode(servos[joint].read(row.address, row.length, self.world.time_s))

    def send(self, goal_rad: np.ndarray) -> None:
        """Write all goals."""
        for joint, goal in zip(JOINTS, np.rint(self.map.to_exact_ticks(goal_rad)).astype(int).tolist(), strict=True):
            self.write(joint, "Goal_Position", goal)

    def ticks(self) -> np.ndarray:
        """Where the servos say that they stand."""
        return np.array([self.read(joint, "Present_Position") for joint in JOINTS])


@pytest.fixture(scope="module")
def world() -> World:
    return World(KOCH, visual=False)


@pytest.fixture(params=[EXAMPLE, OTHER], ids=["example", "other"])
def arm(world: World, request: pytest.FixtureRequest) -> Arm:
    return Arm(world, request.param)


def test_goals_in_ticks_bring_the_arm_to_the_angles_that_the_calibration_says(arm: Arm) -> None:
    goal_rad = KOCH.start_rad + np.array([0.4, 0.3, -0.3, -0.4, 0.5, 0.6])
    arm.send(goal_rad)
    arm.driven.step(600)
    np.testing.assert_allclose(arm.world.joints_rad, goal_rad, atol=0.1)
    np.testing.assert_array_equal(arm.ticks(), np.rint(arm.map.to_exact_ticks(arm.world.joints_rad)))


def test_every_calibration_moves_the_same_arm(world: World) -> None:
    ends = []
    for calibration in (EXAMPLE, OTHER):
        arm = Arm(world, calibration)
        arm.send(KOCH.start_rad + 0.3)
        arm.driven.step(300)
        ends.append(world.joints_rad)
    np.testing.assert_allclose(*ends, atol=0.02)


def test_the_reset_puts_positions_and_goals_at_the_start_and_leaves_torque_alone(arm: Arm) -> None:
    arm.write("elbow_flex", "Torque_Enable", 0)
    arm.send(KOCH.start_rad + 0.4)
    arm.driven.step(200)
    arm.driven.reset(LAYOUT)
    np.testing.assert_allclose(arm.ticks(), arm.map.to_exact_ticks(KOCH.start_rad), atol=0.5 + 1e-9)
    np.testing.assert_array_equal(list(arm.bus.registers("Goal_Position").values()), arm.ticks())
    assert [joint for joint, on in arm.bus.torque_enabled().items() if not on] == ["elbow_flex"]


def test_a_servo_that_forgets_its_turns_counts_otherwise_and_moves_the_same_link(world: World) -> None:
    """As after a power cycle: whole turns are lost, and the goal is where it stands."""
    arm = Arm(world, {joint: replace(c, homing_offset=c.homing_offset + 4096) for joint, c in EXAMPLE.items()})
    arm.driven.step(300)
    before_rad, before_ticks = world.joints_rad, arm.ticks()
    with arm.bus.servos() as servos:
        servos["shoulder_pan"].power_cycle()
    arm.write("shoulder_pan", "Torque_Enable", 1)
    arm.driven.step(300)
    assert (arm.ticks()[0] - before_ticks[0]) % 4096 in (0, 1, 4095)
    assert abs(arm.ticks()[0] - before_ticks[0]) > 4000
    np.testing.assert_allclose(world.joints_rad[0], before_rad[0], atol=0.01)
    arm.write("shoulder_pan", "Goal_Position", int(arm.ticks()[0]) + 200)
    arm.driven.step(300)
    turned_ticks = (world.joints_rad[0] - before_rad[0]) * arm.map.ticks_per_rad[0]
    assert turned_ticks == pytest.approx(200, abs=10)


def test_without_torque_the_arm_falls(arm: Arm) -> None:
    height_m = arm.world.data.body("gripper").xpos[2]
    for joint in JOINTS:
        arm.write(joint, "Torque_Enable", 0)
    arm.driven.step(600)
    assert arm.world.data.body("gripper").xpos[2] < height_m - 0.03
    assert {arm.read(joint, "Present_PWM") for joint in JOINTS} == {0}


def test_registers_decide_how_hard_a_motor_tries(arm: Arm) -> None:
    """The forearm bends less under its weight with a larger gain, and falls without enough PWM."""
    errors = {}
    for name, value in {"Position_P_Gain": 3000, "Goal_PWM": 885, "PWM_Limit": 20}.items():
        arm.driven.reset(LAYOUT)
        arm.write("elbow_flex", "Torque_Enable", 0)  # PWM_Limit is locked otherwise
        arm.write("elbow_flex", name, value)
        arm.write("elbow_flex", "Torque_Enable", 1)
        arm.driven.step(300)
        errors[name] = abs(arm.world.joints_rad[2] - KOCH.start_rad[2])
        arm.write("elbow_flex", "Position_P_Gain", 1500)
    assert errors["Position_P_Gain"] < 0.8 * errors["Goal_PWM"]
    assert errors["PWM_Limit"] > 2 * errors["Goal_PWM"]


def test_the_current_limits_the_gripper_in_current_based_position_mode_only(arm: Arm) -> None:
    arm.write("gripper", "Goal_Current", 147)  # a tenth of what it takes at a standstill
    arm.write("wrist_flex", "Goal_Current", 147)
    arm.world.jam([True] * 6)
    arm.send(KOCH.start_rad + 1.0)
    arm.driven.step(30)
    torques_nm, current_ma = np.abs(arm.world.torques_nm), arm.read("gripper", "Present_Current")
    arm.world.jam([False] * 6)
    assert torques_nm[5] == pytest.approx(0.052)
    assert torques_nm[3] == pytest.approx(0.52)
    assert abs(current_ma) == 147


def test_load_and_speed_have_the_sign_of_the_servos_count(arm: Arm) -> None:
    """Also of one that counts backwards: it pushes towards larger positions while they grow."""
    arm.send(KOCH.start_rad)
    for joint in ("shoulder_pan", "elbow_flex", "gripper"):
        arm.write(joint, "Goal_Position", arm.read(joint, "Present_Position") + 300)
    arm.driven.step(15)
    for joint in ("shoulder_pan", "elbow_flex", "gripper"):
        assert arm.read(joint, "Present_Velocity") > 5, joint
    load = arm.read("shoulder_pan", "Present_Load")  # of 1000; the PWM is of 885
    assert arm.read("shoulder_pan", "Present_PWM") == pytest.approx(load * 0.885, abs=1)


def test_the_watchdog_stops_the_arm_where_it_is(arm: Arm) -> None:
    with arm.bus.servos() as servos:
        for servo in servos.values():
            servo.hear(arm.world.time_s)
    arm.write("shoulder_pan", "Bus_Watchdog", 5)  # of 20 ms
    arm.send(KOCH.start_rad + 1.5 * np.eye(6)[0])
    arm.driven.step(30)
    stopped_at = arm.read("shoulder_pan", "Present_Position")
    for _ in range(20):
        arm.driven.step(15)
        arm.read("shoulder_pan", "Present_Position")
    assert abs(arm.read("shoulder_pan", "Present_Position") - stopped_at) < 300
    assert abs(arm.read("shoulder_pan", "Goal_Position") - stopped_at) > 500
    assert arm.read("shoulder_pan", "Bus_Watchdog") == -1


# The whole twin --------------------------------------------------------------------------------------------


@pytest.fixture
def control(tmp_path: Path) -> Iterator[TwinControl]:
    cameras = CameraConfig(width=32, height=24, renderer="drawing")
    config = TwinConfig(cameras=cameras, directory=tmp_path, task="pick-lift", lock_step=True)
    with KochTwin(config), TwinControl(tmp_path) as control:
        yield control


@pytest.mark.usefixtures("patience")
def test_lerobots_own_arms_do_the_task(control: TwinControl) -> None:
    assert control.facts.arm == "koch"
    port, folder = str(control.facts.follower_port), example_calibration_dir
    follower = KochFollower(KochFollowerConfig(port=port, id="koch_follower", calibration_dir=folder("koch_follower")))
    port = str(control.facts.leader_port)
    leader = KochLeader(KochLeaderConfig(port=port, id="koch_leader", calibration_dir=folder("koch_leader")))
    leader.connect(calibrate=False)
    follower.connect(calibrate=False)
    scene, verdict = control.reset("pick-lift", 5), control.verdict()
    assert list(scene.start_rad.values()) == KOCH.start_rad.tolist()
    while not verdict.success and verdict.seconds < scene.time_limit_s:
        follower.send_action(leader.get_action())
        follower.get_observation()  # a reply says that the goals before it have arrived
        control.advance(STEPS_PER_S // 15)
        verdict = control.verdict()
    follower.disconnect()
    leader.disconnect()
    assert verdict.success, verdict
