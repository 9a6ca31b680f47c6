"""Load a checkpoint knowing only LeRobot, and predict an action chunk from one recorded frame.

    python examples/predict_chunk.py outputs/demo/<time>/training/checkpoints/last/pretrained_model \
        --dataset outputs/demo/<time>/dataset
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets import LeRobotDataset
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.utils.import_utils import register_third_party_plugins


def predict_chunk(checkpoint: Path, dataset_root: Path, frame: int) -> torch.Tensor:
    """Predict the actions that follow a recorded frame.

    Args:
        checkpoint: Folder `pretrained_model` of a training run.
        dataset_root: Folder of a data set in LeRobot's format.
        frame: Index of the frame.

    Returns:
        Joint targets in the data set's own unit, (chunk_size, joints).
    """
    register_third_party_plugins()  # what every LeRobot command does first; it finds this plugin
    config = PreTrainedConfig.from_pretrained(checkpoint)
    policy = get_policy_class(config.type).from_pretrained(checkpoint)
    preprocessor, postprocessor = make_pre_post_processors(config, str(checkpoint))
    item: Any = LeRobotDataset("local/any", root=dataset_root, video_backend="pyav")[frame]
    observation = {key: item[key] for key in item if key.startswith("observation.")}
    batch = preprocessor({**observation, "task": item["task"]})
    return postprocessor(policy.predict_action_chunk(batch))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--dataset", type=Path, required=True, help="folder of a data set")
    parser.add_argument("--frame", type=int, default=0)
    args = parser.parse_args()
    torch.set_printoptions(precision=2, sci_mode=False)
    print(predict_chunk(args.checkpoint, args.dataset, args.frame))


if __name__ == "__main__":
    main()
