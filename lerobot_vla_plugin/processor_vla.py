"""Pre- and post-processing pipelines and the processor steps they are made of.

Checkpoints store steps by registry name: a name used here is for ever.
"""

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lerobot.configs import (
    FeatureType,
    PipelineFeatureType,
    PolicyFeature,
    PreTrainedConfig,
)
from lerobot.processor import (
    NewLineTaskProcessorStep,
    NormalizerProcessorStep,
    ObservationProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    ProcessorStepRegistry,
    TransitionKey,
    UnnormalizerProcessorStep,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)
from lerobot.utils.constants import (
    ACTION,
    OBS_LANGUAGE_ATTENTION_MASK,
    OBS_LANGUAGE_TOKENS,
    POLICY_PREPROCESSOR_DEFAULT_NAME,
)
from tokenizers import Tokenizer
from torch import Tensor

from .config_base import VLAConfig
from .configuration_vla import VLAFastConfig, VLAFlowConfig
from .feature_statistics import Statistics, check_statistics, check_vector

logger = logging.getLogger(__name__)

# Far below what one encoder tick does to any joint that moves, far above rounding.
_SMALLEST_STD = 1e-5


def _zeros_to_ones(std: Any) -> Tensor:
    std = torch.as_tensor(std)
    return torch.where(std > _SMALLEST_STD, std, torch.ones_like(std))


class _StrictStatistics:
    """Checks the statistics whenever they may have changed, at the latest when the first value passes."""

    _checked_stats: Any = None

    def _apply_transform(self, tensor: Tensor, key: str, *args, **kwargs) -> Tensor:
        if self._checked_stats is not self.stats:
            check_statistics(self.features, self.norm_map, self.stats)
            self._prepare_statistics()
            self._checked_stats = self.stats
        return super()._apply_transform(tensor, key, *args, **kwargs)

    def _prepare_statistics(self) -> None:
        """Adjust statistics that have just been checked."""


# LeRobot's commands override the steps `normalizer_processor` and `unnormalizer_processor` by name and fail where they
# are absent. Those registry names are taken by LeRobot's own classes; a step without a registry name goes by its class
# name, hence these.
@dataclass
class normalizer_processor(_StrictStatistics, NormalizerProcessorStep):  # noqa: N801
    """LeRobot's normaliser, but missing or broken statistics are an error, and a joint that never moved stays small."""

    _registry_name = None

    def _prepare_statistics(self) -> None:
        """Divide by 1 instead of almost 0: one tick beside its place, a still joint would come out as millions."""
        self.stats = {
            key: {name: _zeros_to_ones(value) if name == "std" else value for name, value in values.items()}
            for key, values in self.stats.items()
        }
        self.to(self.device, self.dtype)


@dataclass
class unnormalizer_processor(_StrictStatistics, UnnormalizerProcessorStep):  # noqa: N801
    """LeRobot's unnormaliser, but missing or broken statistics are an error, and no action leaves the trained span.

    The last step before any arm, LeRobot's own included: an action, a batch of them or a chunk is clamped on its last
    axis to the smallest and largest recorded action of each joint. The span is part of the statistics, so it follows
    the data in fine-tuning. Statistics of old checkpoints may hold none; then nothing is clamped, and this is said.

    Raises:
        ValueError: If an action is not finite.
    """

    _registry_name = None

    def _apply_transform(self, tensor: Tensor, key: str, *args, **kwargs) -> Tensor:
        value = super()._apply_transform(tensor, key, *args, **kwargs)
        if key != ACTION:
            return value
        if not torch.isfinite(value).all():
            raise ValueError("the policy predicted actions that are not finite; none of them is sent to the arm")
        span = self._tensor_stats.get(ACTION, {})
        return value.clamp(span["min"].to(value), span["max"].to(value)) if "min" in span and "max" in span else value

    def _prepare_statistics(self) -> None:
        """Check the span; LeRobot checks only what it normalises with."""
        stats = self.stats.get(ACTION, {})
        if "min" not in stats or "max" not in stats:
            logger.warning(
                "The statistics of this checkpoint hold no smallest and largest action: its actions are NOT clamped to "
                "the trained span. Train on with --policy.path to get them, or use an arm with limits of its own"
            )
            return
        check_vector(stats, "min", ACTION, self.features[ACTION])
        check_vector(stats, "max", ACTION, self.features[ACTION])


@ProcessorStepRegistry.register(name="vla_task_tokenizer")
@dataclass
class TaskTokenizerStep(ObservationProcessorStep):
    """Turn the task string into token ids, with a tokenizer that travels inside the checkpoint.

    LeRobot's own step stores the tokenizer's hub name and needs network to load. This one keeps the tokenizer itself
    (the text of `tokenizer.json`) in the step's state, which LeRobot saves beside the pipeline as safetensors.

    Attributes:
        max_length: Longest prompt, in tokens; what is longer is cut.
        padding: "longest" of the batch, or "max_length".
        pad_token: The token that pads.
        tokenizer_json: Text of the tokenizer; empty until a checkpoint's state is loaded.
    """

    max_length: int
    pad_token: str
    padding: str = "longest"
    tokenizer_json: str = ""
    _tokenizer: Tokenizer | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.tokenizer_json:
            self._load()

    def _load(self) -> None:
        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        pad_id = tokenizer.token_to_id(self.pad_token)
        if pad_id is None:
            raise ValueError(f"the tokenizer has no token {self.pad_token!r} to pad with")
        tokenizer.enable_truncation(self.max_length)
        tokenizer.enable_padding(
            pad_id=pad_id,
            pad_token=self.pad_token,
            length=self.max_length if self.padding == "max_length" else None,
        )
        self._tokenizer = tokenizer

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Add token ids and attention mask, (b, t) each, on the device of the observation."""
        if self._tokenizer is None:
            raise ValueError("the checkpoint's task tokenizer was not loaded; its .safetensors state is missing")
        task = (self.transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}).get("task")
        if isinstance(task, str):
            task = [task]
        if not task or not all(text.strip() for text in task):
            raise ValueError(
                "this policy needs an instruction; pass --task='...' (or record with --dataset.single_task)"
            )
        encodings = self._tokenizer.encode_batch(list(task))
        device = next((v.device for v in observation.values() if isinstance(v, Tensor)), None)
        ids = torch.tensor([e.ids for e in encodings], device=device)
        mask = torch.tensor([e.attention_mask for e in encodings], dtype=torch.bool, device=device)
        return {**observation, OBS_LANGUAGE_TOKENS: ids, OBS_LANGUAGE_ATTENTION_MASK: mask}

    def get_config(self) -> dict[str, Any]:
        return {"max_length": self.max_length, "pad_token": self.pad_token, "padding": self.padding}

    def state_dict(self) -> dict[str, Tensor]:
        return {"tokenizer_json": torch.frombuffer(bytearray(self.tokenizer_json.encode()), dtype=torch.uint8)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.tokenizer_json = state["tokenizer_json"].cpu().numpy().tobytes().decode()
        self._load()

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        language = PolicyFeature(type=FeatureType.LANGUAGE, shape=(self.max_length,))
        for key in (OBS_LANGUAGE_TOKENS, OBS_LANGUAGE_ATTENTION_MASK):
            features[PipelineFeatureType.OBSERVATION].setdefault(key, language)
        return features


def make_task_tokenizer(config: VLAConfig) -> TaskTokenizerStep:
    """The tokenizer step for a configuration's backbone."""
    carried = _carried_tokenizer(config.init_from) if config.init_from else None
    if carried is not None:
        return replace(carried, max_length=config.tokenizer_max_length, padding=config.pad_language_to)
    # Imported here because it brings transformers, which registering the steps does not need.
    from .pretrained import load_tokenizer

    tokenizer = load_tokenizer(config.vlm_model_name)
    return TaskTokenizerStep(
        max_length=config.tokenizer_max_length,
        pad_token=str(tokenizer.pad_token),
        padding=config.pad_language_to,
        tokenizer_json=tokenizer.backend_tokenizer.to_str(),
    )


def _carried_tokenizer(checkpoint: str) -> Any:
    """The `TaskTokenizerStep` inside a checkpoint of this package; None for LeRobot's own, which carry no tokenizer."""
    config: object = PreTrainedConfig.from_pretrained(checkpoint)
    if not isinstance(config, VLAConfig):
        return None
    pipeline = PolicyProcessorPipeline.from_pretrained(
        checkpoint, config_filename=f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json"
    )
    return next(step for step in pipeline.steps if isinstance(step, TaskTokenizerStep))


Pipelines = tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
    PolicyProcessorPipeline[PolicyAction, PolicyAction],
]


def make_vla_flow_pre_post_processors(config: VLAFlowConfig, dataset_stats: Statistics | None = None) -> Pipelines:
    """Pipelines of a fresh `vla_flow`; see `_make_pipelines`."""
    return _make_pipelines(config, dataset_stats)


def make_vla_fast_pre_post_processors(config: VLAFastConfig, dataset_stats: Statistics | None = None) -> Pipelines:
    """Pipelines of a fresh `vla_fast`, which leave states and actions in robot units; see `_make_pipelines`."""
    return _make_pipelines(config, dataset_stats)


def _make_pipelines(config: VLAConfig, dataset_stats: Statistics | None) -> Pipelines:
    """Build the pipelines of a fresh policy.

    Args:
        config: Policy configuration with its features set.
        dataset_stats: Statistics of the training data.

    Returns:
        The pre-processor (rename, batch, tokenize, device, normalise) and the post-processor (unnormalise, cpu).

    Raises:
        ValueError: If statistics are missing or not finite.
    """
    stats = dataset_stats or {}
    features = {**(config.input_features or {}), **(config.output_features or {})}
    norm_map = {FeatureType(kind): mode for kind, mode in config.normalization_mapping.items()}
    check_statistics(features, norm_map, stats)
    steps = make_default_policy_processor_steps(config, stats)
    return make_policy_processor_pipelines(
        input_steps=[
            steps.rename_observations,
            steps.add_batch_dim,
            NewLineTaskProcessorStep(),
            make_task_tokenizer(config),
            steps.to_device,
            normalizer_processor(features=features, norm_map=norm_map, stats=stats),
        ],
        output_steps=[
            unnormalizer_processor(features=config.output_features, norm_map=norm_map, stats=stats),
            steps.to_cpu,
        ],
    )
