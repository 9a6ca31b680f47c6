"""What a checkpoint was trained on: written from a data set, held against an arm, refused where they differ."""

import contextlib
import gc
import logging

import pytest
from lerobot.cameras.zmq import ZMQCameraConfig
from lerobot.robots import Robot, RobotConfig
from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

from lerobot_vla_plugin.arms.calibration import example_calibration, example_calibration_dir, fingerprint
from lerobot_vla_plugin.arms.contract import ContractCheck, ContractMismatchError, check_robot, register_policy
from lerobot_vla_plugin.arms.contract_terms import ArmContract

JOINTS = [f"{name}.pos" for name in example_calibration("so_follower", "so101_follower")]
CAMERAS = {"front": [96, 128], "wrist": [96, 128]}


def make_contract(**changes) -> ArmContract:
    """The contract that `make_follower` fulfils."""
    calibration = example_calibration("so_follower", "so101_follower")
    facts = {
        "robot_type": "so_follower", "joint_names": JOINTS, "joint_unit": "degrees", "fps": 30.0, "cameras": CAMERAS,
        "calibration_fingerprint": fingerprint(calibration),
    }  # fmt: skip
    return ArmContract(**{**facts, **changes})


def make_follower(*, use_degrees: bool = True, cameras: dict = CAMERAS, robot_id: str = "so101_follower"):
    """LeRobot's SO-101 follower; nothing is opened before it connects."""
    views = {
        name: ZMQCameraConfig(
            server_address="127.0.0.1", port=5555, camera_name=name, height=height, width=width, fps=30
        )
        for name, (height, width) in cameras.items()
    }
    folder = example_calibration_dir("so_follower")
    config = SO101FollowerConfig(
        port="/dev/none", id=robot_id, calibration_dir=folder, use_degrees=use_degrees, cameras=views
    )
    return SO101Follower(config)


class ForeignRobot(Robot):
    """A robot of a third party, which shows neither servos nor calibration."""

    config_class = RobotConfig
    name = "foreign"
    is_connected = is_calibrated = False
    observation_features = action_features = dict.fromkeys(JOINTS, float)

    def __init__(self, folder):
        super().__init__(SO101FollowerConfig(port="/dev/none", calibration_dir=folder))

    def connect(self, calibrate=True):
        self.is_connected = True

    def disconnect(self):
        self.is_connected = False

    def calibrate(self): ...
    def configure(self): ...
    def get_observation(self): ...
    def send_action(self, action): ...


SWAPPED = [JOINTS[1], JOINTS[0], *JOINTS[2:]]
MISMATCHES = [
    ("robot_type", {"robot_type": "koch_follower"}, "trained on koch_follower, this is so_follower"),
    ("joints", {"joint_names": SWAPPED}, "the same joints in another order: trained on ['shoulder_lift"),
    ("joints", {"joint_names": JOINTS[:5]}, "other joints"),
    ("unit", {"joint_unit": "percent"}, "set to degrees; run the arm with --robot.use_degrees=false"),
    ("cameras", {"cameras": {"top": [96, 128]}}, "trained on top 128x96, the arm has front 128x96"),
    ("cameras", {"cameras": {"front": [48, 64]}}, "trained on front 64x48"),
]


@pytest.fixture(scope="class")
def alone():
    """No policy or arm of another test is left, and the garbage collector looks at the tests' own objects only."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("alone")
class TestMeeting:
    def test_an_arm_that_fits(self, caplog):
        caplog.set_level(logging.INFO)
        policy = ContractCheck(make_contract())
        register_policy(policy)
        check_robot(make_follower())
        assert caplog.text.count(": fits:") == 5
        assert "fps: to be seen: --fps=30 is expected" in caplog.text
        assert not [r for r in caplog.records if r.levelno > logging.INFO]

    @pytest.mark.parametrize(("term", "change", "message"), MISMATCHES)
    def test_a_mismatch_is_refused_and_can_be_overridden(self, term, change, message, caplog):
        contract = make_contract(**change)
        policy = ContractCheck(contract)
        register_policy(policy)
        with pytest.raises(ContractMismatchError) as error:
            check_robot(make_follower())
        assert message in str(error.value)
        assert f"--policy.contract_overrides='[\"{term}\"]'" in str(error.value)
        del policy, error
        policy = ContractCheck(contract, overrides=[term])
        register_policy(policy)
        check_robot(make_follower())
        assert "[overridden]" in caplog.text

    def test_another_unit_on_the_arm(self):
        policy = ContractCheck(make_contract())
        register_policy(policy)
        with pytest.raises(ContractMismatchError, match=r"--robot\.use_degrees=true"):
            check_robot(make_follower(use_degrees=False))

    def test_another_calibration_is_explained_not_refused(self, caplog):
        contract = make_contract(calibration_fingerprint="0" * 16, ranges_deg={"elbow_flex": 100.0})
        policy = ContractCheck(contract)
        register_policy(policy)
        check_robot(make_follower())
        assert "0 degrees, the middle of a joint's range, may lie elsewhere" in caplog.text
        assert "deg here, 100 there" in caplog.text

    def test_more_cameras_than_trained_on_are_no_mismatch(self):
        policy = ContractCheck(make_contract(cameras={"front": [96, 128]}))
        register_policy(policy)
        check_robot(make_follower())

    def test_an_unknown_unit_is_asked_for_and_the_answer_is_taken(self):
        contract = make_contract(joint_unit="unknown")
        policy = ContractCheck(contract)
        register_policy(policy)
        with pytest.raises(ContractMismatchError, match=r"say --policy\.joint_unit=degrees or"):
            check_robot(make_follower())
        del policy
        policy = ContractCheck(contract, "degrees")
        register_policy(policy)
        check_robot(make_follower())

    def test_a_checkpoint_without_a_contract_is_asked_for_its_unit_only(self, caplog):
        policy = ContractCheck(None, "degrees")
        register_policy(policy)
        check_robot(make_follower())
        assert caplog.text.count("NOT CHECKED") == 5

    @pytest.mark.parametrize(
        ("contract", "message"),
        [
            (make_contract(), "it was trained in degrees"),
            (make_contract(joint_unit="unknown", spans={"elbow_flex.pos": [-10, 130]}), "percent never leaves"),
        ],
    )
    def test_an_answer_that_cannot_be_true_is_refused(self, contract, message):
        with pytest.raises(ContractMismatchError, match=message):
            ContractCheck(contract, "percent")
        assert ContractCheck(contract, "percent", ["unit"]).contract.joint_unit == "percent"

    def test_a_garbage_policy_binds_nobody(self):
        policy = ContractCheck(make_contract(robot_type="koch_follower"))
        policy.myself = policy  # only the garbage collector finds it
        register_policy(policy)
        del policy
        check_robot(make_follower())

    def test_one_fitting_policy_among_several_is_enough_and_the_others_may_not_act(self, tmp_path):
        policies = [ContractCheck(make_contract(robot_type=name, cameras={})) for name in ("so_follower", "foreign")]
        for policy in policies:
            register_policy(policy)
        robot = ForeignRobot(tmp_path)
        check_robot(robot)
        robot.connect()
        policies[1].before_action(plans=True)
        with pytest.raises(ContractMismatchError, match="trained on so_follower"):
            policies[0].before_action(plans=True)
        robot.disconnect()

    def test_a_garbage_policy_that_fits_hides_no_mismatch(self):
        stale = ContractCheck(make_contract())
        stale.myself = stale
        register_policy(stale)
        del stale
        policy = ContractCheck(make_contract(joint_unit="percent"))
        register_policy(policy)
        with pytest.raises(ContractMismatchError, match="trained in percent"):
            check_robot(make_follower())

    def test_the_policy_may_come_second(self, tmp_path):
        robot = ForeignRobot(tmp_path)
        check_robot(robot)
        robot.connect()
        with pytest.raises(ContractMismatchError, match="this is foreign"):
            register_policy(ContractCheck(make_contract()))
        robot.disconnect()
        register_policy(ContractCheck(make_contract()))

    def test_before_the_first_action_a_policy_looks_for_arms_by_itself(self, tmp_path):
        policy = ContractCheck(make_contract())
        policy.before_action(plans=True)  # a simulator: no arm, no check
        robot = ForeignRobot(tmp_path)
        robot.connect()
        policy.before_action(plans=False)
        policy.start_episode()
        for _ in range(2):  # whoever goes on all the same is refused again
            with pytest.raises(ContractMismatchError, match="trained on so_follower, this is foreign"):
                policy.before_action(plans=True)
        robot.disconnect()

    def test_among_several_connected_arms_one_must_fit(self, tmp_path):
        robots = [ForeignRobot(tmp_path), ForeignRobot(tmp_path)]
        robots[0].name = "another"
        for robot in robots:
            robot.connect()
        ContractCheck(make_contract(robot_type="foreign")).before_action(plans=True)
        robots[1].disconnect()
        with pytest.raises(ContractMismatchError, match="this is another"):
            ContractCheck(make_contract(robot_type="foreign")).before_action(plans=True)
        robots[0].disconnect()

    def test_a_wrong_rate_is_refused_again_and_again_unless_overridden(self, tmp_path, caplog):
        robot = ForeignRobot(tmp_path)
        robot.connect()
        policy = ContractCheck(make_contract(robot_type="foreign"))
        free = ContractCheck(make_contract(robot_type="foreign"), overrides=["fps"])
        for check in (policy, free):
            for _ in range(17):
                with contextlib.suppress(ContractMismatchError):
                    check.before_action(plans=False)
        for _ in range(2):
            with pytest.raises(ContractMismatchError, match="trained at 30 actions a second, asked for"):
                policy.before_action(plans=False)
            free.before_action(plans=False)
        assert caplog.text.count("[overridden]") == 1
        robot.disconnect()
