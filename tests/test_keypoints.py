"""Keypoints of the `small` backbone: codes of instructions, places in pictures, and the loss that trains them."""

from typing import Any

import pytest
import torch
from fast_policy import make_fast_policy, make_motion_batch
from lerobot.utils.constants import OBS_STATE
from safetensors.torch import load_file, save_file
from smolvla_reference import make_batch
from test_modeling_vla import make_config

from lerobot_vla_plugin.camera_batch import jitter_colors
from lerobot_vla_plugin.episode_losses import steps_inside_episode
from lerobot_vla_plugin.modeling_vla import VLAFastPolicy, VLAFlowPolicy
from lerobot_vla_plugin.models.built_in import byte_tokenizer
from lerobot_vla_plugin.models.keypoints import (
    MAX_CAMERAS,
    ChunkGuesses,
    ChunkRegressor,
    InstructionCode,
    KeypointReader,
    image_places,
)


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
    first, second = reader([picture, picture], ids, masks).tokens
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


def test_the_guess_teaches_the_pictures_side(policy):
    batch = make_batch(policy)
    loss, figures = policy.forward(batch)
    assert figures["guess_loss"] > 0
    torch.testing.assert_close(loss.item(), figures["loss"] + figures["guess_loss"])
    each, _ = policy.forward(batch, reduction="none")
    assert each.shape == (3,)
    observation = policy._observe(batch)
    policy.zero_grad()
    policy._guess_loss(observation, batch["action"], steps_inside_episode(batch), "mean").backward()
    learns = {name.split(".")[0] for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().max()}
    stem = policy.model.backbone.vision_model.embeddings.patch_embedding
    assert learns == {"chunk_regressor", "model"}
    assert stem.weight.grad.abs().max() > 0
    policy.zero_grad()


@pytest.mark.parametrize("options", [{"vlm_model_name": "tiny"}, {"vlm_model_name": "small", "guess_loss_weight": 0.0}])
def test_without_keypoints_or_weight_there_is_no_guess(options):
    policy: Any = VLAFlowPolicy(make_config(**options)).train()
    assert policy.chunk_regressor is None
    loss, figures = policy.forward(make_batch(policy))
    assert figures["guess_loss"] == 0
    assert loss.item() == pytest.approx(figures["loss"])


def test_tokens_of_keypoints_know_no_place(policy):
    """What is looked for is told by its looks alone, so that it is found where none stood in the demonstrations."""
    backbone = policy.model.backbone
    places = backbone.vision_model.embeddings.position_embedding
    picture = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        before = backbone.encode_images(picture)
        places.weight.normal_()
        assert torch.equal(backbone.encode_images(picture), before)
    assert not places.weight.requires_grad


class TestGuesses:
    """Several guesses, of which the nearest learns."""

    def test_the_likeliest_is_the_one_with_the_highest_score(self):
        chunks, scores = torch.randn(2, 3, 4, 6), torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
        assert torch.equal(ChunkGuesses(chunks, scores).likeliest, torch.stack([chunks[0, 1], chunks[1, 0]]))

    def test_a_policy_builds_on_several(self):
        policy = VLAFlowPolicy(make_config(vlm_model_name="small", prediction="actions", num_guesses=3)).train()
        batch = make_batch(policy)
        observation = policy._observe(batch)
        assert observation.guesses.chunks.shape == (3, 3, 8, 6)
        policy.forward(batch)[0].backward()
        assert policy.chunk_regressor.layers[-1].weight.grad[:3].abs().max() > 0
        assert torch.equal(observation.guess, observation.guesses.likeliest)
        assert not observation.guess.requires_grad

    def test_none_is_an_error(self):
        with pytest.raises(ValueError, match="num_guesses=0: expected 1 or more"):
            make_config(num_guesses=0)

    def test_what_was_not_recorded_teaches_nothing(self):
        inside = torch.tensor([[True, True, False, False]])
        chunks, actions = torch.randn(1, 3, 4, 6), torch.randn(1, 4, 6)
        other = actions.where(inside[..., None], torch.full_like(actions, 100.0))
        guesses = ChunkGuesses(chunks, torch.randn(1, 3))
        assert torch.equal(*(ChunkRegressor.losses(guesses, wanted, inside) for wanted in (actions, other)))

    def test_two_ways_to_go_are_learnt_as_two(self):
        """The mean of both is what one guess would learn."""
        torch.manual_seed(0)
        regressor, features, states = ChunkRegressor(4, 2, 3, num_guesses=3), torch.ones(32, 4), torch.zeros(32, 2)
        optimizer = torch.optim.Adam(regressor.parameters(), 1e-3)
        ways = torch.tensor([-1.0, 1.0])
        for _ in range(300):
            wanted = ways[torch.multinomial(torch.tensor([0.3, 0.7]), 32, replacement=True)]
            guesses = regressor(features, states)
            actions, inside = wanted[:, None, None].expand(-1, 3, 2), torch.ones(32, 3, dtype=torch.bool)
            optimizer.zero_grad()
            ChunkRegressor.losses(guesses, actions, inside).mean().backward()
            optimizer.step()
        with torch.no_grad():
            guesses = regressor(features[:1], states[:1])
        torch.testing.assert_close(guesses.likeliest, torch.ones(1, 3, 2), atol=0.1, rtol=0)
        means = guesses.chunks[0].mean(dim=(1, 2))
        assert min(abs(means + 1)) < 0.1
        assert guesses.scores[0].softmax(dim=0)[(means - 1).abs() < 0.1].sum().item() == pytest.approx(0.7, abs=0.15)


class TestGuess:
    """`prediction="actions"`: the expert begins with the guess, and corrects it."""

    @pytest.fixture
    def guessing(self):
        torch.manual_seed(0)
        return VLAFlowPolicy(make_config(vlm_model_name="small", prediction="actions")).eval()

    def test_an_untrained_expert_gives_the_guess_whatever_the_noise(self, guessing):
        batch = make_batch(guessing)
        guess = guessing._observe(batch).guess
        for noise in (torch.randn(3, 8, 6), torch.randn(3, 8, 6)):
            torch.testing.assert_close(guessing.predict_action_chunk(batch, noise), guess, atol=1e-5, rtol=0)

    def test_the_loss_is_that_of_the_actions_and_leaves_the_guess_alone(self, guessing):
        batch = make_batch(guessing)
        observation = guessing._observe(batch)
        losses = guessing.model.loss(observation, batch["action"])
        torch.testing.assert_close(losses, (observation.guess - batch["action"]) ** 2)
        losses.mean().backward()
        assert all(p.grad is None for p in guessing.chunk_regressor.parameters())

    def test_velocity_and_actions_are_the_same_path(self, guessing):
        """Euler steps along `(x_t - actions) / time` end at the actions of the last step."""
        torch.nn.init.normal_(guessing.model.action_out_proj.weight, std=0.1)
        observation = guessing._observe(make_batch(guessing))
        context = guessing.model.action_expert.prepare(guessing.model.prefill(observation), 8)
        x_t, time = torch.randn(3, 8, 6), torch.full((3,), 0.4)
        with torch.no_grad():
            velocity = guessing.model.denoise_step(x_t, time, context, observation.guess)
            actions = guessing.model._predict(x_t, time, context, observation.guess)
        torch.testing.assert_close(x_t - 0.4 * velocity, actions)

    def test_a_checkpoint_without_its_regressor_does_not_load(self, guessing, tmp_path):
        guessing.save_pretrained(tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        save_file({k: v for k, v in weights.items() if "regressor" not in k}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=r"missing: chunk_regressor"):
            VLAFlowPolicy.from_pretrained(tmp_path)

    def test_wider_actions_are_padded(self):
        policy = VLAFlowPolicy(make_config(vlm_model_name="small", prediction="actions", max_action_dim=32)).train()
        loss, _ = policy.forward(make_batch(policy))
        assert torch.isfinite(loss)


class TestGuessAndTokens:
    """`vla_fast` goes by the guess as a draft of its tokens."""

    @pytest.fixture
    def speaking(self, tmp_path):
        return make_fast_policy(tmp_path, vlm_model_name="small")

    def test_the_draft_is_the_guess(self, speaking):
        batch = make_motion_batch(speaking)
        observation, states = speaking._observe(batch), batch[OBS_STATE]
        draft, grammar = speaking._draft(observation, states), speaking.action_tokens.grammar
        ids, rows = [], grammar.start(len(states))
        while rows.any():
            ids.append(draft.at(rows[:, None]).tokens[:, 0])
            rows = grammar._after(rows, ids[-1])
        tokens = torch.stack(ids, dim=1)
        decoded = speaking.action_tokens.decode(tokens, (tokens != grammar.end_marker).sum(dim=1), states)
        scaled = speaking.action_tokens.scale_states(decoded)
        # The tokenizer rounds, and a guess may lie outside the span of the data.
        assert (scaled - observation.guess.clamp(-1, 1)).abs().mean() < 0.1

    def test_both_losses_learn_and_tokens_leave_the_guess_alone(self, speaking):
        batch = make_motion_batch(speaking)
        speaking.train()
        loss, figures = speaking.forward(batch)
        assert figures["guess_loss"] > 0
        torch.testing.assert_close(loss.item(), figures["loss"] + figures["guess_loss"])
        speaking.config.guess_loss_weight = 0.0
        speaking.forward(batch)[0].backward()
        assert all(not p.grad.any() for p in speaking.chunk_regressor.parameters())
        assert speaking.model.draft_embedding.weight.grad.abs().max() > 0

    def test_a_checkpoint_says_the_same(self, speaking, tmp_path):
        batch = make_motion_batch(speaking)
        speaking.save_pretrained(tmp_path / "saved")
        loaded = VLAFastPolicy.from_pretrained(tmp_path / "saved")
        assert torch.equal(loaded.predict_action_chunk(batch), speaking.predict_action_chunk(batch))


class TestColorJitter:
    def test_every_picture_gets_its_own_and_places_stay(self):
        torch.manual_seed(0)
        images = torch.full((4, 3, 8, 8), 0.5)
        images[:, :, 2, 5] = 0.9
        jittered = jitter_colors(images, 0.15)
        assert len({round(picture.mean().item(), 4) for picture in jittered}) == 4
        assert (jittered[:, :, 2, 5] > jittered[:, :, 0, 0]).all()
        assert jittered.min() >= 0
        assert jittered.max() <= 1

    def test_no_spread_changes_nothing(self):
        images = torch.rand(2, 3, 8, 8)
        torch.testing.assert_close(jitter_colors(images, 0.0), images)

    def test_only_in_training(self):
        policy = VLAFlowPolicy(make_config(vlm_model_name="small", color_jitter=0.2))
        batch = make_batch(policy)
        seen = [torch.stack(policy._observe(batch).image_tokens) for policy in (policy.eval(), policy.eval())]
        assert torch.equal(*seen)
        assert not torch.allclose(torch.stack(policy.train()._observe(batch).image_tokens), seen[0])

    def test_bad_values(self, tmp_path):
        with pytest.raises(ValueError, match=r"color_jitter=0\.5: expected 0 or more and less than 0\.5"):
            make_config(color_jitter=0.5)
        with pytest.raises(ValueError, match="leave out color_jitter"):
            make_config(color_jitter=0.1, vision_cache=tmp_path)


def test_an_unknown_prediction_is_an_error():
    with pytest.raises(ValueError, match="prediction='noise': expected one of velocity, actions"):
        make_config(prediction="noise")


def test_checkpoint_brings_the_regressor(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    loaded = VLAFlowPolicy.from_pretrained(tmp_path)
    assert loaded.chunk_regressor is not None
    for key, value in policy.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_a_start_on_other_cameras_keeps_the_backbone_and_not_the_regressor(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    config = make_config(init_from=str(tmp_path))
    config.input_features.pop(next(iter(config.image_features)))
    torch.manual_seed(1)
    started = VLAFlowPolicy(config)
    assert torch.equal(started.model.backbone.keypoints.queries.weight, policy.model.backbone.keypoints.queries.weight)
    assert started.chunk_regressor.layers[0].in_features < policy.chunk_regressor.layers[0].in_features
