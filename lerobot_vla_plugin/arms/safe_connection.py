"""What followers and leaders have in common: a bus that does not lie, and torque that goes off however it ends."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar

from lerobot.utils.decorators import check_if_already_connected, check_if_not_connected

from lerobot_vla_plugin.arms.reliable_bus import ReliableBus
from lerobot_vla_plugin.arms.safe_exit import protect, unprotect

logger = logging.getLogger(__name__)


RECONNECT_S = 10.0
_RECONNECT_PERIOD_S = 0.1


class TorqueReleasedError(RuntimeError):
    """The torque was switched off from outside, by a signal say; it does not come back by itself."""


class SafeConnection:
    """Goes before one of LeRobot's device classes, which does the rest.

    Args:
        config: Options of the device.

    Attributes:
        bus: LeRobot's bus of the arm with verified transactions.
    """

    bus_class: ClassVar[type[ReliableBus]]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        # LeRobot's bus has not opened its port yet.
        self.bus = self.bus_class(config.port, self.bus.motors, self.calibration)
        self._connected = False
        self._released_by: str | None = None

    @property
    def is_connected(self) -> bool:
        """From `connect` to `disconnect`, even where port or camera are lost meanwhile.

        LeRobot's commands disconnect only what says that it is connected.
        """
        return self._connected

    @check_if_already_connected
    def connect(self, calibrate: bool = True) -> None:
        """Open everything; whatever fails, no motor keeps its torque, and nothing stays open.

        Args:
            calibrate: Whether to calibrate an arm that is not calibrated.

        Raises:
            TorqueReleasedError: A signal came while the torque was being switched on.
        """
        self._released_by = None
        protect(self)
        try:
            super().connect(calibrate)
            self._refuse_if_released()
        except BaseException:
            self._close_after_failure()
            raise
        self._connected = True

    @check_if_not_connected
    def disconnect(self) -> None:
        """Switch the torque off on every motor, and close port and cameras whatever fails.

        Raises:
            ConnectionError: A motor does not answer, or the port is lost; the torque may still be on.
        """
        self._connected = False
        self._close(disable_torque=getattr(self.config, "disable_torque_on_disconnect", True))
        logger.info("%s disconnected after %s.", self, self.bus.statistics.summary())

    def release_torque(self, reason: str) -> None:
        """Switch the torque off on every motor that still listens, and keep it off; for `safe_exit`.

        Args:
            reason: Why, for the log.
        """
        self._released_by = reason
        if not self.bus.is_connected:
            return
        try:
            self.bus.disable_torque()
        except Exception as error:
            logger.error("%s: %s, but not every motor released its torque: %s", self, reason, error)
        else:
            logger.warning("%s: torque is off: %s", self, reason)

    def _refuse_if_released(self) -> None:
        if self._released_by is not None:
            raise TorqueReleasedError(
                f"{self}: the torque was switched off ({self._released_by}), nothing is sent any more; "
                "disconnect() and connect() again"
            )

    def _close(self, *, disable_torque: bool) -> None:
        """Close all there is, the motors first; of several errors the last is raised, with the others as context."""
        with ExitStack() as closing:
            closing.callback(unprotect, self)
            for camera in getattr(self, "cameras", {}).values():
                if camera.is_connected:
                    closing.callback(camera.disconnect)
            self._disconnect_bus(disable_torque)

    def _disconnect_bus(self, disable_torque: bool) -> None:
        """Disconnect the bus, over a new opening of the port where the present one does not reach all motors.

        A port may have been lost and be back, and the bus itself closes it where its handshake fails.
        """
        if not disable_torque and not self.bus.is_connected:
            return
        try:
            self.bus.disconnect(disable_torque)
        except ConnectionError as error:
            try:
                self.bus.connect(handshake=False)
            except ConnectionError:
                raise ConnectionError(
                    f"{self}: {self.bus.port} cannot be opened any more, so the torque may still be on; switch off "
                    "the arm's power before touching it"
                ) from error
            self.bus.disconnect(disable_torque)

    def _close_after_failure(self) -> None:
        try:
            self._close(disable_torque=True)
        except Exception as error:
            logger.error("%s could not connect, and whether its torque is off is not known: %s", self, error)

    def _reconnecting[T](self, operation: Callable[[], T]) -> T:
        """Carry out an operation on the bus; where the port is lost and the options allow it, reopen and repeat it."""
        try:
            return operation()
        except ConnectionError as error:
            # The bus makes a ConnectionError of the system's error. One without is a servo that does not answer.
            if not self.config.reconnect or not isinstance(error.__cause__, OSError):
                raise
            logger.warning("%s: %s; waiting up to %g s for it", self, error, RECONNECT_S)
        self._reopen()
        logger.warning("%s is back", self)
        return operation()

    def _reopen(self) -> None:
        until_s = time.monotonic() + RECONNECT_S
        while True:
            self._refuse_if_released()
            try:
                self.bus.reopen()
                break
            except (ConnectionError, RuntimeError):
                if time.monotonic() > until_s:
                    raise
            time.sleep(_RECONNECT_PERIOD_S)
        self._after_reopening()

    def _after_reopening(self) -> None:
        """What an arm needs beside its bus before it goes on."""
