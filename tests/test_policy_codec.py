"""Which action tokenizer a fresh `vla_fast` speaks, and what it is refused for."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import JOINTS, write_dataset
from fast_policy import make_config, make_fast_policy, smooth_motion, write_codec
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lerobot_vla_plugin.action_tokenizers import FastTokenizer
from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.modeling_vla import VLAFastPolicy
from lerobot_vla_plugin.tokenizer_fit import fit_codec
from lerobot_vla_plugin.tokenizer_joints import read_joints

CHUNK_SIZE = 4


def read_meta(root: Path) -> LeRobotDatasetMetadata:
    return LeRobotDatasetMetadata("tests/small", root=root)


def make_policy(root: Path | None, **options) -> VLAFastPolicy:
    """A fresh policy for a data set, as LeRobot's `make_policy` makes it."""
    meta = None if root is None else read_meta(root)
    config = make_config(**{"image": (48, 64), "chunk_size": CHUNK_SIZE, **options})
    return VLAFastPolicy(config, dataset_meta=meta)


@pytest.fixture
def copy(dataset_root, tmp_path) -> Path:
    return Path(shutil.copytree(dataset_root, tmp_path / "copy"))


def edit_info(root: Path, **names: list[str]) -> None:
    """Rename joints of a data set: action=[...], state=[...]."""
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    for key, new in names.items():
        info["features"]["action" if key == "action" else "observation.state"]["names"] = new
    path.write_text(json.dumps(info))


@pytest.mark.parametrize("kind", [None, "bins"])
def test_one_is_fitted_to_the_data_set_and_is_the_same_every_time(kind, dataset_root, tmp_path, caplog):
    caplog.set_level("INFO")
    policies = [make_policy(dataset_root, action_tokenizer=kind) for _ in range(2)]
    files = []
    for index, policy in enumerate(policies):
        policy.action_tokens.codec.save(tmp_path / str(index))
        folder = tmp_path / str(index)
        files.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
        torch.manual_seed(1)
    assert files[0] == files[1]
    assert policies[0].config.action_tokenizer == (kind or "fast")
    codec = policies[0].action_tokens.codec
    assert (codec.joint_names, codec.chunk_size) == (tuple(JOINTS), CHUNK_SIZE)
    assert "tokens a chunk of 4 steps" in caplog.text
    assert "in robot units" in caplog.text


def test_a_codec_is_taken_from_its_folder_and_its_path_forgotten(dataset_root, tmp_path):
    fit_codec(read_joints(str(dataset_root)), tmp_path / "codec", "bins", CHUNK_SIZE, {})
    policy = make_policy(dataset_root, action_tokenizer_path=str(tmp_path / "codec"))
    assert policy.action_tokens.codec.tokenizer.kind == "bins"
    assert (policy.config.action_tokenizer, policy.config.action_tokenizer_path) == ("bins", None)


def test_a_published_fast_tokenizer_gets_the_scaling_of_the_data_set(dataset_root, tmp_path):
    actions, states = smooth_motion(chunk_size=CHUNK_SIZE)
    tokenizer = ChunkCodec.fit(actions, states, JOINTS).tokenizer
    tokenizer.save(tmp_path)
    (tmp_path / "action_tokenizer.json").unlink()
    policy = make_policy(dataset_root, action_tokenizer_path=str(tmp_path))
    codec = policy.action_tokens.codec
    assert isinstance(codec.tokenizer, FastTokenizer)
    assert codec.tokenizer.vocab_size == tokenizer.vocab_size
    spans = policy.config.contract.spans.values()
    assert list(zip(codec.scaling.span_low, codec.scaling.span_high, strict=True)) == [tuple(span) for span in spans]


def test_published_tokenizer_without_data_is_refused(tmp_path):
    actions, states = smooth_motion(chunk_size=CHUNK_SIZE)
    ChunkCodec.fit(actions, states, JOINTS).tokenizer.save(tmp_path)
    with pytest.raises(ValueError, match="holds a tokenizer without the scaling of any arm"):
        make_policy(None, action_tokenizer_path=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action_tokenizer": "fast"}, "action_tokenizer=fast, but the one that is there is 'bins'"),
        ({"chunk_size": 6}, "fitted for chunk_size 4, not 6"),
        ({"action_tokenizer_path": "/no/such/folder"}, r"action_tokenizer_path='/no/such/folder': no such folder"),
    ],
)
def test_a_codec_of_something_else_is_refused(options, message, dataset_root, tmp_path):
    folder = write_codec(tmp_path, "bins", chunk_size=CHUNK_SIZE)
    with pytest.raises(ValueError, match=message):
        make_policy(dataset_root, **{"action_tokenizer_path": folder, **options})


def test_a_codec_of_other_joints_is_refused(copy, tmp_path):
    edit_info(copy, action=["a", "b", "c", "d", "e", "f"], state=["a", "b", "c", "d", "e", "f"])
    folder = write_codec(tmp_path / "codec", chunk_size=CHUNK_SIZE)
    with pytest.raises(ValueError, match="was fitted for the joints"):
        make_policy(copy, action_tokenizer_path=folder)


def test_states_of_other_joints_than_the_actions_are_refused(copy):
    edit_info(copy, state=["f", "e", "d", "c", "b", "a"])
    with pytest.raises(ValueError, match="of the same joints"):
        make_policy(copy)


def test_data_beyond_the_span_are_refused_when_a_checkpoint_is_trained_on(tmp_path):
    """Its tokens cannot say where these joints go: they would all be clamped."""
    make_fast_policy(tmp_path / "codec", image=(48, 64)).save_pretrained(tmp_path / "checkpoint")
    write_dataset(tmp_path / "wide", num_episodes=2, amplitude=80)
    with pytest.raises(ValueError, match=r"shoulder_pan runs from .*, fitted on -30 to 30.*lerobot-vla tokenizer fit"):
        VLAFastPolicy.from_pretrained(tmp_path / "checkpoint", dataset_meta=read_meta(tmp_path / "wide"))


def test_data_that_are_streamed_need_a_codec_of_their_own(copy, tmp_path):
    shutil.rmtree(copy / "data")
    with pytest.raises(ValueError, match=r"not on this disk .*fit one with `lerobot-vla tokenizer fit`"):
        make_policy(copy)
    folder = write_codec(tmp_path / "codec", chunk_size=CHUNK_SIZE)
    edit_stats = json.loads((copy / "meta" / "stats.json").read_text())
    for bound, value in (("min", -30), ("max", 30)):
        edit_stats["action"][bound] = [value] * 5 + [12.5]
    (copy / "meta" / "stats.json").write_text(json.dumps(edit_stats))
    assert make_policy(copy, action_tokenizer_path=folder).config.action_tokenizer == "fast"


def test_no_data_and_no_codec_is_refused():
    with pytest.raises(ValueError, match="there is no data set to fit one to; fit one with"):
        make_policy(None)


def test_a_data_set_too_small_to_fit_is_refused(tmp_path):
    write_dataset(tmp_path / "short", num_episodes=1, num_frames=8)
    with pytest.raises(ValueError, match="at least 16 chunks"):
        make_policy(tmp_path / "short")
