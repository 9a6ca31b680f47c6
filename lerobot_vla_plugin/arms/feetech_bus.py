"""LeRobot's Feetech bus (SO-101) that retries, checks and reports; see `reliable_bus`."""

from lerobot.motors.feetech import FeetechMotorsBus
from lerobot.motors.motors_bus import Motor, MotorCalibration

from lerobot_vla_plugin.arms.reliable_bus import ReliableBus
from lerobot_vla_plugin.arms.serial_faults import FEETECH_FAULTS, ServoFault, faults_in
from lerobot_vla_plugin.arms.serial_frames import FeetechFrames, Reply


class ReliableFeetechBus(ReliableBus, FeetechMotorsBus):
    """`FeetechMotorsBus` with the guarantees of `ReliableBus`.

    Args:
        port: As for `FeetechMotorsBus`.
        motors: As there; of protocol 0 (STS and SMS series) only.
        calibration: As there.
    """

    _position_wraps = True

    def __init__(
        self, port: str, motors: dict[str, Motor], calibration: dict[str, MotorCalibration] | None = None
    ) -> None:
        super().__init__(port, motors, calibration)
        import scservo_sdk

        self._make_reliable(scservo_sdk, FeetechFrames())

    def _send_sync_read(self, address: int, length: int, ids: list[int]) -> int:
        return self._sdk.syncReadTx(self.port_handler, address, length, ids, len(ids))

    def _faults_of(self, reply: Reply) -> tuple[ServoFault, ...]:
        return faults_in(reply.error, FEETECH_FAULTS)
