"""An arm of LeRobot's as an environment sees it: vectors and pictures in, vectors out."""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from lerobot.robots import Robot
from numpy.typing import NDArray

from lerobot_vla_plugin.arms.arm_facts import DEGREES, arm_facts, calibrated_ranges_deg, is_body_joint
from lerobot_vla_plugin.arms.contract import check_robot
from lerobot_vla_plugin.arms.safe_connection import SafeConnection
from lerobot_vla_plugin.arms.safe_exit import protect, unprotect

logger = logging.getLogger(__name__)

type Observation = dict[str, Any]  # {"pixels": {camera: (height, width, 3) uint8}, "agent_pos": (n,) float32}

_ARRIVED = 3.0  # units from the start pose; servos have a dead band, and gravity pulls
_SETTLE_S = 1.0


class EvaluatedArm:
    """A robot object, connected when it is first needed.

    Args:
        robot: The robot.

    Attributes:
        robot: As given.
        action_keys: What an action consists of, in the robot's order.
        state_keys: What `agent_pos` consists of, likewise; as LeRobot records it.
        cameras: Name -> (height, width) in [pixels].

    Raises:
        ValueError: It takes other things than joint positions, or a camera's size is not known.
    """

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.action_keys = list(robot.action_features)
        others = [key for key in self.action_keys if not key.endswith(".pos")]
        if others:
            raise ValueError(f"expected an arm whose actions are joint positions; {robot} also takes {others}")
        self.state_keys = [key for key, kind in robot.observation_features.items() if not isinstance(kind, tuple)]
        self.cameras = _camera_sizes(robot)
        self._connected = False

    # Connection --------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """From `connect` to `disconnect`, even where a camera or the port is lost meanwhile."""
        return self._connected

    def connect(self) -> None:
        """Connect, unless a loaded policy was trained on something else.

        Raises:
            ContractMismatchError: No loaded policy fits; nothing was opened.
            ConnectionError: Port or camera cannot be opened.
        """
        if not isinstance(self.robot, SafeConnection):  # which does both by itself
            check_robot(self.robot)
            protect(self)
        self._connected = True  # so that `disconnect` closes what a failure leaves open
        self.robot.connect()

    def disconnect(self) -> None:
        """Torque off; nothing happens where it is not connected."""
        if not self._connected:
            return
        self._connected = False
        try:
            if self.robot.is_connected:
                self.robot.disconnect()
            elif not isinstance(self.robot, SafeConnection):
                self.release_torque("it was not connected completely")
        finally:
            unprotect(self)

    def release_torque(self, reason: str) -> None:
        """Switch the torque off on every motor that still listens, for arms that do not do it by themselves.

        Args:
            reason: Why, for the log.
        """
        bus = getattr(self.robot, "bus", None)
        if bus is None or not bus.is_connected:
            return
        try:
            bus.disable_torque()
        except Exception as error:
            logger.error("%s: %s, but not every motor released its torque: %s", self.robot, reason, error)
        else:
            logger.warning("%s: torque is off: %s", self.robot, reason)

    # Motion ------------------------------------------------------------------------------------------------

    def observe(self) -> Observation:
        """What the arm and its cameras show now."""
        seen = self.robot.get_observation()
        pixels = {name: np.asarray(seen[name]) for name in self.cameras}
        return {"pixels": pixels, "agent_pos": np.array([seen[key] for key in self.state_keys], np.float32)}

    def send(self, action: NDArray) -> NDArray[np.float64]:
        """Command the joints.

        Args:
            action: Shape (n,), in the order of `action_keys`.

        Returns:
            What was sent, after the guard.
        """
        wanted = dict(zip(self.action_keys, np.asarray(action, np.float64).tolist(), strict=True))
        sent = self.robot.send_action(wanted)
        return np.array([sent[key] for key in self.action_keys])

    def joints(self) -> NDArray[np.float64]:
        """Where the joints stand, shape (n,), in the order of `action_keys`."""
        seen = self.robot.get_observation()
        return np.array([seen[key] for key in self.action_keys], np.float64)

    def move_to(self, pose: NDArray[np.float64], speed: float, fps: int) -> None:
        """Move in a straight line in joint space, and wait until the arm has arrived.

        Args:
            pose: Shape (n,).
            speed: Of the joint with the longest way, in [units/s].
            fps: Commands a second, in [Hz].
        """
        start = self.joints()
        steps = max(1, int(np.ceil(np.abs(pose - start).max() / speed * fps)))
        for step in range(1, steps + 1):
            self.send(start + (pose - start) * step / steps)
            time.sleep(1 / fps)
        until_s = time.monotonic() + _SETTLE_S
        while (left := np.abs(pose - self.joints())).max() > _ARRIVED and time.monotonic() < until_s:
            self.send(pose)  # the guard may be behind
            time.sleep(1 / fps)
        if left.max() > _ARRIVED:
            key = self.action_keys[int(left.argmax())]
            logger.warning("The start pose was not reached: %s is %.1f units away from it", key, left.max())

    # Figures -----------------------------------------------------------------------------------------------

    def interventions(self) -> Counter[str]:
        """Kind -> how often the guard stepped in since the arm was connected; nothing where there is no guard."""
        guard = getattr(self.robot, "guard", None)
        tallies = guard.report.tallies if guard is not None else {}
        counts: Counter[str] = Counter()
        for (kind, _), tally in tallies.items():
            counts[str(kind)] += tally.count
        return counts

    def forget_goals(self) -> None:
        """Let the guard start anew from where the arm stands, slowly; nothing happens where there is no guard."""
        guard = getattr(self.robot, "guard", None)
        if guard is not None:
            guard.forget()

    def body_deg(self, values: NDArray[np.float64], keys: list[str]) -> NDArray[np.float64] | None:
        """Angles of the body joints, shape (steps, joints), in [deg]; None where the arm does not show its unit.

        Args:
            values: One row a step, in the arm's units.
            keys: What the columns are.
        """
        facts = arm_facts(self.robot)
        columns = [index for index, key in enumerate(keys) if key.endswith(".pos") and is_body_joint(key)]
        ranges_deg = calibrated_ranges_deg(facts.calibration)
        names = [keys[index].removesuffix(".pos") for index in columns]
        if facts.joint_unit is None or not all(name in ranges_deg for name in names):
            return None
        # 200 percent are the whole range.
        scale = [1.0 if facts.joint_unit == DEGREES else ranges_deg[name] / 200 for name in names]
        return values[:, columns] * np.array(scale)


def _camera_sizes(robot: Robot) -> Mapping[str, tuple[int, int]]:
    pictures = {name: shape for name, shape in robot.observation_features.items() if isinstance(shape, tuple)}
    unsized = [name for name, shape in pictures.items() if None in shape]
    if unsized:
        raise ValueError(
            f"expected the size of every camera's pictures, {unsized} have none: give width and height in "
            "--env.robot.cameras"
        )
    colorless = [name for name, shape in pictures.items() if shape[2] != 3]
    if colorless:
        raise ValueError(f"expected color cameras, {colorless} are not: leave use_depth out of --env.robot.cameras")
    return {name: (shape[0], shape[1]) for name, shape in pictures.items()}
