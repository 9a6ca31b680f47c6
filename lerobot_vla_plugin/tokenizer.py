"""`lerobot-vla tokenizer`: fit an action tokenizer to a data set, or compare what several cost and lose on it."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .action_tokenizers import TOKENIZER_KINDS
from .arms.annotation import JOINT_UNITS
from .new_folder import new_folder
from .progress import StepBar
from .tokenizer_compare import RowResult, compare, make_folds
from .tokenizer_fit import FIT_DEFAULTS, fit_codec
from .tokenizer_joints import ENOUGH_CHUNKS, RecordedJoints, read_joints
from .tokenizer_plot import plot_comparison
from .tokenizer_rows import SERIES, rows_of
from .tokenizer_table import Comparison, format_table, write_tables
from .tokenizer_units import error_units, recorded_annotation

_CHUNK_SIZE = 50
_MOST_FOLDS = 5
_SWITCH = {"action": argparse.BooleanOptionalAction}
# Options of `fit`: of every kind of tokenizer, and of one only. What is not said is left to `FIT_DEFAULTS`.
_OPTIONS: dict[str, dict[str, Any]] = {
    "relative": {**_SWITCH, "help": "encode all joints but grippers as their distance from the present state"},
    "equal-ranges": {
        **_SWITCH,
        "help": "scale all joints alike, so that an error counts as much in each; else each by its own range",
    },
}
_OPTIONS_OF_KIND: dict[str, dict[str, dict[str, Any]]] = {
    "fast": {
        "scale": {"type": float, "help": "rounding steps in a coefficient of 1: more is finer and longer"},
        "vocab-size": {"type": int, "help": "most ids"},
        "rate-distortion": {**_SWITCH, "help": "round as saves tokens; any FAST decoder reads them"},
    },
    "bins": {
        "bins": {"type": int, "help": "ids"},
        "quantiles": {**_SWITCH, "help": "bins that hold equally many values, joint by joint"},
    },
    "vq": {
        "codes": {"type": int, "help": "codes of a level"},
        "levels": {"type": int, "help": "residual levels, tokens for each joint"},
        "steps": {"type": int, "help": "steps of gradient descent"},
    },
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of both sub-commands."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="fit|compare")
    fit = commands.add_parser("fit", help="fit one, for training", formatter_class=parser.formatter_class)
    _add_recording(fit)
    fit.add_argument("--output", type=Path, required=True, help="folder to write; must not exist yet")
    fit.add_argument("--kind", choices=TOKENIZER_KINDS, default=TOKENIZER_KINDS[0], help="kind of tokenizer")
    _add_options(fit.add_argument_group("options of every kind"), _OPTIONS)
    for kind, options in _OPTIONS_OF_KIND.items():
        chosen = ", ".join(f"{name}={value}" for name, value in FIT_DEFAULTS[kind].items())
        _add_options(fit.add_argument_group(f"options of --kind={kind}", f"if left out: {chosen}"), options)
    fit.set_defaults(run=_fit)

    comparison = commands.add_parser(
        "compare", help="compare what several cost and lose", formatter_class=parser.formatter_class
    )
    _add_recording(comparison)
    comparison.add_argument("--output", type=Path, help="folder for compare.csv, compare.json and compare.png")
    comparison.add_argument("--tokenizers", default=",".join(SERIES), help="which to compare")
    comparison.add_argument("--folds", type=int, default=_MOST_FOLDS, help="most times to fit each")
    comparison.add_argument(
        "--stride",
        type=int,
        default=argparse.SUPPRESS,
        help="frames from one chunk that is tested on to the next; if left out, 1, and in recordings of more than "
        f"{2 * ENOUGH_CHUNKS:,} frames as many as give about {ENOUGH_CHUNKS:,} chunks",
    )
    comparison.add_argument(
        "--calibration", type=Path, help="LeRobot's calibration file of the arm, where the data set is not annotated"
    )
    comparison.add_argument("--joint-unit", choices=JOINT_UNITS, help="unit of the recording, likewise")
    comparison.set_defaults(run=_compare)


def _add_options(group: Any, options: Mapping[str, Mapping[str, Any]]) -> None:
    for name, declaration in options.items():
        group.add_argument(f"--{name}", default=argparse.SUPPRESS, **declaration)


def _add_recording(parser: argparse.ArgumentParser) -> None:
    parser.allow_abbrev = False
    parser.add_argument(
        "dataset",
        help="folder of the data set, its repo id under LeRobot's home, or a parquet file with the columns action, "
        "observation.state and episode_index",
    )
    parser.add_argument("--root", type=Path, help="the data set's folder, as in LeRobot's --dataset.root")
    parser.add_argument("--chunk-size", type=int, default=_CHUNK_SIZE, help="steps of a chunk")


def run(args: argparse.Namespace) -> int:
    """Fit or compare; 0 done, 2 could not."""
    try:
        args.run(args, read_joints(args.dataset, args.root))
    except (ValueError, OSError) as error:
        print(f"lerobot-vla tokenizer {args.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _fit(args: argparse.Namespace, joints: RecordedJoints) -> None:
    summary = fit_codec(joints, args.output, args.kind, args.chunk_size, _fit_options(args))
    print(
        f"Fitted {args.kind} to {summary.chunks} chunks of {args.chunk_size} steps x {len(joints.joint_names)} joints "
        f"of {len(joints.episodes)} episodes:\n"
        f"  {summary.vocab_size} ids; {summary.tokens_mean:.1f} tokens a chunk, at most {summary.tokens_max}\n"
        f"  error {summary.error_mean:.3f} on average, at most {summary.error_max:.2f}, in the data's unit\n"
        f"  `lerobot-vla tokenizer compare {args.dataset}` tells it for episodes that were not fitted to\n"
        f"Wrote {args.output}. Train with it:\n"
        f"  lerobot-train --policy.type=vla_fast --policy.action_tokenizer_path={args.output} "
        f"--policy.chunk_size={args.chunk_size} {_dataset_options(joints)} ..."
    )


def _fit_options(args: argparse.Namespace) -> dict[str, Any]:
    """Options that were given; raises ValueError for one of another kind."""
    for kind, options in _OPTIONS_OF_KIND.items():
        for option in options:
            if kind != args.kind and option.replace("-", "_") in args:
                raise ValueError(f"--{option} is an option of --kind={kind}, not of --kind={args.kind}")
    names = [option.replace("-", "_") for option in (*_OPTIONS, *_OPTIONS_OF_KIND[args.kind])]
    return {name: getattr(args, name) for name in names if name in args}


def _dataset_options(joints: RecordedJoints) -> str:
    if joints.source.is_file():
        return "--dataset.repo_id=..."
    return f"--dataset.repo_id=local/{joints.source.name} --dataset.root={joints.source}"


def _compare(args: argparse.Namespace, joints: RecordedJoints) -> None:
    if args.output and args.output.exists():
        raise FileExistsError(f"{args.output} exists; name a new folder")
    rows = rows_of(args.tokenizers.split(","))
    folds = make_folds(joints.episode_lengths, args.folds, args.chunk_size)
    joints = _without_short_episodes(joints, args.chunk_size)
    units = error_units(joints.joint_names, recorded_annotation(joints.source, args.calibration, args.joint_unit))
    stride = getattr(args, "stride", joints.sparing_stride)
    found = defaultdict(list)
    with StepBar("compare", len(rows) * len(folds), "fits") as bar:
        for row, result in compare(joints, rows, folds, args.chunk_size, stride):
            found[row.label].append(result)
            bar.note(f", {row.label}")
            bar.advance_to(bar.position + 1)
    results = [RowResult(row, tuple(found[row.label])) for row in rows]
    comparison = Comparison(joints.source, joints.joint_names, args.chunk_size, stride, folds, units, results)
    if args.output:
        with new_folder(args.output) as draft:
            write_tables(comparison, draft)
            plot_comparison(comparison, draft / "compare.png")
    print(format_table(comparison))
    if args.output:
        print(f"\nWrote {args.output}: compare.csv, compare.json, compare.png")


def _without_short_episodes(joints: RecordedJoints, chunk_size: int) -> RecordedJoints:
    """The episodes that hold a chunk; tells of the others."""
    short = [episode for episode, frames in joints.episode_lengths.items() if frames < chunk_size]
    if short:
        print(f"Left out, shorter than a chunk of {chunk_size} steps: episodes {', '.join(map(str, short))}")
    return joints.of_episodes([episode for episode in joints.episodes if episode not in short])
