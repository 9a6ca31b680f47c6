"""What `lerobot-train` prints while it trains: its progress bar, and a line of figures every `log_freq` steps."""

import re
import statistics
from dataclasses import dataclass, field

_PROGRESS = re.compile(r"^Training:.*?\|\s*(\d+)/(\d+)\s*\[")
# "step:1K smpl:32K ep:12 epch:3.95 loss:0.528 grdn:1.709 lr:5.8e-05 updt_s:0.355 data_s:0.065 smp/s:76"; what else
# the policy returns stands behind that.
_FIGURES = re.compile(r"\bstep:\S+ .*\bloss:.*\bsmp/s:.*")
_FIGURE = re.compile(r"(\S+):([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf))(?!\S)")
LOSS, SAMPLES_PER_S = "loss", "smp/s"


@dataclass
class TrainingLog:
    """Collects the figures of a training run from its output.

    Attributes:
        figures: Name as LeRobot prints it -> its mean over each stretch of `log_freq` steps.
        step: Last step that the progress bar showed.
    """

    figures: dict[str, list[float]] = field(default_factory=dict)
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
            for name, value in _FIGURE.findall(figures[0]):
                self.figures.setdefault(name, []).append(float(value))

    def first(self, name: str) -> float:
        """Mean of the first stretch; NaN if no such figure came.

        Args:
            name: A key of `figures`.
        """
        return self.figures.get(name, [float("nan")])[0]

    def last(self, name: str) -> float:
        """Mean of the last stretch; NaN if no such figure came.

        Args:
            name: A key of `figures`.
        """
        return self.figures.get(name, [float("nan")])[-1]

    @property
    def median_samples_per_s(self) -> float:
        """Median throughput, which the start of the data loader does not blur, in [Hz]; NaN if no figures came."""
        return statistics.median(self.figures.get(SAMPLES_PER_S, [float("nan")]))
