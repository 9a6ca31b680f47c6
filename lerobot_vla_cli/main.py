"""Entry point of `lerobot-vla`: finds the module of a sub-command, and only that one is imported."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from lerobot_vla_cli import COULD_NOT_RUN
from lerobot_vla_cli.requirements import install_command

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


@dataclass(frozen=True)
class Command:
    """A sub-command.

    Attributes:
        module: Holds `add_arguments(parser)` and `run(args) -> int`.
        summary: One line of help.
        extra: Optional extra of this distribution that the command needs.
    """

    module: str
    summary: str
    extra: str | None = None


COMMANDS = {
    "demo": Command(
        "lerobot_vla_plugin.demo", "record, train and roll out on an emulated SO-101, then show what was learnt", "twin"
    ),
    "twin": Command(
        "lerobot_vla_plugin.twin.command", "run an emulated SO-101 or Koch, leader and follower, with cameras", "twin"
    ),
    "record-twin": Command(
        "lerobot_vla_plugin.fast_record", "record demonstrations of the twin's tasks, faster than real time", "twin"
    ),
    "convert": Command(
        "lerobot_vla_plugin.convert", "turn a smolvla checkpoint of LeRobot into a vla_flow one with the same numbers"
    ),
    "annotate": Command(
        "lerobot_vla_plugin.annotate", "write down which arm, unit and calibration a data set was recorded with"
    ),
    "retarget": Command(
        "lerobot_vla_plugin.retarget", "copy a data set with its joints in another unit or under another calibration"
    ),
    "tokenizer": Command(
        "lerobot_vla_plugin.tokenizer", "fit an action tokenizer, or compare what several cost and lose on a data set"
    ),
    "plot": Command(
        "lerobot_vla_plugin.plot",
        "draw the chunks that a checkpoint predicts beside those of a data set, or where an evaluation succeeded",
    ),
    "eval-report": Command(
        "lerobot_vla_plugin.eval_report", "write one HTML file about evaluations: figures, maps, pictures of episodes"
    ),
    "check": Command("lerobot_vla_cli.check", "say whether LeRobot finds this plugin, what is missing, and the remedy"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    Args:
        argv: Arguments without the program's name; those of the process if None.

    Returns:
        Exit code of the sub-command: 0 fine, 2 where it could not run.

    Raises:
        SystemExit: Help was asked for (0), or the arguments are wrong (2).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Options of a sub-command are known only to its own module, so its parser takes over after the name.
    name = _parser().parse_args(arguments[:1]).command
    try:
        module = importlib.import_module(COMMANDS[name].module)
        return module.run(_parse(name, module, arguments[1:]))
    except ImportError as error:
        print(f"lerobot-vla {name}: {_explain(error, COMMANDS[name])}", file=sys.stderr)
        return COULD_NOT_RUN
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="lerobot-vla",
        usage="lerobot-vla COMMAND [options]",
        description="VLA policies for SO-101 and Koch arms, as a LeRobot plugin.",
        epilog="\n".join(["commands:", *lines, "", "Options of a command: lerobot-vla COMMAND --help"]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _parse(name: str, module: ModuleType, arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"lerobot-vla {name}",
        description=COMMANDS[name].summary[0].upper() + COMMANDS[name].summary[1:] + ".",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    module.add_arguments(parser)
    return parser.parse_args(arguments)


def _explain(error: ImportError, command: Command) -> str:
    """Reason and remedy of a failed import, in one line."""
    reason = " ".join(str(error).split())
    # Without a name, or with one of ours, something is there but broken: no package to install would mend that.
    absent = error.name if isinstance(error, ModuleNotFoundError) else None
    if absent is None or absent.startswith("lerobot_vla"):
        return f"{reason}. `lerobot-vla check` says more about this installation"
    return f"{reason}. Install it with: {install_command(command.extra)}"


if __name__ == "__main__":
    sys.exit(main())
