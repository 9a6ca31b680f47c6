"""Chunks as distances from the present state: scales, and a `vla_flow` that is trained on them."""

import numpy as np
import pytest
import torch
from conftest import train_options, write_dataset
from lerobot.datasets import LeRobotDatasetMetadata
from recorded_motion import recorded_motion
from smolvla_reference import make_batch
from test_modeling_vla import make_config

from lerobot_vla_plugin.modeling_vla import VLAFlowPolicy
from lerobot_vla_plugin.relative_actions import RelativeActions

CHUNK_SIZE = 4
IMAGE = (48, 64)


@pytest.fixture(scope="module")
def recorded():
    return recorded_motion([40, 30], gripper_moves=[0, 1])


@pytest.fixture(scope="module")
def scales(recorded):
    return RelativeActions.fit(recorded, CHUNK_SIZE)


@pytest.fixture
def policy(dataset_root):
    torch.manual_seed(0)
    meta = LeRobotDatasetMetadata("tests/small", root=dataset_root)
    config = make_config(chunk_size=CHUNK_SIZE, n_action_steps=2, relative_actions=True, image=IMAGE)
    return VLAFlowPolicy(config, dataset_meta=meta).eval()


@pytest.fixture
def batch(policy):
    return make_batch(policy)


def chunks_of(recorded):
    return tuple(torch.as_tensor(values, dtype=torch.float32) for values in recorded.chunks(CHUNK_SIZE))


class TestScales:
    def test_every_step_has_mean_0_and_deviation_1(self, scales, recorded):
        normalized = scales.normalize(*chunks_of(recorded))
        torch.testing.assert_close(normalized.mean(dim=0), torch.zeros(CHUNK_SIZE, 6), atol=1e-4, rtol=0)
        torch.testing.assert_close(normalized.std(dim=0), torch.ones(CHUNK_SIZE, 6), atol=1e-4, rtol=0)

    def test_unnormalize_is_the_inverse(self, scales, recorded):
        actions, states = chunks_of(recorded)
        torch.testing.assert_close(scales.unnormalize(scales.normalize(actions, states), states), actions)

    def test_the_same_motion_elsewhere_is_the_same_but_for_the_gripper(self, scales, recorded):
        actions, states = chunks_of(recorded)
        moved = scales.normalize(actions + 20, states + 20) - scales.normalize(actions, states)
        torch.testing.assert_close(moved[..., :5], torch.zeros_like(moved[..., :5]), atol=1e-4, rtol=0)
        assert (moved[..., 5] > 0.5).all()

    def test_a_joint_that_keeps_its_distance_is_not_blown_up(self, dataset_root):
        from lerobot_vla_plugin.tokenizer_joints import read_joints

        scales = RelativeActions.fit(read_joints(str(dataset_root)), CHUNK_SIZE)
        assert scales.std[0].min() == pytest.approx(0.5)  # the action is the state plus 1, at the first step


class TestPolicy:
    def test_pictures_and_state_decide_a_chunk_that_starts_where_the_arm_is(self, policy, batch):
        noise = torch.zeros(3, CHUNK_SIZE, 6)
        still = policy.predict_action_chunk(batch, noise)
        scaled = policy.relative_actions.normalize(still, batch["observation.state"])
        torch.testing.assert_close(policy.relative_actions.unnormalize(scaled, batch["observation.state"]), still)
        assert (still[:, 0, :5] - batch["observation.state"][:, :5]).abs().max() < 10

    def test_checkpoint_gives_the_same_chunk_without_the_data(self, policy, batch, tmp_path):
        noise = torch.randn(3, CHUNK_SIZE, 6)
        policy.save_pretrained(tmp_path)
        loaded = VLAFlowPolicy.from_pretrained(tmp_path)
        assert torch.equal(loaded.predict_action_chunk(batch, noise), policy.predict_action_chunk(batch, noise))

    def test_fine_tuning_keeps_the_scales_of_the_weights(self, policy, tmp_path):
        policy.save_pretrained(tmp_path / "start")
        write_dataset(tmp_path / "other", amplitude=90.0)
        other = LeRobotDatasetMetadata("tests/small", root=tmp_path / "other")
        config = make_config(chunk_size=CHUNK_SIZE, n_action_steps=2, image=IMAGE, init_from=str(tmp_path / "start"))
        tuned = VLAFlowPolicy(config, dataset_meta=other)
        assert tuned.config.relative_actions
        assert tuned.config.normalization_mapping["ACTION"] == "IDENTITY"
        assert torch.equal(tuned.relative_actions.std, policy.relative_actions.std)

    def test_weights_that_know_other_chunks_are_refused(self, policy, dataset_root, tmp_path):
        policy.save_pretrained(tmp_path / "relative")
        VLAFlowPolicy(make_config(chunk_size=CHUNK_SIZE, image=IMAGE)).save_pretrained(tmp_path / "places")
        meta = LeRobotDatasetMetadata("tests/small", root=dataset_root)

        def start_from(name: str, **options):
            config = make_config(n_action_steps=2, image=IMAGE, init_from=str(tmp_path / name), **options)
            return VLAFlowPolicy(config, dataset_meta=meta)

        with pytest.raises(ValueError, match="trained on positions, not on distances"):
            start_from("places", chunk_size=CHUNK_SIZE, relative_actions=True)
        with pytest.raises(ValueError, match=f"set --policy.chunk_size={CHUNK_SIZE}"):
            start_from("relative", chunk_size=CHUNK_SIZE + 1)

    def test_lerobot_train_and_what_it_saved_act_in_robot_units(self, dataset_root, tmp_path, lerobot_train):
        from lerobot.policies.factory import make_pre_post_processors

        options = (f"--policy.chunk_size={CHUNK_SIZE}", "--policy.relative_actions=true", "--policy.num_noise_draws=3")
        lerobot_train(*train_options(dataset_root, tmp_path / "out", *options))
        folder = tmp_path / "out" / "checkpoints" / "last" / "pretrained_model"
        policy = VLAFlowPolicy.from_pretrained(folder)
        before, after = make_pre_post_processors(policy.config, str(folder))
        observation = {
            "observation.state": torch.full((6,), 20.0),
            **{f"observation.images.{camera}": torch.zeros(3, 48, 64) for camera in ("front", "wrist")},
            "task": "Touch the red cube.",
        }
        action = after(policy.select_action(before(observation)))
        np.testing.assert_allclose(action[0, :5], 20, atol=10)

    def test_no_data_set_is_an_error(self):
        with pytest.raises(ValueError, match="needs a data set to measure the motion of"):
            VLAFlowPolicy(make_config(relative_actions=True))

    def test_padded_widths_are_refused(self):
        with pytest.raises(ValueError, match="leave out max_action_dim"):
            make_config(relative_actions=True, max_action_dim=32)
