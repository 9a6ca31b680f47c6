"""`--env.type=so101_twin`: the tasks of the twin inside the process of `lerobot-eval`, as fast as the computer can."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from lerobot_vla_plugin.arms.arm_facts import SimulatedRobot
from lerobot_vla_plugin.arms.guard import GuardConfig
from lerobot_vla_plugin.arms.robot_types import JOINT_NAMES

if TYPE_CHECKING:
    import gymnasium as gym

INSTRUCTIONS = ("own", "other")


@EnvConfig.register_subclass("so101_twin")
@dataclass
class SO101TwinConfig(EnvConfig):
    """An SO-101 with two cubes, in MuJoCo; an episode's scene follows from its seed.

    Attributes:
        task: Names of the twin's tasks, separated by commas; each becomes a task of `lerobot-eval`.
        fps: Actions a second, in [Hz]: those of the training data.
        width: Width of the pictures, in [px].
        height: Height of the pictures, in [px].
        cameras: Which of "front" and "wrist".
        instruction: "own" names the cube that the seed draws, "other" the other one. The cube that is named is the one
            to be taken, so a policy that does not listen fails.
        shuffled_images: The pictures show the arm as it is, but the cubes, the bin and the light of another seed. A
            policy that looks fails.
        use_degrees: LeRobot's option of the follower: degrees, not percent.
        calibration: A LeRobot calibration file; the one that this package ships where left out.
        guard: Limits of the guard, as `--robot.guard`.
        renderer: One of the twin's renderers.
        report_dir: Where our own report goes, after every episode; no report where left out.

    Raises:
        ValueError: An option is none of those that exist.
    """

    task: str | None = "pick-lift"
    fps: int = 10
    width: int = 128
    height: int = 128
    cameras: list[str] = field(default_factory=lambda: ["front", "wrist"])
    instruction: str = "own"
    shuffled_images: bool = False
    use_degrees: bool = True
    calibration: Path | None = None
    guard: GuardConfig = field(default_factory=GuardConfig)
    renderer: str = "auto"
    report_dir: Path | None = None

    def __post_init__(self) -> None:
        # Not above: importing the plugin must not bring the twin.
        from lerobot_vla_plugin.envs.simulated_arm import steps_of_frame
        from lerobot_vla_plugin.twin.rendering import RENDERERS
        from lerobot_vla_plugin.twin.scenes import TASKS
        from lerobot_vla_plugin.twin.stage import CAMERAS

        _check_known("task", self.tasks, TASKS)
        _check_known("cameras", self.cameras, CAMERAS)
        _check_known("instruction", [self.instruction], INSTRUCTIONS)
        _check_known("renderer", [self.renderer], RENDERERS)
        steps_of_frame(self.fps)
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, (len(JOINT_NAMES),)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (len(JOINT_NAMES),)),
        }
        self.features_map = {ACTION: ACTION, "agent_pos": OBS_STATE}
        for camera in self.cameras:
            key = f"{OBS_IMAGES}.{camera}"
            self.features[key] = PolicyFeature(FeatureType.VISUAL, (self.height, self.width, 3))
            self.features_map[key] = key

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return [name.strip() for name in (self.task or "").split(",")]

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Nothing: no environment of gymnasium's registry is made."""
        return {}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> "dict[str, dict[int, gym.vector.VectorEnv]]":
        """Environments of every task, all in this process: they need no processes of their own to be fast.

        Args:
            n_envs: Worlds of a task.
            use_async_envs: Not followed: one report and one OpenGL context a process.

        Raises:
            ModuleNotFoundError: MuJoCo or the arm's model is not installed.
            FileExistsError: The report's folder has episodes of another evaluation.
            ContractMismatchError: A loaded policy was trained on another arm, unit, rate or other cameras.
        """
        from lerobot_vla_plugin.arms.contract import check_robot
        from lerobot_vla_plugin.envs.so101_twin import arm_of, make_vector_env
        from lerobot_vla_plugin.twin.arm_model import require_mujoco

        require_mujoco()
        announced = SimulatedRobot(arm_of(self))
        check_robot(announced)
        report = self._open_report()
        envs = {i: make_vector_env(self, task, n_envs, report, announced) for i, task in enumerate(self.tasks)}
        return {self.type: envs}

    def _open_report(self):
        from lerobot_vla_plugin.envs.episode_report import EpisodeReport

        return None if self.report_dir is None else EpisodeReport(self.report_dir)


def _check_known(option: str, values: list[str], known) -> None:
    if not values or any(value not in known for value in values):
        raise ValueError(f"--env.{option} must be of {list(known)}, got {values}")
