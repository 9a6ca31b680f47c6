"""What a twin is like, and what sets one kind of arm apart."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lerobot_vla_plugin.arms.calibration import JointCalibration
from lerobot_vla_plugin.twin.arm_model import ArmModel
from lerobot_vla_plugin.twin.bus import ServoBus
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.directory import default_directory
from lerobot_vla_plugin.twin.scenes import TASKS


@dataclass(frozen=True, slots=True)
class TwinConfig:
    """What a twin is like.

    Attributes:
        seed: Seed of the places where cubes appear, of the first scene where there is a task.
        cameras: Size, rate, port and renderer of the pictures.
        directory: Where the stable names of the two ports lie; one twin a directory.
        task: One of `scenes.TASKS`, in a world with physics; None for an arm without physics and a cube to touch.
        lock_step: Whether time passes only when a client of `control` asks for it; needs a task.
        color: The cube that the instructions name; None lets each seed decide.

    Raises:
        ValueError: There is no such task, or an option is given that needs one.
    """

    seed: int = 0
    cameras: CameraConfig = field(default_factory=CameraConfig)
    directory: Path = field(default_factory=default_directory)
    task: str | None = None
    lock_step: bool = False
    color: str | None = None

    def __post_init__(self) -> None:
        if self.task is None and (self.lock_step or self.color is not None):
            raise ValueError(f"lock_step and color need a task, one of {list(TASKS)}; without one there is no physics")
        if self.task is not None and self.task not in TASKS:
            raise ValueError(f"no task {self.task!r}; there are {list(TASKS)}")


class MakeBus(Protocol):
    """Makes the bus of one arm: its servos as calibrated, standing at [ticks], behind a stable port name."""

    def __call__(
        self,
        calibration: Mapping[str, JointCalibration],
        positions_ticks: Mapping[str, int],
        link: Path,
        clock: Callable[[], float] | None = None,
    ) -> ServoBus: ...


@dataclass(frozen=True, slots=True)
class ArmKind:
    """What sets one kind of arm apart.

    Attributes:
        name: LeRobot's types are `<name>_follower` and `<name>_leader`, and so are the ids of the calibrations.
        calibration_name: LeRobot's calibration folders are `<calibration_name>_follower` and `..._leader`.
        use_degrees: LeRobot's default unit between leader and follower; percent otherwise.
        inverts_in_software: As in `JointConverter`.
        make_follower_bus: Makes the follower's bus.
        make_leader_bus: Makes the leader's bus.
        make_driven_bus: Makes the bus of a follower in a world with physics.
        model: The arm in that world.
    """

    name: str
    calibration_name: str
    use_degrees: bool
    inverts_in_software: bool
    make_follower_bus: MakeBus
    make_leader_bus: MakeBus
    make_driven_bus: MakeBus
    model: ArmModel
