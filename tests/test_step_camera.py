"""LeRobot's ZMQ camera with steps: the picture that is awaited, or an error, and never an older one."""

import json
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("zmq")

from lerobot.cameras.utils import make_cameras_from_configs
from lerobot.cameras.zmq import ZMQCameraConfig

from lerobot_vla_plugin.arms import step_camera
from lerobot_vla_plugin.arms.config_step_camera import StepCameraConfig
from lerobot_vla_plugin.arms.step_camera import StepCamera
from lerobot_vla_plugin.twin.cameras import encode_message


class Publisher:
    """Publishes pictures whose brightness is their step, and the last one again and again."""

    def __init__(self) -> None:
        import zmq

        self._socket = zmq.Context.instance().socket(zmq.PUB)
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self.show(0)
        self._thread = threading.Thread(target=self._beat)
        self._thread.start()

    def show(self, step: int | None) -> None:
        picture = np.full((24, 32, 3), step or 0, np.uint8)
        with self._lock:
            self._message = encode_message({"front": picture, "wrist": 255 - picture}, time.time(), step)
            self._socket.send_string(self._message)

    def _beat(self) -> None:
        while not self._stopping.wait(0.05):
            with self._lock:
                self._socket.send_string(self._message)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._socket.close(linger=0)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    publisher.close()


def _connect(publisher: Publisher, name: str = "front") -> StepCamera:
    config = StepCameraConfig(
        server_address="127.0.0.1", port=publisher.port, camera_name=name, width=32, height=24, fps=20
    )
    camera = make_cameras_from_configs({name: config})[name]
    assert type(camera) is StepCamera
    camera.connect()
    return camera


@pytest.fixture
def camera(publisher: Publisher) -> Iterator[StepCamera]:
    camera = _connect(publisher)
    yield camera
    camera.disconnect()


def test_every_reading_shows_the_step_that_is_awaited(publisher: Publisher, camera: StepCamera) -> None:
    for step in range(1, 100):
        camera.await_step(step)
        threading.Timer(0.001 * (step % 3), publisher.show, [step]).start()
        read = camera.read_latest if step % 2 else camera.async_read
        assert read().mean() == pytest.approx(step, abs=1)
        assert camera.read_latest().mean() == pytest.approx(step, abs=1)  # as often as one likes


def test_a_later_picture_will_do(publisher: Publisher, camera: StepCamera) -> None:
    publisher.show(9)
    camera.await_step(4)
    assert camera.read_latest().mean() == pytest.approx(9, abs=1)


def test_a_picture_that_does_not_come_is_an_error_with_both_steps(publisher, camera, monkeypatch) -> None:
    monkeypatch.setattr(step_camera, "PATIENCE_S", 0.2)
    publisher.show(3)
    camera.await_step(5)
    with pytest.raises(TimeoutError, match=r"picture of step 5, got none later than step 3"):
        camera.read_latest()
    publisher.show(5)
    assert camera.read_latest().mean() == pytest.approx(5, abs=1)


def test_without_an_awaited_step_it_is_lerobots_camera(publisher: Publisher, camera: StepCamera) -> None:
    publisher.show(None)  # what other publishers send carries no step
    time.sleep(0.2)
    assert camera.read().shape == camera.read_latest().shape == (24, 32, 3)
    camera.await_step(0)
    camera.await_step(None)
    assert camera.async_read(timeout_ms=1000).shape == (24, 32, 3)


def test_cameras_take_their_own_picture_and_a_wrong_name_is_named(publisher: Publisher) -> None:
    publisher.show(40)
    wrist = _connect(publisher, "wrist")
    wrist.await_step(40)
    assert wrist.read_latest().mean() == pytest.approx(215, abs=1)
    wrist.camera_name = "elbow"
    with pytest.raises(RuntimeError, match=r"no camera 'elbow'; there are \['front', 'wrist'\]"):
        wrist._read_from_hardware()
    wrist.camera_name = "wrist"
    wrist.disconnect()


def test_a_new_connection_forgets_the_pictures_of_the_last_one(publisher: Publisher, camera: StepCamera) -> None:
    publisher.show(200)
    camera.await_step(200)
    camera.read_latest()
    camera.disconnect()
    publisher.show(7)  # another twin, which begins anew
    camera.connect()
    camera.await_step(7)
    assert camera.read_latest().mean() == pytest.approx(7, abs=1)


def test_the_type_is_one_of_lerobots_with_the_same_options() -> None:
    assert StepCameraConfig(server_address="x").type == "step_zmq"
    assert issubclass(StepCameraConfig, ZMQCameraConfig)
    message = json.loads(encode_message({"front": np.zeros((2, 2, 3), np.uint8)}, 0.0))
    assert "step" not in message
