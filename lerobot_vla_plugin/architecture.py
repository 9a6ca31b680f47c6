"""The architecture of a checkpoint, as the configuration of the policy that starts from it."""

from .config_base import VLAConfig
from .configuration_vla import VLAFlowConfig
from .pretrained import PolicyCheckpoint


def flow_config_from(checkpoint: PolicyCheckpoint) -> VLAFlowConfig:
    """Configuration under which a checkpoint runs as `vla_flow`, with its own features."""
    config = checkpoint.config
    if isinstance(config, VLAFlowConfig):
        return config
    converted = VLAFlowConfig(
        input_features=dict(config.input_features or {}),
        output_features=dict(config.output_features or {}),
        normalization_mapping=dict(config.normalization_mapping),
        device=config.device,
        n_action_steps=config.n_action_steps,
        empty_cameras=config.empty_cameras,
        freeze_vision_encoder=config.freeze_vision_encoder,
        train_expert_only=config.train_expert_only,
        train_state_proj=config.train_state_proj,
        chunk_size=config.chunk_size,
    )
    adopt_architecture(converted, checkpoint)
    return converted


_BACKBONE = ("max_state_dim", "resize_imgs_with_padding", "tokenizer_max_length", "vlm_model_name")
_EXPERT = ("max_action_dim", "expert_width_multiplier", "min_period", "max_period", "num_steps")


def adopt_architecture(config: VLAFlowConfig, checkpoint: PolicyCheckpoint) -> None:
    """Give a configuration the architecture of the checkpoint whose weights it is to start from.

    Raises:
        ValueError: If the checkpoint uses something this package does not have.
    """
    adopt_backbone(config, checkpoint)
    source = checkpoint.config
    _adopt_relative_actions(config, checkpoint)
    for name in _EXPERT:
        setattr(config, name, getattr(source, name))
    if isinstance(source, VLAFlowConfig):
        config.num_expert_layers = source.num_expert_layers
        config.self_attn_every_n_layers = source.self_attn_every_n_layers
        config.prediction = source.prediction
        return
    config.num_expert_layers = source.num_expert_layers if source.num_expert_layers > 0 else None
    config.prediction = "velocity"
    config.self_attn_every_n_layers = max(source.self_attn_every_n_layers, 0) if "cross" in source.attention_mode else 1


def _adopt_relative_actions(config: VLAFlowConfig, checkpoint: PolicyCheckpoint) -> None:
    """Go on with the chunks that the weights know: distances at their own scales, or places."""
    source = checkpoint.config
    if not getattr(source, "relative_actions", False):
        if config.relative_actions:
            raise ValueError(
                f"relative_actions=true, but {checkpoint.name} was trained on positions, not on distances; leave the "
                "option out, or start without --policy.init_from"
            )
        return
    if config.chunk_size != source.chunk_size:
        raise ValueError(
            f"chunk_size={config.chunk_size}, but {checkpoint.name} has a scale for each of {source.chunk_size} steps; "
            f"set --policy.chunk_size={source.chunk_size}"
        )
    config.relative_actions = True
    config.normalization_mapping = dict(source.normalization_mapping)


def adopt_backbone(config: VLAConfig, checkpoint: PolicyCheckpoint) -> None:
    """Give a configuration the backbone of the checkpoint whose weights it is to start from.

    Raises:
        ValueError: If the checkpoint uses something this package does not have.
    """
    source = checkpoint.config
    for name in _BACKBONE:
        setattr(config, name, getattr(source, name))
    if isinstance(source, VLAConfig):
        config.num_vlm_layers = source.num_vlm_layers
        return
    unsupported = [name for name in ("adapt_to_pi_aloha", "add_image_special_tokens") if getattr(source, name)]
    if unsupported:
        raise ValueError(
            f"{checkpoint.name} was trained with {', '.join(unsupported)}; {config.type} has no such thing"
        )
    available = checkpoint.backbone_config.text_config.num_hidden_layers
    config.num_vlm_layers = min(source.num_vlm_layers, available) if source.num_vlm_layers > 0 else available
