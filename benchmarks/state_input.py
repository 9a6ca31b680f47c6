"""The state as one token, or as text in the prompt: which of the two lets `vla_fast` predict better at equal steps?

`vla_fast` gives the backbone the state as one linear token. openpi writes it into the prompt instead, as the numbers of
256 bins ("State: 127 130 97 ...;"). Both are trained here on the same recording, from the same weights, with the same
batches; the last episode is held out. Printed for each, and for each seed: cross-entropy and error on that episode, and
the processor time of training.

    lerobot-vla demo --output-dir DEMO            # records; any recording of one task will do
    lerobot-vla tokenizer fit DEMO/dataset --chunk-size=10 --relative --vocab-size=256 --output CODEC
    OMP_NUM_THREADS=1 python benchmarks/state_input.py DEMO/dataset --action-tokenizer-path CODEC --steps 300

Found on 12 episodes of the twin, seeds 0 and 1: the token 3.40 and 3.28, 6.6 and 6.9 degrees, 57 and 51 s; text 3.53
and 3.51, 7.4 and 7.3 degrees, 59 and 63 s. So `vla_fast` has the token. A pretrained VLM, which has read numbers
before, may judge otherwise; that was not measured.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.utils.feature_utils import dataset_to_policy_features
from torch import Tensor

from lerobot_vla_plugin.configuration_vla import VLAFastConfig
from lerobot_vla_plugin.modeling_vla import VLAFastPolicy
from lerobot_vla_plugin.models.backbone import Observation
from lerobot_vla_plugin.models.tiny import tiny_tokenizer
from lerobot_vla_plugin.processor_vla import make_vla_fast_pre_post_processors

_BINS = 256
_BATCH = 32


class TextStatePolicy(VLAFastPolicy):
    """`vla_fast`, but the state is text behind the instruction, and the state token says nothing."""

    def _observe(self, batch: dict[str, Tensor]) -> Observation:
        observation = super()._observe(batch)
        bins = ((observation.state + 1) / 2 * _BINS).long().clamp(0, _BINS - 1)
        texts = [f"State: {' '.join(map(str, row))};\n" for row in bins.tolist()]
        written: Any = tiny_tokenizer()(texts, padding=True, return_tensors="pt")
        language, masks = observation.language, observation.language_masks
        return replace(
            observation,
            language=torch.cat([language, written["input_ids"]], dim=1),
            language_masks=torch.cat([masks, written["attention_mask"].bool()], dim=1),
            state=torch.zeros_like(observation.state),
        )


class Recording:
    """Every frame of a data set in memory: reading pictures must not be what is measured."""

    def __init__(self, root: Path, chunk_size: int):
        data = LeRobotDataset(root.name, root=root, video_backend="pyav")
        frames: list[Any] = [data[index] for index in range(len(data))]
        self.task = frames[0]["task"]
        self.pictures = {
            key: torch.stack([(frame[key] * 255).round().to(torch.uint8) for frame in frames])
            for key in data.meta.camera_keys
        }
        self.states, self.actions = (
            torch.stack([frame[key] for frame in frames]) for key in ("observation.state", "action")
        )
        episode = torch.tensor([int(frame["episode_index"]) for frame in frames])
        held_out = episode == episode.max()
        self.training, self.held_out = ((~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0])
        self.at = torch.arange(len(data))[:, None] + torch.arange(chunk_size)
        self.last = torch.tensor([int((episode == e).nonzero().max()) for e in episode])[:, None]

    def batch(self, frames: Tensor) -> dict:
        """What LeRobot's data loader gives for some frames."""
        at, last = self.at[frames], self.last[frames]
        return {
            **{key: pictures[frames].float() / 255 for key, pictures in self.pictures.items()},
            "observation.state": self.states[frames],
            "action": self.actions[torch.minimum(at, last)],
            "action_is_pad": at > last,
            "task": [self.task] * len(frames),
        }

    def training_batches(self, seed: int, count: int) -> Iterator[dict]:
        """Batches in an order that the seed decides."""
        generator = torch.Generator().manual_seed(seed)
        waiting = torch.empty(0, dtype=torch.long)
        for _ in range(count):
            if len(waiting) < _BATCH:
                order = torch.randperm(len(self.training), generator=generator)
                waiting = torch.cat([waiting, self.training[order]])
            yield self.batch(waiting[:_BATCH])
            waiting = waiting[_BATCH:]


def train(policy: VLAFastPolicy, preprocessor, recording: Recording, seed: int, steps: int) -> float:
    """Train with a warm-up and a cosine; gives the processor time, in [s]."""
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-3, betas=(0.9, 0.95))
    warmup = max(steps // 20, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / warmup, 0.505 + 0.495 * math.cos(math.pi * n / steps))
    )
    began = time.process_time()
    policy.train()
    for batch in recording.training_batches(seed, steps):
        loss, _ = policy.forward(preprocessor(batch))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return time.process_time() - began


@torch.no_grad()
def examine(policy: VLAFastPolicy, preprocessor, recording: Recording) -> tuple[float, float]:
    """Mean cross-entropy, and mean absolute error in robot units, on the held-out episode."""
    policy.eval()
    losses, errors = [], []
    for frames in recording.held_out.split(_BATCH):
        raw = recording.batch(frames)
        batch = preprocessor(raw)
        losses.append(policy.forward(batch, reduction="none")[0])
        error = (policy.predict_action_chunk(batch) - raw["action"]).abs()
        errors.append(error[~raw["action_is_pad"]])
    return float(torch.cat(losses).mean()), float(torch.cat(errors).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--chunk-size", type=int, default=10)
    parser.add_argument("--action-tokenizer-path", help="as `lerobot-vla tokenizer fit` writes it; else FAST is fitted")
    args = parser.parse_args()
    recording = Recording(args.dataset, args.chunk_size)
    meta = LeRobotDatasetMetadata(args.dataset.name, root=args.dataset)
    features = dataset_to_policy_features(meta.features)
    for seed in range(args.seeds):
        for name, policy_class in (("token", VLAFastPolicy), ("text", TextStatePolicy)):
            torch.manual_seed(seed)
            config = VLAFastConfig(
                vlm_model_name="tiny",
                device="cpu",
                chunk_size=args.chunk_size,
                action_tokenizer_path=args.action_tokenizer_path,
                input_features={k: f for k, f in features.items() if f.type is not FeatureType.ACTION},
                output_features={k: f for k, f in features.items() if f.type is FeatureType.ACTION},
            )
            policy = policy_class(config, dataset_meta=meta)
            preprocessor, _ = make_vla_fast_pre_post_processors(config, meta.stats)
            seconds = train(policy, preprocessor, recording, seed, args.steps)
            loss, error = examine(policy, preprocessor, recording)
            found = f"held-out cross-entropy {loss:.3f}, error {error:.3f}; {seconds:.0f} s"
            print(f"{name:6} seed {seed}: {found}", flush=True)


if __name__ == "__main__":
    main()
