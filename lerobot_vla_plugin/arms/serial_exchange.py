"""Questions and answers on a servo bus: a reply is believed only if it is exactly the one that was awaited.

After a timeout or a bad reply the bus is silent for `SILENCE_S`, its input is thrown away, and the question is put
again. A reply that comes still later meets another question. It carries no number that tells them apart, but it
has a length: every question after a bad reply asks for another number of bytes than the ones before (behind the
register stand other registers), so a reply to an earlier question has the wrong length and is refused.

What remains: a late reply to a write, which has no data and so no length to choose; one that comes after
`_LENGTHS` further bad replies; and on Feetech noise that passes the 8-bit sum, 1 time in 256.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from lerobot_vla_plugin.arms.serial_frames import BadReplyError, Flaw, Frames, Reply
from lerobot_vla_plugin.arms.serial_port import SerialPort

# Longer than the 16 ms for which an FTDI adapter may hold bytes back; a reply at most
# REPLY_TIMEOUT_S + SILENCE_S = 70 ms late therefore ends in the bin.
SILENCE_S = 0.02
# With 1 % of the replies lost, a reading of six servos fails 6 times in 100; five retries leave 4 in 100 million.
RETRIES = 5
_LENGTHS = 8


@dataclass
class BusStatistics:
    """What a bus went through since it was made.

    Attributes:
        transactions: Questions asked, each retry counted.
        timeouts: No byte of a reply came.
        corrupt: Check sum or frame is wrong.
        foreign: A servo answered that was not asked, or not at its turn.
        short: The reply ends early, or has another length than the one asked for.
        surplus: More bytes than the reply.
        unsent: The port did not take the question.
        implausible: Positions that contradict the reading before.
        stale_bytes: Bytes that were thrown away before a question.
        retries: Questions that were put again.
        failures: Operations that failed after all retries.
    """

    transactions: int = 0
    timeouts: int = 0
    corrupt: int = 0
    foreign: int = 0
    short: int = 0
    surplus: int = 0
    unsent: int = 0
    implausible: int = 0
    stale_bytes: int = 0
    retries: int = 0
    failures: int = 0

    def count(self, flaw: Flaw) -> None:
        """Count a bad reply."""
        setattr(self, flaw, getattr(self, flaw) + 1)

    def summary(self) -> str:
        """What went wrong, in one line."""
        counts = {name: count for name, count in asdict(self).items() if count and name != "transactions"}
        flaws = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        return f"{self.transactions} questions on the servo bus: {flaws or 'all were answered at once'}"


class ServoRefusedError(RuntimeError):
    """A servo received an instruction and did not carry it out."""


class SerialExchange:
    """Puts questions on the bus, one at a time.

    A signal handler may ask in the middle of a question of the same thread: its question waits until the reply to
    the other has passed, and the other one, whose reply is gone then, is put again. Other threads wait.

    Args:
        port: The open or still closed port.
        frames: Frames of the servo family.
        comm_success: The SDK's code for an instruction that was sent.
        name_of: Servo id -> name, for messages.

    Attributes:
        statistics: What happened so far.
    """

    def __init__(self, port: SerialPort, frames: Frames, comm_success: int, name_of: Callable[[int], str]) -> None:
        self.statistics = BusStatistics()
        self._port = port
        self._frames = frames
        self._comm_success = comm_success
        self._name_of = name_of
        self._lock = threading.RLock()
        self._unsettled = False
        self._bad_replies = 0

    def ask(
        self, send: Callable[[int], int], ids: Sequence[int], length: int, *, what: str, retries: int, spare_bytes: int
    ) -> list[Reply]:
        """Ask until all replies are right.

        Args:
            send: Sends the question, given the number of bytes to ask for; returns the SDK's code.
            ids: Servos in the order in which they answer.
            length: Bytes awaited from each; replies may carry more behind them.
            what: The operation, for the message.
            retries: How often the question is put again at most.
            spare_bytes: Readable bytes behind those asked for.

        Raises:
            ConnectionError: No retry brought the replies, or the port is gone.
            ServoRefusedError: A servo did not do what it was told.
        """
        flaws: Counter[tuple[str, Flaw]] = Counter()
        for attempt in range(1 + retries):
            self.statistics.retries += attempt > 0
            asked = length + min(self._bad_replies % _LENGTHS, spare_bytes)
            try:
                with self._lock:
                    return self._attempt(send, ids, asked)
            except BadReplyError as bad:
                self.statistics.count(bad.flaw)
                self.distrust()
                flaws[self._name_of(bad.servo_id), bad.flaw] += 1
        self.statistics.failures += 1
        raise ConnectionError(self._failure(what, flaws))

    def tell(self, send: Callable[[], object]) -> None:
        """Send what nobody answers.

        Args:
            send: Sends it.

        Raises:
            ConnectionError: The port is gone.
        """
        with self._lock:
            self._settle()
            self._on_port(send)

    def distrust(self) -> None:
        """Treat the last replies like bad ones: be silent before the next question, and ask for another length."""
        self._unsettled = True
        self._bad_replies += 1

    def _attempt(self, send: Callable[[int], int], ids: Sequence[int], length: int) -> list[Reply]:
        self._settle()
        self.statistics.transactions += 1
        # Until the reply is complete: what ends the attempt early, a signal too, leaves bytes under way.
        self._unsettled = True
        if self._on_port(lambda: send(length)) != self._comm_success:
            raise BadReplyError(Flaw.UNSENT, ids[0])
        replies = self._on_port(lambda: self._receive(ids, length))
        self._unsettled = False
        return replies

    def _settle(self) -> None:
        if self._unsettled:
            time.sleep(SILENCE_S)
            self._unsettled = False
        self._port.is_using = False  # the SDKs leave it set where an attempt ends early
        self.statistics.stale_bytes += self._on_port(self._port.discard)

    def _receive(self, ids: Sequence[int], length: int) -> list[Reply]:
        awaited = len(ids) * (self._frames.smallest_bytes + length)
        received = self._port.receive(awaited)
        if not received:
            raise BadReplyError(Flaw.TIMEOUT, ids[0])
        in_time = len(received) == awaited
        replies, start = [], 0
        for servo_id in ids:
            size = self._size(received[start : start + self._frames.head_bytes], servo_id, length)
            if in_time and (missing := start + size - len(received)) > 0:  # longer by stuffed bytes
                received += self._port.receive(missing)
            reply = self._decode(received[start : start + size], size, servo_id)
            if reply.id != servo_id:  # of too few bytes some are missing: then this servo's own reply
                raise BadReplyError(Flaw.FOREIGN if in_time else Flaw.TIMEOUT, servo_id)
            self._check(reply, length)
            replies.append(reply)
            start += size
        if start < len(received) or self._port.waiting():
            # Then one of two replies is not to this question, and nobody knows which.
            raise BadReplyError(Flaw.SURPLUS, ids[-1])
        return replies

    def _size(self, head: bytes, servo_id: int, length: int) -> int:
        if len(head) < self._frames.head_bytes:
            raise BadReplyError(Flaw.SHORT, servo_id)
        size = self._frames.size(head)
        if size is None:
            raise BadReplyError(Flaw.CORRUPT, servo_id)
        if size > self._frames.smallest_bytes + 2 * length:  # stuffing adds a third at most
            raise BadReplyError(Flaw.SHORT, servo_id)
        return size

    def _decode(self, frame: bytes, size: int, servo_id: int) -> Reply:
        if len(frame) < size:
            raise BadReplyError(Flaw.SHORT, servo_id)
        reply = self._frames.decode(frame)
        if reply is None:
            raise BadReplyError(Flaw.CORRUPT, servo_id)
        return reply

    def _check(self, reply: Reply, length: int) -> None:
        if refusal := self._frames.refusal(reply.error):
            raise ServoRefusedError(f"servo {reply.id} ({self._name_of(reply.id)}) refused an instruction: {refusal}")
        if len(reply.data) != length:
            raise BadReplyError(Flaw.SHORT, reply.id)

    def _on_port[T](self, act: Callable[[], T]) -> T:
        try:
            return act()
        except ConnectionError:
            raise
        except OSError as error:
            raise ConnectionError(
                f"the serial port {self._port.port_name} is gone ({error}); plug the arm in again and reconnect"
            ) from error

    def _failure(self, what: str, flaws: Counter[tuple[str, Flaw]]) -> str:
        seen = ", ".join(f"{name}: {flaw} x{count}" for (name, flaw), count in flaws.items())
        remedy = "check the power, and the cable to that servo and to those before it"
        return f"could not {what} on {self._port.port_name} in {flaws.total()} tries ({seen}); {remedy}"
