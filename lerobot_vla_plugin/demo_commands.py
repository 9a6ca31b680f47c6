"""What `lerobot-vla demo` runs: how much of everything, where it lies, and the command lines of LeRobot."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .child_process import LeRobotCommand
from .twin.operator import TASK
from .twin.so101 import SO101Twin

_REPO_ID = "local/touch_red_cube"
# One thread for the matrices leaves the second core to the data loader; two threads wait for each other when the
# cores are shared, which made this small model up to 20 times slower.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much is recorded and trained.

    Attributes:
        episodes: Episodes to record; the last one is kept from training.
        episode_s: Length of each, in [s].
        fps: Frames a second of data set and rollout.
        steps: Optimiser steps.
        batch_size: Samples a step.
        learning_rate: Peak of the cosine schedule.
        chunk_size: Steps that the policy predicts. The person touches a cube about every second, and nobody can see
            where the next one will appear: a longer chunk would be graded on chance.
        n_action_steps: Steps of a chunk that the rollout executes.
        rollout_s: Length of the rollout, in [s].
        tokenizer: Options of `lerobot-vla tokenizer fit`; none for a policy without action tokens.
    """

    episodes: int
    episode_s: int
    steps: int
    rollout_s: int
    fps: int = 15
    batch_size: int = 32
    learning_rate: float = 1e-3
    chunk_size: int = 10
    n_action_steps: int = 5
    tokenizer: Sequence[str] = ()

    @property
    def train_episodes(self) -> list[int]:
        """Episodes to train on."""
        return list(range(self.episodes - 1))

    @property
    def held_out_episode(self) -> int:
        """The episode that training never sees."""
        return self.episodes - 1


# Found by experiment on 2 cores, where LeRobot reads about 180 samples a second: open-loop error on an episode not
# trained on, in degrees, with 9 x 12 s of data: 350 steps 4.5, 1,000 steps 3.2, 1,800 steps 3.1; holding still 6.0.
_FULL = Recipe(episodes=12, episode_s=12, steps=1000, rollout_s=15)
_QUICK = Recipe(episodes=5, episode_s=7, steps=350, rollout_s=5)
# Few ids that occur often: of 2 minutes of motion, 1,000 ids of absolute positions are learnt by heart (error 9.6 deg
# on an episode not trained on), 128 of motion from the present state are not.
_TOKENIZER = ("--vocab-size=128", "--scale=4", "--no-rate-distortion")
# With 1e-3 it is 5.6 deg after 500 steps, with 2e-3 4.6, with 3e-3 6.4; 4.5 after 1,000.
_TOKENS_LEARNING_RATE = 2e-3


def _with_tokens(recipe: Recipe) -> Recipe:
    return replace(recipe, tokenizer=_TOKENIZER, learning_rate=_TOKENS_LEARNING_RATE)


# Policy -> what is done.
FULL = {"vla_flow": _FULL, "vla_fast": _with_tokens(_FULL)}
QUICK = {"vla_flow": _QUICK, "vla_fast": _with_tokens(_QUICK)}


@dataclass(frozen=True, slots=True)
class DemoFolder:
    """Where everything of one demo lies.

    Attributes:
        root: The folder; absolute, so that printed commands work from anywhere.
    """

    root: Path

    @property
    def dataset(self) -> Path:
        """The recorded data set."""
        return self.root / "dataset"

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


def record_command(twin: SO101Twin, folder: DemoFolder, recipe: Recipe) -> LeRobotCommand:
    """`lerobot-record` on a running twin.

    Args:
        twin: The twin.
        folder: Where the data set goes.
        recipe: How much to record.
    """
    return LeRobotCommand(
        "lerobot-record",
        [
            *twin.robot_arguments(own_types=True),
            *twin.teleop_arguments(own_types=True),
            f"--dataset.repo_id={_REPO_ID}",
            "--dataset.no_stamp=true",
            f"--dataset.root={folder.dataset}",
            f"--dataset.single_task={TASK}",
            f"--dataset.fps={recipe.fps}",
            f"--dataset.num_episodes={recipe.episodes}",
            f"--dataset.episode_time_s={recipe.episode_s}",
            "--dataset.reset_time_s=0",  # the twin's cube needs nobody to put it back
            "--dataset.push_to_hub=false",
            "--dataset.rgb_encoder.vcodec=h264",
            "--dataset.streaming_encoding=true",
            "--dataset.encoder_threads=1",
            "--play_sounds=false",
            "--display_data=false",
        ],
        _ENVIRONMENT,
    )


def annotate_command(twin: SO101Twin, folder: DemoFolder) -> LeRobotCommand:
    """`lerobot-vla annotate` of what was recorded, so that the policy knows unit and calibration.

    Args:
        twin: The twin that was recorded.
        folder: Where the data set lies.
    """
    arm = [option for option in twin.robot_arguments(own_types=True, with_cameras=False) if "port=" not in option]
    return LeRobotCommand("lerobot-vla", ["annotate", str(folder.dataset), *arm], _ENVIRONMENT)


def tokenizer_command(folder: DemoFolder, recipe: Recipe) -> LeRobotCommand:
    """`lerobot-vla tokenizer fit` on the data set.

    Args:
        folder: Where the data set lies and the tokenizer goes.
        recipe: Which tokenizer, and of which chunks.
    """
    where = [str(folder.dataset), f"--output={folder.action_tokenizer}", f"--chunk-size={recipe.chunk_size}"]
    return LeRobotCommand("lerobot-vla", ["tokenizer", "fit", *where, *recipe.tokenizer], _ENVIRONMENT)


def train_command(folder: DemoFolder, recipe: Recipe, policy: str, seed: int) -> LeRobotCommand:
    """`lerobot-train` from scratch on all but the last episode.

    Args:
        folder: Where the data set lies and the checkpoint goes.
        recipe: How long to train.
        policy: Type of the policy.
        seed: Of weights and data order.
    """
    tokens = [f"--policy.action_tokenizer_path={folder.action_tokenizer}"] if recipe.tokenizer else []
    return LeRobotCommand(
        "lerobot-train",
        [
            f"--dataset.repo_id={_REPO_ID}",
            f"--dataset.root={folder.dataset}",
            f"--dataset.episodes={recipe.train_episodes}",
            "--dataset.video_backend=pyav",
            "--dataset.return_uint8=true",
            f"--policy.type={policy}",
            "--policy.vlm_model_name=tiny",
            "--policy.device=cpu",
            "--policy.push_to_hub=false",
            f"--policy.chunk_size={recipe.chunk_size}",
            f"--policy.n_action_steps={recipe.n_action_steps}",
            *tokens,
            f"--policy.optimizer_lr={recipe.learning_rate}",
            f"--policy.scheduler_warmup_steps={recipe.steps // 20}",
            f"--policy.scheduler_decay_steps={recipe.steps}",
            f"--policy.scheduler_decay_lr={recipe.learning_rate / 100}",
            f"--batch_size={recipe.batch_size}",
            f"--steps={recipe.steps}",
            "--num_workers=2",  # reading a sample costs twice as much as training on it
            "--log_freq=50",
            "--save_freq=0",
            f"--seed={seed}",
            f"--output_dir={folder.training}",
        ],
        _ENVIRONMENT,
    )


def rollout_command(twin: SO101Twin, folder: DemoFolder, recipe: Recipe) -> LeRobotCommand:
    """`lerobot-rollout` of the checkpoint on a running twin.

    Args:
        twin: The twin.
        folder: Where the checkpoint lies.
        recipe: How long to roll out.
    """
    return LeRobotCommand(
        "lerobot-rollout",
        [
            *twin.robot_arguments(own_types=True),
            f"--policy.path={folder.checkpoint}",
            f"--task={TASK}",
            f"--fps={recipe.fps}",
            f"--duration={recipe.rollout_s}",
            "--strategy.type=base",
            "--inference.type=sync",
            "--play_sounds=false",
        ],
        _ENVIRONMENT,
    )
