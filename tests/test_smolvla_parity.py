"""Same weights, same numbers as LeRobot's `smolvla`: loss, action chunk, and every gradient."""

import pytest
import torch
from smolvla_reference import make_batch, make_smolvla, write_vlm_folder

from lerobot_vla_plugin.modeling_vla import VLAFlowPolicy
from lerobot_vla_plugin.pretrained import _own_name

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
SMALL = {"chunk_size": 10, "n_action_steps": 5, "resize_imgs_with_padding": (48, 48), "num_vlm_layers": 4}

CASES = {
    "one camera": (["front"], {}),
    "two cameras": (["front", "wrist"], {}),
    "a camera declared empty": (["front"], {"empty_cameras": 1}),
    "fewer layers than the backbone has": (["front"], {"num_vlm_layers": 3}),
    "expert on every second layer": (["front"], {"num_expert_layers": 2, "self_attn_every_n_layers": 0}),
    "narrow expert": (["front"], {"expert_width_multiplier": 0.5}),
    "self-attention only": (["front"], {"attention_mode": "self_attn"}),
    "cross-attention only": (["front"], {"self_attn_every_n_layers": 0}),
    "unpadded widths": (["front"], {"max_state_dim": 6, "max_action_dim": 6}),
    "prefix padded to a length": (["front"], {"prefix_length": 40}),
    "state projection frozen": (["front"], {"train_state_proj": False}),
    "picture wider than the patch grid": (["front"], {"resize_imgs_with_padding": (32, 32)}),
}


@pytest.fixture(scope="module")
def vlm_folder(tmp_path_factory):
    return write_vlm_folder(tmp_path_factory.mktemp("vlm"))


def both_policies(vlm_folder, folder, cameras, options):
    reference = make_smolvla(vlm_folder, cameras, **{**SMALL, **options})
    reference.save_pretrained(folder)
    return reference, VLAFlowPolicy.from_pretrained(folder)


def gradients(policy, loss, rename=lambda name: name):
    loss.backward()
    return {rename(name): p.grad for name, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("backbone", ["frozen", "unfrozen", "vision learns too"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_every_gradient(case, backbone, vlm_folder, tmp_path):
    cameras, options = CASES[case]
    learns = {
        "train_expert_only": backbone == "frozen",
        "freeze_vision_encoder": backbone != "vision learns too",
    }
    reference, ours = both_policies(vlm_folder, tmp_path, cameras, {**options, **learns})
    batch = make_batch(reference)
    noise = torch.randn(3, 10, reference.config.max_action_dim)
    time = torch.tensor([0.9, 0.3, 0.05])
    reference.train(), ours.train()
    expected, _ = reference.forward(dict(batch), noise=noise, time=time)
    loss, _ = ours.forward(dict(batch), noise=noise, time=time)
    torch.testing.assert_close(loss, expected, **TOLERANCE)

    expected_gradients = gradients(reference, expected, _own_name)
    own_gradients = gradients(ours, loss)
    assert own_gradients.keys() == expected_gradients.keys()
    for name, gradient in own_gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("case", CASES)
def test_action_chunk(case, vlm_folder, tmp_path):
    cameras, options = CASES[case]
    reference, ours = both_policies(vlm_folder, tmp_path, cameras, options)
    batch = make_batch(reference)
    noise = torch.randn(3, 10, reference.config.max_action_dim)
    torch.testing.assert_close(
        ours.predict_action_chunk(dict(batch), noise=noise),
        reference.predict_action_chunk(dict(batch), noise=noise),
        **TOLERANCE,
    )


def test_unreduced_loss(vlm_folder, tmp_path):
    reference, ours = both_policies(vlm_folder, tmp_path, ["front"], {})
    batch = make_batch(reference)
    noise, time = torch.randn(3, 10, 32), torch.tensor([0.9, 0.3, 0.05])
    expected, _ = reference.forward(dict(batch), noise=noise, time=time, reduction="none")
    loss, _ = ours.forward(dict(batch), noise=noise, time=time, reduction="none")
    torch.testing.assert_close(loss, expected, **TOLERANCE)
