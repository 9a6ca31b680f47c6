"""`--env.type=physical_arm`: options of `lerobot-eval` on an arm, real or a twin's.

`lerobot-eval` imports neither robots nor cameras, so their types are registered here.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lerobot.cameras import opencv, realsense, zmq
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig
from lerobot.robots import (
    RobotConfig,
    bi_openarm_follower,
    bi_rebot_b601_follower,
    bi_so_follower,
    koch_follower,
    omx_follower,
    openarm_follower,
    rebot_b601_follower,
    so_follower,
)
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

if TYPE_CHECKING:
    import gymnasium as gym

    from lerobot_vla_plugin.envs.evaluated_arm import EvaluatedArm

_REGISTERED = (
    *(opencv, realsense, zmq),
    *(bi_openarm_follower, bi_rebot_b601_follower, bi_so_follower, koch_follower, omx_follower, openarm_follower),
    *(rebot_b601_follower, so_follower),
)
STATE = "agent_pos"  # the key under which LeRobot looks for joints in what an environment shows


@EnvConfig.register_subclass("physical_arm")
@dataclass
class PhysicalArmConfig(EnvConfig):
    """Options of the environment; `robot` is needed, and either `task`, or `twin` and `scene`.

    Attributes:
        robot: Any of LeRobot's arms, e.g. `--env.robot.type=so101_vla_follower --env.robot.port=...`.
        task: What the policy is told; on a twin the scene says it.
        fps: Actions a second, in [Hz].
        episode_time_s: When an attempt has failed, in [s]; None for the scene's limit on a twin, otherwise 20.
        start_pose: Joint -> where episodes begin, in the arm's units; joints left out, and all where it is None, begin
            where the arm stands when it is connected.
        start_speed_deg_s: How fast the arm moves there, in units of the arm a second.
        twin: Folder of a running twin with tasks, which then lays the scenes and judges.
        scene: Task of the twin.
        color: Cube that the twin's instruction names; None for the seed's.
        report_dir: New folder of the report; None for one under outputs/eval.
    """

    robot: RobotConfig | None = None
    episode_time_s: float | None = None
    start_pose: dict[str, float] | None = None
    start_speed_deg_s: float = 30.0
    twin: Path | None = None
    scene: str | None = None
    color: str | None = None
    report_dir: Path | None = None

    @property
    def gym_kwargs(self) -> dict:
        """Nothing: no gym id is registered."""
        return {}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> "dict[str, dict[int, gym.vector.VectorEnv]]":
        """Make the one environment; the arm is connected when the first episode begins.

        Args:
            n_envs: Must be 1.
            use_async_envs: No matter with one environment.

        Raises:
            ValueError: An option does not fit; the message says which.
            FileExistsError: The report's folder has episodes.
            DirectoryInUseError: Another evaluation writes the report.
            ConnectionError: No twin runs there.
        """
        if n_envs != 1:
            raise ValueError(
                f"expected one environment, because there is one arm on one port, got {n_envs}: give "
                "--eval.batch_size=1 (0, the default, counts the cores of the computer)"
            )
        import gymnasium as gym

        from lerobot_vla_plugin.envs.physical_arm import make_physical_arm

        environment = make_physical_arm(self)
        self._declare(environment.arm)
        # LeRobot's own way, SAME_STEP, resets once more behind every episode.
        mode = gym.vector.AutoresetMode.NEXT_STEP
        return {self.type: {0: gym.vector.SyncVectorEnv([lambda: environment], autoreset_mode=mode)}}

    def new_report_dir(self) -> Path:
        """Where the report goes."""
        return self.report_dir or Path("outputs/eval") / f"{datetime.now():%Y-%m-%d/%H-%M-%S}_report"

    def _declare(self, arm: "EvaluatedArm") -> None:
        """Say what a policy sees and does, which LeRobot asks when it loads one."""
        pictures = {f"{OBS_IMAGES}.{name}": (*size, 3) for name, size in arm.cameras.items()}
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, (len(arm.action_keys),)),
            STATE: PolicyFeature(FeatureType.STATE, (len(arm.state_keys),)),
            **{key: PolicyFeature(FeatureType.VISUAL, shape) for key, shape in pictures.items()},
        }
        self.features_map = {key: key for key in self.features} | {STATE: OBS_STATE}
