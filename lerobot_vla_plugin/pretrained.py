"""Reading weights, configurations and tokenizers from folders and from the hub, without guessing.

Three layouts are understood: a VLM (`config.json` + safetensors, as transformers writes it), a `vla_flow` checkpoint
(which carries its backbone's configuration in `backbone/`), and a `smolvla` checkpoint as LeRobot writes it.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from lerobot.configs import PreTrainedConfig
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMConfig

from .configuration_vla import TINY_BACKBONE, VLAConfig, VLAFlowConfig
from .models.backbone import VLMBackbone
from .models.tiny import tiny_config, tiny_tokenizer

logger = logging.getLogger(__name__)

BACKBONE_FOLDER = "backbone"
_REMEDY = (
    "expected 'tiny' (built in), a local folder, or a name on the Hugging Face hub. Without network, download it once "
    "elsewhere (`hf download <name> --local-dir <folder>`) and name the folder"
)


@dataclass(frozen=True)
class PolicyCheckpoint:
    """A policy checkpoint on disk.

    Attributes:
        name: Where it came from, for messages.
        config: Its configuration as LeRobot parsed it (`vla_flow` or `smolvla`).
        backbone_config: Geometry of its VLM.
        weights: Path of its safetensors file.
    """

    name: str
    config: PreTrainedConfig
    backbone_config: SmolVLMConfig
    weights: Path


def _from_hub_or_folder[T](name: str, option: str, load: Callable[[str], T]) -> T:
    """Call a transformers loader and turn its many errors into one that says what to do."""
    try:
        return load(name)
    except (OSError, ValueError, HFValidationError) as error:
        raise ValueError(f"{option}={name!r} could not be read: {_REMEDY}. Cause: {error}") from error


def load_backbone_config(name: str) -> SmolVLMConfig:
    """Geometry of the VLM `name` ("tiny", a folder or a hub name).

    Raises:
        ValueError: If there is no such VLM, or it is of another family.
    """
    if name == TINY_BACKBONE:
        return tiny_config()
    config = _from_hub_or_folder(name, "vlm_model_name", AutoConfig.from_pretrained)
    if not isinstance(config, SmolVLMConfig):
        raise ValueError(f"vlm_model_name={name!r}: expected a model of type 'smolvlm', got {config.model_type!r}")
    return config


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Text tokenizer of the VLM `name`."""
    if name == TINY_BACKBONE:
        return tiny_tokenizer()
    return _from_hub_or_folder(name, "vlm_model_name", AutoTokenizer.from_pretrained)


def load_vlm_weights(backbone: VLMBackbone, name: str) -> None:
    """Fill a backbone with the pretrained weights of the VLM `name`.

    Raises:
        ValueError: If they cannot be read; a backbone is never left random by accident.
    """
    vlm = _from_hub_or_folder(
        name,
        "vlm_model_name",
        lambda source: AutoModel.from_pretrained(source, use_safetensors=True, dtype="auto"),
    )
    unread = tuple(
        f"text_model.layers.{i}."
        for i in range(len(backbone.text_model.layers), vlm.config.text_config.num_hidden_layers)
    )
    weights = {key: value for key, value in vlm.state_dict().items() if not key.startswith(unread)}
    load_weights(backbone, weights, name)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a module.

    Raises:
        ValueError: If a weight is missing, left over, or of another shape. Nothing is copied then.
    """
    own = module.state_dict()
    problems = [f"missing: {key}" for key in own.keys() - weights.keys()]
    problems += [f"unexpected: {key}" for key in weights.keys() - own.keys()]
    problems += [
        f"{key}: expected shape {tuple(own[key].shape)}, got {tuple(weights[key].shape)}"
        for key in own.keys() & weights.keys()
        if own[key].shape != weights[key].shape
    ]
    if problems:
        shown = "\n  ".join(sorted(problems)[:12])
        raise ValueError(
            f"the weights of {source} do not fit this policy; {len(problems)} differences:\n  {shown}\n"
            "Remedy: load a checkpoint of the same architecture, or leave options that change it "
            "(num_vlm_layers, expert_width_multiplier, max_state_dim, ...) as the checkpoint has them"
        )
    module.load_state_dict(weights)


def read_checkpoint(name: str | Path, revision: str | None = None, **hub_options) -> PolicyCheckpoint:
    """Find a `vla_flow` or `smolvla` checkpoint in a folder or on the hub.

    Args:
        name: Folder or hub name.
        revision: Branch, tag or commit on the hub.
        **hub_options: Passed to `hf_hub_download` (token, cache_dir, force_download, local_files_only, ...).

    Raises:
        ValueError: If it is not there, or is the checkpoint of another kind of policy.
    """

    def find(filename: str) -> Path:
        return _find_file(str(name), filename, revision=revision, **hub_options)

    find(CONFIG_NAME)
    config = PreTrainedConfig.from_pretrained(name, revision=revision, **hub_options)
    if config.type not in ("vla_flow", "smolvla"):
        raise ValueError(f"{name}: expected a checkpoint of type vla_flow or smolvla, got {config.type!r}")
    weights = find(SAFETENSORS_SINGLE_FILE)
    if isinstance(config, VLAConfig):
        backbone = json.loads(find(f"{BACKBONE_FOLDER}/{CONFIG_NAME}").read_text())
        backbone_config = SmolVLMConfig.from_dict(backbone)
    else:
        backbone_config = load_backbone_config(config.vlm_model_name)
    return PolicyCheckpoint(str(name), config, backbone_config, weights)


def _find_file(name: str, filename: str, **hub_options) -> Path:
    if Path(name).is_dir():
        path = Path(name) / filename
        if not path.is_file():
            present = ", ".join(sorted(p.name for p in Path(name).iterdir())) or "nothing"
            raise ValueError(f"{name} holds no {filename}; it holds: {present}")
        return path
    try:
        return Path(hf_hub_download(name, filename, **hub_options))
    except (EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ValueError(
            f"{name!r}: no such folder, and {filename} could not be fetched from the hub under that name. Remedy: name "
            f"a checkpoint folder, or download it where there is network. Cause: {error}"
        ) from error


# A SmolVLA checkpoint nests the VLM and the expert in one module and stores two things nobody reads.
_SMOLVLA_PREFIXES = {
    "model.vlm_with_expert.vlm.model.": "model.backbone.",
    "model.vlm_with_expert.lm_expert.": "model.action_expert.",
}
_SMOLVLA_UNREAD = ("model.vlm_with_expert.vlm.lm_head.",)


def policy_weights(checkpoint: PolicyCheckpoint) -> dict[str, Tensor]:
    """Weights of a checkpoint under this package's names."""
    weights = load_file(checkpoint.weights)
    if checkpoint.config.type != "smolvla":
        return weights
    return {_own_name(key): value for key, value in weights.items() if not key.startswith(_SMOLVLA_UNREAD)}


def _own_name(smolvla_name: str) -> str:
    for old, new in _SMOLVLA_PREFIXES.items():
        if smolvla_name.startswith(old):
            return new + smolvla_name.removeprefix(old)
    return smolvla_name


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


_ARCHITECTURE = (
    "max_state_dim", "max_action_dim", "resize_imgs_with_padding", "tokenizer_max_length", "vlm_model_name",
    "expert_width_multiplier", "min_period", "max_period", "num_steps",
)  # fmt: skip


def adopt_architecture(config: VLAFlowConfig, checkpoint: PolicyCheckpoint) -> None:
    """Give a configuration the architecture of the checkpoint whose weights it is to start from.

    Raises:
        ValueError: If the checkpoint uses something this package does not have.
    """
    source = checkpoint.config
    for name in _ARCHITECTURE:
        setattr(config, name, getattr(source, name))
    if isinstance(source, VLAFlowConfig):
        config.num_vlm_layers = source.num_vlm_layers
        config.num_expert_layers = source.num_expert_layers
        config.self_attn_every_n_layers = source.self_attn_every_n_layers
        return
    unsupported = [name for name in ("adapt_to_pi_aloha", "add_image_special_tokens") if getattr(source, name)]
    if unsupported:
        raise ValueError(f"{checkpoint.name} was trained with {', '.join(unsupported)}, which vla_flow does not have")
    available = checkpoint.backbone_config.text_config.num_hidden_layers
    config.num_vlm_layers = min(source.num_vlm_layers, available) if source.num_vlm_layers > 0 else available
    config.num_expert_layers = source.num_expert_layers if source.num_expert_layers > 0 else None
    config.self_attn_every_n_layers = max(source.self_attn_every_n_layers, 0) if "cross" in source.attention_mode else 1
