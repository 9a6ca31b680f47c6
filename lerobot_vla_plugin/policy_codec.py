"""Which action tokenizer a policy speaks: its checkpoint's, one that was fitted before, or one fitted now."""

import logging
from typing import TYPE_CHECKING

from lerobot.utils.constants import ACTION, OBS_STATE
from numpy.typing import NDArray

from .action_tokenizers import load_action_tokenizer
from .action_tokenizers.chunk_codec import CODEC_FILE, ChunkCodec
from .arms.dataset_contract import feature_joint_names
from .configuration_vla import VLAFastConfig
from .pretrained import PolicyCheckpoint, find_folder
from .tokenizer_fit import FIT_DEFAULTS, summarize_fit
from .tokenizer_joints import RecordedJoints, read_joints

if TYPE_CHECKING:
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

logger = logging.getLogger(__name__)

_CHUNKS_SUMMARIZED = 1000


def choose_codec(
    config: VLAFastConfig, start: PolicyCheckpoint | None, dataset_meta: "LeRobotDatasetMetadata | None"
) -> ChunkCodec:
    """The action tokenizer that a configuration asks for; the configuration says afterwards which kind it is.

    Args:
        config: Policy configuration.
        start: Checkpoint whose weights follow, if it is to keep its tokens.
        dataset_meta: The data set to be trained on.

    Raises:
        ValueError: There is none, it is of another kind, or it does not fit the data.
    """
    if dataset_meta is not None:
        _check_joints(dataset_meta)
    if start is None and config.action_tokenizer_path is None:
        codec = _fit(config, _recorded(dataset_meta, "no action tokenizer was named"))
    else:
        codec = _named_codec(config, dataset_meta) if start is None else _codec_of(config, start)
        _check_codec(config, codec, dataset_meta)
    config.action_tokenizer, config.action_tokenizer_path = codec.tokenizer.kind, None
    return codec


def keeps_tokens(config: VLAFastConfig, start: PolicyCheckpoint) -> bool:
    """Whether a fresh policy goes on with the tokens of the checkpoint that `init_from` names."""
    source = start.config
    return (
        isinstance(source, VLAFastConfig)
        and config.action_tokenizer_path is None
        and config.action_tokenizer in (None, source.action_tokenizer)
    )


def _codec_of(config: VLAFastConfig, start: PolicyCheckpoint) -> ChunkCodec:
    if start.action_tokenizer is None or config.action_tokenizer_path is not None:
        raise ValueError(
            f"action_tokenizer_path={config.action_tokenizer_path}: the weights of {start.name} were trained on tokens "
            "of their own; leave the option out, or start a new policy with --policy.init_from"
        )
    return ChunkCodec.load(start.action_tokenizer)


def _named_codec(config: VLAFastConfig, dataset_meta: "LeRobotDatasetMetadata | None") -> ChunkCodec:
    """A codec that was fitted before, or a bare tokenizer with a scaling for this data set put around it."""
    name = str(config.action_tokenizer_path)
    folder = find_folder(name, "action_tokenizer_path", ("*.json", "*.safetensors"))
    if (folder / CODEC_FILE).is_file():
        return ChunkCodec.load(folder)
    tokenizer = load_action_tokenizer(folder)
    recorded = _recorded(dataset_meta, f"{name} holds a tokenizer without the scaling of any arm")
    actions, states = recorded.chunks(config.chunk_size)
    codec = ChunkCodec.around(tokenizer, actions, states, recorded.joint_names).with_span(*recorded.span)
    _log_summary(codec, actions, states)
    return codec


def _fit(config: VLAFastConfig, recorded: RecordedJoints) -> ChunkCodec:
    actions, states = recorded.chunks(config.chunk_size)
    kind = config.action_tokenizer or "fast"
    logger.info("Fitting an action tokenizer (%s) to %d chunks of %s", kind, len(actions), recorded.source)
    # LeRobot silences this level in all processes but the main one, which should not draw bars, either.
    show_progress = logger.isEnabledFor(logging.INFO)
    options = FIT_DEFAULTS[kind]
    codec = ChunkCodec.fit(actions, states, recorded.joint_names, kind, show_progress=show_progress, **options)
    codec = codec.with_span(*recorded.span)
    _log_summary(codec, actions, states)
    return codec


def _recorded(dataset_meta: "LeRobotDatasetMetadata | None", why: str) -> RecordedJoints:
    """The recorded joints, all episodes of them, as LeRobot's own statistics are of all episodes."""
    remedy = "fit one with `lerobot-vla tokenizer fit` and name its folder: --policy.action_tokenizer_path=..."
    if dataset_meta is None:
        raise ValueError(f"{why}, and there is no data set to fit one to; {remedy}")
    try:
        return read_joints(dataset_meta.repo_id, dataset_meta.root)
    except FileNotFoundError as error:
        raise ValueError(f"{why}, and the data set is not on this disk ({error}); {remedy}") from error


def _log_summary(codec: ChunkCodec, actions: NDArray, states: NDArray) -> None:
    every = -(-len(actions) // _CHUNKS_SUMMARIZED)
    summary = summarize_fit(codec, actions[::every], states[::every])
    logger.info(
        "Action tokenizer: %s, %d ids; %.1f tokens a chunk of %d steps (longest %d); error %.3g in robot units "
        "(largest %.3g)",
        codec.tokenizer.kind,
        summary.vocab_size,
        summary.tokens_mean,
        codec.chunk_size,
        summary.tokens_max,
        summary.error_mean,
        summary.error_max,
    )


def _check_codec(config: VLAFastConfig, codec: ChunkCodec, dataset_meta: "LeRobotDatasetMetadata | None") -> None:
    kind = codec.tokenizer.kind
    if config.action_tokenizer not in (None, kind):
        raise ValueError(f"action_tokenizer={config.action_tokenizer}, but the one that is there is {kind!r}; say that")
    low, high, names = codec.scaling.span_low, codec.scaling.span_high, list(codec.joint_names)
    if dataset_meta is not None:
        names = feature_joint_names(dataset_meta.features[ACTION])
        statistics = (dataset_meta.stats or {}).get(ACTION, {})
        low, high = statistics.get("min", low), statistics.get("max", high)
    codec.check_fits(names, config.chunk_size, low, high)
    width = config.action_feature.shape[0] if config.action_feature else 0
    if width != codec.action_dim:
        raise ValueError(f"the action tokenizer is of {codec.action_dim} joints {names}, the actions have {width}")


def _check_joints(dataset_meta: "LeRobotDatasetMetadata") -> None:
    """States are scaled like actions, and actions may be relative to them."""
    states, actions = (feature_joint_names(dataset_meta.features.get(key, {})) for key in (OBS_STATE, ACTION))
    if states != actions or not actions:
        raise ValueError(f"vla_fast needs {OBS_STATE} and {ACTION} of the same joints; got {states} and {actions}")
