"""LeRobot's own `pi0_fast` on small random weights: the reference that `vla_fast` is compared with.

Its geometry is written into its code (Gemma 2B, SigLIP, 257,152 ids) and its FAST tokenizer wants `trust_remote_code`.
So its model is built from a configuration that is made small on the way, and the tokenizer is handed to it: no code and
no file comes from a hub. What it computes, its decoding loops and its loss stay LeRobot's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from fast_reference import ReferenceFast
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.pi0_fast import modeling_pi0_fast
from lerobot.policies.pi0_fast.configuration_pi0_fast import PI0FastConfig
from lerobot.policies.pi0_fast.modeling_pi0_fast import PI0FastPolicy
from lerobot.processor import ActionTokenizerProcessorStep
from lerobot.utils.constants import ACTION, ACTION_TOKEN_MASK, ACTION_TOKENS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.paligemma.configuration_paligemma import PaliGemmaConfig
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMConfig

PALIGEMMA_VOCAB_SIZE = 257_152
# Ids that pi0_fast leaves free at the end of the vocabulary, before the action ids count down.
SKIPPED_IDS = 128


class GivenProcessor:
    """The published FAST processor under the names by which pi0_fast calls it."""

    def __init__(self, reference: ReferenceFast):
        self.bpe_tokenizer, self.scale, self.min_token = reference.bpe, reference.scale, reference.min_token
        self._reference = reference

    def __call__(self, chunks: torch.Tensor) -> list[list[int]]:
        return self._reference.encode(np.asarray(chunks))


def write_text_tokenizer(folder: Path, vocab_size: int = PALIGEMMA_VOCAB_SIZE) -> Path:
    """Write a folder with a text tokenizer of bytes and as many unused ids as it takes.

    As in PaliGemma's, "Action: " is three tokens and "|" is one; action ids take the place of the last unused ids.
    """
    words = ["<pad>", "<bos>", "<eos>", "Action", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += [f"<unused{i}>" for i in range(vocab_size - len(words))]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(["Action"])
    specials: dict[str, Any] = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials).save_pretrained(folder)
    return folder


def shrink(config: PaliGemmaConfig, geometry: SmolVLMConfig, num_layers: int, vocab_size: int) -> PaliGemmaConfig:
    """Give a PaliGemma the geometry of a SmolVLM, in place.

    PaliGemma shuffles no pixels: larger patches give it as many image tokens, and a vision tower that costs less.
    """
    text, vision = geometry.text_config, geometry.vision_config
    for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"):
        setattr(config.text_config, name, getattr(text, name))
    config.text_config.num_hidden_layers = num_layers
    # Gemma's lists its layers' kinds beside their number.
    if getattr(config.text_config, "layer_types", None):
        config.text_config.layer_types = config.text_config.layer_types[:num_layers]
    config.text_config.vocab_size = vocab_size
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size"):
        setattr(config.vision_config, name, getattr(vision, name))
    config.vision_config.patch_size = vision.patch_size * geometry.scale_factor
    config.vision_config.projection_dim = config.projection_dim = text.hidden_size
    return config


@contextmanager
def _small_and_offline(
    fast: ReferenceFast, geometry: SmolVLMConfig, num_layers: int, vocab_size: int
) -> Iterator[None]:
    """While this is open, pi0_fast builds a small model and is given its FAST tokenizer."""
    real = modeling_pi0_fast.PaliGemmaForConditionalGenerationWithPiGemma

    def build(config: PaliGemmaConfig) -> torch.nn.Module:
        return real(shrink(config, geometry, num_layers, vocab_size))

    given = SimpleNamespace(from_pretrained=lambda name, **options: GivenProcessor(fast))
    with (
        patch.object(modeling_pi0_fast, "PaliGemmaForConditionalGenerationWithPiGemma", build),
        patch.object(modeling_pi0_fast, "AutoProcessor", given),
    ):
        yield


def make_pi0_fast(
    folder: Path,
    fast: ReferenceFast,
    geometry: SmolVLMConfig,
    num_layers: int,
    *,
    cameras: tuple[str, ...] = ("front",),
    joints: int = 6,
    vocab_size: int = PALIGEMMA_VOCAB_SIZE,
    **options: Any,
) -> PI0FastPolicy:
    """LeRobot's policy on random weights.

    Args:
        folder: Where its text tokenizer is written.
        fast: Its FAST tokenizer.
        geometry: A SmolVLM's; language model and vision tower get its sizes.
        num_layers: Layers of the language model.
        cameras: Names of the cameras.
        joints: Joints of state and action.
        vocab_size: Ids of text and actions together.
        **options: Fields of its configuration.
    """
    side = geometry.vision_config.image_size
    config = PI0FastConfig(
        device="cpu",
        text_tokenizer_name=str(write_text_tokenizer(folder, vocab_size)),
        action_tokenizer_name="given by make_pi0_fast",
        fast_skip_tokens=SKIPPED_IDS,
        image_resolution=(side, side),
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (joints,)),
            **{f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, side, side)) for c in cameras},
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (joints,))},
        **options,
    )
    with _small_and_offline(fast, geometry, num_layers, vocab_size):
        return PI0FastPolicy(config)


def tokenize_actions(policy: PI0FastPolicy, actions: torch.Tensor) -> dict[str, torch.Tensor]:
    """Entries of a training batch that LeRobot's own processor step adds for these actions, (b, chunk, joints)."""
    step = ActionTokenizerProcessorStep(
        action_tokenizer_input_object=policy.action_tokenizer,
        trust_remote_code=False,
        max_action_tokens=policy.config.max_action_tokens,
        fast_skip_tokens=policy.config.fast_skip_tokens,
        paligemma_tokenizer_name=policy.config.text_tokenizer_name,
    )
    tokens, masks = step._tokenize_action(actions)
    return {ACTION: actions, ACTION_TOKENS: tokens, ACTION_TOKEN_MASK: masks}
