"""The reference is LeRobot's `pi0_fast` at work: what the benchmarks and the README say of it can be seen here."""

import pytest
import torch
from fast_reference import ReferenceFast, smooth_chunks
from pi0_fast_reference import SKIPPED_IDS, make_pi0_fast, tokenize_actions

from lerobot_vla_plugin.models.built_in import tiny_config

CHUNK_SIZE, JOINTS, FAST_IDS = 10, 3, 128
VOCAB_SIZE = 300 + SKIPPED_IDS + FAST_IDS


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    torch.manual_seed(0)
    fast = ReferenceFast.fit(smooth_chunks(50, CHUNK_SIZE, JOINTS), vocab_size=FAST_IDS)
    return make_pi0_fast(
        tmp_path_factory.mktemp("pi0_fast"),
        fast,
        tiny_config(),
        2,
        joints=JOINTS,
        vocab_size=VOCAB_SIZE,
        chunk_size=CHUNK_SIZE,
        n_action_steps=CHUNK_SIZE,
        max_decoding_steps=12,
        max_action_tokens=64,
        validate_action_token_prefix=False,
    )


@pytest.fixture(scope="module")
def batch(policy) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    actions = torch.from_numpy(smooth_chunks(2, CHUNK_SIZE, JOINTS, seed=1)).float()
    return {
        "observation.images.front": torch.rand(2, 3, 96, 96),
        "observation.state": torch.rand(2, JOINTS),
        "observation.language.tokens": torch.randint(4, 200, (2, 7)),
        "observation.language.attention_mask": torch.ones(2, 7, dtype=torch.bool),
        **tokenize_actions(policy, actions),
    }


def test_geometry_is_that_of_the_smolvlm(policy) -> None:
    language, vision = tiny_config().text_config, tiny_config().vision_config
    model = policy.model.paligemma_with_expert.paligemma
    assert len(model.model.language_model.layers) == 2
    assert model.lm_head.weight.shape == (VOCAB_SIZE, language.hidden_size)
    assert model.config.vision_config.num_hidden_layers == vision.num_hidden_layers
    tokens = policy.model.paligemma_with_expert.embed_image(torch.rand(1, 3, 96, 96))
    assert tokens.shape == (1, 9, language.hidden_size)


def test_what_it_encodes_it_decodes(policy, batch) -> None:
    decoded = policy.detokenize_actions(batch["action.tokens"], CHUNK_SIZE, JOINTS)
    assert (decoded - batch["action"]).abs().max() < 0.15  # half a rounding step of each of the 10 coefficients


def test_its_cache_changes_no_token(policy, batch) -> None:
    images, masks = policy._preprocess_images(batch)
    prompt = (batch["observation.language.tokens"], batch["observation.language.attention_mask"])
    cached = policy.model.sample_actions_fast_kv_cache(images, masks, *prompt, max_decoding_steps=12)
    uncached = policy.model.sample_actions_fast(images, masks, *prompt, max_decoding_steps=12)
    torch.testing.assert_close(cached, uncached)


def test_it_learns(policy, batch) -> None:
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        loss, _ = policy.forward(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_what_it_cannot_decode_becomes_the_mean_pose(policy, batch) -> None:
    # An id of the text: no action token, and far beyond the action vocabulary.
    tokens = torch.full((1, 5), 40)
    assert (policy.detokenize_actions(tokens, CHUNK_SIZE, JOINTS) == 0).all()
