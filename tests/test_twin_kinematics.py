"""Inverse kinematics: over the whole region to a millimetre, inverse of the forward kinematics, clear outside."""

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("mink")

from lerobot_vla_plugin.twin.arm_model import PAN_AXIS_M, ArmModel
from lerobot_vla_plugin.twin.kinematics import Kinematics, UnreachableError, azimuth_rad
from lerobot_vla_plugin.twin.koch_model import KOCH
from lerobot_vla_plugin.twin.scenes import AZIMUTH_DEG, REACH_M
from lerobot_vla_plugin.twin.so101_model import SO101
from lerobot_vla_plugin.twin.world import World


@pytest.fixture(scope="module")
def kinematics() -> Kinematics:
    return Kinematics()


@pytest.mark.parametrize("arm", [SO101, KOCH], ids=["so101", "koch"])
def test_every_place_of_the_region_is_reached_to_a_millimetre(arm: ArmModel) -> None:
    kinematics = Kinematics(arm)
    for reach_m in np.linspace(*REACH_M, 5):
        for azimuth in np.deg2rad(np.linspace(*AZIMUTH_DEG, 5)):
            for height_m in (0.017, 0.1):
                for roll in np.pi / 2 + np.array([-np.pi / 4, 0, np.pi / 4]):
                    place = [PAN_AXIS_M + reach_m * np.cos(azimuth), reach_m * np.sin(azimuth), height_m]
                    posture = kinematics.solve(place, azimuth + roll)
                    assert np.linalg.norm(kinematics.grasp_m(posture) - place) < 1e-3
                    assert azimuth_rad(place) == pytest.approx(azimuth)


def test_the_jaws_close_in_the_direction_that_was_asked_for(kinematics: Kinematics) -> None:
    world = World(visual=False)
    for yaw_rad in (0.9, 1.5, 2.2):
        posture = kinematics.solve([0.22, 0.0, 0.02], yaw_rad)
        world.data.qpos[:5] = posture
        world.step(0)
        jaws = world.data.body("gripper").xmat.reshape(3, 3)[:, 0]
        assert np.arctan2(jaws[1], jaws[0]) == pytest.approx(yaw_rad, abs=np.deg2rad(3))


def test_the_same_question_has_the_same_answer(kinematics: Kinematics) -> None:
    first = kinematics.solve([0.2, 0.05, 0.03], 1.5)
    kinematics.solve([0.25, -0.1, 0.1], 1.0)
    np.testing.assert_array_equal(kinematics.solve([0.2, 0.05, 0.03], 1.5), first)


@pytest.mark.parametrize("place", [(0.6, 0.0, 0.02), (-0.2, 0.0, 0.1), (0.2, 0.0, 0.6), (np.nan, 0.0, 0.0)])
def test_places_out_of_reach_are_refused(kinematics: Kinematics, place: tuple[float, float, float]) -> None:
    with pytest.raises(UnreachableError, match=r"mm away.*0\.12, 0\.26"):
        kinematics.solve(place, 1.5)


def test_gravity_is_what_holds_the_arm_still(kinematics: Kinematics) -> None:
    upright = kinematics.gravity_nm(np.zeros(6))
    assert upright[0] == pytest.approx(0, abs=1e-9)  # the pan's axis is vertical
    stretched = kinematics.gravity_nm([0.0, 1.0, -0.5, 0.0, 0.0, 0.0])
    assert 0.3 < np.abs(stretched).max() < 1.9


def test_without_mink_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lerobot_vla_plugin.twin.kinematics.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"mink.*\[twin\]"):
        Kinematics()
