"""A gymnasium environment of the twin's tasks, without servos and ports: see `config_so101_twin`."""

from collections.abc import Mapping
from typing import Any, cast

import gymnasium as gym
import numpy as np
from lerobot.envs.utils import freeze_after_episode_end
from numpy.typing import NDArray

from lerobot_vla_plugin.arms.arm_facts import DEGREES, PERCENT, ArmFacts, SimulatedRobot
from lerobot_vla_plugin.arms.calibration import JointCalibration, example_calibration, load_calibration
from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN
from lerobot_vla_plugin.envs.config_so101_twin import SO101TwinConfig
from lerobot_vla_plugin.envs.episode import Ending, Episode
from lerobot_vla_plugin.envs.episode_frames import EpisodeFrames
from lerobot_vla_plugin.envs.episode_report import EpisodeReport
from lerobot_vla_plugin.envs.motion import jerk
from lerobot_vla_plugin.envs.simulated_arm import SimulatedArm, steps_of_frame
from lerobot_vla_plugin.envs.simulated_cameras import SimulatedCameras
from lerobot_vla_plugin.twin.arm_model import JOINTS
from lerobot_vla_plugin.twin.rendering import RendererName
from lerobot_vla_plugin.twin.scenes import COLORS, TASKS, Layout, draw_layout
from lerobot_vla_plugin.twin.world import World

# From a seed to the one whose scene is shown instead of its own: beyond every seed that anyone evaluates or records.
_SHUFFLE_SEEDS = 10_000_000

Observation = dict[str, Any]


class SO101TwinEnv(gym.Env):
    """One world and one task. An episode ends when a cube has been taken, the named one or another, or with the time.

    World and OpenGL context are made at the first reset, by the thread that uses them.

    Args:
        config: What the arm, the cameras and the instruction are like.
        task: One of `scenes.TASKS`.
        report: Takes every episode.
        announced: Stands for the arm until the environment is closed.

    Attributes:
        task: Name of the task.
        task_description: What the policy is told; of this episode.
        episode: The last episode that ended; None before.
    """

    def __init__(
        self,
        config: SO101TwinConfig,
        task: str,
        report: EpisodeReport | None = None,
        announced: SimulatedRobot | None = None,
    ) -> None:
        self.config, self.task, self.task_description = config, task, ""
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": config.fps}
        self.render_mode = "rgb_array"
        self._max_episode_steps = round(TASKS[task].time_limit_s * config.fps)  # LeRobot asks for it by this name
        self.observation_space, self.action_space = _spaces(config)
        self.episode: Episode | None = None
        self._report, self._announced = report, announced
        self._arm: SimulatedArm | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict]:
        """Start an episode.

        Args:
            seed: Decides the scene; None draws one.
            options: Nothing is looked at.
        """
        super().reset(seed=seed)
        self._seed = int(self.np_random.integers(2**31)) if seed is None else seed
        if self._arm is None:
            self._make_world(self.config)
        layout = self._layout(self._seed)
        self._arm.start(layout)
        self.task_description = layout.instruction
        self._measured: list[NDArray[np.float64]] = []
        self._sent: list[NDArray[np.float64]] = []
        self._kept: dict[int, Mapping[str, NDArray[np.uint8]]] = {}
        return self._observe(), {"is_success": False}

    def step(self, action: NDArray) -> tuple[Observation, float, bool, bool, dict]:
        """Send an action, and let the time of a frame pass.

        Args:
            action: Joint values, shape (6,), in robot units.

        Returns:
            Observation, reward (1 with the success), whether a cube was taken, whether the time is over, and
            `is_success`.

        Raises:
            ValueError: A value is not finite.
        """
        self._sent.append(self._arm.send(action))
        verdict = self._arm.advance(self._steps_of_frame)
        terminated = verdict.taken is not None
        truncated = not terminated and len(self._sent) >= self._max_episode_steps
        observation = self._observe()
        if terminated or truncated:
            self._end(Ending.SUCCESS if verdict.success else Ending.FAILURE if terminated else Ending.TIME)
        return observation, float(verdict.success), terminated, truncated, {"is_success": verdict.success}

    def render(self) -> NDArray[np.uint8]:
        """What the policy saw last, side by side, shape (height, width of all pictures, 3)."""
        return np.concatenate(list(self._pictures.values()), axis=1)

    def close(self) -> None:
        """Give back what the system lent."""
        if self._arm is not None:
            self._cameras.close()
            self._arm = None
        if self._report is not None:
            self._report.close()
        if self._announced is not None:
            self._announced.is_connected = False

    # How it is done -----------------------------------------------------------------------------------------

    def _make_world(self, config: SO101TwinConfig) -> None:
        world = World(visual=not config.shuffled_images)
        renderer = cast(RendererName, config.renderer)
        self._shown = World() if config.shuffled_images else world
        self._cameras = SimulatedCameras(self._shown, config.width, config.height, config.cameras, renderer)
        self._arm = SimulatedArm(world, read_calibration(config), use_degrees=config.use_degrees, limits=config.guard)
        self._steps_of_frame = steps_of_frame(config.fps)

    def _layout(self, seed: int) -> Layout:
        own = draw_layout(self.task, seed)
        if self.config.instruction == "own":
            return own
        other = next(color for color in COLORS if color != own.color)
        return draw_layout(self.task, seed, other)

    def _observe(self) -> Observation:
        if self.config.shuffled_images:
            # Cubes that nobody moves, around an arm that moves as it does: a picture as of any episode.
            low_rad, high_rad = self._arm.world.joint_limits_rad.T
            posture_rad = np.clip(self._arm.world.joints_rad, low_rad, high_rad)
            self._shown.reset(draw_layout(self.task, self._seed + _SHUFFLE_SEEDS), posture_rad)
        self._pictures = self._cameras.take()
        if self._report is not None:
            self._kept[len(self._sent)] = self._pictures
        self._measured.append(self._arm.read())
        return {"pixels": dict(self._pictures), "agent_pos": self._measured[-1].astype(np.float32)}

    def _end(self, ending: Ending) -> None:
        index = 0 if self._report is None else self._report.next_index
        self.episode = self._describe(ending, index)
        if self._report is None:
            return
        frames = EpisodeFrames(self._report.frames_folder(index), self.config.fps)
        for step, pictures in self._kept.items():
            frames.add(step, pictures, last=step == len(self._sent))
        self._report.add(self.episode)

    def _describe(self, ending: Ending, index: int) -> Episode:
        arm, layout = self._arm, self._arm.world.layout
        return Episode(
            index=index,
            task=self.task,
            instruction=layout.instruction,
            success=ending is Ending.SUCCESS,
            ending=ending,
            seconds=arm.world.time_s,
            steps=len(self._sent),
            seed=self._seed,
            color=layout.color,
            taken=arm.verdict.taken,
            interventions={str(kind): arm.guard.report.count(kind) for kind, _ in arm.guard.report.tallies},
            jerk=jerk(self._degrees(self._sent), self._degrees(self._measured), self.config.fps),
            layout=describe_layout(layout),
            frames=None if self._report is None else self._report.frames_folder(index).name,
        )

    def _degrees(self, rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Body joints in [deg], whatever the robot's unit is."""
        return self._arm.converter.to_exact_ticks(rows)[:, :-1] * (360 / TICKS_PER_TURN)


def describe_layout(layout: Layout) -> dict[str, Any]:
    """Where things stand, for the report.

    Args:
        layout: The scene.
    """
    cubes = {color: {"x_m": pose.x_m, "y_m": pose.y_m, "yaw_rad": pose.yaw_rad} for color, pose in layout.cubes.items()}
    return {"cubes": cubes, "bin_m": list(layout.bin_m) if layout.has_bin else None}


def read_calibration(config: SO101TwinConfig) -> dict[str, JointCalibration]:
    """The calibration that an environment names, or the one that this package ships.

    Args:
        config: Of the environment.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no LeRobot calibration.
    """
    if config.calibration is None:
        return example_calibration("so_follower", "so101_follower")
    return load_calibration(config.calibration)


def arm_of(config: SO101TwinConfig) -> ArmFacts:
    """What policies are held against: as an SO-101 on a port would show it.

    Args:
        config: Of the environment.

    Raises:
        FileNotFoundError: There is no such calibration.
        ValueError: The calibration is none.
    """
    return ArmFacts(
        description=f"the simulated SO-101 of --env.type={config.type}",
        robot_type="so_follower",
        joint_names=[f"{joint}.pos" for joint in JOINTS],
        joint_unit=DEGREES if config.use_degrees else PERCENT,
        calibration=read_calibration(config),
        cameras=dict.fromkeys(config.cameras, (config.height, config.width)),
        rate_hz=config.fps,
    )


def make_vector_env(
    config: SO101TwinConfig,
    task: str,
    n_envs: int,
    report: EpisodeReport | None = None,
    announced: SimulatedRobot | None = None,
) -> gym.vector.VectorEnv:
    """Worlds side by side; one whose episode is over waits for the others.

    Args:
        config: As for `SO101TwinEnv`.
        task: As there.
        n_envs: How many worlds.
        report: Takes every episode of every world.
        announced: As there.
    """
    make_env = freeze_after_episode_end(lambda: SO101TwinEnv(config, task, report, announced))
    # With SAME_STEP, gymnasium would reset a world before the others' episodes are over.
    return gym.vector.SyncVectorEnv([make_env] * n_envs, autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP)


def _spaces(config: SO101TwinConfig) -> tuple[gym.spaces.Dict, gym.spaces.Box]:
    joints = gym.spaces.Box(-np.inf, np.inf, (len(JOINTS),), np.float32)
    picture = gym.spaces.Box(0, 255, (config.height, config.width, 3), np.uint8)
    pixels = gym.spaces.Dict(dict.fromkeys(config.cameras, picture))
    return gym.spaces.Dict({"pixels": pixels, "agent_pos": joints}), joints
