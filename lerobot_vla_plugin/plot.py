"""`lerobot-vla plot`: predicted beside recorded chunks of a checkpoint on a data set: a table and a picture."""

import argparse
import logging
import sys
from pathlib import Path

from .chunk_picture import plot_chunks
from .error_tables import format_errors, format_steps, verdicts
from .joint_dataset import find_dataset, read_info
from .open_loop import OpenLoopCheck
from .saved_policy import SavedPolicy, find_checkpoint
from .training_episodes import Standing, TrainingEpisodes

FINE, COULD_NOT_RUN = 0, 2
_DEFAULT_EPISODES, _DEFAULT_FRAMES = 3, 40
# Every frame also gets the pictures of another one.
_FEWEST_FRAMES = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.allow_abbrev = False
    parser.formatter_class = argparse.HelpFormatter
    parser.epilog = (
        "Each frame looked at goes through the checkpoint's own processors, as in a rollout, and the predicted chunk "
        "is compared with the actions recorded from that frame on. Beside it stand what holding still and the mean "
        "action of the other episodes would have scored, the policy with pictures of other frames (one that gets no "
        "worse does not look), and, for action tokens, what the tokenizer alone loses. Angles are in degrees where "
        "`lerobot-vla annotate` described the data set or the one that was trained on, else as recorded. Works with "
        "every policy of LeRobot that predicts a chunk from one frame. No arm is needed; nothing is written but the "
        "picture."
    )
    parser.add_argument("checkpoint", type=Path, help="output folder of a training run, or a `pretrained_model` in it")
    parser.add_argument("dataset", help="folder of the data set, or its repo id under LeRobot's home")
    parser.add_argument("--root", type=Path, help="the data set's folder, as in LeRobot's --dataset.root")
    parser.add_argument(
        "--episode",
        type=int,
        nargs="+",
        metavar="N",
        help=f"episodes to predict; if left out, up to {_DEFAULT_EPISODES} that were kept from training "
        "(--dataset.episodes or --dataset.eval_split of lerobot-train), or the last one if none was",
    )
    parser.add_argument(
        "--frames",
        type=_frames,
        default=_DEFAULT_FRAMES,
        metavar="N",
        help=f"frames to predict from in each episode, evenly spread; {_DEFAULT_FRAMES} if left out",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("chunks.png"),
        metavar="FILE.png",
        help="the picture; chunks.png if left out",
    )


def _frames(text: str) -> int:
    frames = int(text)
    if frames < _FEWEST_FRAMES:
        raise argparse.ArgumentTypeError(f"expected at least {_FEWEST_FRAMES}, got {frames}")
    return frames


def run(args: argparse.Namespace) -> int:
    """Predict, print the tables and draw the picture; 0 done, 2 could not."""
    logging.getLogger().setLevel(logging.WARNING)  # what LeRobot tells while it loads is no answer to the question
    try:
        _check_output(args.output)
        check = _open(args)
        episodes = args.episode or default_episodes(check.training, check.meta.total_episodes)
        for warning in warnings(check.training, episodes):
            print(f"  WARNING: {warning}", file=sys.stderr)
        result = check.run(episodes, args.frames)
        plot_chunks(result, args.output)
    except (ValueError, OSError) as error:
        print(f"lerobot-vla plot: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    sentences = "\n".join(f"  {sentence}" for sentence in verdicts(result))
    print(f"\n{format_errors(result)}\n\n{format_steps(result)}\n\n{sentences}\n\n  Picture: {args.output}")
    return FINE


def _open(args: argparse.Namespace) -> OpenLoopCheck:
    # Both are looked for before either is loaded, which may take a minute.
    checkpoint, dataset = find_checkpoint(args.checkpoint), find_dataset(args.dataset, args.root)
    read_info(dataset)
    return OpenLoopCheck(SavedPolicy.load(checkpoint), dataset)


def _check_output(path: Path) -> None:
    """Refuse what could not be written in the end."""
    if path.suffix != ".png":
        raise ValueError(f"--output={path}: expected a file name that ends with .png")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"--output={path}: there is no folder {path.absolute().parent}")


def default_episodes(training: TrainingEpisodes, total: int) -> list[int]:
    """Episodes to look at where none were named.

    Args:
        training: Which episodes the checkpoint has seen.
        total: Episodes of the data set.
    """
    return training.held_out[:_DEFAULT_EPISODES] or [total - 1]


def warnings(training: TrainingEpisodes, episodes: list[int]) -> list[str]:
    """Why the errors on these episodes may flatter the checkpoint.

    Args:
        training: Which episodes the checkpoint has seen.
        episodes: Those looked at.
    """
    seen = [episode for episode in episodes if training.standing(episode) is Standing.TRAINED_ON]
    if seen:
        held_out = f"it has not seen {training.held_out}" if training.held_out else "it has seen every episode"
        return [
            f"the checkpoint was trained on episode {', '.join(map(str, seen))}: the errors say how well it remembers, "
            f"not how well it will do; {held_out}"
        ]
    if training.trained_on is None:
        return ["the checkpoint has no train_config.json: whether it was trained on these episodes is unknown"]
    if any(training.standing(episode) is Standing.UNKNOWN for episode in episodes):
        return [f"the checkpoint was trained on {training.trained_on}; whether that held these episodes is unknown"]
    return []
