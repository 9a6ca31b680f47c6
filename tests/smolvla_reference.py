"""LeRobot's own `smolvla` on small random weights: the reference that `vla_flow` is compared with.

Its loader wants a VLM folder with a processor; one of a few kilobytes is written here.
"""

from pathlib import Path

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from transformers import (
    PreTrainedTokenizerFast,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMConfig

from lerobot_vla_plugin.models.built_in import byte_tokenizer

IMAGE_TOKENS = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}

SMALL_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
SMALL_VISION = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 48,
    "patch_size": 8,
}
# SmolVLM2-500M: the geometry of the published SmolVLA.
REAL_TEXT = {
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "head_dim": 64,
    "vocab_size": 49280,
    "tie_word_embeddings": False,
}
REAL_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}


def write_vlm_folder(folder: Path, text: dict | None = None, vision: dict | None = None, scale_factor: int = 2) -> Path:
    """Write a VLM folder (configuration, tokenizer, processor; no weights) as the hub would hold it."""
    base = byte_tokenizer()
    base.add_tokens(list(IMAGE_TOKENS.values()), special_tokens=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base.backend_tokenizer,
        pad_token=base.pad_token,
        eos_token=base.eos_token,
        extra_special_tokens=IMAGE_TOKENS,
    )
    processor = SmolVLMProcessor(SmolVLMImageProcessor(), tokenizer, SmolVLMVideoProcessor())
    processor.save_pretrained(folder)
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "rms_norm_eps": 1e-5,
        "pad_token_id": 0,
        **(text or SMALL_TEXT),
    }
    config = SmolVLMConfig(
        scale_factor=scale_factor,
        pad_token_id=0,
        image_token_id=1,
        text_config=text,
        vision_config=vision or SMALL_VISION,
    )
    config.save_pretrained(folder)
    return folder


def make_smolvla(
    vlm_folder: Path, cameras: list[str], joints: int = 6, image: tuple[int, int] = (40, 56), **options
) -> SmolVLAPolicy:
    """LeRobot's policy on random weights; `image` is (height, width)."""
    config = SmolVLAConfig(
        vlm_model_name=str(vlm_folder),
        load_vlm_weights=False,
        device="cpu",
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (joints,)),
            **{f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, *image)) for c in cameras},
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (joints,))},
        **options,
    )
    policy = SmolVLAPolicy(config)
    with torch.no_grad():  # random, but not so small that an error would hide
        for name, parameter in policy.named_parameters():
            if parameter.ndim >= 2:
                parameter.mul_(2.0)
            elif "norm" in name and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(std=0.2)
    return policy


def make_batch(
    policy: SmolVLAPolicy, batch_size: int = 3, language_lengths: tuple[int, ...] = (7, 4, 5)
) -> dict[str, torch.Tensor]:
    """A pre-processed training batch with padded language and padded actions."""
    config = policy.config
    joints = config.action_feature.shape[0]
    lengths = torch.tensor(language_lengths[:batch_size])
    tokens = torch.randint(3, 200, (batch_size, int(lengths.max())))
    mask = torch.arange(tokens.shape[1])[None] < lengths[:, None]
    is_pad = torch.zeros(batch_size, config.chunk_size, dtype=torch.bool)
    is_pad[0, config.chunk_size // 2 :] = True
    present = [key for key in config.image_features if "empty_camera" not in key]
    return {
        **{key: torch.rand(batch_size, *config.image_features[key].shape) for key in present},
        "observation.state": torch.randn(batch_size, joints),
        "observation.language.tokens": tokens,
        "observation.language.attention_mask": mask,
        "action": torch.randn(batch_size, config.chunk_size, joints),
        "action_is_pad": is_pad,
    }
