"""The built-in `tiny` backbone: a SmolVLM geometry of a few hundred thousand parameters and its text tokenizer.

Nothing is downloaded: the geometry is written down here and the tokenizer works on bytes, so it needs no training.
"""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMConfig

_PAD, _BOS, _EOS = "<pad>", "<s>", "</s>"
_WIDTH = 96


def tiny_tokenizer() -> PreTrainedTokenizerFast:
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


# The 0.02 that large models start from leaves layers of this width almost silent: after 1,000 steps on the twin's task
# such a policy still ignored its pictures.
_INIT_STD = _WIDTH**-0.5


def tiny_config() -> SmolVLMConfig:
    """Geometry: 96-pixel images in 16-pixel patches, pixel shuffle 2 -> 9 tokens a camera; 2 + 2 layers of width 96."""
    vocab_size = len(tiny_tokenizer())
    return SmolVLMConfig(
        scale_factor=2,
        pad_token_id=0,
        image_token_id=vocab_size - 1,
        vision_config={
            "hidden_size": _WIDTH,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 96,
            "patch_size": 16,
            "initializer_range": _INIT_STD,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": vocab_size,
            "hidden_size": _WIDTH,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "rms_norm_eps": 1e-5,
            "initializer_range": _INIT_STD,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    )
