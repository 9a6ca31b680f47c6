"""What `lerobot-train` prints while it trains: its progress bar, and a line of figures every `log_freq` steps."""

import re
import statistics
from dataclasses import dataclass, field

_PROGRESS = re.compile(r"^Training:.*?\|\s*(\d+)/(\d+)\s*\[")
_NUMBER = r"([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf))"
# "step:1K smpl:32K ep:12 epch:3.95 loss:0.528 grdn:1.709 lr:5.8e-05 updt_s:0.355 data_s:0.065 smp/s:76"
_FIGURES = re.compile(rf"\bstep:\S+ .*\bloss:{_NUMBER}\b.*\bsmp/s:{_NUMBER}")


@dataclass
class TrainingLog:
    """Collects the figures of a training run from its output.

    Attributes:
        losses: Mean loss of each stretch of `log_freq` steps.
        samples_per_s: Throughput of each stretch, in [Hz].
        step: Last step that the progress bar showed.
    """

    losses: list[float] = field(default_factory=list)
    samples_per_s: list[float] = field(default_factory=list)
    step: int = 0

    def read_line(self, line: str) -> None:
        """Take what a line says; lines of any other kind are ignored.

        Args:
            line: One line, or one state of the progress bar.
        """
        # Both may come in one line: the bar leaves its line open, and the figures are logged behind it.
        if progress := _PROGRESS.search(line):
            self.step = int(progress[1])
        if figures := _FIGURES.search(line):
            self.losses.append(float(figures[1]))
            self.samples_per_s.append(float(figures[2]))

    @property
    def first_loss(self) -> float:
        """Mean loss of the first stretch; NaN if no figures came."""
        return self.losses[0] if self.losses else float("nan")

    @property
    def last_loss(self) -> float:
        """Mean loss of the last stretch; NaN if no figures came."""
        return self.losses[-1] if self.losses else float("nan")

    @property
    def median_samples_per_s(self) -> float:
        """Median throughput, which the start of the data loader does not blur; NaN if no figures came."""
        return statistics.median(self.samples_per_s) if self.samples_per_s else float("nan")
