"""`vla_fast`: what teaches, what is decoded, and what is refused."""

import pytest
import torch
from fast_policy import CHUNK_SIZE, make_config, make_fast_policy, make_motion_batch, write_codec
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from smolvla_reference import write_vlm_folder

from lerobot_vla_plugin.action_tokenizers import MalformedTokensError
from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.modeling_vla import VLAFastPolicy


@pytest.fixture(scope="module")
def codec_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec") / "fast"
    write_codec(folder)
    return folder


@pytest.fixture
def policy(codec_folder):
    return make_fast_policy(codec_folder)


@pytest.fixture
def batch(policy):
    return make_motion_batch(policy)


class TestLearning:
    def test_everything_learns_in_a_backbone_from_scratch(self, policy, batch):
        policy.train()
        policy.forward(batch)[0].backward()
        assert not [n for n, p in policy.named_parameters() if not p.requires_grad or p.grad is None]

    def test_a_pretrained_backbone_learns_and_its_image_tokens_do_not(self, codec_folder, tmp_path):
        vlm = str(write_vlm_folder(tmp_path))
        policy = make_fast_policy(codec_folder, vlm_model_name=vlm, load_vlm_weights=False)
        frozen = {name.split(".")[2] for name, p in policy.named_parameters() if not p.requires_grad}
        assert frozen == {"vision_model", "connector"}
        assert policy.model.backbone.is_vision_frozen()
        alone = make_fast_policy(codec_folder, vlm_model_name=vlm, load_vlm_weights=False, train_expert_only=True)
        learning = {name.split(".")[1] for name, p in alone.named_parameters() if p.requires_grad}
        assert learning == {"state_proj", "action_embedding", "missing_embedding", "action_head"}

    def test_padded_language_changes_nothing(self, policy, batch):
        padded = dict(batch)
        for key, value in (("tokens", 9), ("attention_mask", False)):
            full = batch[f"observation.language.{key}"]
            more = torch.full((3, 5), value, dtype=full.dtype)
            padded[f"observation.language.{key}"] = torch.cat([full, more], dim=1)
        torch.testing.assert_close(policy.forward(padded)[0], policy.forward(batch)[0])

    @pytest.mark.parametrize("key", ["observation.images.front", "observation.images.wrist", "observation.state"])
    def test_every_input_is_looked_at(self, key, policy, batch):
        changed = {**batch, key: batch[key].flip(0)}
        assert not torch.allclose(policy.forward(changed)[0], policy.forward(batch)[0])

    @pytest.mark.parametrize("kind", ["fast", "bins"])
    def test_padded_actions_do_not_teach(self, kind, tmp_path):
        policy = make_fast_policy(tmp_path, kind)
        batch = make_motion_batch(policy)
        poisoned = {**batch, "action": batch["action"].masked_fill(batch["action_is_pad"][..., None], 1e3)}
        torch.testing.assert_close(policy.forward(poisoned)[0], policy.forward(batch)[0])

    def test_the_bins_of_padded_steps_are_no_targets(self, tmp_path):
        """What the arm would have done behind the end of the episode is not known, not even that it held still."""
        policy = make_fast_policy(tmp_path, "bins")
        batch = make_motion_batch(policy)
        tokens = policy.action_tokens.encode(batch["action"], batch["observation.state"], ~batch["action_is_pad"])
        recorded = torch.ones(CHUNK_SIZE * 6 + 1)
        assert torch.equal(tokens.weights[1], recorded)
        recorded[CHUNK_SIZE // 2 * 6 : CHUNK_SIZE * 6] = 0
        assert torch.equal(tokens.weights[0], recorded)

    def test_tokens_of_all_steps_count_as_much_as_was_recorded(self, policy, batch):
        """Beside the same chunks whose end, at rest, was recorded."""
        whole = {**batch, "action": batch["action"].clone(), "action_is_pad": torch.zeros_like(batch["action_is_pad"])}
        last = CHUNK_SIZE // 2
        whole["action"][0, last:] = whole["action"][0, last - 1]
        half, full = (policy.forward(b, reduction="none")[0] for b in (batch, whole))
        torch.testing.assert_close(half, full * torch.tensor([0.5, 1.0, 1.0]))

    def test_a_frozen_vision_tower_is_asked_once_about_a_frame(self, codec_folder, dataset_root, tmp_path):
        vlm = str(write_vlm_folder(tmp_path / "vlm"))
        config = make_config(
            vlm_model_name=vlm, load_vlm_weights=False, image=(48, 64), chunk_size=4, vision_cache=tmp_path / "cache"
        )
        policy = VLAFastPolicy(config, dataset_meta=LeRobotDatasetMetadata("tests/small", root=dataset_root)).train()
        batch = {**make_motion_batch(policy), "index": torch.tensor([3, 11, 7])}
        batch["action"] = batch["action"][:, :4]
        first, _ = policy.forward(batch)
        policy._encode = None  # pyright: ignore[reportAttributeAccessIssue]
        assert torch.equal(policy.forward(batch)[0], first)

    def test_a_chunk_is_encoded_once(self, policy, batch, monkeypatch):
        first, _ = policy.forward(batch)
        monkeypatch.setattr(ChunkCodec, "encode", None)
        assert torch.equal(policy.forward(batch)[0], first)
        swapped = {key: value.flip(0) for key, value in batch.items()}
        torch.testing.assert_close(policy.forward(swapped)[0], first)
        with pytest.raises(TypeError):
            policy.forward({**batch, "observation.state": batch["observation.state"] + 1})

    def test_unreduced_loss_averages_to_the_mean(self, tmp_path):
        policy = make_fast_policy(tmp_path, "bins")  # as many tokens in every chunk
        batch = make_motion_batch(policy)
        del batch["action_is_pad"]
        each, _ = policy.forward(batch, reduction="none")
        assert each.shape == (3,)
        torch.testing.assert_close(each.mean(), policy.forward(batch)[0])

    def test_gradient_checkpointing_gives_the_same_gradients(self, policy, batch, codec_folder):
        other = make_fast_policy(codec_folder, gradient_checkpointing=True)
        other.load_state_dict(policy.state_dict())
        for p in (policy, other):
            p.train()
            p.forward(batch)[0].backward()
        for (name, a), (_, b) in zip(policy.named_parameters(), other.named_parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, msg=name)

    def test_bfloat16_is_close_and_everything_learns(self, policy, batch, codec_folder):
        other = make_fast_policy(codec_folder, dtype="bfloat16")
        other.load_state_dict(policy.state_dict())
        other.train()
        loss, _ = other.forward(batch)
        torch.testing.assert_close(loss, policy.forward(batch)[0], rtol=0.02, atol=0)
        loss.backward()
        assert all(p.grad is not None and p.dtype == torch.float32 for p in other.parameters())

    def test_pictures_are_looked_at_in_the_same_precision_when_acting(self, codec_folder):
        policy = make_fast_policy(codec_folder, dtype="bfloat16")  # `tiny`, whose vision tower learns
        batch, seen = make_motion_batch(policy), []
        layer = policy.model.backbone.vision_model.encoder.layers[0].mlp.fc1
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
        policy.train().forward(batch)
        policy.predict_action_chunk(batch)
        assert set(seen) == {torch.bfloat16}

    def test_the_decoded_error_is_in_robot_units_and_is_measured_now_and_then(self, policy, batch):
        assert "decoded_error" not in policy.forward(batch)[1]  # LeRobot discards what evaluation batches give
        policy.train()
        few = {key: value[1:2] for key, value in batch.items()}
        error = policy.forward(few)[1]["decoded_error"]
        decoded = policy.predict_action_chunk(few)
        assert error == pytest.approx((decoded - few["action"]).abs().mean().item())
        policy.train()
        assert policy.forward({**few, "action": few["action"] + 5})[1]["decoded_error"] == error
        policy._num_forwards = 50
        assert policy.forward({**few, "action": few["action"] + 5})[1]["decoded_error"] != error

    def test_overfits_a_batch_down_to_the_error_of_its_tokens(self, policy, codec_folder):
        batch = make_motion_batch(policy, batch_size=2)
        optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
        policy.train()
        for _ in range(40):
            loss, figures = policy.forward(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert figures["token_accuracy"] == 1.0
        policy._num_forwards = 0
        reached = policy.forward(batch)[1]["decoded_error"]
        assert reached < 1.0 < make_fast_policy(codec_folder).train().forward(batch)[1]["decoded_error"]


class TestDecoding:
    @pytest.fixture(scope="class")
    @classmethod
    def codecs(cls, tmp_path_factory):
        """A folder with a codec of each kind."""
        folder = tmp_path_factory.mktemp("codecs")
        for kind, options in (("fast", {}), ("bins", {}), ("vq", {"codes": 16, "levels": 2, "steps": 2})):
            write_codec(folder / kind, kind, **options)
        return folder

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    @pytest.mark.parametrize("kind", ["fast", "bins", "vq"])
    def test_an_untrained_policy_decodes_whole_chunks_inside_the_span(self, kind, temperature, codecs):
        policy = make_fast_policy(codecs / kind, temperature=temperature)
        batch = make_motion_batch(policy, batch_size=100)
        low, high = policy.action_tokens.span_low, policy.action_tokens.span_high
        for _ in range(2):
            chunks = policy.predict_action_chunk(batch)
            assert chunks.shape == (100, CHUNK_SIZE, 6)
            assert (chunks >= low).all()
            assert (chunks <= high).all()

    @pytest.mark.parametrize("n_action_steps", [1, 3, CHUNK_SIZE])
    def test_the_queue_plays_the_first_steps_of_the_whole_chunk(self, n_action_steps, policy, batch, codec_folder):
        other = make_fast_policy(codec_folder, n_action_steps=n_action_steps)
        other.load_state_dict(policy.state_dict())
        chunk = policy.predict_action_chunk(batch)
        for step in range(n_action_steps + 1):
            torch.testing.assert_close(other.select_action(batch), chunk[:, step % n_action_steps])

    def test_chunks_of_a_batch_are_those_of_its_samples(self, policy, batch):
        """Samples end at different lengths, and the language of all but one is padded."""
        whole = policy.predict_action_chunk(batch)
        single = [policy.predict_action_chunk({k: v[i : i + 1] for k, v in batch.items()}) for i in range(3)]
        torch.testing.assert_close(whole, torch.cat(single))

    def test_a_failed_decode_names_its_ids_and_leaves_the_queue_empty(self, policy, batch):
        tokens = torch.tensor([[3, 4, 5]] * 3)
        policy.model.generate = lambda *args, **kwargs: (tokens, torch.tensor([2, 3, 3]))
        with pytest.raises(MalformedTokensError, match=r"\[3, 4\]"):
            policy.select_action(batch)
        assert policy._execution.needs_chunks

    def test_a_state_that_is_not_finite_is_refused(self, policy, batch):
        batch["observation.state"][1, 2] = float("nan")
        with pytest.raises(ValueError, match="not finite"):
            policy.select_action(batch)

    def test_damaged_weights_are_refused(self, policy, batch):
        policy.model.state_proj.weight.data[0, 0] = float("nan")
        with pytest.raises(ValueError, match="not finite"):
            policy.select_action(batch)

    def test_a_joint_that_never_moved_is_looked_at_and_stays(self, policy, batch):
        beside = {**batch, "observation.state": batch["observation.state"] + torch.tensor([0, 0, 0, 0, 0, 0.088])}
        scaled = policy.action_tokens.scale_states(beside["observation.state"])
        torch.testing.assert_close(scaled[:, 5], torch.full((3,), 0.088), rtol=1e-3, atol=0)
        assert (policy.predict_action_chunk(beside)[:, :, 5] == 12.5).all()

    @pytest.mark.parametrize("option", ["noise", "inference_delay"])
    def test_what_it_does_not_have_is_refused(self, option, policy, batch):
        assert not policy.supports_rtc()
        with pytest.raises(ValueError, match=f"vla_fast does not support {option}"):
            policy.predict_action_chunk(batch, **{option: torch.zeros(1)})


class TestConfigRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"action_tokenizer": "words"}, "expected one of fast, bins, vq"),
            ({"backbone_conventions": "gemma"}, "expected one of vlm, smolvla"),
            ({"temperature": -1.0}, "expected 0 to 100"),
            ({"temperature": 1e38}, "expected 0 to 100"),
            ({"max_action_dim": 32}, "action tokens are of real joints only"),
            ({"normalization_mapping": {"ACTION": "MEAN_STD"}}, "of ACTION: expected IDENTITY"),
            ({"n_action_steps": 9}, "chunk_size=8"),
            ({"vlm_model_name": "/no/such/folder", "action_tokenizer": "bins"}, "built in .tiny, small."),
        ],
    )
    def test_says_what_was_expected(self, options, message):
        with pytest.raises(ValueError, match=message):
            VLAFastPolicy(make_config(**options))

    def test_adapters_without_a_base_that_can_be_loaded_again(self, policy):
        with pytest.raises(ValueError, match="need a vla_fast checkpoint as their base"):
            policy._validate_peft_config(None)
