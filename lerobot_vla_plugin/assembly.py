"""Putting a policy together: the model a configuration describes, what of it learns, and whether the data fit."""

import logging
from typing import TYPE_CHECKING

import torch
from lerobot.utils.constants import OBS_IMAGES
from torch import nn
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMConfig

from .arms.contract import ContractCheck, register_policy
from .arms.dataset_contract import write_contract
from .config_base import VLAConfig
from .configuration_vla import VLAFastConfig, VLAFlowConfig
from .models.backbone import VLMBackbone
from .models.flow_matching import ExpertGeometry, FlowGeometry, FlowMatchingModel
from .models.keypoints import ChunkRegressor
from .models.token_decoding import ActionTokenModel
from .pretrained import PolicyCheckpoint
from .vision_cache import VisionTokenCache

if TYPE_CHECKING:
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

logger = logging.getLogger(__name__)


def make_backbone(config: VLAConfig, backbone_config: SmolVLMConfig) -> VLMBackbone:
    """An empty backbone of the geometry that a policy configuration asks for."""
    available = backbone_config.text_config.num_hidden_layers
    default = available if config.is_scratch else available // 2
    num_layers = default if config.num_vlm_layers is None else config.num_vlm_layers
    if not 1 <= num_layers <= available:
        raise ValueError(f"num_vlm_layers={num_layers}: {config.vlm_model_name} has layers 1..{available}")
    return VLMBackbone(backbone_config, num_layers, config.gradient_checkpointing, config.conventions)


def make_flow_model(config: VLAFlowConfig, backbone: VLMBackbone) -> FlowMatchingModel:
    """The model that a configuration describes, on a given backbone."""
    num_backbone_layers = len(backbone.text_model.layers)
    expert = ExpertGeometry(
        width_multiplier=config.expert_width_multiplier,
        num_layers=config.num_expert_layers or num_backbone_layers,
        self_attention_every=config.self_attn_every_n_layers,
    )
    geometry = FlowGeometry(
        state_dim=config.state_dim,
        action_dim=config.action_dim,
        chunk_size=config.chunk_size,
        expert=expert,
        min_period=config.min_period,
        max_period=config.max_period,
        predicts_actions=config.prediction == "actions",
    )
    return FlowMatchingModel(backbone, geometry, config.gradient_checkpointing)


def freeze_flow(config: VLAFlowConfig, model: FlowMatchingModel) -> None:
    """Freeze what the configuration freezes, and what nobody reads.

    With a pretrained backbone that learns, the last layer (the last two, where the expert skips layers) stays frozen
    too, as in LeRobot's smolvla, whose checkpoints this policy continues. A backbone trained from scratch has no such
    history: only what nobody reads is frozen.
    """
    backbone = model.backbone
    if config.freezes_vision:
        backbone.vision_model.requires_grad_(False)
    if config.freezes_backbone:
        backbone.requires_grad_(False)
    backbone.text_model.norm.requires_grad_(False)
    layers = backbone.text_model.layers
    if config.is_scratch:
        num_read = model.action_expert.num_backbone_layers_read
        _freeze_unread(layers[num_read - 1])
        layers[num_read:].requires_grad_(False)
    else:
        num_frozen = 1 if len(model.action_expert.layers) == len(layers) else 2
        layers[-num_frozen:].requires_grad_(False)
    model.state_proj.requires_grad_(config.train_state_proj)


def _freeze_unread(last_layer: nn.Module) -> None:
    """Only keys and values of the last layer are read."""
    attention = last_layer.self_attn
    for module in (attention.q_proj, attention.o_proj, last_layer.mlp, last_layer.post_attention_layernorm):
        module.requires_grad_(False)


def freeze_tokens(config: VLAFastConfig, model: ActionTokenModel) -> None:
    """Freeze what the configuration freezes; token decoding reads everything."""
    backbone = model.backbone
    if config.freezes_vision:
        backbone.vision_model.requires_grad_(False)
        backbone.connector.requires_grad_(False)
    if config.freezes_backbone:
        backbone.requires_grad_(False)
    model.state_proj.requires_grad_(config.train_state_proj)


def store_frozen_in_bfloat16(model: nn.Module) -> None:
    """Halve the memory of what does not learn; what learns keeps float32 master weights."""
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)


_TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_chunk_regressor(config: VLAConfig, backbone: VLMBackbone) -> ChunkRegressor | None:
    """What guesses chunks from keypoints; None where there are none, or its loss has no weight."""
    if not config.guess_loss_weight or backbone.keypoints is None:
        return None
    num_features = backbone.keypoints.num_features(len(config.image_features) - config.empty_cameras)
    action = config.action_feature
    assert action is not None
    return ChunkRegressor(num_features, action.shape[0], config.chunk_size, config.num_guesses)


def open_vision_cache(
    config: VLAConfig,
    backbone: VLMBackbone,
    image_size: tuple[int, int],
    dataset_meta: "LeRobotDatasetMetadata | None",
) -> VisionTokenCache | None:
    """The cache of a data set's vision tokens; None where none was asked for, or there is no data set.

    Args:
        config: Policy configuration.
        backbone: Whose tokens are kept; its weights must be the final ones, because the cache is named after them.
        image_size: (width, height) that pictures are fitted into, in [pixels].
        dataset_meta: The data set to be trained on.

    Raises:
        ValueError: If the vision tower learns.
    """
    if config.vision_cache is None or dataset_meta is None:
        return None
    if not backbone.is_vision_frozen():
        raise ValueError(
            "vision_cache needs a frozen vision tower and connector: otherwise a frame's tokens change with every "
            "step. Leave --policy.vision_cache out, or --policy.train_expert_only=true with a pretrained backbone"
        )
    return VisionTokenCache(
        config.vision_cache, dataset_meta, backbone, image_size, _TORCH_DTYPES[config.vision_cache_dtype]
    )


def check_dataset(config: VLAConfig, dataset_meta: "LeRobotDatasetMetadata") -> None:
    """Refuse a data set that could not teach this policy.

    Raises:
        ValueError: If it is empty, or every episode is shorter than a chunk.
    """
    if not dataset_meta.total_frames:
        raise ValueError(f"the data set {dataset_meta.repo_id} has no frames; record some first")
    longest = max(dataset_meta.episodes["length"])
    if config.chunk_size > longest:
        raise ValueError(
            f"chunk_size={config.chunk_size} is longer than every episode of {dataset_meta.repo_id} (longest: {longest}"
            f" frames), so its last steps would never be trained; use --policy.chunk_size={longest} or less"
        )


def fix_contract(config: VLAConfig, dataset_meta: "LeRobotDatasetMetadata") -> None:
    """Write into a configuration what the policy is about to be trained on.

    What the command line said goes into the contract and is cleared: a checkpoint that carried it along would say it
    of the next data set, too.

    Raises:
        ValueError: The joint unit that was said contradicts the data set.
    """
    cameras = {
        key.removeprefix(f"{OBS_IMAGES}."): feature.shape[1:]
        for key, feature in config.image_features.items()
        if key not in config.empty_camera_keys
    }
    config.contract = write_contract(
        dataset_meta,
        cameras,
        config.joint_unit,
        config.contract,
        unit_overridden="unit" in config.contract_overrides,
    )
    config.joint_unit, config.contract_overrides = None, []


def hold_to_contract(config: VLAConfig) -> ContractCheck:
    """Announce a policy that was loaded to act; from now on it acts only on what it was trained on.

    Raises:
        ContractMismatchError: If the command line, or an arm that is connected already, contradicts the checkpoint.
    """
    check = ContractCheck(
        config.contract,
        config.joint_unit,
        config.contract_overrides,
        plans_every_call=config.n_action_steps == 1,
    )
    register_policy(check)
    return check


def log_camera_mapping(config: VLAConfig, start: PolicyCheckpoint) -> None:
    """Say which camera takes the place of which: weights know cameras by their order only."""
    own = [key for key in config.image_features if key not in config.empty_camera_keys]
    theirs = list(start.config.image_features or {})
    pairs = [f"{key} <- {theirs[i] if i < len(theirs) else 'nothing'}" for i, key in enumerate(own)]
    unused = ", ".join(theirs[len(own) :])
    logger.warning(
        "Weights from %s; cameras in the data set's order: %s%s",
        start.name,
        "; ".join(pairs),
        f"; not used: {unused}" if unused else "",
    )
