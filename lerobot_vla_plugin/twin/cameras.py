"""The twin's cameras: a process of its own renders them and publishes what LeRobot's ZMQ camera reads.

The parent sends what there is to see through the child's standard input, a line of JSON each time, so the child ends
when the parent does, however that happens. The child answers with one line once it publishes.
"""

import base64
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_vla_plugin.twin.arm_models import ARM_MODELS
from lerobot_vla_plugin.twin.jpeg import encode_jpeg
from lerobot_vla_plugin.twin.pictured import Pictured, PicturedScene, PicturedWorld
from lerobot_vla_plugin.twin.rendering import RendererName, open_renderer
from lerobot_vla_plugin.twin.stage import CAMERAS

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0
_HEARTBEAT_S = 0.1  # LeRobot refuses pictures older than 1 s, though in lock-step nothing may have moved since
# Runs this module without the package's __init__, which registers policies with LeRobot: the cameras need
# none of them, and importing them costs 5 s and 400 MB.
_BOOTSTRAP = (
    "import sys, types; package = types.ModuleType('lerobot_vla_plugin'); package.__path__ = [sys.argv[1]]; "
    "sys.modules['lerobot_vla_plugin'] = package; from lerobot_vla_plugin.twin import cameras; "
    "cameras.publish(sys.argv[2])"
)


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """What the cameras deliver.

    Attributes:
        width: Width of the pictures, in [px].
        height: Height of the pictures, in [px].
        fps: Pictures a second, in [Hz].
        port: TCP port on 127.0.0.1; 0 takes a free one.
        renderer: One of `rendering.RENDERERS`.
    """

    width: int = 128
    height: int = 96
    fps: int = 20
    port: int = 0
    renderer: RendererName = "auto"


class CameraProcess:
    """Parent's side of the process that renders and publishes.

    Args:
        config: What the cameras deliver.
        arm: Whose world of tasks they see, one of `ARM_MODELS`; None for the scene of `TouchLife`.
        lock_step: Whether each picture is published as soon as it is sent, and again until the next one.

    Attributes:
        port: TCP port on which both cameras are published; once started.
        renderer: Name of the renderer in use; once started.
    """

    def __init__(self, config: CameraConfig, *, arm: str | None = None, lock_step: bool = False) -> None:
        self._start_options = json.dumps({"cameras": asdict(config), "arm": arm, "lock_step": lock_step})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, picture: Mapping[str, Any]) -> None:
        """Start the process and wait until it publishes.

        Args:
            picture: The first one, as for `send`.

        Raises:
            RuntimeError: It ended or said nothing for a minute; the message holds what it wrote.
        """
        package_folder = Path(__file__).resolve().parents[1]
        command = [sys.executable, "-c", _BOOTSTRAP, str(package_folder), self._start_options]
        # One thread draws small pictures as fast as several, and leaves the other cores alone.
        environment = {"LP_NUM_THREADS": "1", **os.environ}
        # The log goes to a file, as a pipe that nobody reads would fill up and stop the process.
        with tempfile.TemporaryFile() as log:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, env=environment)
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._pictures, self._answer = self._process.stdin, self._process.stdout
            os.set_blocking(self._pictures.fileno(), False)
            self.send(picture)
            ready, _, _ = select.select([self._answer], [], [], _START_TIMEOUT_S)
            line = self._answer.readline() if ready else b""
            if not line:
                self.stop()
                log.seek(0)
                said = log.read().decode(errors="replace").strip().splitlines() or ["no message"]
                raise RuntimeError(f"the camera process did not start: {said[-1]}")
        answer = json.loads(line)
        self.port, self.renderer = int(answer["port"]), str(answer["renderer"])

    def send(self, picture: Mapping[str, Any], *, wait: bool = False) -> None:
        """Tell the cameras where things are now.

        Args:
            picture: What `Pictured.show` takes; its "step", if there is one, travels with the pictures.
            wait: Whether to wait for a process that lags behind; else the picture is dropped then, as it is where the
                process has ended.
        """
        if self._process is None:
            return
        line = json.dumps(picture).encode() + b"\n"  # far shorter than what a pipe takes in one piece or not at all
        while True:
            try:
                os.write(self._pictures.fileno(), line)
            except BlockingIOError:
                if wait and self.is_running:
                    select.select([], [self._pictures], [], _HEARTBEAT_S)
                    continue
            except BrokenPipeError:
                pass
            return

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process id; None before the start and after the stop."""
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """End the process; does nothing where none runs."""
        if self._process is None:
            return
        self._pictures.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answer.close()
        self._process = None


def publish(start_options: str) -> None:
    """Main of the child: render and publish until standard input ends.

    Args:
        start_options: JSON from `CameraProcess`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    import zmq

    options = json.loads(start_options)
    config = CameraConfig(**options["cameras"])
    scene: Pictured = PicturedWorld(ARM_MODELS[options["arm"]]) if options["arm"] else PicturedScene()
    renderer = open_renderer(scene, config.width, config.height, config.renderer)
    socket = zmq.Context.instance().socket(zmq.PUB)
    socket.setsockopt(zmq.LINGER, 0)
    port = config.port or socket.bind_to_random_port("tcp://127.0.0.1")
    if config.port:
        socket.bind(f"tcp://127.0.0.1:{port}")
    print(json.dumps({"port": port, "renderer": renderer.name}), flush=True)
    pace = _heartbeat if options["lock_step"] else _Rate(config.fps)
    parent, pictures, shown, message = os.getppid(), _PictureReader(), None, ""
    while (picture := pictures.latest()) is not None and os.getppid() == parent:
        if picture is not shown:
            scene.show(picture)
            images = {name: renderer.render(name) for name in CAMERAS}
            shown, message = picture, encode_message(images, time.time(), picture.get("step"))
        socket.send_string(message)
        pace()
    renderer.close()
    zmq.Context.instance().destroy()


def _heartbeat() -> None:
    """Wait for a new picture, but not long."""
    select.select([0], [], [], _HEARTBEAT_S)


class _Rate:
    """Waits until the next picture is due, at a rate in [Hz]."""

    def __init__(self, rate_hz: float) -> None:
        self._period_s, self._next_s = 1 / rate_hz, time.monotonic()

    def __call__(self) -> None:
        self._next_s = max(self._next_s + self._period_s, time.monotonic())
        time.sleep(max(0.0, self._next_s - time.monotonic()))


class _PictureReader:
    """Takes the pictures that came in on standard input and keeps the last one."""

    def __init__(self) -> None:
        self._pending = b""
        self._latest: dict[str, Any] | None = None

    def latest(self) -> dict[str, Any] | None:
        """The last one, waiting for the first; None once the input has ended."""
        line = b""
        while (self._latest is None and not line) or select.select([0], [], [], 0)[0]:
            data = os.read(0, 65536)
            if not data:
                return None
            *lines, self._pending = (self._pending + data).split(b"\n")
            line = lines[-1] if lines else line
        if line:
            self._latest = json.loads(line)
        return self._latest


def encode_message(images: dict[str, np.ndarray], time_s: float, step: int | None = None) -> str:
    """Message of LeRobot's ZMQ camera: every camera in each, as the client keeps only the latest message.

    Args:
        images: Camera -> RGB picture, shape (height, width, 3).
        time_s: When the pictures were taken, in [s] since 1970.
        step: Step of the world that they show, where it counts steps; LeRobot's camera does not look at it.
    """
    message: dict[str, Any] = {
        "timestamps": dict.fromkeys(images, time_s),
        "images": {name: base64.b64encode(encode_jpeg(image)).decode("ascii") for name, image in images.items()},
    }
    return json.dumps(message if step is None else message | {"step": step})
