"""`lerobot-vla eval-report`: one HTML file about one or several evaluations, to be looked at without network."""

import argparse
import sys
from pathlib import Path

from .evaluation_facts import load_evaluations
from .evaluation_page import write_page
from .output_file import check_output

FINE, COULD_NOT_RUN = 0, 2
_MB = 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.allow_abbrev = False
    parser.epilog = (
        "The file holds the figures with their intervals, maps of success by the place of the cube (of a twin: a real "
        "arm knows no places), and every episode with its pictures, failures first. The folders may belong to "
        "evaluations that were interrupted or still run."
    )
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="--env.report_dir of an evaluation")
    parser.add_argument("--output", type=Path, default=Path("report.html"), metavar="FILE.html", help="the file")
    parser.add_argument(
        "--pictures", type=_pictures, default=12, metavar="N", help="pictures of each episode and camera, evenly spread"
    )


def _pictures(text: str) -> int:
    pictures = int(text)
    if pictures < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {pictures}")
    return pictures


def run(args: argparse.Namespace) -> int:
    """Write the file; 0 done, 2 could not."""
    try:
        check_output(args.output, ".html")
        evaluations = load_evaluations(args.directories)
        args.output.write_text(write_page(evaluations, args.pictures), encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"lerobot-vla eval-report: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    episodes = sum(len(evaluation.episodes) for evaluation in evaluations)
    size_mb = args.output.stat().st_size / _MB
    print(f"Wrote {args.output}: {len(evaluations)} evaluations, {episodes} episodes, {size_mb:.1f} MB")
    return FINE
