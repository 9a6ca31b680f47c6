"""Pipelines: the tokenizer that travels, and statistics that are never guessed."""

import json

import pytest
import torch
from fast_policy import make_config as make_fast_config
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.factory import make_pre_post_processors
from lerobot.processor import NormalizerProcessorStep, TokenizerProcessorStep
from smolvla_reference import write_vlm_folder
from test_modeling_vla import make_config
from transformers import AutoTokenizer

from lerobot_vla_plugin.feature_statistics import check_statistics, select_statistics
from lerobot_vla_plugin.processor_vla import TaskTokenizerStep

FEATURES = {"action": PolicyFeature(FeatureType.ACTION, (2,))}
MEAN_STD = {FeatureType.ACTION: NormalizationMode.MEAN_STD}


def make_stats(joints: int = 6) -> dict:
    return {
        key: {"mean": torch.arange(joints).float(), "std": torch.full((joints,), 2.0)}
        for key in ("observation.state", "action")
    }


def make_observation(task="Touch the red cube.") -> dict:
    return {
        "observation.state": torch.arange(6).float() + 2,
        "observation.images.front": torch.rand(3, 40, 56),
        "observation.images.wrist": torch.rand(3, 40, 56),
        "task": task,
    }


def save_and_load(pipelines, folder, config, **overrides):
    for pipeline in pipelines:
        pipeline.save_pretrained(folder)
    return make_pre_post_processors(config, str(folder), **overrides)


def test_pipelines_normalise_and_undo_it_after_a_round_trip_to_disk(tmp_path):
    config = make_config()
    pre, post = save_and_load(make_pre_post_processors(config, dataset_stats=make_stats()), tmp_path, config)
    batch = pre(make_observation())
    torch.testing.assert_close(batch["observation.state"], torch.ones(1, 6))
    action = torch.tensor([[0.5, -1.0, 2.0, 0.0, 1.0, -3.0]])
    torch.testing.assert_close(post(action), action * 2 + torch.arange(6))
    # A whole chunk goes through the same step: it acts on the last axis.
    torch.testing.assert_close(post(action[None].expand(1, 4, 6)), (action * 2 + torch.arange(6))[None].expand(1, 4, 6))


def test_tokenizer_travels_and_equals_lerobots(tmp_path):
    folder = write_vlm_folder(tmp_path / "vlm")
    config = make_config(vlm_model_name=str(folder))
    pre, _ = save_and_load(make_pre_post_processors(config, dataset_stats=make_stats()), tmp_path / "p", config)
    for file in folder.iterdir():
        file.unlink()
    text = json.loads((tmp_path / "p" / "policy_preprocessor.json").read_text())
    assert str(folder) not in json.dumps(text)
    write_vlm_folder(folder)
    theirs = TokenizerProcessorStep(tokenizer=AutoTokenizer.from_pretrained(folder), max_length=48, padding="longest")
    for task in ("Touch the red cube.", "x" * 100):
        batch = pre(make_observation(task))
        expected = theirs._tokenize_text([task + "\n"])
        torch.testing.assert_close(batch["observation.language.tokens"], expected["input_ids"])
        torch.testing.assert_close(batch["observation.language.attention_mask"], expected["attention_mask"].bool())


def test_tokenizer_pads_a_batch_on_the_right():
    config = make_config()
    pre, _ = make_pre_post_processors(config, dataset_stats=make_stats())
    step = next(s for s in pre.steps if isinstance(s, TaskTokenizerStep))
    batch = {
        k: torch.stack([v, v]) if isinstance(v, torch.Tensor) else ["ab", "abcd"] for k, v in make_observation().items()
    }
    mask = pre(batch)["observation.language.attention_mask"]
    assert mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert step.get_config() == {"max_length": 48, "pad_token": "<pad>", "padding": "longest"}


@pytest.mark.parametrize("task", [None, "", []])
def test_a_missing_instruction_is_refused(task):
    pre, _ = make_pre_post_processors(make_config(), dataset_stats=make_stats())
    step = next(s for s in pre.steps if isinstance(s, TaskTokenizerStep))
    with pytest.raises(ValueError, match="needs an instruction"):
        step({"observation": {}, "complementary_data": {"task": task}})


def test_lerobots_commands_can_override_all_four_steps(tmp_path):
    config = make_config()
    new = {k: {n: v + 1 for n, v in s.items()} for k, s in make_stats().items()}
    features = {**config.input_features, **config.output_features}
    normalise = {"stats": new, "features": features, "norm_map": config.normalization_mapping}
    pre, post = save_and_load(
        make_pre_post_processors(config, dataset_stats=make_stats()), tmp_path, config,
        preprocessor_overrides={
            "device_processor": {"device": "cpu"},
            "normalizer_processor": normalise,
            "rename_observations_processor": {"rename_map": {"observation.images.top": "observation.images.front"}},
        },
        postprocessor_overrides={"unnormalizer_processor": {**normalise, "features": config.output_features}},
    )  # fmt: skip
    observation = make_observation()
    observation["observation.images.top"] = observation.pop("observation.images.front")
    batch = pre(observation)
    assert "observation.images.front" in batch
    torch.testing.assert_close(batch["observation.state"], torch.full((1, 6), 1 / 3))
    torch.testing.assert_close(post(torch.zeros(1, 6)), torch.arange(6).float()[None] + 1)


def test_a_joint_that_never_moved_stays_small_and_stays_still(tmp_path):
    config, stats = make_config(), make_stats()
    for values in stats.values():
        values["std"][4] = 0.0
    pre, post = save_and_load(make_pre_post_processors(config, dataset_stats=stats), tmp_path, config)
    observation = make_observation()
    observation["observation.state"][4] = 4 + 0.088  # one tick beside its mean
    torch.testing.assert_close(pre(observation)["observation.state"][0, 4], torch.tensor(0.088), rtol=1e-3, atol=0)
    assert post(torch.full((1, 6), 0.3))[0, 4] == 4


def test_pipelines_of_action_tokens_leave_robot_units_and_clamp(tmp_path):
    """The action tokenizer does the scaling; its ids must mean the same in every later training."""
    config, stats = make_fast_config(), make_stats()
    stats["action"] |= {"min": torch.full((6,), -2.0), "max": torch.full((6,), 3.0)}
    pre, post = save_and_load(make_pre_post_processors(config, dataset_stats=stats), tmp_path, config)
    observation = {**make_observation(), "action": torch.full((8, 6), 2.5)}
    batch = pre(observation)
    assert torch.equal(batch["observation.state"][0], observation["observation.state"])
    assert torch.equal(batch["action"].reshape(8, 6), observation["action"])
    assert post(torch.tensor([[-9.0, -1.0, 0.0, 1.0, 2.5, 9.0]])).tolist() == [[-2.0, -1.0, 0.0, 1.0, 2.5, 3.0]]


class TestClamp:
    @pytest.fixture
    def config(self):
        return make_config()

    @staticmethod
    def with_span(low: float, high: float) -> dict:
        stats = make_stats()
        stats["action"] |= {"min": torch.full((6,), low), "max": torch.full((6,), high)}
        return stats

    @pytest.mark.parametrize("shape", [(6,), (1, 6), (3, 6), (1, 8, 6), (3, 8, 6)])
    def test_actions_batches_and_chunks_stay_inside_the_span_of_each_joint(self, shape, config, tmp_path):
        stats = self.with_span(-2.0, 3.0)
        stats["action"]["max"][5] = 1.0
        _, post = save_and_load(make_pre_post_processors(config, dataset_stats=stats), tmp_path, config)
        free = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
        expected = (free * 2 + torch.arange(6)).clamp(torch.tensor(-2.0), stats["action"]["max"])
        torch.testing.assert_close(post(free), expected)
        assert post(free)[..., 5].max() <= 1.0

    def test_the_span_follows_the_statistics_that_lerobot_overrides(self, config, tmp_path):
        override = {
            "stats": self.with_span(-50.0, 60.0),
            "features": config.output_features,
            "norm_map": config.normalization_mapping,
        }
        pipelines = make_pre_post_processors(config, dataset_stats=self.with_span(-2.0, 3.0))
        _, post = save_and_load(
            pipelines, tmp_path, config, postprocessor_overrides={"unnormalizer_processor": override}
        )
        assert post(torch.full((1, 6), 1e6)).tolist() == [[60.0] * 6]
        assert post(torch.full((1, 6), -1e6)).tolist() == [[-50.0] * 6]

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_one_value_that_is_not_finite_stops_the_whole_chunk(self, value, config):
        _, post = make_pre_post_processors(config, dataset_stats=self.with_span(-2.0, 3.0))
        chunk = torch.zeros(1, 8, 6)
        chunk[0, 7, 3] = value
        with pytest.raises(ValueError, match="not finite"):
            post(chunk)

    def test_statistics_without_a_span_clamp_nothing_and_say_so_once(self, config, caplog):
        _, post = make_pre_post_processors(config, dataset_stats=make_stats())
        for _ in range(3):
            assert post(torch.full((1, 6), 1e6)).min() > 1e6
        assert caplog.text.count("NOT clamped") == 1

    @pytest.mark.parametrize(("name", "value"), [("max", [0.0] * 5), ("min", [float("nan")] * 6)])
    def test_a_broken_span_is_refused(self, name, value, config):
        stats = self.with_span(-2.0, 3.0)
        stats["action"][name] = torch.tensor(value)
        _, post = make_pre_post_processors(config, dataset_stats=stats)
        with pytest.raises(ValueError, match=rf"statistics of action: .*{name}"):
            post(torch.zeros(1, 6))


class TestStatistics:
    def test_lerobots_own_normaliser_passes_unnormalised_values_on(self):
        """The fault that the strict step is there for; when LeRobot mends it, the step can go."""
        step = NormalizerProcessorStep(features=FEATURES, norm_map=MEAN_STD, stats={})
        value = torch.tensor([5.0, 5.0])
        assert step({"action": value})["action"] is value

    @pytest.mark.parametrize(
        ("stats", "message"),
        [
            ({}, "no statistics for action; there are some for: nothing"),
            (
                {"so100.buffer.action": {}},
                r"keyed by data set \(so100\.buffer\.action\): select one explicitly",
            ),
            ({"action": {"min": [0, 0]}}, "expected mean, there are: min"),
            ({"action": {"mean": [0, float("nan")], "std": [1, 1]}}, "mean is not finite"),
            ({"action": {"mean": [0, 0], "std": [1, float("inf")]}}, "std is not finite"),
            ({"action": {"mean": [0, 0, 0], "std": [1, 1, 1]}}, "expected 2 values of mean, got 3"),
        ],
    )
    def test_refusals(self, stats, message):
        with pytest.raises(ValueError, match=message):
            check_statistics(FEATURES, MEAN_STD, stats)

    def test_a_fresh_policy_is_refused_before_it_is_trained(self):
        with pytest.raises(ValueError, match=r"no statistics for observation\.state"):
            make_pre_post_processors(make_config(), dataset_stats={})

    def test_a_checkpoint_that_lost_them_is_refused_at_the_first_observation(self, tmp_path):
        from safetensors.torch import save_file

        config = make_config()
        for pipeline in make_pre_post_processors(config, dataset_stats=make_stats()):
            pipeline.save_pretrained(tmp_path)
        for path in tmp_path.glob("policy_*processor_step_[05].safetensors"):
            save_file({"so100.buffer.action.mean": torch.zeros(6), "so100.buffer.action.std": torch.ones(6)}, path)
        pre, post = make_pre_post_processors(config, str(tmp_path))
        with pytest.raises(ValueError, match=r"no statistics for observation\.state"):
            pre(make_observation())
        with pytest.raises(ValueError, match="select one explicitly"):
            post(torch.zeros(1, 6))

    def test_selecting_one_data_set(self):
        stats = {f"{d}.buffer.{k}": {"mean": d} for d in ("so100", "so101") for k in ("action", "observation.state")}
        assert select_statistics(stats, "so101") == {k: {"mean": "so101"} for k in ("action", "observation.state")}
        with pytest.raises(ValueError, match=r"no statistics of data set 'koch'; there are: so100\.buffer\.action"):
            select_statistics(stats, "koch")
