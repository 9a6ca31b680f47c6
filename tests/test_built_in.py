"""The built-in backbones: names, convolutions in front of `small`, and checkpoints that hold its geometry."""

import pytest
import torch
from smolvla_reference import make_batch
from test_modeling_vla import make_config

from lerobot_vla_plugin.config_base import BUILT_IN_BACKBONES
from lerobot_vla_plugin.modeling_vla import VLAFlowPolicy
from lerobot_vla_plugin.models.built_in import GEOMETRIES, small_config
from lerobot_vla_plugin.models.conv_stem import ConvStem, grid_positions, stem_stride


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    return VLAFlowPolicy(make_config(vlm_model_name="small")).eval()


def test_the_configuration_knows_every_geometry():
    assert set(BUILT_IN_BACKBONES) == set(GEOMETRIES)


def test_a_camera_has_256_places(policy):
    assert policy.model.backbone.encode_images(torch.zeros(2, 3, 128, 128)).shape == (2, 256, 128)


def test_everything_of_the_stem_learns(policy):
    policy.train()
    policy.forward(make_batch(policy))[0].backward()
    stem = policy.model.backbone.vision_model.embeddings.patch_embedding
    assert isinstance(stem, ConvStem)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in stem.parameters())
    policy.zero_grad()
    policy.eval()


def test_checkpoint_brings_its_geometry(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    loaded, batch, noise = VLAFlowPolicy.from_pretrained(tmp_path), make_batch(policy), torch.zeros(3, 8, 6)
    assert torch.equal(loaded.predict_action_chunk(batch, noise), policy.predict_action_chunk(batch, noise))


def test_a_feature_sees_no_pixel_far_away():
    torch.manual_seed(0)
    widths = small_config().vision_config.conv_stem_widths
    stem = ConvStem(widths, 16)
    stem.norm = torch.nn.Identity()  # the norms look at the whole picture
    for stage in stem.stages:
        stage.down_norm = stage.first_norm = stage.second_norm = torch.nn.Identity()
    picture = torch.rand(1, 3, 128, 128, requires_grad=True)
    stem(picture)[0, :, 0, 0].sum().backward()
    assert picture.grad is not None
    seen = picture.grad[0].abs().sum(dim=0).nonzero().max()
    assert stem_stride(widths) <= seen < 64


def test_places_that_are_near_are_alike():
    positions = torch.nn.functional.normalize(grid_positions(8, 64), dim=1)
    alike = positions @ positions.T
    here, beside, below, far = 9, 10, 17, 63
    assert alike[here, here] > alike[here, beside] > alike[here, far]
    torch.testing.assert_close(alike[here, beside], alike[here, below])
    assert (alike - torch.eye(64)).max() < 0.99  # all places differ


def test_draws_of_noise_average_and_share_the_prefix(policy):
    batch, model = make_batch(policy), policy.model
    observation, actions = policy._observe(batch), batch["action"]
    noise, time = torch.randn(6, 8, 6), torch.rand(6)
    with torch.no_grad():
        both = model.loss(observation, actions, noise, time, num_draws=2)
        single = [model.loss(observation, actions, noise[k::2], time[k::2]) for k in (0, 1)]
    torch.testing.assert_close(both, (single[0] + single[1]) / 2, rtol=1e-4, atol=1e-5)
