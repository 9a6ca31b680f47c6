"""`lerobot-vla plot`: what a checkpoint predicts beside what was recorded, or where an evaluation succeeded."""

import argparse
import logging
import sys
from pathlib import Path

from .chunk_picture import plot_chunks
from .envs.episode_report import EPISODES
from .error_tables import format_errors, format_steps, verdicts
from .evaluation_facts import choose_episodes, describe_outcome, is_evaluation, load_evaluations
from .evaluation_picture import plot_evaluation
from .evaluation_table import describe_success
from .joint_dataset import find_dataset, read_info
from .open_loop import OpenLoopCheck
from .output_file import check_output
from .saved_policy import SavedPolicy, find_checkpoint
from .training_episodes import Standing, TrainingEpisodes

FINE, COULD_NOT_RUN = 0, 2
_DEFAULT_EPISODES, _DEFAULT_FRAMES = 3, 40
# Every frame also gets the pictures of another one.
_FEWEST_FRAMES = 2


_USAGE = """%(prog)s CHECKPOINT DATASET [--root DIR] [--episode N ...] [--frames N] [--output FILE.png]
       %(prog)s EVALUATION [--episode N ...] [--output FILE.png]"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.allow_abbrev = False
    parser.formatter_class = argparse.HelpFormatter
    parser.usage = _USAGE
    parser.epilog = (
        "With a checkpoint and a data set: each frame looked at goes through the checkpoint's own processors, as in a "
        "rollout, and the predicted chunk "
        "is compared with the actions recorded from that frame on. Beside it stand what holding still and the mean "
        "action of the other episodes would have scored, the policy with pictures of other frames (one that gets no "
        "worse does not look), and, for action tokens, what the tokenizer alone loses. Angles are in degrees where "
        "`lerobot-vla annotate` described the data set or the one that was trained on, else as recorded. Works with "
        "every policy of LeRobot that predicts a chunk from one frame. With an evaluation: a map of success by the "
        "place of the named cube, seen from above (of a twin: a real arm knows no places), and the pictures of some "
        "episodes; `lerobot-vla eval-report` shows all of them. No arm is needed; nothing is written but the picture."
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="CHECKPOINT | EVALUATION",
        help="output folder of a training run, or a `pretrained_model` in it; or the --env.report_dir of an evaluation",
    )
    parser.add_argument(
        "dataset",
        nargs="?",
        metavar="DATASET",
        help="folder of the data set, or its repo id under LeRobot's home; with a checkpoint only",
    )
    parser.add_argument(
        "--root", type=Path, help="the data set's folder, as in LeRobot's --dataset.root; with a checkpoint only"
    )
    parser.add_argument(
        "--episode",
        type=int,
        nargs="+",
        metavar="N",
        help=f"episodes to predict; if left out, up to {_DEFAULT_EPISODES} that were kept from training "
        "(--dataset.episodes or --dataset.eval_split of lerobot-train), or the last one if none was. Of an evaluation: "
        "those whose pictures are drawn; if left out, a few failures, or the first one if none failed",
    )
    parser.add_argument(
        "--frames",
        type=_frames,
        metavar="N",
        help="frames to predict from in each episode, evenly spread; with a checkpoint only; "
        f"{_DEFAULT_FRAMES} if left out",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.png",
        help="the picture; if left out, chunks.png, or evaluation.png of an evaluation",
    )


def _frames(text: str) -> int:
    frames = int(text)
    if frames < _FEWEST_FRAMES:
        raise argparse.ArgumentTypeError(f"expected at least {_FEWEST_FRAMES}, got {frames}")
    return frames


def run(args: argparse.Namespace) -> int:
    """Look, print what there is to say and draw the picture; 0 done, 2 could not."""
    logging.getLogger().setLevel(logging.WARNING)  # what LeRobot tells while it loads is no answer to the question
    try:
        print(_plot_evaluation(args) if is_evaluation(args.source) else _plot_checkpoint(args))
    except (ValueError, OSError) as error:
        print(f"lerobot-vla plot: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    return FINE


def _plot_evaluation(args: argparse.Namespace) -> str:
    """Draw an evaluation; what is printed about it."""
    output = args.output or Path("evaluation.png")
    check_output(output, ".png")
    given = [name for name in ("dataset", "root", "frames") if getattr(args, name) is not None]
    if given:
        raise ValueError(
            f"{args.source} is an evaluation, which is drawn without {', '.join(given)}; "
            "predictions on a data set need a checkpoint"
        )
    (evaluation,) = load_evaluations([args.source])
    episodes = choose_episodes(evaluation, args.episode)
    plot_evaluation(evaluation, episodes, output)
    drawn = [f"  Episode {episode.index}: {describe_outcome(episode)}" for episode in episodes]
    success = describe_success(evaluation.summary["overall"])
    return "\n".join([f"\n  {evaluation.name}: {success}", "", *drawn, "", f"  Picture: {output}"])


def _plot_checkpoint(args: argparse.Namespace) -> str:
    """Predict and draw; what is printed about it."""
    output = args.output or Path("chunks.png")
    check_output(output, ".png")
    check = _open(args)
    episodes = args.episode or default_episodes(check.training, check.meta.total_episodes)
    for warning in warnings(check.training, episodes):
        print(f"  WARNING: {warning}", file=sys.stderr)
    result = check.run(episodes, args.frames or _DEFAULT_FRAMES)
    plot_chunks(result, output)
    sentences = "\n".join(f"  {sentence}" for sentence in verdicts(result))
    return f"\n{format_errors(result)}\n\n{format_steps(result)}\n\n{sentences}\n\n  Picture: {output}"


def _open(args: argparse.Namespace) -> OpenLoopCheck:
    if args.dataset is None:
        raise ValueError(
            f"{args.source} is no evaluation, for it holds no {EPISODES}; a checkpoint needs a data set beside it: "
            f"lerobot-vla plot {args.source} me/cube"
        )
    # Both are looked for before either is loaded, which may take a minute.
    checkpoint, dataset = find_checkpoint(args.source), find_dataset(args.dataset, args.root)
    read_info(dataset)
    return OpenLoopCheck(SavedPolicy.load(checkpoint), dataset)


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
