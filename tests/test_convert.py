"""A `smolvla` checkpoint, converted, gives the same actions in robot units."""

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from smolvla_reference import make_smolvla, write_vlm_folder
from test_processor_vla import make_observation, make_stats

from lerobot_vla_cli.main import main


@pytest.fixture
def smolvla_folder(tmp_path):
    """A complete checkpoint, processors included, as `lerobot-train --policy.type=smolvla` leaves it."""
    vlm = write_vlm_folder(tmp_path / "vlm")
    policy = make_smolvla(
        vlm, ["front", "wrist"], chunk_size=8, n_action_steps=4, num_vlm_layers=4, resize_imgs_with_padding=(48, 48)
    )
    folder = tmp_path / "smolvla"
    policy.save_pretrained(folder)
    return folder


def save_processors(folder, stats):
    config = PreTrainedConfig.from_pretrained(folder)
    for pipeline in make_pre_post_processors(config, dataset_stats=stats):
        pipeline.save_pretrained(folder)


def act(folder, noise):
    config = PreTrainedConfig.from_pretrained(folder)
    policy = get_policy_class(config.type).from_pretrained(folder)
    pre, post = make_pre_post_processors(config, str(folder))
    torch.manual_seed(0)
    return post(policy.select_action(pre(make_observation()), noise))


def test_same_actions(smolvla_folder, tmp_path):
    save_processors(smolvla_folder, make_stats())
    assert main(["convert", str(smolvla_folder), str(tmp_path / "ours")]) == 0
    noise = torch.randn(1, 8, 32)
    torch.testing.assert_close(act(tmp_path / "ours", noise), act(smolvla_folder, noise), rtol=1e-4, atol=1e-4)


def test_statistics_of_several_data_sets_must_be_selected(smolvla_folder, tmp_path, capsys):
    several = {f"{d}.buffer.{k}": v for d in ("so100", "so101") for k, v in make_stats().items()}
    save_processors(smolvla_folder, several)
    arguments = ["convert", str(smolvla_folder), str(tmp_path / "ours")]
    assert main(arguments) == 2
    assert "select one explicitly" in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()
    assert main([*arguments, "--statistics=so101"]) == 0


def test_never_overwrites(smolvla_folder, tmp_path, capsys):
    save_processors(smolvla_folder, make_stats())
    (tmp_path / "ours").mkdir()
    assert main(["convert", str(smolvla_folder), str(tmp_path / "ours")]) == 2
    assert "exists" in capsys.readouterr().err
