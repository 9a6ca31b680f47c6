"""The serial port of both servo SDKs, mended: stale input is thrown away, and waiting does not keep a core busy."""

import contextlib
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from lerobot.motors.motors_bus import PortHandler

# A servo answers within a millisecond. An FTDI adapter holds bytes back for up to 16 ms (its latency timer), the
# host may be late by as much again: three such periods. LeRobot waits about as long (Feetech 50 ms, Dynamixel 34).
REPLY_TIMEOUT_S = 0.05
_LONGEST_REPLIES_BYTES = 250  # of all servos asked at once; at 1 Mbaud 2.5 ms, at 9600 baud 260 ms
_BITS_PER_BYTE = 10  # with start and stop bit


class PortInUseError(OSError):
    """Another program of this package has the port open."""


class SerialPort:
    """Goes before a PortHandler of `scservo_sdk` or `dynamixel_sdk`; both have the same methods.

    Reading blocks in the operating system until the bytes are there or the reply timeout is over, and what is
    there is returned however late the host looks: the clock never decides before the buffer does.
    """

    ser: Any
    is_open: bool
    is_using: bool
    baudrate: int
    port_name: str

    def setupPort(self, cflag_baud: int) -> bool:  # noqa: N802
        """Open the port for this program alone, with a read timeout, where the SDK has none and polls.

        Raises:
            PortInUseError: Another program drives an arm at this port.
        """
        done = cast(Any, super()).setupPort(cflag_baud)
        self._lock()
        self.ser.timeout = REPLY_TIMEOUT_S + _LONGEST_REPLIES_BYTES * _BITS_PER_BYTE / self.baudrate
        return done

    def clearPort(self) -> None:  # noqa: N802
        """Throw away input that nobody waits for any more; the SDKs only wait for their output."""
        self.discard()

    def closePort(self) -> None:  # noqa: N802
        """Close the port; it counts as closed even where the device is gone and closing fails."""
        try:
            if self.ser is not None:
                self._unlock()
                self.ser.close()
        finally:
            self.is_open = False

    def _lock(self) -> None:
        """Two programs on one bus read each other's replies, and each switches the other's torque."""
        try:
            import fcntl
        except ImportError:  # Windows, where a port is never shared
            return
        try:
            fcntl.flock(self.ser.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.closePort()
            raise PortInUseError(
                f"another program drives an arm at {self.port_name} (an evaluation, a recording?); end that one first"
            ) from error

    def _unlock(self) -> None:
        """Closing is not enough: a forked picture writer has the open port, too."""
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(self.ser.fileno(), fcntl.LOCK_UN)

    def discard(self) -> int:
        """Throw away what has arrived; returns the number of bytes."""
        discarded = 0
        while waiting := self.ser.in_waiting:
            discarded += len(self.ser.read(waiting))
        return discarded

    def receive(self, count: int) -> bytes:
        """Wait for bytes; fewer come back where no more arrived within the reply timeout.

        Args:
            count: Number of bytes to wait for.
        """
        return self.ser.read(count)

    def waiting(self) -> int:
        """Number of bytes that have arrived and were not read."""
        return self.ser.in_waiting


def mended_port(sdk_port_handler: type, port: str) -> "PortHandler":
    """A port handler of an SDK with the methods of `SerialPort` before its own.

    Args:
        sdk_port_handler: The SDK's class; a parameter because only one of the two SDKs may be installed.
        port: Path or name of the port.
    """
    return cast(Any, type("MendedPortHandler", (SerialPort, sdk_port_handler), {}))(port)
