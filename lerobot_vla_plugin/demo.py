"""`lerobot-vla demo`: the whole job without hardware, through LeRobot's own commands, with an honest exit code."""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .child_process import StepFailedError
from .demo_recipe import FULL, QUICK, DemoFolder, Recipe
from .demo_steps import EvaluationSummary, demonstrate, evaluate, record, train
from .training_log import TrainingLog

if TYPE_CHECKING:
    from .open_loop_result import OpenLoopResult

# The end of the process, as `lerobot-vla` and shells know it.
FINE, FAILED, COULD_NOT_RUN, INTERRUPTED = 0, 1, 2, 130

_REAL_ARM = """\
On a real SO-101 the same commands do the same job. What changes:

    lerobot-find-port                                      # port of each arm, for --robot.port and --teleop.port
    lerobot-calibrate --robot.type=so101_follower --robot.port=PORT --robot.id=my_follower
    lerobot-calibrate --teleop.type=so101_leader --teleop.port=PORT --teleop.id=my_leader
    lerobot-vla check --robot.type=so101_follower --robot.port=PORT --robot.id=my_follower
    lerobot-find-cameras opencv                            # for --robot.cameras
    lerobot-record   as above, with those ports, ids and cameras, 50 episodes, and time to reset the scene
    lerobot-vla annotate   as above
    lerobot-train    as above, with --policy.device=cuda and, instead of --policy.vlm_model_name=small,
                     --policy.init_from=lerobot/smolvla_base (vla_flow) or nothing (vla_fast: SmolVLM2-500M);
                     without the rates, sizes and color jitter of the small model, and without
                     --policy.action_tokenizer_path: vla_fast fits one to the data set
    lerobot-eval     as above, without --env.twin, --env.scene and --env.color but with --env.task: you judge by a key
    lerobot-rollout --policy.path=... --task=... --robot.type=so101_vla_follower --robot.port=PORT ..."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser.

    Args:
        parser: Parser of the sub-command.
    """
    parser.add_argument(
        "--output-dir", type=Path, default=None, help="new folder for everything; default outputs/demo/TIME"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="less of everything: under 3 minutes, weak results, too little for vla_fast",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the scene, the weights and the data order")
    parser.add_argument("--policy", choices=FULL, default="vla_flow", help="policy to train")


def run(args: argparse.Namespace) -> int:
    """Run the demo.

    Args:
        args: Parsed options of `add_arguments`.

    Returns:
        0 if every step ran and the policy touched cubes and beat both baselines, 1 if not, 2 if the demo could not run
        here, 130 after Ctrl-C, SIGTERM or SIGHUP.
    """
    root = args.output_dir or Path("outputs", "demo", datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    folder = DemoFolder(root.absolute())
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is local; look-ups on the hub would only cost time
    try:
        with _interrupted_by_any_signal():
            folder.root.mkdir(parents=True)
            return _run_steps(folder, (QUICK if args.quick else FULL)[args.policy], args.policy, args.seed)
    except KeyboardInterrupt:
        print(f"\nStopped. Nothing is left running; what was done so far lies in {folder.root}", file=sys.stderr)
        return INTERRUPTED
    except StepFailedError as error:
        print(f"\nlerobot-vla demo: {error}", file=sys.stderr)
        print("Run the command printed above by hand to look into it, or `lerobot-vla check`.", file=sys.stderr)
        return FAILED
    except FileExistsError:
        print(f"lerobot-vla demo: {folder.root} exists already; give another --output-dir", file=sys.stderr)
        return COULD_NOT_RUN
    except (OSError, RuntimeError) as error:
        print(f"\nlerobot-vla demo: {error}", file=sys.stderr)
        return COULD_NOT_RUN


@contextlib.contextmanager
def _interrupted_by_any_signal() -> Iterator[None]:
    """Let SIGTERM and SIGHUP do what Ctrl-C does, so that children and twin are ended in order."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Steps:
    """Titles the steps and takes their time.

    Attributes:
        seconds: Step -> how long it took, in [s].
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """Print the title and take the time of what is done inside.

        Args:
            name: One word for the table.
            title: What is done.
        """
        print(f"\n=== {len(self.seconds) + 1}/{self._total}  {title}", flush=True)
        began_s = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began_s


def _run_steps(folder: DemoFolder, recipe: Recipe, policy: str, seed: int) -> int:
    steps = _Steps(5)
    with steps.step("record", f"Record {recipe.recorded} episodes from the emulated leader, in real time"):
        record(folder, recipe, seed)
    with steps.step("demonstrate", f"Record {recipe.demonstrations} more to train on, as fast as it goes"):
        demonstrate(folder, recipe, seed)
    with steps.step("train", f"Train {policy} from scratch on these {recipe.demonstrations}"):
        log = train(folder, recipe, policy, seed)
    with steps.step("evaluate", f"Let the policy drive the emulated follower in {recipe.scenes} scenes it never saw"):
        evaluation = evaluate(folder, recipe, seed)
    with steps.step("check", "Predict the episodes that were recorded in real time from their frames"):
        open_loop = _check(folder, recipe, seed)
    return _conclude(folder, recipe, log, evaluation, open_loop, steps.seconds)


# What follows imports LeRobot's data sets and policies when it needs them: half a gigabyte and some seconds, which
# the commands before had better use for.


def _check(folder: DemoFolder, recipe: Recipe, seed: int) -> "OpenLoopResult":
    from .open_loop import OpenLoopCheck
    from .saved_policy import SavedPolicy
    from .training_episodes import Standing, TrainingEpisodes

    check = OpenLoopCheck(SavedPolicy.load(folder.checkpoint), folder.recorded, seed)
    # The checkpoint cannot know that no episode of this data set is a copy of one that it was trained on.
    standings = dict.fromkeys(range(recipe.recorded), Standing.HELD_OUT)
    check.training = TrainingEpisodes(str(folder.demonstrations), standings)
    return check.run(range(recipe.recorded))


def _conclude(
    folder: DemoFolder,
    recipe: Recipe,
    log: TrainingLog,
    evaluation: EvaluationSummary,
    open_loop: "OpenLoopResult",
    seconds: dict[str, float],
) -> int:
    from .chunk_picture import plot_chunks
    from .report import DemoSummary, format_table, write_json

    summary = DemoSummary(log, evaluation, open_loop, seconds)
    plot_chunks(open_loop, folder.chunks_png)
    write_json(summary, folder.summary_json)
    print(f"\n{format_table(summary)}\n")
    if recipe in QUICK.values():
        print("  This was --quick: little data and little training. Without it the policy gets clearly better.\n")
    print(_places(folder))
    print(f"\n{_REAL_ARM}")
    return FINE if open_loop.beats_baselines and evaluation.figures["successes"] else FAILED


def _places(folder: DemoFolder) -> str:
    return (
        "Where everything lies:\n\n"
        f"    recorded    {folder.recorded}, {folder.demonstrations}\n"
        f"    checkpoint  {folder.checkpoint}\n"
        f"    evaluation  {folder.report_html}\n"
        f"    picture     {folder.chunks_png}\n"
        f"    figures     {folder.summary_json}\n"
        f"    logs        {folder.logs}"
    )
