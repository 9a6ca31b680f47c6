"""Control of a running twin with tasks: lay a scene, let time pass in lock-step, ask for the verdict.

A socket beside the ports carries one line of JSON a request and one a reply. Joints, goals and pictures go over the
servo protocol and the cameras, as on a real arm.

In lock-step a client must know that a goal was taken in before it lets time pass: nobody answers a sync write, so it
reads any register between `send_action` and `advance`.
"""

import contextlib
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

CONTROL_NAME = "control"
_REPLY_TIMEOUT_S = 60.0
_LONGEST_PATH = 100  # bytes; the system's limit for the name of a socket is 104 to 108


class TwinError(RuntimeError):
    """The twin refuses a request; the message is its reason."""


class TwinBusyError(TwinError):
    """Somebody else controls the twin."""


@dataclass(frozen=True, slots=True)
class TwinFacts:
    """What a twin is.

    Attributes:
        arm: Kind of arm.
        lock_step: Whether time passes only in `TwinControl.advance`.
        steps_per_s: Steps of the world in a simulated second, in [Hz].
        follower_port: Stable name of the follower's serial port.
        leader_port: Stable name of the leader's serial port.
        camera_port: TCP port on 127.0.0.1 of the cameras.
    """

    arm: str
    lock_step: bool
    steps_per_s: int
    follower_port: Path
    leader_port: Path
    camera_port: int


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """A scene that was laid.

    Attributes:
        task: Name of the task.
        seed: Seed of the scene.
        instruction: What the person says.
        color: The cube that the instruction names.
        time_limit_s: When an attempt has failed, in [s].
        start_rad: Joint -> angle of the start posture, in [rad].
        layout: Places: {"cubes": {color: {"x_m", "y_m", "yaw_rad"}}, "bin_m": [x, y] or None}.
        step: Step at which the scene begins; its first picture carries it.
    """

    task: str
    seed: int
    instruction: str
    color: str
    time_limit_s: float
    start_rad: Mapping[str, float]
    layout: Mapping[str, Any]
    step: int


@dataclass(frozen=True, slots=True)
class VerdictFacts:
    """What has been done in a scene up to now.

    Attributes:
        success: Whether the instruction was followed: with the named cube, and with no other.
        taken: The first cube to which the task's deed was done; None for none yet.
        done: Deed ("touched", "lifted", "placed") -> cubes to which it was done, in that order.
        step: The present step.
        seconds: Time since the scene began, in [s].
    """

    success: bool
    taken: str | None
    done: Mapping[str, tuple[str, ...]]
    step: int
    seconds: float


class TwinControl:
    """A client of a running twin, which has one at a time. A context manager.

    Args:
        directory: The twin's folder.

    Attributes:
        facts: What the twin is.
        step: The latest step heard of. It counts from the start of the twin, across scenes, and never goes back.

    Raises:
        ConnectionError: No twin with tasks runs there.
        TwinBusyError: Another client is connected.
    """

    facts: TwinFacts

    def __init__(self, directory: Path) -> None:
        self._socket = _connect(directory)
        self._lines = self._socket.makefile("r", encoding="utf-8")
        with self._closed_on_error():
            facts = self._read()
            self.step = int(facts.pop("step"))
            facts |= {name: Path(facts[name]) for name in ("follower_port", "leader_port")}
            self.facts = TwinFacts(**facts)

    def reset(self, task: str, seed: int, color: str | None = None) -> SceneFacts:
        """Lay a new scene. The arm stands at its start posture at once, its goals too; torque stays as it was.

        Args:
            task: One of the twin's tasks.
            seed: Decides places, colors, light and, unless given, the named cube.
            color: The cube to name.

        Raises:
            TwinError: There is no such task or color; the message lists those there are.
        """
        scene = SceneFacts(**self._ask("reset", task=task, seed=seed, color=color))
        self.step = scene.step
        return scene

    def advance(self, steps: int) -> int:
        """Let the world run, and have the cameras publish a picture of where it is then.

        Args:
            steps: How far, at least 1.

        Returns:
            The step that the picture carries.

        Raises:
            TwinError: The twin runs in real time, `steps` is none, or the simulation broke down.
        """
        self.step = int(self._ask("advance", steps=steps)["step"])
        return self.step

    def verdict(self) -> VerdictFacts:
        """What has been done in the scene up to now."""
        reply = self._ask("verdict")
        reply["done"] = {deed: tuple(colors) for deed, colors in reply["done"].items()}
        verdict = VerdictFacts(**reply)
        self.step = verdict.step
        return verdict

    def close(self) -> None:
        """Let go of the twin, which goes on; may be called twice."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        self._socket.sendall(json.dumps({"request": name, **arguments}).encode() + b"\n")
        return self._read()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError as error:
            raise ConnectionError(f"the twin said nothing for {_REPLY_TIMEOUT_S:g} s; is it stopped?") from error
        if not line:
            raise ConnectionError("the twin has ended; start it again: lerobot-vla twin --task ...")
        reply = json.loads(line)
        if "error" in reply:
            raise (TwinBusyError if reply.get("busy") else TwinError)(reply["error"])
        return reply

    @contextlib.contextmanager
    def _closed_on_error(self):
        try:
            yield
        except BaseException:
            self.close()
            raise


def control_path(directory: Path) -> str:
    """Name of the control socket.

    Args:
        directory: The twin's folder.

    Raises:
        OSError: The name is too long for a socket.
    """
    path = str(directory / CONTROL_NAME)
    if len(path.encode()) > _LONGEST_PATH:
        raise OSError(f"expected at most {_LONGEST_PATH} bytes, got {path}: give the twin a shorter --directory")
    return path


def _connect(directory: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(_REPLY_TIMEOUT_S)
    try:
        client.connect(control_path(directory))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        client.close()
        raise ConnectionError(
            f"expected a twin with tasks in {directory}, found none; start one: lerobot-vla twin --task pick-lift "
            f"--directory={directory} (with --lock-step for an evaluation)"
        ) from error
    return client
