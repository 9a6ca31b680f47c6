"""`lerobot-vla check`: whether LeRobot finds this plugin, what it registered, what is missing and the remedy.

With `--robot.type` or `--teleop.type` it looks at a connected arm instead.
"""

import argparse
import contextlib
import importlib
import json
import platform
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from lerobot_vla_cli import COULD_NOT_RUN, FINE, PROBLEMS_FOUND
from lerobot_vla_cli.discovery import (
    PACKAGE_NAME,
    InstalledCopy,
    Problem,
    import_failure,
    installed_copies,
    location_problems,
    metadata_problems,
)
from lerobot_vla_cli.requirements import (
    DISTRIBUTION_NAME,
    install_command,
    installed_version,
    optional_extras,
    unmet_requirements,
)

_FFMPEG = "to use torchcodec, install ffmpeg 4 to 8 (apt, brew, winget or conda)"


@dataclass(frozen=True)
class Registered:
    """Names under which this plugin stands in LeRobot's registries."""

    policies: list[str]
    processor_steps: list[str]


@dataclass(frozen=True)
class Report:
    """Everything that `check` found.

    Attributes:
        versions: Distribution (or "python") -> version, None where it is absent.
        copies: Where this distribution is installed.
        registered: What LeRobot knows of this plugin.
        device: The device that LeRobot picks.
        video: The decoder that LeRobot picks for data sets with videos.
        extras: Extra -> what it lacks, nothing if it is complete.
        problems: What must be mended.
    """

    versions: dict[str, str | None]
    copies: list[str]
    registered: Registered
    device: str
    video: str
    extras: dict[str, list[str]]
    problems: list[Problem]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser.

    Args:
        parser: Parser of the sub-command.
    """
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    arm = parser.add_argument_group(
        "a connected arm, or a follower and its leader, instead of the installation",
        "Reads every servo: model, firmware, supply, temperature, position, calibration. Nothing moves and nothing is "
        "written unless asked for below, and then only after a confirmation.",
    )
    # Spelled as for the LeRobot commands that will use the arms; a leader is a teleop there.
    for side, example in (("robot", "so101_follower"), ("teleop", "so101_leader")):
        arm.add_argument(f"--{side}.type", dest=f"{side}_type", help=f"e.g. {example}")
        arm.add_argument(f"--{side}.port", dest=f"{side}_port", help="serial port")
        arm.add_argument(f"--{side}.id", dest=f"{side}_id", help="names the calibration file")
        arm.add_argument(
            f"--{side}.calibration_dir",
            dest=f"{side}_calibration_dir",
            type=Path,
            help="folder of the calibration file; LeRobot's if left out",
        )
    arm.add_argument("--write-calibration", action="store_true", help="write the file into servos that differ from it")
    arm.add_argument("--move", action="store_true", help="move every joint by three degrees and back")


def run(args: argparse.Namespace) -> int:
    """Print the report.

    Args:
        args: Parsed options of `add_arguments`.

    Returns:
        0 fine, 1 problems found (a missing optional extra is none), 2 could not run.
    """
    if args.robot_type or args.teleop_type:
        return importlib.import_module(f"{PACKAGE_NAME}.arm_check").run(args)
    try:
        # What is imported may print; the report must stay parseable.
        with contextlib.redirect_stdout(sys.stderr):
            report = examine()
    except Exception:
        print(f"lerobot-vla check could not run:\n{traceback.format_exc()}", file=sys.stderr)
        return COULD_NOT_RUN
    print(json.dumps(asdict(report), indent=2) if args.json else describe(report))
    return PROBLEMS_FOUND if report.problems else FINE


def examine() -> Report:
    """Look at this installation."""
    copies = installed_copies()
    failure = import_failure()
    registered = Registered([], []) if failure else _registered()
    problems = [*metadata_problems(copies), *_requirement_problems(copies)]
    problems += [failure] if failure else [*location_problems(copies), *_registry_problems(registered)]
    names = (DISTRIBUTION_NAME, "lerobot", "torch", "transformers")
    return Report(
        versions={"python": platform.python_version(), **{name: installed_version(name) for name in names}},
        copies=list(map(str, copies)),
        registered=registered,
        device=_device(),
        video=_video(),
        extras={extra: unmet_requirements(extra=extra) for extra in optional_extras()} if copies else {},
        problems=problems,
    )


def _requirement_problems(copies: list[InstalledCopy]) -> list[Problem]:
    unmet = unmet_requirements() if copies else []
    return [Problem(f"{DISTRIBUTION_NAME} needs {phrase}", install_command()) for phrase in unmet]


def _registered() -> Registered:
    from lerobot.configs import PreTrainedConfig
    from lerobot.processor import ProcessorStepRegistry

    policies = [name for name, kind in PreTrainedConfig.get_known_choices().items() if _is_ours(kind)]
    steps = [name for name in ProcessorStepRegistry.list() if _is_ours(ProcessorStepRegistry.get(name))]
    return Registered(sorted(policies), sorted(steps))


def _is_ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] == PACKAGE_NAME


def _registry_problems(registered: Registered) -> list[Problem]:
    """Policies whose model code LeRobot could not import when it needs it."""
    from lerobot.policies.factory import get_policy_class

    if not registered.policies:
        message = f"{PACKAGE_NAME} was imported but no policy of it is registered with LeRobot"
        return [Problem(message, f"pip install --force-reinstall --no-deps {DISTRIBUTION_NAME}")]
    problems = []
    for name in registered.policies:
        try:
            get_policy_class(name)
        except Exception as error:
            message = f"policy {name} is registered but its model fails to import: {type(error).__name__}: {error}"
            problems.append(Problem(message, "mend the cause below", traceback.format_exc()))
    return problems


def _device() -> str:
    try:
        import torch
    except (ImportError, OSError) as error:
        return f"unknown, torch does not import: {error}"
    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _video() -> str:
    absent = []
    for module, decoder in (("torchcodec", "torchcodec"), ("av", "pyav")):
        try:
            importlib.import_module(module)
        except (ImportError, OSError, RuntimeError):  # torchcodec raises any of them without ffmpeg's libraries
            absent.append(decoder)
        else:
            return f"{decoder}; {_FFMPEG}" if absent else decoder
    return f"none: neither {' nor '.join(absent)} imports; data sets with videos cannot be read"


def describe(report: Report) -> str:
    """The report as text for people.

    Args:
        report: As `examine` returns it.
    """
    rows = {
        "versions": ", ".join(f"{name} {version or 'absent'}" for name, version in report.versions.items()),
        "installed": "; ".join(report.copies) or "no",
        "policies": ", ".join(report.registered.policies) or "none",
        "steps": ", ".join(report.registered.processor_steps) or "none",
        "device": report.device,
        "video": report.video,
    }
    for extra, unmet in report.extras.items():
        rows[f"extra {extra}"] = f"lacks {', '.join(unmet)}; {install_command(extra)}" if unmet else "complete"
    lines = [f"{topic:<12} {text}" for topic, text in rows.items()]
    return "\n".join([*lines, "", *_describe_problems(report.problems)])


def _describe_problems(problems: list[Problem]) -> list[str]:
    if not problems:
        return ["No problems: LeRobot finds this plugin."]
    lines = [f"{len(problems)} problem{'s' if len(problems) > 1 else ''}:"]
    for number, problem in enumerate(problems, start=1):
        lines += [f"{number}. {problem.message}", f"   remedy: {problem.remedy}"]
        lines += [f"   | {line}" for line in problem.details.splitlines()]
    return lines
