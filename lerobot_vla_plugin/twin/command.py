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
from lerobot_vla_plugin.twin.so101 import SO101Twin

_TWINS = {twin.kind.name: twin for twin in (SO101Twin, KochTwin)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser.

    Args:
        parser: Parser of the sub-command.
    """
    cameras = CameraConfig()
    parser.add_argument("--arm", choices=_TWINS, default="so101", help="kind of arm")
    parser.add_argument("--seed", type=int, default=0, help="seed of the places where the cube appears")
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
    twin = _TWINS[args.arm](TwinConfig(args.seed, cameras, args.directory))
    try:
        twin.start()
    except (RuntimeError, OSError, ModuleNotFoundError) as error:
        print(f"lerobot-vla twin: {error}", file=sys.stderr)
        return 2
    try:
        print(describe(twin), flush=True)
        stop.wait()
    finally:
        twin.stop()
    print(f"twin stopped; the cube was touched {twin.task.touches} times", flush=True)
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
        f"cameras   tcp://127.0.0.1:{twin.camera_port}, drawn by {twin.renderer}\n\n"
        f"{commands}\n\nStop the twin with Ctrl-C."
    )


def lerobot_commands(twin: ArmTwin) -> list[list[str]]:
    """Teleoperate, record, replay and roll out, as argument lists.

    Args:
        twin: A running twin.
    """
    dataset = f"local/{twin.kind.name}_twin"
    robot, teleop = twin.robot_arguments(own_types=True), twin.teleop_arguments(own_types=True)
    record = [
        f"--dataset.repo_id={dataset}",
        f"--dataset.single_task={TASK}",
        "--dataset.fps=15",
        "--dataset.num_episodes=20",
        "--dataset.episode_time_s=12",
        "--dataset.reset_time_s=0",
        "--dataset.push_to_hub=false",
        "--play_sounds=false",
    ]
    replay = [f"--dataset.repo_id={dataset}", "--dataset.episode=0", "--play_sounds=false"]
    rollout = ["--policy.path=PATH_OF_A_POLICY", f"--task={TASK}", "--duration=30", "--fps=15"]
    return [
        ["lerobot-teleoperate", *robot, *teleop],
        ["lerobot-record", *robot, *teleop, *record],
        ["lerobot-replay", *twin.robot_arguments(with_cameras=False, own_types=True), *replay],
        ["lerobot-rollout", *robot, *rollout],
    ]
