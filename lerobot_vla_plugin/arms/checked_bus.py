"""LeRobot's servo buses over `SerialExchange`: every operation is checked and retried, every fault bit noticed."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

from lerobot.motors.motors_bus import NameOrID, SerialMotorsBus

from lerobot_vla_plugin.arms.serial_exchange import RETRIES, BusStatistics, SerialExchange
from lerobot_vla_plugin.arms.serial_faults import ServoFault, ServoFaultLog
from lerobot_vla_plugin.arms.serial_frames import Frames, Reply
from lerobot_vla_plugin.arms.serial_port import mended_port


class CheckedBus(SerialMotorsBus):
    """Mixin before `FeetechMotorsBus` or `DynamixelMotorsBus`: the way to the wire.

    LeRobot's methods come down to reading, writing and pinging; those are overridden here, so that everything
    above them, from the handshake to the calibration, is checked and retried. Instructions still leave through the
    SDK's packet handler.
    """

    def _use_checked_exchange(self, sdk: Any, frames: Frames) -> None:
        """Put our port and our way of asking in the place of the SDK's; the last step of a constructor."""
        self.port_handler = mended_port(sdk.PortHandler, self.port)
        self.sync_reader.port = self.sync_writer.port = cast(Any, self.port_handler)
        self._comm_failure: int = sdk.COMM_RX_FAIL
        self._exchange = SerialExchange(cast(Any, self.port_handler), frames, self._comm_success, self._name_of)
        self._fault_log = ServoFaultLog()
        self._error_bytes: dict[int, int] = {}

    @property
    def _sdk(self) -> Any:  # LeRobot declares methods of the packet handler without their results
        return self.packet_handler

    @property
    def statistics(self) -> BusStatistics:
        """Counts of everything that went wrong on the wire."""
        return self._exchange.statistics

    @property
    def servo_errors(self) -> dict[str, tuple[ServoFault, ...]]:
        """Joint -> faults that its servo reports at present; only joints that report some."""
        return dict(self._fault_log.present)

    def _connect(self, handshake: bool = True) -> None:
        """As LeRobot's; the port is closed again where the handshake fails."""
        self._error_bytes.clear()
        try:
            super()._connect(handshake)
        except BaseException:
            self.port_handler.closePort()
            raise

    def ping(self, motor: NameOrID, num_retry: int = 0, raise_on_error: bool = False) -> int | None:
        """As LeRobot's: the model number, read from its register, or None where the servo does not answer."""
        address, length = next(iter(self.model_ctrl_table.values()))["Model_Number"]
        id_ = self._get_motor_id(motor)
        value, comm, _ = self._read(address, length, id_, num_retry=num_retry, raise_on_error=raise_on_error)
        return value if self._is_comm_success(comm) else None

    def broadcast_ping(self, num_retry: int = 0, raise_on_error: bool = False) -> dict[int, int] | None:
        """As LeRobot's, repeated until two answers are the same: nobody else notices a reply that is lost."""
        found, before = self._ping_all(), object()
        for _ in range(1 + max(num_retry, RETRIES)):
            found, before = self._ping_all(), found
            if found == before:
                break
        else:
            found = None
        if found is None and raise_on_error:
            raise ConnectionError(f"no servo answers on {self.port}, or never the same ones; check power and cables")
        return found

    def _ping_all(self) -> dict[int, int] | None:
        found: list[dict[int, int] | None] = []
        self._exchange.tell(lambda: found.append(super(CheckedBus, self).broadcast_ping()))
        return found[0]

    def _read(
        self,
        address: int,
        length: int,
        motor_id: int,
        *,
        num_retry: int = 0,
        raise_on_error: bool = True,
        err_msg: str = "",
    ) -> tuple[int, int, int]:
        def send(asked: int) -> int:
            return self._sdk.readTx(self.port_handler, motor_id, address, asked)

        what = f"read {self._register(address)}"
        values, comm = self._ask_values(send, [motor_id], (address, length), what, num_retry, raise_on_error)
        return values.get(motor_id, 0), comm, self._no_error

    def _sync_read(
        self,
        addr: int,
        length: int,
        motor_ids: list[int],
        *,
        num_retry: int = 0,
        raise_on_error: bool = True,
        err_msg: str = "",
    ) -> tuple[dict[int, int], int]:
        def send(asked: int) -> int:
            return self._send_sync_read(addr, asked, motor_ids)

        what = f"read {self._register(addr)}"
        return self._ask_values(send, motor_ids, (addr, length), what, num_retry, raise_on_error)

    def _write(
        self,
        addr: int,
        length: int,
        motor_id: int,
        value: int,
        *,
        num_retry: int = 0,
        raise_on_error: bool = True,
        err_msg: str = "",
    ) -> tuple[int, int]:
        data = self._serialize_data(value, length)

        def send(_: int) -> int:
            return self._sdk.writeTxOnly(self.port_handler, motor_id, addr, length, data)

        what = f"write {value} to {self._register(addr)}"
        _, comm = self._ask_values(send, [motor_id], None, what, num_retry, raise_on_error)
        return comm, self._no_error

    def _sync_write(
        self,
        addr: int,
        length: int,
        ids_values: dict[int, int],
        num_retry: int = 0,
        raise_on_error: bool = True,
        err_msg: str = "",
    ) -> int:
        results: list[int] = []
        send = super()._sync_write
        self._exchange.tell(lambda: results.append(send(addr, length, ids_values, RETRIES, raise_on_error, err_msg)))
        return results[0]

    def _send_sync_read(self, address: int, length: int, ids: list[int]) -> int:
        raise NotImplementedError

    def _ask_values(
        self,
        send: Callable[[int], int],
        ids: list[int],
        register: tuple[int, int] | None,
        what: str,
        num_retry: int,
        raise_on_error: bool,
    ) -> tuple[dict[int, int], int]:
        """Servo id -> value of a register (None: a write, which has none), and the SDK's code."""
        length, spare = (0, 0) if register is None else (register[1], self._memory_bytes - sum(register))
        retries = max(num_retry, RETRIES)
        try:
            replies = self._exchange.ask(send, ids, length, what=what, retries=retries, spare_bytes=max(spare, 0))
        except ConnectionError:
            if raise_on_error:
                raise
            return {}, self._comm_failure
        self._note_errors(replies)
        return {reply.id: int.from_bytes(reply.data[:length], "little") for reply in replies}, self._comm_success

    def _note_errors(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            if reply.error != self._error_bytes.get(reply.id, self._no_error):
                self._error_bytes[reply.id] = reply.error
                self._fault_log.update(self._name_of(reply.id), self._faults_of(reply))

    def _faults_of(self, reply: Reply) -> tuple[ServoFault, ...]:
        raise NotImplementedError

    def _name_of(self, servo_id: int) -> str:
        return self._id_to_name_dict.get(servo_id, f"servo {servo_id}")

    def _register(self, address: int) -> str:
        table = next(iter(self.model_ctrl_table.values()))
        return next((name for name, row in table.items() if row[0] == address), f"address {address}")

    @cached_property
    def _memory_bytes(self) -> int:
        return max(sum(row) for row in next(iter(self.model_ctrl_table.values())).values())
