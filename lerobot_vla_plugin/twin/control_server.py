"""The twin's side of `control`: serves one client at a time, in a thread of its own."""

import contextlib
import json
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lerobot_vla_plugin.twin.control import control_path

Answer = Callable[..., dict[str, Any]]
_BACKLOG = 8


class ControlServer:
    """Listens on the control socket of a twin.

    Args:
        directory: The twin's folder.
        greeting: What every client is told first.
        answers: Request -> function that fulfils it, given its arguments by name. Its errors go to the client.
        farewell: Called when a client has gone.
    """

    def __init__(
        self,
        directory: Path,
        greeting: Callable[[], dict[str, Any]],
        answers: Mapping[str, Answer],
        farewell: Callable[[], None],
    ) -> None:
        self._directory, self._greeting, self._answers, self._farewell = directory, greeting, answers, farewell
        self._client: socket.socket | None = None
        self._pending = b""

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: The name of the socket is too long.
        """
        path = control_path(self._directory)
        Path(path).unlink(missing_ok=True)  # left behind by a twin that was killed
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(_BACKLOG)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="twin-control", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the client go, and remove the socket."""
        os.write(self._wake_write, b"x")
        self._thread.join()
        self._listener.close()
        for end in (self._wake_read, self._wake_write):
            os.close(end)
        Path(control_path(self._directory)).unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            sources = [self._wake_read, self._listener, *([self._client] if self._client else [])]
            ready, _, _ = select.select(sources, [], [])
            if self._wake_read in ready:
                break
            # The client first: where it has just gone, the next one is not refused.
            if self._client in ready:
                self._hear()
            if self._listener in ready:
                self._admit()
        self._part()

    def _admit(self) -> None:
        visitor, _ = self._listener.accept()
        if self._client is None:
            self._client, self._pending = visitor, b""
            self._say(visitor, self._greeting())
            return
        refusal = (
            f"another client controls the twin in {self._directory}, and only one can at a time; let it finish, "
            "or start a twin of your own with another --directory"
        )
        self._say(visitor, {"error": refusal, "busy": True})
        visitor.close()

    def _hear(self) -> None:
        assert self._client is not None
        try:
            data = self._client.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._part()
            return
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            if self._client is not None:
                self._say(self._client, self._reply(line))

    def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            arguments = json.loads(line)
            name = arguments.pop("request")
            if name not in self._answers:
                raise ValueError(f"no request {name!r}; there are {list(self._answers)}")
            return self._answers[name](**arguments)
        except KeyError as error:  # whose text is its argument's repr
            return {"error": str(error.args[0])}
        except Exception as error:
            return {"error": f"{error}" or type(error).__name__}

    def _say(self, to: socket.socket, message: dict[str, Any]) -> None:
        # A client that went away shows at the next read.
        with contextlib.suppress(ConnectionError):
            to.sendall(json.dumps(message).encode() + b"\n")

    def _part(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
            self._farewell()
