"""Training `vla_fast` on a recording in memory, for the benchmarks that compare what it learns from."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType
from lerobot.datasets import LeRobotDataset
from lerobot.utils.feature_utils import dataset_to_policy_features
from torch import Tensor

from lerobot_vla_plugin.configuration_vla import VLAFastConfig
from lerobot_vla_plugin.modeling_vla import VLAFastPolicy
from lerobot_vla_plugin.processor_vla import make_vla_fast_pre_post_processors

_BATCH = 32


class Recording:
    """Every frame of a data set in memory: reading pictures must not be what is measured."""

    def __init__(self, root: Path, chunk_size: int):
        data = LeRobotDataset(root.name, root=root, video_backend="pyav")
        self.meta, self.chunk_size = data.meta, chunk_size
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


def train(policy: VLAFastPolicy, preprocessor, recording: Recording, seed: int, steps: int, rate: float) -> float:
    """Train with a warm-up and a cosine; gives the processor time, in [s]."""
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=rate, betas=(0.9, 0.95))
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


def train_and_examine(
    policy_class: type[VLAFastPolicy], recording: Recording, seed: int, steps: int, rate: float, **options: object
) -> str:
    """Make, train and examine a policy; gives what was found, in one line."""
    torch.manual_seed(seed)
    features = dataset_to_policy_features(recording.meta.features)
    config = VLAFastConfig(
        vlm_model_name="tiny",
        device="cpu",
        chunk_size=recording.chunk_size,
        n_action_steps=1,
        input_features={k: f for k, f in features.items() if f.type is not FeatureType.ACTION},
        output_features={k: f for k, f in features.items() if f.type is FeatureType.ACTION},
        **options,  # pyright: ignore[reportArgumentType]
    )
    policy = policy_class(config, dataset_meta=recording.meta)
    preprocessor, _ = make_vla_fast_pre_post_processors(config, recording.meta.stats)
    seconds = train(policy, preprocessor, recording, seed, steps, rate)
    loss, error = examine(policy, preprocessor, recording)
    return f"held-out cross-entropy {loss:.3f}, error {error:.3f}; {seconds:.0f} s"
