"""`lerobot-vla twin`: run the twin of an arm until it is stopped, and say how to use it."""

import argparse
import shlex
import signal
import sys
import threading
from pathlib import Path

from lerobot_vla_plugin.twin.arm_twin import ArmTwin, TwinConfig
from lerobot_vla_plugin.twin.cameras import CameraConfig
from lerobot_vla_plugin.twin.directory import default_directory
from lerobot_vla_plugin.twin.koch import KochTwin
from lerobot_vla_plugin.twin.operator import TASK
from lerobot_vla_plugin.twin.rendering import RENDERERS
from lerobot_vla_plugin.twin.rounds import RESET_S
from lerobot_vla_plugin.twin.scenes import COLORS, TASKS, draw_layout
from lerobot_vla_plugin.twin.so101 import SO101Twin

_TWINS = {twin.kind.name: twin for twin in (SO101Twin, KochTwin)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser.

    Args:
        parser: Parser of the sub-command.
    """
    cameras = CameraConfig()
    parser.epilog = (
        "Without --task the arm has no physics, and a cube jumps when it is touched. With one, it moves cubes "
        "under gravity, and a scripted person does the task at the leader: in real time when goals come (a recording "
        "shows by a pause when its episodes begin), in lock-step as far as a client lets time pass."
    )
    parser.add_argument("--arm", choices=_TWINS, default="so101", help="kind of arm")
    parser.add_argument("--task", choices=list(TASKS), help="scenes of this task, one after the other, with physics")
    parser.add_argument(
        "--color", choices=list(COLORS), help="cube that is named; by default each scene's seed decides"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the places of cubes; each new scene takes the next"
    )
    parser.add_argument("--lock-step", action="store_true", help="time passes only when a client asks, e.g. --env.twin")
    parser.add_argument("--width", type=int, default=cameras.width, help="width of the pictures [px]")
    parser.add_argument("--height", type=int, default=cameras.height, help="height of the pictures [px]")
    parser.add_argument("--fps", type=int, default=cameras.fps, help="pictures a second")
    parser.add_argument("--camera-port", type=int, default=cameras.port, help="TCP port; 0 takes a free one")
    parser.add_argument("--renderer", choices=RENDERERS, default=cameras.renderer)
    parser.add_argument("--directory", type=Path, default=default_directory(), help="where the ports' names lie")


def run(args: argparse.Namespace) -> int:
    """Run the twin until Ctrl-C, SIGTERM or SIGHUP.

    Args:
        args: Parsed options of `add_arguments`.

    Returns:
        Exit code: 0 after a clean stop, 2 where the twin cannot start.
    """
    stop = threading.Event()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: stop.set())
    cameras = CameraConfig(args.width, args.height, args.fps, args.camera_port, args.renderer)
    try:
        config = TwinConfig(args.seed, cameras, args.directory, args.task, args.lock_step, args.color)
        twin = _TWINS[args.arm](config)
        twin.start()
    except (RuntimeError, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"lerobot-vla twin: {error}", file=sys.stderr)
        return 2
    try:
        print(describe(twin), flush=True)
        stop.wait()
    finally:
        twin.stop()
    print(f"twin stopped; {twin.summary()}", flush=True)
    return 0


def describe(twin: ArmTwin) -> str:
    """Ports of a running twin, and LeRobot commands that use it.

    Args:
        twin: The twin.
    """
    commands = "\n\n".join(" \\\n    ".join(map(shlex.quote, command)) for command in lerobot_commands(twin))
    return (
        f"follower  {twin.follower_port} -> {twin.follower.port}\n"
        f"leader    {twin.leader_port} -> {twin.leader.port}\n"
        f"cameras   tcp://127.0.0.1:{twin.camera_port}, drawn by {twin.renderer}\n"
        f"{_describe_task(twin)}\n"
        f"{commands}\n\nStop the twin with Ctrl-C."
    )


def _describe_task(twin: ArmTwin) -> str:
    config = twin.config
    if config.task is None:
        return ""
    if config.lock_step:
        return f"time      stands still until a client of {config.directory} lets it pass\n"
    episode_s = TASKS[config.task].episode_s
    lines = [
        f"time      the person begins when goals come after a pause, and has {episode_s:g} s; the way back and laying",
        f"          the next scene take {RESET_S:g} s: keep --dataset.episode_time_s and reset_time_s as below",
    ]
    if config.color is None:
        lines.append("color     lerobot-record writes one instruction for all episodes: start with --color to record")
    return "\n".join(lines) + "\n"


def lerobot_commands(twin: ArmTwin) -> list[list[str]]:
    """Teleoperate, record, replay and roll out, as argument lists; evaluate, on a twin in lock-step.

    Args:
        twin: A running twin.
    """
    robot, teleop = twin.robot_arguments(own_types=True), twin.teleop_arguments(own_types=True)
    evaluation = [_evaluation(twin, robot)] if twin.config.task else []
    if twin.config.lock_step:
        return evaluation
    dataset = f"local/{twin.kind.name}_{twin.config.task or 'twin'}".replace("-", "_")
    replay = [f"--dataset.repo_id={dataset}", "--dataset.episode=0", "--play_sounds=false"]
    rollout = ["--policy.path=PATH_OF_A_POLICY", f"--task={_instruction(twin)}", "--duration=30", "--fps=15"]
    return [
        ["lerobot-teleoperate", *robot, *teleop],
        ["lerobot-record", *robot, *teleop, f"--dataset.repo_id={dataset}", *_recording(twin)],
        ["lerobot-replay", *twin.robot_arguments(with_cameras=False, own_types=True), *replay],
        ["lerobot-rollout", *robot, *rollout],
        *evaluation,
    ]


def _recording(twin: ArmTwin) -> list[str]:
    task = twin.config.task
    episode_s, reset_s = (TASKS[task].episode_s, RESET_S) if task else (12, 0)
    return [
        f"--dataset.single_task={_instruction(twin)}",
        "--dataset.fps=15",
        "--dataset.num_episodes=20",
        f"--dataset.episode_time_s={episode_s:g}",
        f"--dataset.reset_time_s={reset_s:g}",
        "--dataset.push_to_hub=false",
        "--play_sounds=false",
    ]


def _evaluation(twin: ArmTwin, robot: list[str]) -> list[str]:
    options = ["--env.type=physical_arm", f"--env.twin={twin.config.directory}", f"--env.scene={twin.config.task}"]
    if twin.config.color is not None:
        options.append(f"--env.color={twin.config.color}")
    arm = [argument.replace("--robot.", "--env.robot.", 1) for argument in robot]
    evaluation = ["--env.fps=15", "--eval.n_episodes=20", "--eval.batch_size=1"]
    return ["lerobot-eval", "--policy.path=PATH_OF_A_POLICY", *options, *arm, *evaluation]


def _instruction(twin: ArmTwin) -> str:
    """Of the first scene; without a color the next scenes' may differ."""
    config = twin.config
    return draw_layout(config.task, config.seed, config.color).instruction if config.task else TASK
