"""Checkpoints of `vla_fast`: what they hold, what they start from, and how they are trained in several processes."""

import shutil

import pytest
import torch
from fast_policy import make_config, make_fast_policy, make_motion_batch, write_codec
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from smolvla_reference import write_vlm_folder
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from lerobot_vla_plugin.modeling_vla import VLAFastPolicy, VLAFlowPolicy


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


def test_loads_knowing_only_lerobot_and_without_what_it_was_made_from(batch, tmp_path):
    vlm, codec = write_vlm_folder(tmp_path / "vlm"), tmp_path / "codec"
    policy = make_fast_policy(codec, vlm_model_name=str(vlm), load_vlm_weights=False)
    policy.save_pretrained(tmp_path / "checkpoint")
    shutil.rmtree(vlm)
    shutil.rmtree(codec)
    config = PreTrainedConfig.from_pretrained(tmp_path / "checkpoint")
    assert (config.action_tokenizer, config.action_tokenizer_path) == ("fast", None)
    assert config.backbone_conventions == "vlm"
    loaded = get_policy_class(config.type).from_pretrained(tmp_path / "checkpoint", config=config)
    torch.testing.assert_close(loaded.predict_action_chunk(batch), policy.predict_action_chunk(batch))
    assert loaded.model.backbone.embedding_scale == 1.0


def test_weights_are_the_model_s_alone(policy):
    assert {name.split(".")[1] for name in policy.state_dict()} == {
        "backbone", "state_proj", "action_embedding", "missing_embedding", "action_head",
    }  # fmt: skip


def test_fsdp_wraps_existing_modules(policy):
    assert set(policy._no_split_modules) <= {type(m).__name__ for m in policy.modules()}


def test_a_checkpoint_without_its_tokenizer_is_refused(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "action_tokenizer")
    with pytest.raises(ValueError, match=r"codec\.json is missing"):
        VLAFastPolicy.from_pretrained(tmp_path)


def test_another_tokenizer_on_a_checkpoint_is_refused(policy, codec_folder, tmp_path):
    policy.save_pretrained(tmp_path)
    for change, message in (
        ({"action_tokenizer": "bins"}, "the one that is there is 'fast'"),
        ({"action_tokenizer_path": str(codec_folder)}, r"start a new policy with --policy\.init_from"),
        ({"chunk_size": 6}, "fitted for chunk_size 8, not 6"),
    ):
        config = PreTrainedConfig.from_pretrained(tmp_path)
        for name, value in change.items():
            setattr(config, name, value)
        with pytest.raises(ValueError, match=message):
            VLAFastPolicy.from_pretrained(tmp_path, config=config)


def test_a_flow_policy_is_no_token_policy(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected a checkpoint of type vla_flow or smolvla, got 'vla_fast'"):
        VLAFlowPolicy.from_pretrained(tmp_path)


def test_a_backbone_under_other_conventions_is_refused(policy, tmp_path):
    """Every weight would fit and every action would be another."""
    policy.save_pretrained(tmp_path)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    config.backbone_conventions = "vlm"
    message = "'vlm', but the weights of .* were trained under 'smolvla'; leave the option out"
    with pytest.raises(ValueError, match=message):
        VLAFastPolicy.from_pretrained(tmp_path, config=config)
    with pytest.raises(ValueError, match=message):
        VLAFastPolicy(make_config(init_from=str(tmp_path), backbone_conventions="vlm"))
    assert VLAFastPolicy(make_config(init_from=str(tmp_path))).config.backbone_conventions == "smolvla"


@pytest.fixture
def one_process(tmp_path):
    """A group of this process alone."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_learns_with_its_weights_sharded(dtype, codec_folder, one_process):
    """As accelerate shards: the weights themselves are bfloat16 then, not only what is computed from them."""
    policy = make_fast_policy(codec_folder, dtype=dtype).train()
    batch = make_motion_batch(policy)
    precision = MixedPrecisionPolicy(param_dtype=getattr(torch, dtype))
    for module in policy.modules():
        if type(module).__name__ in policy._no_split_modules:
            fully_shard(module, mesh=one_process, mp_policy=precision)
    fully_shard(policy, mesh=one_process, mp_policy=precision)
    loss, figures = policy(batch)
    loss.backward()
    assert "decoded_error" not in figures
    silent = [name for name, p in policy.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []
