"""Notes of a running episode, and the row of the report that they become."""

import time
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.envs.episode import Ending, Episode, Jerk
from lerobot_vla_plugin.envs.episode_frames import EpisodeFrames
from lerobot_vla_plugin.envs.episode_report import EpisodeReport
from lerobot_vla_plugin.envs.evaluated_arm import EvaluatedArm, Observation
from lerobot_vla_plugin.envs.motion import control_rate, jerk
from lerobot_vla_plugin.envs.pace import Pace
from lerobot_vla_plugin.envs.supervision import Attempt, Judgement


class EpisodeLog:
    """Notes of one episode, from its first look on.

    Args:
        report: Where they go in the end; pictures go there at once.
        attempt: What is to be done.
        arm: The arm.
        pace: Its time.
        fps: Actions a second, in [Hz].
        first: The first look.

    Attributes:
        steps: Actions up to now.
    """

    def __init__(
        self,
        report: EpisodeReport,
        attempt: Attempt,
        arm: EvaluatedArm,
        pace: Pace,
        fps: int,
        first: Observation,
    ) -> None:
        self.steps = 0
        self._report, self._attempt, self._arm, self._pace, self._fps = (
            report, attempt, arm, pace, fps,
        )  # fmt: skip
        self._folder = report.frames_folder(report.next_index)
        self._frames = EpisodeFrames(self._folder, fps)
        self._frames.add(0, first["pixels"])
        self._pixels = first["pixels"]
        self._before = arm.interventions()
        self._sent: list[NDArray[np.float64]] = []
        self._states: list[NDArray[np.float32]] = []
        self._times_s: list[float] = []

    def note_sent(self, sent: NDArray[np.float64]) -> None:
        """An action was sent just now.

        Args:
            sent: As `EvaluatedArm.send` gives it.
        """
        self._times_s.append(time.perf_counter())
        self._sent.append(sent)

    def note_seen(self, observation: Observation) -> None:
        """What there was to see a period later.

        Args:
            observation: As `EvaluatedArm.observe` gives it.
        """
        self.steps += 1
        self._states.append(observation["agent_pos"])
        self._pixels = observation["pixels"]
        self._frames.add(self.steps, self._pixels)

    def finish(self, ending: Ending, judgement: Judgement) -> Episode:
        """Write the episode into the report.

        Args:
            ending: Why it is over.
            judgement: What else is known.
        """
        self._frames.add(self.steps, self._pixels, last=True)
        attempt = self._attempt
        episode = Episode(
            index=self._report.next_index,
            task=attempt.task,
            instruction=attempt.instruction,
            success=ending is Ending.SUCCESS,
            ending=ending,
            seconds=self._pace.seconds(),
            steps=self.steps,
            seed=attempt.seed,
            color=attempt.color,
            taken=judgement.taken,
            interventions=dict(Counter(self._arm.interventions()) - self._before),
            jerk=self._jerk(),
            control_rate=control_rate(self._times_s, self._fps) if self._pace.by_the_clock else None,
            layout=attempt.layout,
            frames=self._folder.name,
        )
        self._report.add(episode)
        return episode

    def _jerk(self) -> Jerk | None:
        if not self._states:
            return None
        commanded_deg = self._arm.body_deg(np.array(self._sent), self._arm.action_keys)
        measured_deg = self._arm.body_deg(np.array(self._states, np.float64), self._arm.state_keys)
        if commanded_deg is None or measured_deg is None:
            return None
        return jerk(commanded_deg, measured_deg, self._fps)
