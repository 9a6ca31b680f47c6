"""Demonstrations by the scripted person, frame by frame as `lerobot-record` takes them, as fast as the computer can."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .envs.simulated_arm import SimulatedArm, SimulatedLeader, steps_of_frame
from .envs.simulated_cameras import SimulatedCameras
from .twin.hand import Attempt
from .twin.judge import Verdict
from .twin.kinematics import Kinematics, UnreachableError
from .twin.scenes import draw_layout
from .twin.start_postures import draw_start


@dataclass(frozen=True, slots=True)
class Frame:
    """One control period.

    Attributes:
        state: Where the arm was, shape (6,), in robot units.
        pictures: What the cameras saw then: name -> RGB picture, shape (height, width, 3).
        action: What was sent to the arm thereupon, shape (6,), in robot units.
    """

    state: NDArray[np.float64]
    pictures: Mapping[str, NDArray[np.uint8]]
    action: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One attempt.

    Attributes:
        seed: Of the scene.
        frames: All of it.
        verdict: What had been done at the end.
    """

    seed: int
    frames: list[Frame]
    verdict: Verdict


class Demonstrator:
    """The scripted person at the leader of a simulated arm.

    Args:
        arm: The follower.
        leader: Its leader.
        cameras: What takes the pictures, of the same world; None leaves them out.
        fps: Frames a second, in [Hz].

    Raises:
        ValueError: A frame is no whole number of steps of the world.
        ModuleNotFoundError: mink is not installed.
    """

    def __init__(self, arm: SimulatedArm, leader: SimulatedLeader, cameras: SimulatedCameras | None, fps: int) -> None:
        self._arm, self._leader, self._cameras, self._fps = arm, leader, cameras, fps
        self._steps = steps_of_frame(fps)
        self._kinematics = Kinematics(arm.world.arm)

    def demonstrate(
        self, task: str, seed: int, color: str | None = None, *, varied_start: bool = False
    ) -> Demonstration:
        """Do a task once.

        Args:
            task: One of `scenes.TASKS`.
            seed: Of the scene, and of the little differences between one attempt and the next.
            color: The cube to name; None lets the seed decide.
            varied_start: Begin in a posture that the seed decides, `start_postures.draw_start`, not always in the same.

        Returns:
            The attempt; one without frames, and so without success, where the arm does not reach a place on its way.

        Raises:
            KeyError: There is no such task or color.
        """
        layout, posture_rad = draw_layout(task, seed, color), None
        if varied_start:
            posture_rad = draw_start(self._kinematics, layout, np.random.default_rng((seed, 2)))
        self._arm.start(layout, posture_rad)
        try:
            frames = list(self._frames(np.random.default_rng(seed)))
        except UnreachableError:
            frames = []
        return Demonstration(seed, frames, self._arm.verdict)

    def _frames(self, rng: np.random.Generator) -> Iterator[Frame]:
        world = self._arm.world
        attempt = Attempt(world, self._kinematics, rng)
        while world.time_s < attempt.duration_s:
            state, pictures = self._arm.read(), self._cameras.take() if self._cameras else {}
            # At first the leader stands where its follower does.
            goal_rad = attempt.goal_rad(world.time_s, world.joints_rad) if world.steps else world.joints_rad
            yield Frame(state, pictures, self._arm.send(self._leader.read(goal_rad)))
            self._arm.advance(self._steps)
