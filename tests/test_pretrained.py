"""Checkpoints and pretrained weights: written, read by LeRobot alone, refused where they do not fit."""

import json
import shutil

import pytest
import torch
from fast_policy import CHUNK_SIZE, make_fast_policy, make_motion_batch, write_codec
from fast_policy import make_config as make_fast_config
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from safetensors.torch import load_file, save_file
from smolvla_reference import make_batch, make_smolvla, write_vlm_folder
from test_modeling_vla import make_config
from transformers import SmolVLMForConditionalGeneration

from lerobot_vla_plugin.modeling_vla import VLAFastPolicy, VLAFlowPolicy
from lerobot_vla_plugin.pretrained import load_backbone_config


@pytest.fixture
def policy():
    torch.manual_seed(0)
    return VLAFlowPolicy(make_config()).eval()


class TestCheckpoints:
    def test_loads_knowing_only_lerobot_and_without_the_backbone_s_origin(self, tmp_path):
        """The VLM's folder is gone when the checkpoint is loaded: geometry travels inside."""
        vlm = write_vlm_folder(tmp_path / "vlm")
        policy = VLAFlowPolicy(make_config(vlm_model_name=str(vlm), load_vlm_weights=False)).eval()
        policy.save_pretrained(tmp_path / "checkpoint")
        shutil.rmtree(vlm)
        config = PreTrainedConfig.from_pretrained(tmp_path / "checkpoint")
        loaded = get_policy_class(config.type).from_pretrained(tmp_path / "checkpoint", config=config)
        assert not loaded.training
        batch = make_batch(policy)
        noise = torch.randn(3, 8, 6)
        torch.testing.assert_close(loaded.predict_action_chunk(batch, noise), policy.predict_action_chunk(batch, noise))

    @pytest.mark.parametrize("damage", ["missing", "unexpected", "shape"])
    def test_weights_that_do_not_fit_are_refused(self, damage, policy, tmp_path):
        policy.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
        weights = load_file(path)
        key = "model.action_in_proj.weight"
        if damage == "missing":
            del weights[key]
        elif damage == "unexpected":
            weights["model.extra"] = torch.zeros(1)
        else:
            weights[key] = torch.zeros(2, 2)
        save_file(weights, path)
        with pytest.raises(ValueError, match="do not fit this policy; 1 differences"):
            VLAFlowPolicy.from_pretrained(tmp_path)

    def test_incomplete_folder_is_refused(self, policy, tmp_path):
        policy.save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(ValueError, match=r"holds no model\.safetensors; it holds: backbone, config\.json"):
            VLAFlowPolicy.from_pretrained(tmp_path)

    def test_other_policies_are_refused(self, policy, tmp_path):
        policy.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({"type": "act", "device": config["device"]}))
        with pytest.raises(ValueError, match="expected a checkpoint of type vla_flow or smolvla, got 'act'"):
            VLAFlowPolicy.from_pretrained(tmp_path)

    def test_vlm_weights_load_from_their_published_layout(self, tmp_path):
        """A VLM folder as the hub holds it: transformers' own safetensors, more layers than are used."""
        folder = write_vlm_folder(tmp_path)
        reference = SmolVLMForConditionalGeneration(load_backbone_config(str(folder)))
        reference.save_pretrained(folder)
        ours = VLAFlowPolicy(make_config(vlm_model_name=str(folder), num_vlm_layers=3)).model.backbone
        theirs = reference.model
        torch.testing.assert_close(ours.text_model.embed_tokens.weight, theirs.text_model.embed_tokens.weight)
        torch.testing.assert_close(
            ours.text_model.layers[2].mlp.up_proj.weight, theirs.text_model.layers[2].mlp.up_proj.weight
        )
        torch.testing.assert_close(
            ours.connector.modality_projection.proj.weight, theirs.connector.modality_projection.proj.weight
        )

    def test_vlm_without_weights_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="could not be read"):
            VLAFlowPolicy(make_config(vlm_model_name=str(write_vlm_folder(tmp_path))))

    def test_vlm_with_a_weight_too_few_is_refused(self, tmp_path):
        """transformers would leave it random, and only warn."""
        folder = write_vlm_folder(tmp_path)
        SmolVLMForConditionalGeneration(load_backbone_config(str(folder))).save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        del weights["model.text_model.layers.1.mlp.up_proj.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"incomplete; missing are model\.text_model\.layers\.1\.mlp\.up_proj"):
            VLAFlowPolicy(make_config(vlm_model_name=str(folder)))


class TestInitFrom:
    @pytest.fixture
    def smolvla_folder(self, tmp_path):
        vlm = write_vlm_folder(tmp_path / "vlm")
        reference = make_smolvla(
            vlm, ["camera1", "camera2", "camera3"], chunk_size=8, n_action_steps=4, num_vlm_layers=4,
            resize_imgs_with_padding=(48, 48),
        )  # fmt: skip
        reference.save_pretrained(tmp_path / "smolvla")
        return tmp_path / "smolvla"

    def test_keeps_padded_widths_and_numbers_and_names_the_cameras(self, smolvla_folder, caplog):
        ours = VLAFlowPolicy(make_config(init_from=str(smolvla_folder))).eval()
        assert ours.model.state_proj.in_features == 32
        assert "observation.images.front <- observation.images.camera1" in caplog.text
        assert "not used: observation.images.camera3" in caplog.text
        whole = VLAFlowPolicy.from_pretrained(smolvla_folder)
        for (name, a), (_, b) in zip(ours.named_parameters(), whole.named_parameters(), strict=True):
            torch.testing.assert_close(a, b, msg=name)

    def test_is_not_read_again(self, smolvla_folder, tmp_path):
        policy = VLAFlowPolicy(make_config(init_from=str(smolvla_folder)))
        policy.save_pretrained(tmp_path / "later")
        shutil.rmtree(smolvla_folder)
        VLAFlowPolicy.from_pretrained(tmp_path / "later")

    def test_what_vla_flow_cannot_do_is_refused(self, smolvla_folder):
        path = smolvla_folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "adapt_to_pi_aloha": True}))
        with pytest.raises(ValueError, match="adapt_to_pi_aloha"):
            VLAFlowPolicy.from_pretrained(smolvla_folder)


class TestStartOfActionTokens:
    """Where the weights of a fresh `vla_fast` come from."""

    @pytest.fixture
    def codec_folder(self, tmp_path):
        write_codec(tmp_path / "codec")
        return tmp_path / "codec"

    def test_vlm_weights_and_the_rarest_words_of_their_published_layout(self, tmp_path):
        """The VLM's tokenizer has 259 words and 4 markers that were added."""
        folder = write_vlm_folder(tmp_path / "vlm")
        reference = SmolVLMForConditionalGeneration(load_backbone_config(str(folder)))
        reference.save_pretrained(folder)
        codec = write_codec(tmp_path / "codec", "bins", bins=100)
        policy = VLAFastPolicy(make_fast_config(vlm_model_name=str(folder), action_tokenizer_path=codec))
        model, theirs = policy.model, reference.model.text_model
        ours = model.backbone.text_model
        torch.testing.assert_close(ours.layers[1].mlp.up_proj.weight, theirs.layers[1].mlp.up_proj.weight)
        torch.testing.assert_close(model.action_embedding.weight, theirs.embed_tokens.weight[158:259])
        torch.testing.assert_close(model.action_head.weight, reference.lm_head.weight[158:259])
        assert model.action_embedding.weight.requires_grad
        assert policy.config.backbone_conventions == "vlm"

    def test_a_flow_checkpoint_gives_its_backbone_and_state_projection(self, codec_folder, tmp_path):
        flow = VLAFlowPolicy(make_config())
        flow.save_pretrained(tmp_path / "flow")
        policy = make_fast_policy(codec_folder, init_from=str(tmp_path / "flow"))
        weights = flow.state_dict()
        for name, value in policy.state_dict().items():
            if name.startswith(("model.backbone.", "model.state_proj.")):
                assert torch.equal(value, weights[name]), name
        assert policy.config.backbone_conventions == "smolvla"

    def test_a_state_of_another_width_starts_anew(self, codec_folder, tmp_path, caplog):
        VLAFlowPolicy(make_config(joints=7)).save_pretrained(tmp_path / "flow")
        policy = make_fast_policy(codec_folder, init_from=str(tmp_path / "flow"))
        assert policy.model.state_proj.in_features == 6
        assert "state projection" in caplog.text

    def test_a_smolvla_checkpoint_keeps_its_padded_state(self, codec_folder, tmp_path):
        vlm = write_vlm_folder(tmp_path / "vlm")
        make_smolvla(vlm, ["front", "wrist"], num_vlm_layers=4).save_pretrained(tmp_path / "smolvla")
        policy = make_fast_policy(codec_folder, init_from=str(tmp_path / "smolvla"))
        assert policy.model.state_proj.in_features == 32
        assert policy.config.backbone_conventions == "smolvla"
        assert policy.predict_action_chunk(make_motion_batch(policy)).shape == (3, CHUNK_SIZE, 6)

    def test_a_checkpoint_of_its_kind_gives_everything_but_to_other_tokens(self, codec_folder, tmp_path):
        policy = make_fast_policy(codec_folder)
        batch = make_motion_batch(policy)
        policy.save_pretrained(tmp_path / "old")
        same = VLAFastPolicy(make_fast_config(init_from=str(tmp_path / "old"))).eval()
        torch.testing.assert_close(same.predict_action_chunk(batch), policy.predict_action_chunk(batch))
        bins = write_codec(tmp_path / "bins", "bins")
        other = VLAFastPolicy(make_fast_config(init_from=str(tmp_path / "old"), action_tokenizer_path=bins))
        assert other.config.action_tokenizer == "bins"
        assert torch.equal(other.model.state_proj.weight, policy.model.state_proj.weight)
        assert len(other.model.action_head.weight) == 257
