"""The built-in backbones: SmolVLM geometries of a few hundred thousand parameters, and their text tokenizer.

Nothing is downloaded: the geometries are written down here and the tokenizer works on bytes, so it needs no training.
"""

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMConfig

from .conv_stem import STEM_WIDTHS, stem_stride
from .keypoints import NUM_KEYPOINTS

_PAD, _BOS, _EOS = "<pad>", "<s>", "</s>"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes; ids are stable because the byte alphabet is sorted."""
    specials = [_PAD, _BOS, _EOS]
    vocabulary = {token: i for i, token in enumerate(specials + sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        bos_token=_BOS,
        eos_token=_EOS,
        clean_up_tokenization_spaces=False,
    )


# The 0.02 that large models start from leaves layers this narrow almost silent: after 1,000 steps on the twin's task
# such a policy still ignored its pictures.
def _init_std(width: int) -> float:
    return width**-0.5


def tiny_config() -> SmolVLMConfig:
    """Geometry: 96-pixel images in 16-pixel patches, pixel shuffle 2 -> 9 tokens a camera; 2 + 2 layers of width 96."""
    vision = {"num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 96, "patch_size": 16}
    return _config(vision, width=96, num_layers=2, num_heads=3, num_kv_heads=1, pixel_shuffle=2)


def small_config() -> SmolVLMConfig:
    """Geometry: 128-pixel images, convolutions -> 64 tokens a camera, no vision layers; 4 layers of width 128."""
    stem_widths = (32, 64, 64)
    vision = {
        "num_hidden_layers": 0,
        "num_attention_heads": 4,
        "image_size": 128,
        "patch_size": stem_stride(stem_widths),
        STEM_WIDTHS: list(stem_widths),
        # More of them are learnt by heart: a hundred scenes are a hundred places of a cube.
        NUM_KEYPOINTS: 8,
    }
    return _config(vision, width=128, num_layers=4, num_heads=4, num_kv_heads=2, pixel_shuffle=1)


def _config(
    vision: dict[str, Any], *, width: int, num_layers: int, num_heads: int, num_kv_heads: int, pixel_shuffle: int
) -> SmolVLMConfig:
    vocab_size = len(byte_tokenizer())
    sizes = {"hidden_size": width, "intermediate_size": 256, "initializer_range": _init_std(width)}
    return SmolVLMConfig(
        scale_factor=pixel_shuffle,
        pad_token_id=0,
        image_token_id=vocab_size - 1,
        vision_config={**sizes, **vision},
        text_config={
            **sizes,
            "model_type": "llama",
            "vocab_size": vocab_size,
            "num_hidden_layers": num_layers,
            "num_attention_heads": num_heads,
            "num_key_value_heads": num_kv_heads,
            "head_dim": 32,
            "rms_norm_eps": 1e-5,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    )


# Name, as `vlm_model_name` has it -> geometry.
GEOMETRIES = {"tiny": tiny_config, "small": small_config}
