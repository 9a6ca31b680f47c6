"""The twin's cameras: a process of its own renders them and publishes what LeRobot's ZMQ camera reads.

The parent sends poses through the child's standard input, so the child ends when the parent does, however
that happens. The child answers with one line of JSON once it publishes.
"""

import base64
import json
import logging
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lerobot_vla_plugin.twin.jpeg import encode_jpeg
from lerobot_vla_plugin.twin.rendering import RendererName, open_renderer
from lerobot_vla_plugin.twin.scene import CAMERAS, JOINTS, Scene

_POSE = struct.Struct(f"<{len(JOINTS) + 3}d")  # six joints, centre of the cube
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0
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

    Attributes:
        port: TCP port on which both cameras are published; once started.
        renderer: Name of the renderer in use; once started.
    """

    def __init__(self, config: CameraConfig) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, joints: NDArray[np.float64], cube_m: NDArray[np.float64]) -> None:
        """Start the process and wait until it publishes.

        Args:
            joints: Posture on the first picture, as for `send_pose`.
            cube_m: Cube on the first picture.

        Raises:
            RuntimeError: It ended or said nothing for a minute; the message holds what it wrote.
        """
        package_folder = Path(__file__).resolve().parents[1]
        command = [sys.executable, "-c", _BOOTSTRAP, str(package_folder), json.dumps(asdict(self._config))]
        # The log goes to a file, as a pipe that nobody reads would fill up and stop the process.
        with tempfile.TemporaryFile() as log:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log)
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._poses, self._answer = self._process.stdin, self._process.stdout
            os.set_blocking(self._poses.fileno(), False)
            self.send_pose(joints, cube_m)
            ready, _, _ = select.select([self._answer], [], [], _START_TIMEOUT_S)
            line = self._answer.readline() if ready else b""
            if not line:
                self.stop()
                log.seek(0)
                said = log.read().decode(errors="replace").strip().splitlines() or ["no message"]
                raise RuntimeError(f"the camera process did not start: {said[-1]}")
        answer = json.loads(line)
        self.port, self.renderer = int(answer["port"]), str(answer["renderer"])

    def send_pose(self, joints: NDArray[np.float64], cube_m: NDArray[np.float64]) -> None:
        """Tell the cameras where things are now; dropped where the process lags behind or has ended.

        Args:
            joints: Shape (6,): five angles in [deg], gripper in [0, 100].
            cube_m: Centre of the cube, shape (3,), in [m].
        """
        if self._process is None:
            return
        try:
            os.write(self._poses.fileno(), _POSE.pack(*joints, *cube_m))
        except (BlockingIOError, BrokenPipeError):
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
        self._poses.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answer.close()
        self._process = None


def publish(config_json: str) -> None:
    """Main of the child: render and publish until standard input ends.

    Args:
        config_json: A `CameraConfig` as JSON.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    import zmq

    config = CameraConfig(**json.loads(config_json))
    scene = Scene()
    renderer = open_renderer(scene, config.width, config.height, config.renderer)
    socket = zmq.Context.instance().socket(zmq.PUB)
    socket.setsockopt(zmq.LINGER, 0)
    port = config.port or socket.bind_to_random_port("tcp://127.0.0.1")
    if config.port:
        socket.bind(f"tcp://127.0.0.1:{port}")
    parent, poses = os.getppid(), _PoseReader()
    print(json.dumps({"port": port, "renderer": renderer.name}), flush=True)
    next_s = time.monotonic()
    while (pose := poses.latest()) is not None and os.getppid() == parent:
        scene.place(pose[: len(JOINTS)], pose[len(JOINTS) :])
        socket.send_string(encode_message({name: renderer.render(name) for name in CAMERAS}, time.time()))
        next_s = max(next_s + 1 / config.fps, time.monotonic())
        time.sleep(max(0.0, next_s - time.monotonic()))
    renderer.close()
    zmq.Context.instance().destroy()


class _PoseReader:
    """Takes the poses that came in on standard input and keeps the last one."""

    def __init__(self) -> None:
        self._pending = b""
        self._latest: tuple[float, ...] | None = None

    def latest(self) -> tuple[float, ...] | None:
        """The last pose, waiting for the first one; None once the input has ended."""
        while self._latest is None or select.select([0], [], [], 0)[0]:
            data = os.read(0, 65536)
            if not data:
                return None
            self._pending += data
            whole = len(self._pending) // _POSE.size * _POSE.size
            if whole:
                self._latest = _POSE.unpack(self._pending[whole - _POSE.size : whole])
                self._pending = self._pending[whole:]
        return self._latest


def encode_message(images: dict[str, np.ndarray], time_s: float) -> str:
    """Message of LeRobot's ZMQ camera: every camera in each, as the client keeps only the latest message.

    Args:
        images: Camera -> RGB picture, shape (height, width, 3).
        time_s: When the pictures were taken, in [s] since 1970.
    """
    return json.dumps(
        {
            "timestamps": dict.fromkeys(images, time_s),
            "images": {name: base64.b64encode(encode_jpeg(image)).decode("ascii") for name, image in images.items()},
        }
    )
