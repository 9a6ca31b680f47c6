"""Progress bars of commands that only print lines: by the clock between two lines, or by the steps that they tell."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

# A log file has no use for a bar that is redrawn ten times a second.
_REDRAW_S = 0.2 if sys.stderr.isatty() else 10.0
_FORMAT = "{desc:<10}{percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit} [{elapsed}<{remaining}{postfix}]"


class StepBar:
    """A bar that is told where it stands; a context manager.

    Args:
        title: What is going on.
        total: Where it ends.
        unit: What is counted.
    """

    def __init__(self, title: str, total: float, unit: str) -> None:
        self._bar = tqdm(
            total=total, desc=title, unit=unit, mininterval=_REDRAW_S, dynamic_ncols=True, bar_format=_FORMAT
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    @property
    def position(self) -> float:
        """Where it stands."""
        return self._bar.n

    def advance_to(self, position: float) -> None:
        """Move the bar; never back, never beyond its end.

        Args:
            position: Where it stands now.
        """
        step = min(position, self._bar.total) - self._bar.n
        if step > 0:
            self._bar.update(step)

    def note(self, text: str) -> None:
        """Say something behind the bar.

        Args:
            text: A few words.
        """
        self._bar.set_postfix_str(text, refresh=False)


class ClockBar(StepBar):
    """A bar that runs by the clock from the line of a log that says that something began to the one that says it ended.

    Args:
        title: What is going on.
        total_s: How long it should take, in [s].
        begins: Part of the line at which it begins.
        ends: Part of the line at which it ends.

    Attributes:
        began_s: When the first such line came, on the monotonic clock; None before.
        ended_s: When the end came, likewise.
    """

    def __init__(self, title: str, total_s: float, begins: str, ends: str) -> None:
        super().__init__(title, total_s, "s")
        self._begins, self._ends = begins, ends
        self.began_s: float | None = None
        self.ended_s: float | None = None
        self.note(", starting")

    def read_line(self, line: str) -> None:
        """Look for the beginning and the end in a line of the log.

        Args:
            line: The line.
        """
        if self.began_s is None and self._begins in line:
            self.began_s = time.monotonic()
            self.note("")
        elif self.ended_s is None and self._ends in line:
            self.ended_s = time.monotonic()
            self.note(", finishing")
            self.advance_to(self._bar.total)

    def tick(self) -> None:
        """Move with the clock."""
        if self.began_s is not None and self.ended_s is None:
            self.advance_to(time.monotonic() - self.began_s)
