"""Vision tokens kept on disk: the same numbers, and never another picture's."""

import multiprocessing
import sys
from types import SimpleNamespace

import pytest
import torch
from smolvla_reference import make_batch, write_vlm_folder
from test_modeling_vla import make_config

from lerobot_vla_plugin.modeling_vla import VLAFlowPolicy
from lerobot_vla_plugin.vision_cache import VisionTokenCache

META = SimpleNamespace(
    repo_id="tests/small", total_frames=20, total_episodes=2, episodes={"length": [10, 10]}, root="/none", fps=10,
    robot_type=None, features={}, stats=None,
)  # fmt: skip


@pytest.fixture(scope="module")
def vlm_folder(tmp_path_factory):
    return write_vlm_folder(tmp_path_factory.mktemp("vlm"))


def make_policy(vlm_folder, folder, dtype="float32") -> VLAFlowPolicy:
    torch.manual_seed(0)
    options = {"vlm_model_name": str(vlm_folder), "load_vlm_weights": False}
    config = make_config(vision_cache=folder, vision_cache_dtype=dtype, **options)
    return VLAFlowPolicy(config, dataset_meta=META).train()


class CountingEncoder:
    """Stands before the vision tower and counts the pictures that reach it."""

    def __init__(self, policy):
        self.pictures, self._encode = 0, policy._encode
        policy._encode = self

    def __call__(self, pixels):
        self.pictures += len(pixels)
        return self._encode(pixels)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("bfloat16", 0.02)])
def test_second_epoch_reads_what_the_first_computed(dtype, tolerance, vlm_folder, tmp_path):
    policy = make_policy(vlm_folder, tmp_path, dtype)
    batch = {**make_batch(policy), "index": torch.tensor([3, 11, 7])}
    noise, time = torch.randn(3, 8, 6), torch.tensor([0.2, 0.5, 0.8])
    uncached = make_policy(vlm_folder, None).forward(batch, noise=noise, time=time)[0]
    encoder = CountingEncoder(policy)
    first = policy.forward(batch, noise=noise, time=time)[0]
    assert encoder.pictures == 6
    second = policy.forward(batch, noise=noise, time=time)[0]
    assert encoder.pictures == 6
    assert torch.equal(first, second)
    torch.testing.assert_close(first, uncached, rtol=max(tolerance, 1e-6), atol=1e-6)


def test_a_resumed_run_and_a_second_process_share_it(vlm_folder, tmp_path):
    batch = make_batch(make_policy(vlm_folder, None))
    first, second = make_policy(vlm_folder, tmp_path), make_policy(vlm_folder, tmp_path)
    first.forward({**batch, "index": torch.tensor([0, 1, 2])})
    encoder = CountingEncoder(second)
    second.forward({**batch, "index": torch.tensor([0, 1, 2])})
    assert encoder.pictures == 0
    resumed = make_policy(vlm_folder, tmp_path)
    encoder = CountingEncoder(resumed)
    resumed.forward({**batch, "index": torch.tensor([0, 1, 2])})
    assert encoder.pictures == 0


def test_a_loaded_checkpoint_finds_the_tokens_of_the_run_it_continues(vlm_folder, tmp_path):
    policy = make_policy(vlm_folder, tmp_path / "cache")
    policy.save_pretrained(tmp_path / "checkpoint")
    torch.manual_seed(1)  # what the weights are before they are loaded must not matter
    loaded = VLAFlowPolicy.from_pretrained(tmp_path / "checkpoint", dataset_meta=META)
    assert loaded.vision_cache.folder == policy.vision_cache.folder


def _hammer(folder, backbone, seed: int) -> None:
    """Look frames up in random order; every answer must be the tokens of its own picture."""
    torch.set_num_threads(1)
    pictures = torch.rand(20, 3, 12, 12, generator=torch.Generator().manual_seed(0))

    def encode(pixels):
        return pixels[:, 0].repeat(1, 8, 8)  # large enough that a write is not atomic

    cache = VisionTokenCache(folder, META, backbone, (12, 12), torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(40):
        frames = torch.randperm(20, generator=generator)[:5]
        (tokens,) = cache.tokens({"front": pictures[frames]}, frames, encode)
        assert torch.equal(tokens, encode(pictures[frames] * 2 - 1))


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_processes_that_write_at_once_never_read_a_torn_record(vlm_folder, tmp_path):
    backbone = make_policy(vlm_folder, None).model.backbone
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_hammer, args=(tmp_path, backbone, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]


def test_a_changed_picture_is_refused(vlm_folder, tmp_path):
    policy = make_policy(vlm_folder, tmp_path)
    batch = {**make_batch(policy), "index": torch.tensor([3, 11, 7])}
    policy.forward(batch)
    batch["observation.images.front"] = batch["observation.images.front"].clone()
    batch["observation.images.front"][1, 0, 0, 0] += 1 / 255
    with pytest.raises(ValueError, match=r"frame 11 of observation\.images\.front is not the picture"):
        policy.forward(batch)


def test_a_half_written_record_counts_as_absent(vlm_folder, tmp_path):
    policy = make_policy(vlm_folder, tmp_path)
    batch = {**make_batch(policy), "index": torch.tensor([3, 11, 7])}
    loss_arguments = {"noise": torch.randn(3, 8, 6), "time": torch.tensor([0.2, 0.5, 0.8])}
    expected = policy.forward(batch, **loss_arguments)[0]
    policy.vision_cache._files["observation.images.front"]["tokens"][11, 0, 0] += 1
    encoder = CountingEncoder(policy)
    assert torch.equal(policy.forward(batch, **loss_arguments)[0], expected)
    assert encoder.pictures == 1


def test_other_weights_and_other_data_use_other_files(vlm_folder, tmp_path):
    policy = make_policy(vlm_folder, tmp_path)
    folders = {policy.vision_cache.folder}
    with torch.no_grad():
        policy.model.backbone.connector.modality_projection.proj.weight[0, 0] += 1
    other_data = SimpleNamespace(**{**vars(META), "repo_id": "tests/other"})
    for meta in (META, other_data):
        cache = VisionTokenCache(tmp_path, meta, policy.model.backbone, (48, 48), torch.float32)
        folders.add(cache.folder)
    assert len(folders) == 3


def test_only_training_uses_it(vlm_folder, tmp_path):
    """At run time the batch has no frame index, and every picture is new."""
    policy = make_policy(vlm_folder, tmp_path)
    policy.predict_action_chunk(make_batch(policy))
    assert not list(policy.vision_cache.folder.glob("*.tokens"))


def test_a_learning_vision_tower_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a frozen vision tower"):
        VLAFlowPolicy(make_config(vision_cache=tmp_path), dataset_meta=META)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"total_frames": 0}, "has no frames"),
        ({"episodes": {"length": [5, 6]}}, r"longer than every episode .*use --policy\.chunk_size=6"),
    ],
)
def test_data_sets_that_cannot_teach_are_refused(meta, message):
    with pytest.raises(ValueError, match=message):
        VLAFlowPolicy(make_config(), dataset_meta=SimpleNamespace(**{**vars(META), **meta}))
