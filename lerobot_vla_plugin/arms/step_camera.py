"""LeRobot's ZMQ camera for a twin in lock-step: a reader can wait for the picture of a certain step."""

import base64
import json
import threading
from typing import Any

import cv2
import numpy as np
from lerobot.cameras.zmq import ZMQCamera
from lerobot.utils.errors import DeviceNotConnectedError
from numpy.typing import NDArray

from lerobot_vla_plugin.arms.config_step_camera import StepCameraConfig

PATIENCE_S = 10.0


class StepCamera(ZMQCamera):
    """A ZMQ camera that gives no picture older than the step that is awaited.

    Args:
        config: Its options.
    """

    def __init__(self, config: StepCameraConfig) -> None:
        super().__init__(config)
        self._awaited: int | None = None
        self._arrived = threading.Condition()
        self._shown: tuple[int, NDArray[Any]] | None = None

    def await_step(self, step: int | None) -> None:
        """Let the next readings wait for the picture of a step, or of a later one.

        Args:
            step: The step; None to take what is there, as LeRobot's camera does.
        """
        self._awaited = step

    def read_latest(self, max_age_ms: int = 1000) -> NDArray[Any]:
        """The latest picture, once it shows the awaited step.

        Args:
            max_age_ms: As in LeRobot; without effect where a step is awaited.

        Raises:
            TimeoutError: The picture does not come in 10 s, or, without an awaited step, the latest one is too old.
        """
        return super().read_latest(max_age_ms) if self._awaited is None else self._read_awaited(self._awaited)

    def async_read(self, timeout_ms: float = 200) -> NDArray[Any]:
        """As `read_latest` where a step is awaited; else a picture that was not read yet, as in LeRobot.

        Args:
            timeout_ms: As in LeRobot; without effect where a step is awaited.

        Raises:
            TimeoutError: The picture does not come in 10 s, or, without an awaited step, in the time given.
        """
        return super().async_read(timeout_ms) if self._awaited is None else self._read_awaited(self._awaited)

    def _start_read_thread(self) -> None:
        self._shown = self._awaited = None  # of the connection before
        super()._start_read_thread()

    def _read_awaited(self, step: int) -> NDArray[Any]:
        if not self.is_connected:
            raise DeviceNotConnectedError(f"{self} is not connected.")
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._step() >= step, PATIENCE_S) or self._shown is None:
                raise TimeoutError(
                    f"{self}: expected a picture of step {step}, got none later than step {self._step()} in "
                    f"{PATIENCE_S:g} s; is the twin still there, and does it run in lock-step?"
                )
            return self._shown[1]

    def _step(self) -> int:
        return self._shown[0] if self._shown else -1

    def _read_from_hardware(self) -> NDArray[Any]:
        """As LeRobot's, which forgets all of the message but the picture."""
        if not self.is_connected or self.socket is None:
            raise DeviceNotConnectedError(f"{self} is not connected.")
        import zmq  # LeRobot's camera has checked by now that it is there

        try:
            message = json.loads(self.socket.recv_string())
        except zmq.Again as error:
            raise TimeoutError(f"{self}: no picture came in {self.timeout_ms} ms") from error
        if self.camera_name not in message.get("images", {}):
            raise RuntimeError(f"{self}: no camera {self.camera_name!r}; there are {list(message.get('images', {}))}")
        jpeg = base64.b64decode(message["images"][self.camera_name])
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise RuntimeError(f"{self}: expected a JPEG, got {len(jpeg)} bytes that are none")
        with self._arrived:
            self._shown = message.get("step", -1), picture
            self._arrived.notify_all()
        return picture
