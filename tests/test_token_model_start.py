"""What a token model begins with: rows of the language model for its ids, and the backbone's conventions."""

from dataclasses import replace

import pytest
import torch
from token_models import VOCAB_SIZE, make_model

from lerobot_vla_plugin.models.backbone import VLMBackbone
from lerobot_vla_plugin.models.built_in import tiny_config
from lerobot_vla_plugin.models.flow_matching import ExpertGeometry, make_action_expert
from lerobot_vla_plugin.models.token_decoding import ActionTokenModel


@pytest.fixture
def model() -> ActionTokenModel:
    return make_model()


def test_action_ids_start_as_the_rarest_words():
    model = make_model()
    words = model.backbone.text_model.embed_tokens.weight.detach()
    model.init_from_vocabulary(added_tokens=4)
    rarest = words[-4 - VOCAB_SIZE - 1 : -4]
    assert torch.equal(model.action_embedding.weight, rarest)
    assert torch.equal(model.action_head.weight, rarest)


def test_the_head_starts_from_the_language_models_own(model):
    lm_head = torch.randn_like(model.backbone.text_model.embed_tokens.weight)
    model.init_from_vocabulary(added_tokens=0, lm_head=lm_head)
    assert torch.equal(model.action_head.weight, lm_head[-VOCAB_SIZE - 1 :])
    assert not torch.equal(model.action_embedding.weight, model.action_head.weight)


def test_too_few_words_leave_the_rows_as_they_are(model):
    model.geometry = replace(model.geometry, vocab_size=259)
    before = model.action_head.weight.clone()
    model.init_from_vocabulary(added_tokens=0)
    assert torch.equal(model.action_head.weight, before)


def test_unknown_conventions_are_refused():
    with pytest.raises(ValueError, match="expected one of smolvla, vlm"):
        VLMBackbone(tiny_config(), 1, conventions="llama")


def test_unknown_rotation_is_refused():
    config = tiny_config()
    config.text_config.rope_parameters["rope_type"] = "yarn"
    with pytest.raises(ValueError, match="'yarn'; only 'default'"):
        VLMBackbone(config, 1, conventions="vlm")


def test_an_action_expert_rotates_as_its_backbone():
    expert = make_action_expert(make_model(conventions="vlm").backbone, 2, ExpertGeometry(0.75, 2, 2), False)
    assert expert.max_wavelength == 100_000.0
