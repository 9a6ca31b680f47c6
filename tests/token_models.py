"""A small model of action tokens, a grammar and observations with every kind of padding."""

import numpy as np
import torch

from lerobot_vla_plugin.action_tokenizers import TokenGrammar
from lerobot_vla_plugin.models.backbone import Observation, VLMBackbone
from lerobot_vla_plugin.models.built_in import tiny_config
from lerobot_vla_plugin.models.token_decoding import ActionTokenModel, TokenGeometry

VOCAB_SIZE, TOTAL = 24, 30
LANGUAGE_LENGTHS = (6, 2, 4)


def make_token_grammar() -> TokenGrammar:
    """Tokens of 1..5 units; some end inside a character, after which only some may follow."""
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 6, (2, VOCAB_SIZE)).astype(np.int32)
    counts[1, ::3] = -1
    counts[0, -4:] = 0
    next_states = np.zeros_like(counts)
    next_states[0, -4:] = 1
    return TokenGrammar(counts, next_states, TOTAL)


def is_whole_chunk(grammar: TokenGrammar, ids: list[int]) -> bool:
    """Followed token by token, without the tables that decoding uses."""
    state, missing = 0, grammar.total
    for token in ids:
        if grammar.counts[state, token] < 0:
            return False
        state, missing = grammar.next_states[state, token], missing - grammar.counts[state, token]
    return (state, missing) == (0, 0)


def make_model(
    max_tokens=TOTAL * 2, gradient_checkpointing=False, conventions="smolvla", reads_draft=False
) -> ActionTokenModel:
    """The same weights every time; norms that matter, and a wavelength that is not SmolVLA's."""
    torch.manual_seed(0)
    config = tiny_config()
    config.text_config.rope_parameters["rope_theta"] = 100_000.0
    backbone = VLMBackbone(config, 2, gradient_checkpointing, conventions)
    model = ActionTokenModel(backbone, TokenGeometry(6, VOCAB_SIZE, max_tokens, TOTAL), reads_draft)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model.eval()


def make_observation() -> Observation:
    """Three samples: language of different lengths, the second without its second camera."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor(LANGUAGE_LENGTHS)
    return Observation(
        image_tokens=[torch.randn(3, 9, 96, generator=generator) for _ in range(2)],
        image_masks=[torch.tensor([True, True, True]), torch.tensor([True, False, True])],
        language=torch.randint(3, 200, (3, 6), generator=generator),
        language_masks=torch.arange(6) < lengths[:, None],
        state=torch.randn(3, 6, generator=generator),
    )


def alone(observation: Observation, index: int) -> Observation:
    """One sample of `make_observation` without its padding."""
    sample = slice(index, index + 1)
    cameras = [c for c, mask in enumerate(observation.image_masks) if mask[index]]
    words = slice(LANGUAGE_LENGTHS[index])
    return Observation(
        image_tokens=[observation.image_tokens[c][sample] for c in cameras],
        image_masks=[observation.image_masks[c][sample] for c in cameras],
        language=observation.language[sample, words],
        language_masks=observation.language_masks[sample, words],
        state=observation.state[sample],
    )


def many_observations(num: int, generator: torch.Generator) -> Observation:
    """Noise for a picture, any words, any posture."""
    return Observation(
        image_tokens=[torch.randn(num, 9, 96, generator=generator)],
        image_masks=[torch.ones(num, dtype=torch.bool)],
        language=torch.randint(3, 200, (num, 5), generator=generator),
        language_masks=torch.arange(5) < torch.randint(1, 6, (num, 1), generator=generator),
        state=torch.randn(num, 6, generator=generator),
    )
