"""One arm on an emulated bus, for the tests of followers and leaders."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lerobot.robots import make_robot_from_config
from lerobot.robots.koch_follower import KochFollowerConfig
from lerobot.robots.so_follower import SO101FollowerConfig
from lerobot.teleoperators import make_teleoperator_from_config
from lerobot.teleoperators.koch_leader import KochLeaderConfig
from lerobot.teleoperators.so_leader import SO101LeaderConfig

from lerobot_vla_plugin.arms.calibration import example_calibration, example_calibration_dir
from lerobot_vla_plugin.arms.config_followers import KochVLAFollowerConfig, SO101VLAFollowerConfig
from lerobot_vla_plugin.arms.config_leaders import KochVLALeaderConfig, SO101VLALeaderConfig
from lerobot_vla_plugin.arms.guard import FIRST_STEP_S, GuardConfig
from lerobot_vla_plugin.arms.joints import TICKS_PER_TURN, JointConverter, joint_modes
from lerobot_vla_plugin.twin.bus import GoalWrite
from lerobot_vla_plugin.twin.koch import KochTwin
from lerobot_vla_plugin.twin.so101 import SO101Twin

KINDS = {"so101": SO101Twin.kind, "koch": KochTwin.kind}
OURS = {
    ("so101", "follower"): SO101VLAFollowerConfig,
    ("so101", "leader"): SO101VLALeaderConfig,
    ("koch", "follower"): KochVLAFollowerConfig,
    ("koch", "leader"): KochVLALeaderConfig,
}
LEROBOTS = {
    ("so101", "follower"): SO101FollowerConfig,
    ("so101", "leader"): SO101LeaderConfig,
    ("koch", "follower"): KochFollowerConfig,
    ("koch", "leader"): KochLeaderConfig,
}
ROBOT_OPTION = {"follower": "robot", "leader": "teleop"}


START_DEG_S = GuardConfig().start_speed_deg_s
TICKS_PER_DEG = TICKS_PER_TURN / 360
FIRST_STEP_TICKS = START_DEG_S * FIRST_STEP_S * TICKS_PER_DEG + 1


class ArmOnTwin:
    """An arm that stands in the middle of its ranges; a context manager while its port exists.

    Attributes:
        bus: The emulated bus.
        middle: Joint -> middle of its range in [ticks].
    """

    def __init__(self, kind: str = "so101", role: str = "follower") -> None:
        self.kind, self.role = kind, role
        self.name = f"{KINDS[kind].calibration_name}_{role}"
        self.id = f"{kind}_{role}"
        self.calibration = example_calibration(self.name, self.id)
        self.middle = {name: (joint.range_min + joint.range_max) // 2 for name, joint in self.calibration.items()}
        self._directory = tempfile.TemporaryDirectory()
        self.port = str(Path(self._directory.name) / role)
        make_bus = getattr(KINDS[kind], f"make_{role}_bus")
        self.bus = make_bus(self.calibration, self.middle, Path(self.port))

    def __enter__(self) -> "ArmOnTwin":
        self.bus.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bus.stop()
        self._directory.cleanup()

    def options(self) -> dict[str, Any]:
        return {"port": self.port, "id": self.id, "calibration_dir": example_calibration_dir(self.name)}

    def device(self, configs: Mapping = OURS, **options: Any) -> Any:
        """Our device for this arm, or with `LEROBOTS` theirs."""
        config = configs[self.kind, self.role](**{**self.options(), **options})
        return (make_robot_from_config if self.role == "follower" else make_teleoperator_from_config)(config)

    @contextmanager
    def connected(self, **options: Any) -> Iterator[Any]:
        """Our device, connected; disconnected behind the block where that has not happened in it."""
        device = self.device(**options)
        device.connect()
        try:
            yield device
        finally:
            if device.is_connected:
                device.disconnect()

    def arguments(self) -> list[str]:
        """Arguments that make a LeRobot command use our device for this arm."""
        option = ROBOT_OPTION[self.role]
        given = {"type": f"{self.kind}_vla_{self.role}", **self.options()}
        return [f"--{option}.{name}={value}" for name, value in given.items()]

    def converter(self, *, degrees: bool | None = None) -> JointConverter:
        """LeRobot's units of this arm; by default those that LeRobot's device of this kind has by default."""
        degrees = KINDS[self.kind].use_degrees if degrees is None else degrees
        modes = joint_modes(self.calibration, degrees=degrees)
        return JointConverter(self.calibration, modes, inverts_in_software=KINDS[self.kind].inverts_in_software)

    def action(self, ticks: Mapping[str, int], *, degrees: bool | None = None) -> dict[str, float]:
        """Positions in LeRobot's units."""
        return {f"{name}.pos": value for name, value in self.converter(degrees=degrees).dict_to_units(ticks).items()}

    def moved(self, joint: str, ticks: int) -> dict[str, int]:
        """The middle of all ranges, but for one joint."""
        return {**self.middle, joint: self.middle[joint] + ticks}

    def action_writes(self) -> list[GoalWrite]:
        """Goal writes of all joints at once; those before torque on are one joint each."""
        return [write for write in self.bus.goal_writes() if len(write.goals_ticks) == len(self.middle)]

    def goals_ticks(self, writes: int) -> dict[str, int]:
        """The goals of a write, once it has arrived: nobody answers a sync write."""
        assert wait_for(lambda: len(self.action_writes()) >= writes)
        return dict(self.action_writes()[writes - 1].goals_ticks)

    def has_torque(self) -> list[str]:
        """Joints under torque."""
        return [name for name, torque in self.bus.torque_enabled().items() if torque]


def wait_for(condition: Callable[[], bool], timeout_s: float = 2.0) -> bool:
    until_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < until_s:
        time.sleep(0.005)
    return condition()
