"""Our leaders on emulated buses."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from arms_on_twins import LEROBOTS, OURS, ArmOnTwin
from lerobot.teleoperators import make_teleoperator_from_config

from lerobot_vla_plugin.arms.leaders import KochVLALeader, SO101VLALeader
from lerobot_vla_plugin.twin.faults import Fault, FaultKind

# Under torque while connected: a Koch leader's gripper is a trigger that springs back.
UNDER_TORQUE = {"so101": [], "koch": ["gripper"]}


@pytest.fixture(params=["so101", "koch"])
def arm(request: pytest.FixtureRequest) -> Iterator[ArmOnTwin]:
    with ArmOnTwin(request.param, "leader") as arm:
        yield arm


@pytest.mark.parametrize(
    ("kind", "device_class", "name"),
    [("so101", SO101VLALeader, "so_leader"), ("koch", KochVLALeader, "koch_leader")],
)
def test_lerobot_finds_the_device_of_each_type(kind: str, device_class: type, name: str, tmp_path: Path) -> None:
    leader = make_teleoperator_from_config(OURS[kind, "leader"](port="/dev/null", id="arm", calibration_dir=tmp_path))
    assert type(leader) is device_class
    assert leader.name == name


@pytest.mark.usefixtures("patience")
def test_everything_that_describes_the_arm_is_lerobots(arm: ArmOnTwin) -> None:
    ours, lerobots = arm.device(), arm.device(LEROBOTS)
    assert ours.action_features == lerobots.action_features
    assert ours.feedback_features == lerobots.feedback_features
    assert ours.calibration == lerobots.calibration
    assert ours.bus.motors == lerobots.bus.motors


def test_readings_are_those_of_the_ticks(arm: ArmOnTwin) -> None:
    leader = arm.device()
    leader.connect()
    assert arm.has_torque() == UNDER_TORQUE[arm.kind]
    generator = np.random.default_rng(0)
    for _ in range(10):
        ticks = {name: int(generator.integers(j.range_min, j.range_max + 1)) for name, j in arm.calibration.items()}
        arm.bus.teleport(ticks)
        assert leader.get_action() == arm.action(ticks)
    leader.disconnect()
    assert not arm.has_torque()


def test_an_so101_leader_can_be_read_in_percent() -> None:
    with ArmOnTwin("so101", "leader") as arm:
        leader = arm.device(use_degrees=False)
        leader.connect()
        assert leader.get_action() == arm.action(arm.middle, degrees=False)
        leader.disconnect()


def test_a_leader_under_torque_is_released_in_the_end(arm: ArmOnTwin) -> None:
    leader = arm.device()
    leader.connect()
    leader.bus.enable_torque()
    assert arm.has_torque() == list(arm.middle)
    leader.disconnect()
    assert not arm.has_torque()


def test_a_dead_motor_does_not_keep_torque_or_port(arm: ArmOnTwin) -> None:
    leader = arm.device()
    leader.connect()
    leader.bus.enable_torque()
    arm.bus.inject(Fault(FaultKind.MOTOR_GONE, joint="shoulder_pan", count=1))
    with pytest.raises(ConnectionError, match="shoulder_pan"):
        leader.get_action()
    with pytest.raises(ConnectionError, match="shoulder_pan"):
        leader.disconnect()
    assert set(arm.has_torque()) <= {"shoulder_pan"}
    assert not leader.bus.is_connected


@pytest.mark.parametrize("reconnect", [True, False])
def test_a_leader_that_is_plugged_in_again(arm: ArmOnTwin, reconnect: bool) -> None:
    leader = arm.device(reconnect=reconnect)
    leader.connect()
    before = leader.get_action()
    arm.bus.replug()
    if reconnect:
        assert leader.get_action() == before
        assert arm.has_torque() == UNDER_TORQUE[arm.kind]
    else:
        with pytest.raises(ConnectionError, match="gone"):
            leader.get_action()
    leader.disconnect()
    assert not leader.bus.is_connected
    assert not arm.has_torque()
