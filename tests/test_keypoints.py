"""Keypoints of the `small` backbone: codes of instructions, places in pictures, and the loss that trains them."""

from typing import Any

import pytest
import torch
from smolvla_reference import make_batch
from test_modeling_vla import make_config

from lerobot_vla_plugin.modeling_vla import VLAFlowPolicy
from lerobot_vla_plugin.models.built_in import byte_tokenizer
from lerobot_vla_plugin.models.keypoints import MAX_CAMERAS, InstructionCode, KeypointReader, image_places


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    return VLAFlowPolicy(make_config(vlm_model_name="small")).train()


def encode(*instructions: str):
    tokens = byte_tokenizer()(list(instructions), padding=True, return_tensors="pt")
    return tokens["input_ids"], tokens["attention_mask"].bool()


def test_codes_of_instructions_that_differ_in_a_word_are_far_apart():
    torch.manual_seed(0)
    red, blue, same = InstructionCode(32)(
        *encode("Pick up the red cube.", "Pick up the blue cube.", "Pick up the red cube.")
    )
    assert torch.equal(red, same)
    assert (red - blue).norm() > 0.7 * red.norm()


def test_padding_does_not_change_a_code():
    code = InstructionCode(32)
    alone, _ = code(*encode("Lift it.")), None
    padded = code(*encode("Lift it.", "A longer instruction than that."))
    torch.testing.assert_close(alone[0], padded[0])


def test_a_point_lies_where_its_query_finds_something():
    torch.manual_seed(0)
    reader, found = KeypointReader(width=16, num_points=2), []
    reader.tokens[0].register_forward_pre_hook(lambda _, inputs: found.append(inputs[0][0, :2]))
    ids, masks = encode("Lift it.")
    code = reader.code(ids, masks) + reader.cameras.weight[0]
    query = reader.queries(code).unflatten(1, (2, 16))[0, 0]
    for row, column in ((0, 0), (2, 5), (7, 3)):
        picture = torch.zeros(1, 64, 16)
        picture[0, row * 8 + column] = query / query.norm() ** 2 * 30
        reader([picture], ids, masks)
        expected = torch.tensor([column, row]) / 7 * 2 - 1
        torch.testing.assert_close(found.pop(), expected, rtol=0, atol=1e-3)


def test_places_go_row_by_row_and_need_a_square():
    assert image_places(4, torch.device("cpu")).tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    with pytest.raises(ValueError, match="square grid of places, got 12"):
        image_places(12, torch.device("cpu"))


def test_cameras_are_read_differently_and_there_is_a_most():
    torch.manual_seed(0)
    reader, (ids, masks), picture = KeypointReader(16, 4), encode("Lift it."), torch.randn(1, 16, 16)
    first, second = reader([picture, picture], ids, masks)
    assert not torch.allclose(first, second)
    with pytest.raises(ValueError, match=f"at most {MAX_CAMERAS} cameras, got 9"):
        reader([picture] * 9, ids, masks)


def test_the_instruction_changes_the_chunk(policy):
    policy.eval()
    batch, noise = make_batch(policy), torch.zeros(3, 8, 6)
    before = policy.predict_action_chunk(batch, noise)
    batch["observation.language.tokens"] = batch["observation.language.tokens"].flip(1)
    assert not torch.allclose(before, policy.predict_action_chunk(batch, noise), atol=1e-4)
    policy.train()


def test_positions_are_learnt_from_the_keypoints(policy):
    batch = make_batch(policy)
    loss, figures = policy.forward(batch)
    assert figures["position_loss"] > 0
    torch.testing.assert_close(loss.item(), figures["loss"] + figures["position_loss"])
    each, _ = policy.forward(batch, reduction="none")
    assert each.shape == (3,)
    observation = policy._observe(batch)
    policy.zero_grad()
    policy._position_loss(observation, batch).sum().backward()
    learns = {name.split(".")[0] for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().max()}
    stem = policy.model.backbone.vision_model.embeddings.patch_embedding
    assert learns == {"position_head", "model"}
    assert stem.weight.grad.abs().max() > 0
    policy.zero_grad()


@pytest.mark.parametrize(
    "options", [{"vlm_model_name": "tiny"}, {"vlm_model_name": "small", "position_loss_weight": 0.0}]
)
def test_without_keypoints_or_weight_there_is_no_position_loss(options):
    policy: Any = VLAFlowPolicy(make_config(**options)).train()
    assert policy.position_head is None
    loss, figures = policy.forward(make_batch(policy))
    assert figures["position_loss"] == 0
    assert loss.item() == pytest.approx(figures["loss"])


def test_checkpoint_brings_the_position_head(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    loaded = VLAFlowPolicy.from_pretrained(tmp_path)
    assert loaded.position_head is not None
    for key, value in policy.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_a_start_on_other_cameras_keeps_the_backbone_and_not_the_head(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    config = make_config(init_from=str(tmp_path))
    config.input_features.pop(next(iter(config.image_features)))
    torch.manual_seed(1)
    started = VLAFlowPolicy(config)
    assert torch.equal(started.model.backbone.keypoints.queries.weight, policy.model.backbone.keypoints.queries.weight)
    assert started.position_head.layers[0].in_features < policy.position_head.layers[0].in_features
