"""LeRobot's SO-101 and Koch followers with exact ticks, a bus that does not lie, and a guard before the servos.

Same features, names and calibration folders as LeRobot's. An action must have every joint. What it says of other
things than joints (keys without ".pos") is not this arm's and is left alone, as in LeRobot.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import cast

from lerobot.lerobot_types import RobotAction, RobotObservation
from lerobot.robots import Robot
from lerobot.robots.koch_follower import KochFollower
from lerobot.robots.so_follower import SO101Follower
from lerobot.utils.decorators import check_if_already_connected, check_if_not_connected

from lerobot_vla_plugin.arms.calibration import calibration_from_lerobot
from lerobot_vla_plugin.arms.config_followers import KochVLAFollowerConfig, SO101VLAFollowerConfig
from lerobot_vla_plugin.arms.contract import check_robot
from lerobot_vla_plugin.arms.dynamixel_bus import ReliableDynamixelBus
from lerobot_vla_plugin.arms.feetech_bus import ReliableFeetechBus
from lerobot_vla_plugin.arms.guard import ActionGuard
from lerobot_vla_plugin.arms.safe_connection import SafeConnection

logger = logging.getLogger(__name__)


class GuardedFollower(SafeConnection):
    """What both followers add to LeRobot's.

    Attributes:
        clock: The time in which the arm moves, in [s], never going back; a simulation may set its own.
    """

    clock: Callable[[], float] = staticmethod(time.monotonic)
    _guard: ActionGuard | None = None

    @check_if_already_connected
    def connect(self, calibrate: bool = True) -> None:
        """Connect, unless a loaded policy was trained on something else; goals start from where the arm stands.

        Args:
            calibrate: Whether to calibrate an arm that is not calibrated.

        Raises:
            ContractMismatchError: No loaded policy fits this arm; nothing was opened.
        """
        check_robot(cast(Robot, self))
        self._guard = None
        super().connect(calibrate)

    def calibrate(self) -> None:
        """Calibrate as LeRobot does."""
        super().calibrate()
        self._guard = None

    @property
    def guard(self) -> ActionGuard:
        """The guard of this connection, made for the calibration in use.

        Raises:
            RuntimeError: The arm has no calibration.
        """
        if self._guard is None:
            calibration = calibration_from_lerobot(self.bus.calibration)
            self._guard = ActionGuard(self.config.guard, calibration, self.bus.converter)
        return self._guard

    @check_if_not_connected
    def get_observation(self) -> RobotObservation:
        """Read the joints, verified, and the cameras.

        Raises:
            ConnectionError: A motor does not answer, or the port is lost.
        """
        return self._reconnecting(super().get_observation)

    @check_if_not_connected
    def send_action(self, action: RobotAction) -> RobotAction:
        """Send what the guard lets through.

        Args:
            action: Joint values in LeRobot's units. What is sent instead is written into it, because LeRobot's
                commands ignore what is returned and record this dict.

        Returns:
            The joint values of the ticks that were sent.

        Raises:
            ValueError: A joint is missing or unknown, or a value is no finite number; the last goals stand.
            TorqueReleasedError: A signal has switched the torque off.
            ConnectionError: The port is lost.
        """
        self._refuse_if_released()
        values = {key.removesuffix(".pos"): value for key, value in action.items() if key.endswith(".pos")}
        goals_ticks = self._reconnecting(lambda: self._command(values))
        sent = {f"{name}.pos": value for name, value in self.bus.converter.dict_to_units(goals_ticks).items()}
        action.update(sent)
        return sent

    @check_if_not_connected
    def disconnect(self) -> None:
        """Disconnect, and say what the guard changed.

        Raises:
            ConnectionError: A motor does not answer, or the port is lost; its torque may still be on.
        """
        if self._guard is not None:
            logger.info("%s: %s", self, self._guard.report.summary())
        super().disconnect()

    def _command(self, values: Mapping[str, float]) -> dict[str, int]:
        """Write the goals that the guard makes of an action, in [ticks]."""
        now_s = self.clock()
        if self.guard.needs_start(now_s):
            self.guard.start(self.bus.read_positions_ticks(), now_s)
        goals_ticks = self.guard.next_goals(values, now_s)
        try:
            self.bus.write_goals_ticks(goals_ticks)
        except BaseException:
            self.guard.forget()
            raise
        if self._released_by is not None:
            # A signal came between the guard and the wire, and Feetech servos may take torque with a goal.
            self.release_torque(self._released_by)
            self._refuse_if_released()
        return goals_ticks

    def _after_reopening(self) -> None:
        # What the servos did meanwhile is not known: goals start from a reading, slowly.
        self.guard.forget()


class SO101VLAFollower(GuardedFollower, SO101Follower):
    """An SO-100 or SO-101 follower."""

    config_class = SO101VLAFollowerConfig
    bus_class = ReliableFeetechBus


class KochVLAFollower(GuardedFollower, KochFollower):
    """A Koch v1.0 or v1.1 follower."""

    config_class = KochVLAFollowerConfig
    bus_class = ReliableDynamixelBus

    def configure(self) -> None:
        """Configure as LeRobot does, and let the servos stop by themselves where they hear nothing any more."""
        super().configure()
        self.bus.arm_watchdog()
