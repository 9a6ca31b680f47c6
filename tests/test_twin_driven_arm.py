"""Servos as motors of an arm with physics: what registers, faults and calibrations do to it."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco")

from lerobot_vla_plugin.arms.calibration import JointCalibration, example_calibration
from lerobot_vla_plugin.twin.arm_model import JOINTS
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.driven_arm import DrivenArm
from lerobot_vla_plugin.twin.driven_servo import DrivenServo
from lerobot_vla_plugin.twin.faults import Fault, FaultKind
from lerobot_vla_plugin.twin.feetech import STS3215_REGISTERS, Instruction, Packet
from lerobot_vla_plugin.twin.joint_map import JointMap
from lerobot_vla_plugin.twin.scenes import draw_layout
from lerobot_vla_plugin.twin.so101 import make_so101_bus
from lerobot_vla_plugin.twin.so101_model import SO101
from lerobot_vla_plugin.twin.world import World

EXAMPLE = example_calibration("so_follower", "so101_follower")
# As if the servos had been put on otherwise, and two of them turned round.
OTHER = {
    joint: replace(c, homing_offset=-c.homing_offset + 100, range_min=c.range_min + 60, range_max=c.range_max - 200)
    for joint, c in EXAMPLE.items()
} | {"gripper": replace(EXAMPLE["gripper"], drive_mode=1, range_min=900, range_max=2100)}
LAYOUT = draw_layout("pick-lift", 0)


class Arm:
    """World, bus and what lies between, with what the tests ask of them."""

    def __init__(self, world: World, calibration: dict[str, JointCalibration]) -> None:
        self.world = world
        self.map = JointMap(calibration, world.joint_limits_rad[-1], inverts_in_software=True)
        self.bus: ServoBus = make_so101_bus(calibration, dict.fromkeys(JOINTS, 2000), servo=DrivenServo)
        self.driven = DrivenArm(world, self.bus, calibration, inverts_in_software=True)
        self.driven.reset(LAYOUT)
        for joint in JOINTS:
            for name, value in {"P_Coefficient": 16, "Torque_Enable": 1}.items():
                self.write(joint, name, value)
        self.write("gripper", "Max_Torque_Limit", 500)

    def write(self, joint: str, name: str, value: int) -> None:
        """Over the protocol."""
        row = STS3215_REGISTERS[name]
        data = bytes([row.address]) + row.encode(value)
        self.ask(Packet(self.bus.registers("ID")[joint], Instruction.WRITE, data))

    def ask(self, packet: Packet) -> list[bytes]:
        """Replies as they come over the wire, faults included; without a port."""
        sent: list[bytes] = []
        self.bus._port = type("Port", (), {"send": lambda _, data, due_s: sent.append(data)})()
        self.bus._answer(packet)
        return sent

    def strike(self, kind: FaultKind, joint: str) -> None:
        """A fault hits the next reply of a joint."""
        self.bus.inject(Fault(kind, joint=joint, count=1))
        self.ask(Packet(self.bus.registers("ID")[joint], Instruction.PING))

    def send(self, goal_rad: np.ndarray) -> None:
        """Write all goals."""
        for joint, goal in zip(JOINTS, np.rint(self.map.to_exact_ticks(goal_rad)).astype(int).tolist(), strict=True):
            self.write(joint, "Goal_Position", goal)

    def ticks(self) -> np.ndarray:
        """Where the servos say that they stand."""
        return np.array(list(self.bus.positions_ticks().values()))


@pytest.fixture(scope="module")
def world() -> World:
    return World(visual=False)


@pytest.fixture(params=[EXAMPLE, OTHER], ids=["example", "other"])
def arm(world: World, request: pytest.FixtureRequest):
    yield Arm(world, request.param)
    world.jam([False] * 6)


def test_goals_in_ticks_bring_the_arm_to_the_angles_that_the_calibration_says(arm: Arm) -> None:
    goal_rad = SO101.start_rad + np.array([0.4, 0.3, -0.3, -0.4, 0.5, 0.6])
    arm.send(goal_rad)
    arm.driven.step(600)
    # Gravity bends the arm by its torque over the gain.
    np.testing.assert_allclose(arm.world.joints_rad, goal_rad, atol=0.15)
    np.testing.assert_array_equal(arm.ticks(), np.rint(arm.map.to_exact_ticks(arm.world.joints_rad)))


def test_every_calibration_moves_the_same_arm(world: World) -> None:
    """To the tick: encoders count in other places, so that the motions are not the same to the bit."""
    ends = []
    for calibration in (EXAMPLE, OTHER):
        arm = Arm(world, calibration)
        arm.send(SO101.start_rad + 0.3)
        arm.driven.step(300)
        ends.append(world.joints_rad)
    np.testing.assert_allclose(*ends, atol=0.01)


def test_a_servo_whose_middle_is_set_anew_counts_otherwise_and_stays_where_it_is(arm: Arm) -> None:
    before_rad = arm.world.joints_rad[0]
    arm.write("shoulder_pan", "Torque_Enable", 128)  # Feetech's command: here is the middle of the turn
    assert arm.bus.positions_ticks()["shoulder_pan"] == 2048
    arm.write("shoulder_pan", "Goal_Position", 2048 + 100)
    arm.driven.step(300)
    assert arm.bus.positions_ticks()["shoulder_pan"] == pytest.approx(2148, abs=10)
    turned_ticks = (arm.world.joints_rad[0] - before_rad) * arm.map.ticks_per_rad[0]
    assert turned_ticks == pytest.approx(100, abs=10)


def test_the_reset_puts_positions_and_goals_at_the_start_and_leaves_torque_alone(arm: Arm) -> None:
    arm.write("elbow_flex", "Torque_Enable", 0)
    arm.send(SO101.start_rad + 0.4)
    arm.driven.step(200)
    arm.driven.reset(LAYOUT)
    np.testing.assert_allclose(arm.ticks(), arm.map.to_exact_ticks(SO101.start_rad), atol=0.5 + 1e-9)
    np.testing.assert_array_equal(list(arm.bus.registers("Goal_Position").values()), arm.ticks())
    assert [joint for joint, on in arm.bus.torque_enabled().items() if not on] == ["elbow_flex"]


def test_without_torque_the_arm_falls(arm: Arm) -> None:
    height_m = arm.world.data.body("gripper").xpos[2]
    for joint in JOINTS:
        arm.write(joint, "Torque_Enable", 0)
    arm.driven.step(600)
    assert arm.world.data.body("gripper").xpos[2] < height_m - 0.03
    assert set(arm.bus.registers("Present_Load").values()) == {0}


def test_registers_decide_how_hard_a_motor_tries(arm: Arm) -> None:
    """The forearm bends less under its weight with a larger gain, and not with no torque to give."""
    errors = {}
    for name, value in {"P_Coefficient": 32, "Torque_Limit": 1000, "Max_Torque_Limit": 20}.items():
        arm.driven.reset(LAYOUT)
        arm.write("elbow_flex", name, value)
        arm.driven.step(300)
        errors[name] = abs(arm.world.joints_rad[2] - SO101.start_rad[2])
        arm.write("elbow_flex", "P_Coefficient", 16)
    assert errors["P_Coefficient"] < 0.7 * errors["Torque_Limit"]
    assert errors["Max_Torque_Limit"] > 2 * errors["Torque_Limit"]


def test_the_load_is_the_duty_of_the_motor(arm: Arm) -> None:
    arm.driven.step(300)
    with arm.bus.servos() as servos:
        for servo in servos.values():
            servo.read(STS3215_REGISTERS["Present_Load"].address, 2, 0.0)
    loads, torques = arm.bus.registers("Present_Load"), arm.world.torques_nm
    for index, joint in enumerate(JOINTS):
        assert abs(loads[joint]) == pytest.approx(abs(torques[index]) / 1.9 * 1000, abs=1)
    assert abs(loads["elbow_flex"]) > 20


def test_a_jammed_joint_stays_and_says_where(arm: Arm) -> None:
    arm.driven.step(300)
    arm.strike(FaultKind.STUCK, "shoulder_pan")
    before = arm.bus.positions_ticks()["shoulder_pan"]
    arm.send(SO101.start_rad + 0.5 * np.eye(6)[0])
    arm.driven.step(300)
    assert arm.bus.positions_ticks()["shoulder_pan"] == before
    arm.bus.clear_faults()
    arm.driven.step(300)
    assert abs(arm.bus.positions_ticks()["shoulder_pan"] - before) > 200


@pytest.mark.parametrize("kind", [FaultKind.OVERLOAD, FaultKind.BROWN_OUT, FaultKind.MOTOR_GONE])
def test_a_motor_that_fails_lets_its_link_fall_until_it_is_switched_on_again(arm: Arm, kind: FaultKind) -> None:
    arm.send(SO101.start_rad)
    arm.driven.step(100)
    held_rad = arm.world.joints_rad[2]
    arm.strike(kind, "elbow_flex")
    arm.driven.step(200)
    assert abs(arm.world.joints_rad[2] - held_rad) > 0.1
    assert arm.world.torques_nm[2] == 0
    arm.bus.clear_faults()
    arm.write("elbow_flex", "Torque_Enable", 1)
    arm.driven.step(1)
    # A plug that comes back finds the goal where the link hangs now; the others still have the one from before.
    assert (abs(arm.world.torques_nm[2]) < 0.01) == (kind is FaultKind.MOTOR_GONE)


def test_a_servo_of_the_world_cannot_be_put_elsewhere(arm: Arm) -> None:
    assert not arm.bus.set_positions_by_hand({"wrist_roll": 1000})
    with pytest.raises(RuntimeError, match="lay a new scene"):
        arm.bus.teleport({"wrist_roll": 1000})
