"""How much `lerobot-vla demo` records, trains and evaluates, and where it all lies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .child_process import LeRobotCommand


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much is recorded, trained and evaluated.

    Attributes:
        recorded: Episodes that `lerobot-record` records in real time; they are kept from training.
        demonstrations: Episodes that are recorded faster, to train on.
        steps: Optimiser steps.
        scenes: Scenes of the evaluation.
        fps: Frames a second of the data sets and of the evaluation.
        batch_size: Samples a step.
        learning_rate: Peak of the cosine schedule.
        chunk_size: Steps that the policy predicts.
        n_action_steps: Steps of a chunk that are executed.
        tokenizer: Options of `lerobot-vla tokenizer fit`; none for a policy without action tokens.
        options: What else `lerobot-train` is told.
    """

    recorded: int
    demonstrations: int
    steps: int
    scenes: int
    fps: int = 10
    batch_size: int = 16
    learning_rate: float = 1e-3
    chunk_size: int = 16
    n_action_steps: int = 4
    tokenizer: Sequence[str] = ()
    options: Sequence[str] = ()


# What fits into 8 minutes on 2 cores.
_FULL = Recipe(recorded=3, demonstrations=60, steps=450, scenes=20)
_QUICK = Recipe(recorded=2, demonstrations=15, steps=150, scenes=5)
_FLOW_OPTIONS = ("--policy.prediction=actions", "--policy.num_noise_draws=2")
# Few ids that occur often: of 2 minutes of motion, 1,000 ids of absolute positions are learnt by heart (error 9.6 deg
# on an episode not trained on), 128 of motion from the present state are not.
_TOKENIZER = ("--vocab-size=128", "--scale=4", "--no-rate-distortion")


def _recipes(recipe: Recipe) -> dict[str, Recipe]:
    return {
        "vla_flow": replace(recipe, options=_FLOW_OPTIONS),
        "vla_fast": replace(recipe, tokenizer=_TOKENIZER),
    }


# Policy -> what is done.
FULL, QUICK = _recipes(_FULL), _recipes(_QUICK)


@dataclass(frozen=True, slots=True)
class DemoFolder:
    """Where everything of one demo lies.

    Attributes:
        root: The folder; absolute, so that printed commands work from anywhere.
    """

    root: Path

    @property
    def recorded(self) -> Path:
        """The data set that `lerobot-record` wrote."""
        return self.root / "recorded"

    @property
    def demonstrations(self) -> Path:
        """The data set that is trained on."""
        return self.root / "demonstrations"

    @property
    def training(self) -> Path:
        """Output folder of `lerobot-train`."""
        return self.root / "training"

    @property
    def checkpoint(self) -> Path:
        """The trained policy."""
        return self.training / "checkpoints" / "last" / "pretrained_model"

    @property
    def action_tokenizer(self) -> Path:
        """The tokenizer that was fitted to the data set."""
        return self.root / "action_tokenizer"

    @property
    def evaluation(self) -> Path:
        """Report of the evaluation."""
        return self.root / "evaluation"

    @property
    def report_html(self) -> Path:
        """The same as a page."""
        return self.root / "evaluation.html"

    @property
    def chunks_png(self) -> Path:
        """Picture of predicted against recorded chunks."""
        return self.root / "chunks.png"

    @property
    def summary_json(self) -> Path:
        """Figures of the table."""
        return self.root / "summary.json"

    @property
    def logs(self) -> Path:
        """What the commands printed."""
        return self.root / "logs"

    def log(self, command: LeRobotCommand) -> Path:
        """File for everything that a command prints.

        Args:
            command: The command.
        """
        sub_command = f"-{command.options[0]}" if command.name == "lerobot-vla" else ""
        return self.logs / f"{command.name}{sub_command}.log"
