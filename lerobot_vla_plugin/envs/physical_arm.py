"""The environment in which `lerobot-eval` runs a policy on an arm, real or a twin's."""

import logging
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from lerobot.envs.utils import NEW_ROLLOUT_OPTION
from lerobot.robots import make_robot_from_config
from numpy.typing import NDArray

from lerobot_vla_plugin.envs.config_physical_arm import STATE, PhysicalArmConfig
from lerobot_vla_plugin.envs.episode import Ending, Episode
from lerobot_vla_plugin.envs.episode_log import EpisodeLog
from lerobot_vla_plugin.envs.episode_report import EpisodeReport
from lerobot_vla_plugin.envs.evaluated_arm import EvaluatedArm, Observation
from lerobot_vla_plugin.envs.keys import Keys
from lerobot_vla_plugin.envs.pace import Pace, RealTime
from lerobot_vla_plugin.envs.supervision import Attempt, Judgement, Person, Supervisor

logger = logging.getLogger(__name__)

_TIME_LIMIT_S = 20.0


class PhysicalArmEnv(gym.Env):
    """One arm, one attempt after the other, each in the report when it is over.

    The arm is connected by the first reset, because LeRobot makes environments before it loads the policy that may
    refuse the arm, and outside the try/finally that closes them. Only a reset that begins a rollout moves the arm:
    gymnasium resets by itself, too.

    Args:
        arm: The arm.
        supervisor: Sets up and judges.
        pace: How time passes.
        report: Where the episodes go.
        fps: Actions a second, in [Hz].
        time_limit_s: When an attempt has failed, in [s]; None for what the supervisor says.

    Attributes:
        arm: As given.
        task_description: What the policy is told; LeRobot asks for it by this name.
    """

    def __init__(
        self,
        arm: EvaluatedArm,
        supervisor: Supervisor,
        pace: Pace,
        report: EpisodeReport,
        fps: int,
        time_limit_s: float | None = None,
    ) -> None:
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": fps}
        self.render_mode = "rgb_array"
        self.arm = arm
        self.task_description = ""
        self._supervisor, self._pace, self._report = supervisor, pace, report
        self._fps, self._time_limit_s = fps, time_limit_s
        self._attempt: Attempt | None = None
        self._log: EpisodeLog | None = None
        self._seen: Observation = {}
        self.observation_space = _observation_space(arm)
        self.action_space = _unbounded(len(arm.action_keys))

    @property
    def task(self) -> str:
        """The other name by which LeRobot asks for the instruction."""
        return self.task_description

    @property
    def _max_episode_steps(self) -> int:
        """LeRobot asks for it by this name, after the reset."""
        seconds = self._time_limit_s or (self._attempt.time_limit_s if self._attempt else _TIME_LIMIT_S)
        return max(1, round(seconds * self._fps))

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an attempt: bring arm and scene to their start.

        Args:
            seed: Of the scene, on a twin.
            options: Must name LeRobot's NEW_ROLLOUT_OPTION; gymnasium's own resets behind an episode change nothing.

        Raises:
            RuntimeError: There is nothing to show yet, because no reset has begun a rollout.
            ContractMismatchError: The policy was trained on another arm.
        """
        super().reset(seed=seed)
        if not (options or {}).get(NEW_ROLLOUT_OPTION):
            if not self._seen:
                raise RuntimeError(f"the arm moves only on a reset with options={{{NEW_ROLLOUT_OPTION!r}: True}}")
            return self._seen, {"is_success": False}
        if self._log is not None:  # LeRobot's rollout ends by our limit, somebody else's may not
            self._finish(Ending.INTERRUPTED, Judgement())
        if not self.arm.is_connected:
            self.arm.connect()
        self._attempt = self._supervisor.prepare(self.arm, seed)
        self.task_description = self._attempt.instruction
        # As after a pause: the first action may be far from where the arm stands, whoever brought it there.
        self.arm.forget_goals()
        self._seen = self.arm.observe()
        self._pace.begin()
        self._log = EpisodeLog(self._report, self._attempt, self.arm, self._pace, self._fps, self._seen)
        return self._seen, {"is_success": False}

    def step(self, action: NDArray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Send an action, let its period pass, and look.

        Args:
            action: Shape (n,), in the arm's units.

        Raises:
            RuntimeError: No attempt is going on.
            ValueError: The arm refuses the action.
        """
        if self._log is None:
            raise RuntimeError("the attempt is over; reset the environment")
        self._log.note_sent(self.arm.send(action))
        self._pace.pass_period(self.arm)
        self._seen = self.arm.observe()
        self._log.note_seen(self._seen)
        judgement = self._supervisor.judge()
        late = self._log.steps >= self._max_episode_steps
        ending = judgement.ending or (Ending.TIME if late else None)
        if ending is not None:
            self._finish(ending, judgement)
        success = ending is Ending.SUCCESS
        truncated = ending is Ending.TIME
        return self._seen, float(success), ending is not None and not truncated, truncated, {"is_success": success}

    def render(self) -> NDArray[np.uint8]:
        """The pictures of all cameras side by side that are as high as the first, shape (height, width, 3)."""
        pictures = list(self._seen["pixels"].values())
        return np.hstack([picture for picture in pictures if len(picture) == len(pictures[0])])

    def close(self) -> None:
        """Write down an attempt that is interrupted here, switch the torque off, let go of everything."""
        try:
            self.arm.disconnect()
        finally:
            try:
                if self._log is not None:
                    self._finish(Ending.INTERRUPTED, Judgement())
            finally:
                self._supervisor.close()
                self._report.close()

    def _finish(self, ending: Ending, judgement: Judgement) -> None:
        """Write the attempt into the report, and say how it stands."""
        log, self._log = self._log, None
        assert log is not None
        episode = log.finish(ending, judgement)
        logger.info("%s", _describe(episode, self._report))


def make_physical_arm(config: PhysicalArmConfig) -> PhysicalArmEnv:
    """The environment of a configuration; nothing moves and no port is opened.

    Args:
        config: The options.

    Raises:
        ValueError: An option does not fit; the message says which.
    """
    _check(config)
    assert config.robot is not None
    arm = EvaluatedArm(make_robot_from_config(config.robot))
    supervisor, pace = _on_a_real_arm(config, arm) if config.twin is None else _on_a_twin(config, arm)
    try:
        report = EpisodeReport(config.new_report_dir())
    except BaseException:
        supervisor.close()
        raise
    logger.info("The report goes to %s", report.directory)
    return PhysicalArmEnv(arm, supervisor, pace, report, config.fps, config.episode_time_s)


def _on_a_real_arm(config: PhysicalArmConfig, arm: EvaluatedArm) -> tuple[Supervisor, Pace]:
    if not config.task:
        raise ValueError("expected what the policy is told, e.g. --env.task='Pick up the red cube.'")
    pose = config.start_pose or {}
    joints = [key.removesuffix(".pos") for key in arm.action_keys]
    unknown = [joint for joint in pose if joint not in joints]
    if unknown:
        raise ValueError(f"--env.start_pose names {unknown}, the arm's joints are {joints}")
    limit_s = config.episode_time_s or _TIME_LIMIT_S
    person = Person(config.task, limit_s, pose, config.start_speed_deg_s, config.fps, Keys())
    return person, RealTime(config.fps)


def _on_a_twin(config: PhysicalArmConfig, arm: EvaluatedArm) -> tuple[Supervisor, Pace]:
    from lerobot_vla_plugin.envs.twin_scene import open_twin

    assert config.twin is not None
    assert config.scene is not None
    return open_twin(config.twin, config.scene, config.color, arm, config.fps)


def _check(config: PhysicalArmConfig) -> None:
    """Refuse options that contradict each other."""
    if config.robot is None:
        raise ValueError("expected an arm: --env.robot.type=so101_vla_follower --env.robot.port=...")
    for name in ("fps", "episode_time_s", "start_speed_deg_s"):
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ValueError(f"--env.{name} must be above 0, got {value}")
    of_a_twin = {"scene": config.scene, "color": config.color}
    of_a_person = {"task": config.task, "start_pose": config.start_pose}
    if config.twin is None and any(of_a_twin.values()):
        given = [f"--env.{name}" for name, value in of_a_twin.items() if value]
        raise ValueError(f"{' and '.join(given)} need a twin: --env.twin=<its folder>; a real arm has no such scenes")
    if config.twin is None:
        return
    if not config.scene:
        raise ValueError("expected the twin's scene: --env.scene=pick-lift")
    if any(of_a_person.values()):
        given = [f"--env.{name}" for name, value in of_a_person.items() if value]
        raise ValueError(f"leave {' and '.join(given)} out: the twin's scene says what to do and where to start")


def _observation_space(arm: EvaluatedArm) -> gym.spaces.Dict:
    pictures: dict[str, gym.Space] = {
        name: gym.spaces.Box(0, 255, (*size, 3), np.uint8) for name, size in arm.cameras.items()
    }
    return gym.spaces.Dict({"pixels": gym.spaces.Dict(pictures), STATE: _unbounded(len(arm.state_keys))})


def _unbounded(size: int) -> gym.spaces.Box:
    return gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)


def _describe(episode: Episode, report: EpisodeReport) -> str:
    counting = [other for other in report.episodes if other.ending.counts]
    won = sum(other.success for other in counting)
    return (
        f"Episode {episode.index}: {episode.ending} after {episode.seconds:.1f} s; {won} of {len(counting)} succeeded"
    )
