"""Small `vla_fast` policies on smooth motion, and batches in robot units for them."""

from pathlib import Path

import numpy as np
import torch
from conftest import JOINTS
from lerobot.configs import FeatureType, PolicyFeature
from smolvla_reference import make_batch

from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.configuration_vla import VLAFastConfig
from lerobot_vla_plugin.modeling_vla import VLAFastPolicy

CHUNK_SIZE = 8


def make_config(cameras=("front", "wrist"), joints=6, image=(40, 56), **options) -> VLAFastConfig:
    """A configuration of the built-in backbone; `image` is (height, width)."""
    defaults = {"vlm_model_name": "tiny", "device": "cpu", "chunk_size": CHUNK_SIZE, "n_action_steps": 3}
    return VLAFastConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (joints,)),
            **{f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, *image)) for c in cameras},
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (joints,))},
        **{**defaults, **options},
    )


def smooth_motion(num_chunks: int = 200, chunk_size: int = CHUNK_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Sine waves over about -30..30: chunks (n, c, 6) and the state before each (n, 6). The last joint stands still."""
    generator = np.random.default_rng(0)
    phase, speed = generator.uniform(0, 2 * np.pi, (2, num_chunks, 1, 6)) * [[[[1.0]]], [[[0.1]]]]
    motion = 30 * np.sin(phase + speed * np.arange(-1, chunk_size)[None, :, None])
    motion[:, :, 5] = 12.5
    return motion[:, 1:], motion[:, 0]


def write_codec(folder: Path, kind: str = "fast", chunk_size: int = CHUNK_SIZE, **options) -> str:
    """Fit a codec to `smooth_motion` and save it, as `lerobot-vla tokenizer fit` does."""
    actions, states = smooth_motion(chunk_size=chunk_size)
    ChunkCodec.fit(actions, states, JOINTS, kind, **options).save(folder)
    return str(folder)


def make_fast_policy(folder: Path, kind: str = "fast", **options) -> VLAFastPolicy:
    """An untrained policy in evaluation mode that speaks the tokens of `write_codec`."""
    torch.manual_seed(0)
    codec = folder if (folder / "codec.json").exists() else write_codec(folder, kind)
    return VLAFastPolicy(make_config(action_tokenizer_path=str(codec), **options)).eval()


def make_motion_batch(policy: VLAFastPolicy, batch_size: int = 3) -> dict[str, torch.Tensor]:
    """A pre-processed training batch of `smooth_motion`; the second half of its first chunk is padding."""
    lengths = tuple(4 + i % 4 for i in range(batch_size))
    batch = make_batch(policy, batch_size, lengths)  # pyright: ignore[reportArgumentType]
    actions, states = smooth_motion(max(batch_size, 16))
    batch["action"] = torch.tensor(actions[:batch_size], dtype=torch.float32)
    batch["observation.state"] = torch.tensor(states[:batch_size], dtype=torch.float32)
    return batch
