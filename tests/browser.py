"""A browser without a window, driven over its DevTools pipe: what it asks the network for, what it complains about."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_END = b"\0"
_TIMEOUT_S = 60


class Browser:
    """One page of Chromium; a context manager.

    Attributes:
        requests: Addresses that the page asked for.
        complaints: Errors and warnings, as the console shows them.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._number, self._rest, self._session = 0, b"", None
        self._loaded = False

    def __enter__(self) -> "Browser":
        self._profile = TemporaryDirectory(ignore_cleanup_errors=True)
        child_reads, self._to = os.pipe()
        self._from, child_writes = os.pipe()
        flags = (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
        )
        # Chromium reads from file 3 and writes to file 4.
        redirect = ("bash", "-c", f'exec "$@" 3<&{child_reads} 4>&{child_writes}', "bash", str(CHROMIUM))
        self._process = subprocess.Popen(
            [*redirect, *flags, f"--user-data-dir={self._profile.name}", "about:blank"],
            pass_fds=(child_reads, child_writes),
            stderr=subprocess.DEVNULL,
        )
        os.close(child_reads)
        os.close(child_writes)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)
        self._process.terminate()
        self._process.wait(_TIMEOUT_S)
        os.close(self._from)
        self._profile.cleanup()

    def open(self, page: Path) -> None:
        """Open a file, and wait until all of it is loaded."""
        self._loaded = False
        self.call("Page.navigate", url=page.absolute().as_uri())
        while not self._loaded:
            self._note(self._receive())

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Make it a screen of another size, in [px]."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        reply = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + _END)
        while (reply := self._receive()).get("id") != self._number:
            self._note(reply)
        assert "error" not in reply, reply
        return reply["result"]

    def _receive(self) -> dict[str, Any]:
        while _END not in self._rest:
            received = os.read(self._from, 1 << 16)
            assert received, "the browser ended"
            self._rest += received
        line, _, self._rest = self._rest.partition(_END)
        return json.loads(line)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(parameters["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(parameters))
