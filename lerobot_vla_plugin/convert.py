"""`lerobot-vla convert`: a `smolvla` checkpoint of LeRobot -> a `vla_flow` checkpoint with the same numbers."""

import argparse
import sys
from pathlib import Path

from lerobot.processor import NormalizerProcessorStep, PolicyProcessorPipeline, from_tensor_to_numpy
from lerobot.utils.constants import POLICY_PREPROCESSOR_DEFAULT_NAME

from .configuration_vla import VLAFlowConfig
from .feature_statistics import Statistics, select_statistics
from .processor_vla import make_vla_flow_pre_post_processors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("source", help="folder or hub name of a smolvla checkpoint")
    parser.add_argument("output", type=Path, help="folder to write; must not exist yet")
    parser.add_argument(
        "--statistics",
        metavar="DATA_SET",
        help="which data set's statistics to use, where the checkpoint keeps several (so100.buffer.action: so100)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert and say what to do next; 0 done, 2 could not."""
    try:
        convert(args.source, args.output, args.statistics)
    except (ValueError, FileExistsError) as error:
        print(f"lerobot-vla convert: {error}", file=sys.stderr)
        return 2
    print(f"Wrote {args.output}. Run it with:")
    print(f"  lerobot-rollout --policy.path={args.output} --policy.n_action_steps=10 --policy.joint_unit=... ...")
    print("with joint_unit degrees or percent, as the data were: a smolvla checkpoint does not say it.")
    return 0


def convert(source: str, output: Path, statistics: str | None = None) -> None:
    """Write a `smolvla` checkpoint in this package's layout: weights, backbone geometry, tokenizer and statistics.

    Args:
        source: Folder or hub name.
        output: New folder.
        statistics: Data set whose statistics to keep, where there are several.

    Raises:
        ValueError: If the checkpoint or its statistics are incomplete or ambiguous.
        FileExistsError: If `output` exists.
    """
    from .modeling_vla import VLAFlowPolicy

    if output.exists():
        raise FileExistsError(f"{output} exists; name a new folder")
    policy = VLAFlowPolicy.from_pretrained(source)
    assert isinstance(policy.config, VLAFlowConfig)
    stats = read_statistics(source)
    if statistics is not None:
        stats = select_statistics(stats, statistics)
    pipelines = make_vla_flow_pre_post_processors(policy.config, stats)
    policy.save_pretrained(output)
    for pipeline in pipelines:
        pipeline.save_pretrained(output)


def read_statistics(source: str) -> Statistics:
    """Statistics inside a checkpoint's pre-processor.

    Raises:
        ValueError: If it has no pre-processor, or one without a normaliser.
    """
    filename = f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json"
    try:
        # The tokenizer is not needed here and would be looked up on the hub; an empty one stands in for it.
        pipeline = PolicyProcessorPipeline.from_pretrained(
            source, config_filename=filename, overrides={"tokenizer_processor": {"tokenizer": object()}}
        )
    except (FileNotFoundError, KeyError) as error:
        raise ValueError(f"{source} has no readable {filename}: {error}") from error
    normalizers = [step for step in pipeline.steps if isinstance(step, NormalizerProcessorStep)]
    if not normalizers:
        raise ValueError(f"{source}: {filename} has no normaliser; its steps are {pipeline}")
    return {
        key: {name: from_tensor_to_numpy(value) for name, value in values.items()}
        for key, values in normalizers[0]._tensor_stats.items()
    }
