"""The adapter between LeRobot's batch and the models: invariants, refusals, checkpoints."""

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from smolvla_reference import make_batch

from lerobot_vla_plugin.arms.contract_terms import ArmContract
from lerobot_vla_plugin.configuration_vla import VLAFlowConfig
from lerobot_vla_plugin.modeling_vla import VLAFlowPolicy
from lerobot_vla_plugin.models.built_in import byte_tokenizer, tiny_config
from lerobot_vla_plugin.models.transformer import DecoderLayer


def make_config(cameras=("front", "wrist"), joints=6, image=(40, 56), **options) -> VLAFlowConfig:
    defaults = {"vlm_model_name": "tiny", "device": "cpu", "chunk_size": 8, "n_action_steps": 3}
    return VLAFlowConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (joints,)),
            **{f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, *image)) for c in cameras},
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (joints,))},
        **{**defaults, **options},
    )


@pytest.fixture
def policy():
    torch.manual_seed(0)
    return VLAFlowPolicy(make_config()).eval()


@pytest.fixture
def batch(policy):
    return make_batch(policy)


@pytest.fixture
def noise():
    return torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(1))


def test_tiny_is_small_and_pads_nothing(policy):
    assert sum(p.numel() for p in policy.model.backbone.parameters()) < 700_000
    assert policy.model.state_proj.in_features == 6
    assert policy.model.action_out_proj.out_features == 6


def test_byte_tokenizer_covers_every_byte_and_fits_the_backbone():
    tokenizer = byte_tokenizer()
    text = "Touch the red cube.\n äöü 立方体"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == tiny_config().text_config.vocab_size


def test_everything_read_learns_and_nothing_else(policy, batch):
    policy.train()
    policy.forward(batch)[0].backward()
    without_gradient = {n for n, p in policy.named_parameters() if p.requires_grad and p.grad is None}
    assert not without_gradient
    assert not any(p.grad is not None for p in policy.parameters() if not p.requires_grad)


def test_padded_language_changes_nothing(policy, batch, noise):
    padded = dict(batch)
    for key, value in (("tokens", 9), ("attention_mask", False)):
        full = batch[f"observation.language.{key}"]
        padded[f"observation.language.{key}"] = torch.cat([full, torch.full((3, 5), value, dtype=full.dtype)], dim=1)
    torch.testing.assert_close(
        policy.predict_action_chunk(padded, noise),
        policy.predict_action_chunk(batch, noise),
        rtol=1e-5,
        atol=1e-5,
    )


def test_declared_empty_camera_changes_nothing(policy, batch, noise):
    other = VLAFlowPolicy(make_config(empty_cameras=1)).eval()
    other.load_state_dict(policy.state_dict())
    torch.testing.assert_close(other.predict_action_chunk(batch, noise), policy.predict_action_chunk(batch, noise))


def test_masked_camera_equals_absent_camera(policy, batch, noise):
    masked = {**batch, "observation.images.wrist_padding_mask": torch.zeros(3)}
    alone = VLAFlowPolicy(make_config(cameras=("front",))).eval()
    alone.load_state_dict(policy.state_dict())
    one = {k: v for k, v in batch.items() if "wrist" not in k}
    torch.testing.assert_close(
        policy.predict_action_chunk(masked, noise),
        alone.predict_action_chunk(one, noise),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("key", ["observation.images.front", "observation.images.wrist", "observation.state"])
def test_every_input_is_looked_at(key, policy, batch, noise):
    changed = {**batch, key: batch[key].flip(0)}
    assert not torch.allclose(policy.predict_action_chunk(changed, noise), policy.predict_action_chunk(batch, noise))


def test_padded_actions_do_not_teach(policy, batch, noise):
    time = torch.tensor([0.2, 0.5, 0.8])
    poisoned = {**batch, "action": batch["action"].masked_fill(batch["action_is_pad"][..., None], 1e3)}
    # Flow matching mixes noise into padded steps too, and causal attention keeps them behind the real ones.
    expected, got = (policy.forward(b, noise=noise, time=time)[0] for b in (batch, poisoned))
    torch.testing.assert_close(got, expected)


def test_unreduced_loss_averages_to_the_mean(policy, batch, noise):
    batch.pop("action_is_pad")
    time = torch.tensor([0.2, 0.5, 0.8])
    mean, _ = policy.forward(batch, noise=noise, time=time)
    each, _ = policy.forward(batch, noise=noise, time=time, reduction="none")
    assert each.shape == (3,)
    torch.testing.assert_close(each.mean(), mean)


def test_queue_plays_n_action_steps_of_a_chunk_then_plans_again(policy, batch, noise):
    chunk = policy.predict_action_chunk(batch, noise)
    played = [policy.select_action(batch, noise) for _ in range(7)]
    for step, action in enumerate(played):
        torch.testing.assert_close(action, chunk[:, step % 3])
    policy.reset()
    torch.testing.assert_close(policy.select_action(batch, noise), chunk[:, 0])


def test_an_arm_that_stands_still_is_sent_the_whole_chunk(policy, batch, noise):
    chunk = policy.predict_action_chunk(batch, noise)
    patient = VLAFlowPolicy(make_config(finish_chunk_when_still=0.1))
    patient.load_state_dict(policy.state_dict())
    size = patient.config.chunk_size
    for step in [*range(3), *range(size), *range(3)]:
        torch.testing.assert_close(patient.select_action(batch, noise), chunk[:, step])
        if step == size - 1:  # it moved
            batch["observation.state"] = batch["observation.state"] + 1.0
            chunk = patient.predict_action_chunk(batch, noise)


def test_the_state_is_noisy_in_training_only(policy, batch):
    noisy = VLAFlowPolicy(make_config(state_noise=0.1))
    state = batch["observation.state"]
    assert torch.equal(noisy.eval()._observe(batch).state, policy.eval()._observe(batch).state)
    torch.manual_seed(0)
    noise = torch.stack([noisy.train()._observe(batch).state[:, : state.shape[-1]] for _ in range(300)]) - state
    assert noise.std().item() == pytest.approx(0.1, rel=0.05)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("option", ["finish_chunk_when_still", "state_noise"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_share_of_the_scale_that_is_none_is_an_error(option, value):
    with pytest.raises(ValueError, match=rf"{option}={value}: expected 0 or more and less than 1"):
        make_config(**{option: value})


def test_non_finite_chunk_is_refused(policy, batch):
    with pytest.raises(ValueError, match="not finite"):
        policy.select_action({**batch, "observation.state": torch.full((3, 6), float("nan"))})


def test_gradient_checkpointing_gives_the_same_gradients(policy, batch, noise):
    other = VLAFlowPolicy(make_config(gradient_checkpointing=True))
    other.load_state_dict(policy.state_dict())
    time = torch.tensor([0.2, 0.5, 0.8])
    for p in (policy, other):
        p.train()
        p.forward(batch, noise=noise, time=time)[0].backward()
    for (name, a), (_, b) in zip(policy.named_parameters(), other.named_parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_bfloat16_is_close_and_trains(policy, batch, noise):
    other = VLAFlowPolicy(make_config(dtype="bfloat16"))
    other.load_state_dict(policy.state_dict())
    full, half = (p.predict_action_chunk(batch, noise) for p in (policy, other))
    assert half.dtype == torch.float32
    assert (full - half).abs().max() < 0.05 * full.abs().max()
    other.train()
    other.forward(batch)[0].backward()
    assert all(p.dtype == torch.float32 for p in other.parameters() if p.requires_grad)


def test_compiled_sampler_has_no_graph_break(policy, batch, noise):
    observation = policy._observe(batch)
    compiled = torch.compile(policy.model.sample_actions, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(observation, 4, noise),
            policy.model.sample_actions(observation, 4, noise),
            rtol=1e-4,
            atol=1e-5,
        )


def test_fsdp_wraps_existing_modules(policy):
    names = {type(m).__name__ for m in policy.modules()}
    assert set(policy._no_split_modules) <= names
    assert isinstance(policy.model.action_expert.layers[0], DecoderLayer)


def test_real_time_chunking_is_refused_until_it_is_there(policy, batch):
    assert not policy.supports_rtc()
    with pytest.raises(ValueError, match="inference_delay"):
        policy.predict_action_chunk(batch, inference_delay=3)


class TestBatchRefusals:
    def test_absent_camera(self, policy, batch):
        del batch["observation.images.wrist"]
        with pytest.raises(ValueError, match=r"expected the cameras .*wrist.* got observation\.images\.front\."):
            policy.select_action(batch)

    def test_picture_of_another_size(self, policy, batch):
        batch["observation.images.wrist"] = torch.rand(3, 3, 56, 40)
        with pytest.raises(ValueError, match=r"expected pictures of shape \(3, 40, 56\), got \(3, 56, 40\)"):
            policy.select_action(batch)

    def test_state_of_another_arm(self, policy, batch):
        batch["observation.state"] = torch.randn(3, 7)
        with pytest.raises(ValueError, match="expected 6 joints, got 7"):
            policy.select_action(batch)


class TestConfigRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"n_action_steps": 9}, "chunk_size=8"),
            ({"dtype": "float8"}, "float32, bfloat16"),
            ({"train_expert_only": True}, "random backbone"),
            ({"num_vlm_layers": 9}, "layers 1..2"),
            ({"max_action_dim": 3}, "narrower than the data set's 6"),
            ({"num_expert_layers": 3}, "must divide"),
            ({"vlm_model_name": "/no/such/folder"}, "built in .tiny, small."),
            ({"vlm_model_name": "no-such-owner/no-such-vlm"}, "Without network, download it once"),
            ({"init_from": "/no/such/folder"}, "name a checkpoint folder"),
            ({"joint_unit": "radians"}, "expected one of degrees, percent"),
            ({"contract_overrides": ["fps", "speed"]}, r"\['speed'\]: expected some of robot_type, joints, unit"),
        ],
    )
    def test_says_what_was_expected(self, options, message):
        with pytest.raises(ValueError, match=message):
            VLAFlowPolicy(make_config(**options))

    def test_no_camera(self):
        with pytest.raises(ValueError, match="at least one camera"):
            VLAFlowPolicy(make_config(cameras=()))

    def test_no_action(self):
        config = make_config()
        config.output_features = {}
        with pytest.raises(ValueError, match="needs the feature 'action'"):
            VLAFlowPolicy(config)

    def test_other_joints_in_fine_tuning(self):
        config = make_config()
        action = {"dtype": "float32", "shape": (2,), "names": ["a.pos", "b.pos"]}
        config.set_dataset_feature_metadata({"action": action})
        assert config.action_feature_names == ["a.pos", "b.pos"]
        config.contract = ArmContract(joint_names=["a.pos", "b.pos"])
        config.set_dataset_feature_metadata({"action": action})
        with pytest.raises(ValueError, match=r"trained on the joints \['a.pos', 'b.pos'\]"):
            config.set_dataset_feature_metadata({"action": {**action, "names": ["b.pos", "a.pos"]}})

    def test_picture_sizes_follow_the_data_in_fine_tuning(self):
        config = make_config()
        picture = {"dtype": "video", "shape": (30, 44, 3), "names": ["height", "width", "channels"]}
        config.set_dataset_feature_metadata({"observation.images.front": picture})
        assert config.image_features["observation.images.front"].shape == (3, 30, 44)
        assert config.image_features["observation.images.wrist"].shape == (3, 40, 56)
