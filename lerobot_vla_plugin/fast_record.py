"""`lerobot-vla record-twin`: demonstrations of the twin's tasks, in the data set that `lerobot-record` would write."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .annotate import annotate
from .arms.annotation import ArmAnnotation
from .arms.arm_facts import DEGREES
from .demonstrations import Demonstration, Demonstrator
from .envs.simulated_arm import SimulatedArm, SimulatedLeader, steps_of_frame
from .envs.simulated_cameras import SimulatedCameras
from .new_folder import new_folder
from .progress import StepBar
from .twin.arm_model import JOINTS
from .twin.rendering import RENDERERS
from .twin.scenes import COLORS, TASKS
from .twin.stage import CAMERAS
from .twin.world import World

if TYPE_CHECKING:
    from lerobot.datasets import LeRobotDataset

_ROBOT_TYPE, _ROBOT_ID = "so_follower", "so101_follower"
_CRF = 18  # a tenth of a megabyte an episode; LeRobot's 30 shows a policy other pictures than it will see
# The encoder drops frames when its queue is full, because an arm cannot wait; this recorder is never to lose one.
_QUEUE_FRAMES = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.epilog = "The arm is so101_vla_follower in degrees, under the calibration that this package ships."
    parser.add_argument("--output", type=Path, required=True, help="folder of the data set; must not exist")
    parser.add_argument("--repo-id", default="local/twin", help="name of the data set in LeRobot's commands")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["pick-lift", "pick-place"])
    parser.add_argument(
        "--episodes",
        type=int,
        nargs="+",
        default=[50],
        help="demonstrations of each task: one number for all, or one for each in the order of --tasks",
    )
    parser.add_argument("--color", choices=list(COLORS), help="cube that is named; by default each seed decides")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first scene; each has its own")
    parser.add_argument(
        "--same-start",
        action="store_true",
        help="begin every demonstration as evaluations begin; by default most begin with the arm anywhere above the "
        "table, so that a policy learns to look where it is going and to try again",
    )
    parser.add_argument("--fps", type=int, default=10, help="frames a second")
    parser.add_argument("--width", type=int, default=128, help="width of the pictures [px]")
    parser.add_argument("--height", type=int, default=128, help="height of the pictures [px]")
    parser.add_argument("--cameras", nargs="+", choices=CAMERAS, default=list(CAMERAS))
    parser.add_argument("--renderer", choices=RENDERERS, default="auto")


def run(args: argparse.Namespace) -> int:
    """Record; 0 done, 2 could not."""
    _silence_libraries()
    try:
        steps_of_frame(args.fps)
        wanted = _episodes_of_tasks(args.tasks, args.episodes)
        with new_folder(args.output) as draft:
            failed = _record(args, wanted, draft)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"lerobot-vla record-twin: {error}", file=sys.stderr)
        return 2
    counts = ", ".join(f"{count} of {task}" for task, count in wanted.items())
    print(f"Wrote {args.output}: demonstrations at {args.fps} Hz, {counts}")
    print(describe_failures(failed, sum(wanted.values())))
    return 0


def _silence_libraries() -> None:
    """Neither the encoder's report of every video nor a second progress bar an episode."""
    import av
    from datasets import disable_progress_bars

    av.logging.set_libav_level(av.logging.ERROR)
    disable_progress_bars()


def _episodes_of_tasks(tasks: Sequence[str], episodes: Sequence[int]) -> dict[str, int]:
    if len(episodes) not in (1, len(tasks)) or min(episodes) < 1 or len(set(tasks)) < len(tasks):
        raise ValueError(
            f"expected different tasks, and of each 1 or more --episodes (one number for all, or {len(tasks)}), got "
            f"{' '.join(map(str, episodes))} of {' '.join(tasks)}"
        )
    return dict(zip(tasks, episodes if len(episodes) > 1 else [*episodes] * len(tasks), strict=True))


def _record(args: argparse.Namespace, wanted: Mapping[str, int], draft: Path) -> list[Demonstration]:
    world = World()
    arm = SimulatedArm(world)
    cameras = SimulatedCameras(world, args.width, args.height, args.cameras, args.renderer)
    failed: list[Demonstration] = []
    with closing(cameras):
        demonstrator = Demonstrator(arm, SimulatedLeader(arm), cameras, args.fps)
        draft.rmdir()  # LeRobot wants to make it itself
        total = sum(wanted.values())
        with _new_dataset(draft, args) as dataset, StepBar("record", total, "episodes") as bar:
            for demonstration in attempts(
                demonstrator, wanted, args.first_seed, args.color, varied_start=not args.same_start
            ):
                if demonstration.verdict.success:
                    save_demonstration(dataset, demonstration)
                    bar.advance_to(bar.position + 1)
                else:
                    failed.append(demonstration)
    annotate(draft, ArmAnnotation(_ROBOT_TYPE, _ROBOT_ID, DEGREES, arm.calibration))
    return failed


def attempts(
    demonstrator: Demonstrator,
    wanted: Mapping[str, int],
    first_seed: int,
    color: str | None = None,
    *,
    varied_start: bool = False,
) -> Iterator[Demonstration]:
    """Attempts, each with a seed of its own, until every task was done often enough; those least far come first.

    Args:
        demonstrator: Who does it.
        wanted: Name of a task -> how often it has to succeed.
        first_seed: Seed of the first attempt.
        color: The cube to name; None lets each seed decide.
        varied_start: As for `Demonstrator.demonstrate`.

    Raises:
        RuntimeError: Most attempts failed.
    """
    kept: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + 2 * sum(wanted.values()) + 10):
        task = min(wanted, key=lambda name: kept[name] / wanted[name])
        if kept[task] >= wanted[task]:
            return
        demonstration = demonstrator.demonstrate(task, seed, color, varied_start=varied_start)
        kept[task] += demonstration.verdict.success
        yield demonstration
    if any(kept[task] < count for task, count in wanted.items()):
        raise RuntimeError(f"too many demonstrations failed; those that succeeded: {dict(kept)}")


@contextmanager
def _new_dataset(root: Path, args: argparse.Namespace) -> Iterator["LeRobotDataset"]:
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets import LeRobotDataset, VideoEncodingManager

    dataset = LeRobotDataset.create(
        args.repo_id,
        args.fps,
        root=root,
        robot_type=_ROBOT_TYPE,
        features=recorded_features(args.cameras, args.width, args.height),
        use_videos=True,
        # LeRobot's default halves the resolution of colors, by which small pictures lose their cubes.
        rgb_encoder=RGBEncoderConfig(vcodec="h264", pix_fmt="yuv444p", crf=_CRF),
        encoder_threads=1,
        streaming_encoding=True,
        encoder_queue_maxsize=_QUEUE_FRAMES,
        video_backend="pyav",  # nothing is read here; the default one may not load, and says so at length
    )
    with VideoEncodingManager(dataset):
        yield dataset


def recorded_features(cameras: Sequence[str], width: int, height: int) -> dict[str, dict]:
    """Features of a data set that `lerobot-record` makes of a follower with cameras.

    Args:
        cameras: Their names.
        width: Width of the pictures, in [px].
        height: Height of the pictures, in [px].
    """
    from lerobot.utils.constants import ACTION, OBS_STR
    from lerobot.utils.feature_utils import hw_to_dataset_features

    joints: dict[str, type | tuple] = {f"{joint}.pos": float for joint in JOINTS}
    pictures: dict[str, type | tuple] = dict.fromkeys(cameras, (height, width, 3))
    return hw_to_dataset_features(joints, ACTION) | hw_to_dataset_features(joints | pictures, OBS_STR)


def save_demonstration(dataset: "LeRobotDataset", demonstration: Demonstration) -> None:
    """Add an episode to a data set.

    Args:
        dataset: A data set with `recorded_features`.
        demonstration: The episode.
    """
    instruction = demonstration.verdict.layout.instruction
    for frame in demonstration.frames:
        pictures = {f"observation.images.{camera}": picture for camera, picture in frame.pictures.items()}
        vectors = {"observation.state": np.float32(frame.state), "action": np.float32(frame.action)}
        dataset.add_frame({**vectors, **pictures, "task": instruction})
    dataset.save_episode()


def describe_failures(failed: Sequence[Demonstration], kept: int) -> str:
    """What was tried and left out.

    Args:
        failed: Attempts that did not succeed.
        kept: How many did.
    """
    if not failed:
        return f"  all {kept} attempts succeeded"
    seeds = ", ".join(f"{attempt.seed} ({attempt.verdict.layout.task.name})" for attempt in failed)
    return f"  {kept} of {kept + len(failed)} attempts succeeded; left out are the seeds {seeds}"
