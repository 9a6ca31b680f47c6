"""Reading weights, configurations and tokenizers from folders and from the hub, without guessing.

Three layouts are understood: a VLM (`config.json` + safetensors, as transformers writes it), a checkpoint of this
package (which carries its backbone's configuration in `backbone/`, and a `vla_fast` one its action tokenizer in
`action_tokenizer/`), and a `smolvla` checkpoint as LeRobot writes it.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
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
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMConfig

from .config_base import Conventions, VLAConfig
from .configuration_vla import VLAFastConfig
from .models.backbone import VLMBackbone
from .models.built_in import GEOMETRIES, byte_tokenizer

logger = logging.getLogger(__name__)

BACKBONE_FOLDER = "backbone"
TOKENIZER_FOLDER = "action_tokenizer"
_REMEDY = (
    f"expected one that is built in ({', '.join(GEOMETRIES)}), a local folder, or a name on the Hugging Face hub. "
    "Without network, download it once elsewhere (`hf download <name> --local-dir <folder>`) and name the folder"
)


@dataclass(frozen=True)
class PolicyCheckpoint:
    """A policy checkpoint on disk.

    Attributes:
        name: Where it came from, for messages.
        config: Its configuration as LeRobot parsed it.
        backbone_config: Geometry of its VLM.
        weights: Path of its safetensors file.
        action_tokenizer: Folder of its action tokenizer; None for a policy that has none.
    """

    name: str
    config: PreTrainedConfig
    backbone_config: SmolVLMConfig
    weights: Path
    action_tokenizer: Path | None = None

    @property
    def conventions(self) -> Conventions:
        """How its backbone was trained."""
        return self.config.conventions if isinstance(self.config, VLAConfig) else "smolvla"


def _from_hub_or_folder[T](name: str, option: str, load: Callable[[str], T]) -> T:
    """Call a transformers loader and turn its many errors into one that says what to do."""
    try:
        return load(name)
    except (OSError, ValueError, HFValidationError) as error:
        raise ValueError(f"{option}={name!r} could not be read: {_REMEDY}. Cause: {error}") from error


def load_backbone_config(name: str) -> SmolVLMConfig:
    """Geometry of the VLM `name` (one that is built in, a folder or a hub name).

    Raises:
        ValueError: If there is no such VLM, or it is of another family.
    """
    if name in GEOMETRIES:
        return GEOMETRIES[name]()
    config = _from_hub_or_folder(name, "vlm_model_name", AutoConfig.from_pretrained)
    if not isinstance(config, SmolVLMConfig):
        raise ValueError(f"vlm_model_name={name!r}: expected a model of type 'smolvlm', got {config.model_type!r}")
    return config


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Text tokenizer of the VLM `name`."""
    if name in GEOMETRIES:
        return byte_tokenizer()
    return _from_hub_or_folder(name, "vlm_model_name", AutoTokenizer.from_pretrained)


def load_vlm_weights(backbone: VLMBackbone, name: str) -> Tensor | None:
    """Fill a backbone with the pretrained weights of the VLM `name`.

    Returns:
        Weight of the VLM's own head, (vocabulary, width); None where it is the word embedding, or not published.

    Raises:
        ValueError: If they cannot be read or are incomplete; a backbone is never left random by accident.
    """
    # With `output_loading_info` there are two results, which its signature does not say.
    load: Callable[..., Any] = AutoModelForImageTextToText.from_pretrained
    vlm, loading = _from_hub_or_folder(
        name,
        "vlm_model_name",
        lambda source: load(source, use_safetensors=True, dtype="auto", output_loading_info=True),
    )
    missing = set(loading["missing_keys"]) - {_HEAD}
    if missing:
        raise ValueError(f"the weights of {name} are incomplete; missing are {', '.join(sorted(missing)[:12])}")
    unread = tuple(
        f"text_model.layers.{i}."
        for i in range(len(backbone.text_model.layers), vlm.config.text_config.num_hidden_layers)
    )
    weights = {key: value for key, value in vlm.model.state_dict().items() if not key.startswith(unread)}
    load_weights(backbone, weights, name)
    return None if _HEAD in loading["missing_keys"] else vlm.lm_head.weight.detach()


_HEAD = "lm_head.weight"
_CHUNK_REGRESSOR = "chunk_regressor."


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


def read_checkpoint(
    name: str | Path, types: Sequence[str], revision: str | None = None, **hub_options
) -> PolicyCheckpoint:
    """Find a policy checkpoint in a folder or on the hub.

    Args:
        name: Folder or hub name.
        types: Policies whose checkpoint it may be.
        revision: Branch, tag or commit on the hub.
        **hub_options: Passed to `hf_hub_download` (token, cache_dir, force_download, local_files_only, ...).

    Raises:
        ValueError: If it is not there, or is the checkpoint of another kind of policy.
    """

    def find(filename: str) -> Path:
        return _find_file(str(name), filename, revision=revision, **hub_options)

    find(CONFIG_NAME)
    config = PreTrainedConfig.from_pretrained(name, revision=revision, **hub_options)
    if config.type not in types:
        raise ValueError(f"{name}: expected a checkpoint of type {' or '.join(types)}, got {config.type!r}")
    weights = find(SAFETENSORS_SINGLE_FILE)
    if isinstance(config, VLAConfig):
        path = find(f"{BACKBONE_FOLDER}/{CONFIG_NAME}")
        try:
            backbone_config = SmolVLMConfig.from_dict(json.loads(path.read_text()))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no JSON ({error}); was the copy cut short?") from error
    else:
        backbone_config = load_backbone_config(config.vlm_model_name)
    action_tokenizer = None
    if isinstance(config, VLAFastConfig):
        files = (f"{TOKENIZER_FOLDER}/*",)
        folder = find_folder(str(name), "the checkpoint", files, revision=revision, **hub_options)
        action_tokenizer = folder / TOKENIZER_FOLDER
    return PolicyCheckpoint(str(name), config, backbone_config, weights, action_tokenizer)


def _find_file(name: str, filename: str, **hub_options) -> Path:
    if Path(name).is_dir():
        path = Path(name) / filename
        if not path.is_file():
            present = ", ".join(sorted(p.name for p in Path(name).iterdir())) or "nothing"
            raise ValueError(f"{name} holds no {filename}; it holds: {present}")
        return path
    return _from_hub(lambda: hf_hub_download(name, filename, **hub_options), f"{name!r}", filename)


def find_folder(name: str, option: str, patterns: Sequence[str], **hub_options) -> Path:
    """A folder on this machine, or its copy of a repository on the hub.

    Args:
        name: Folder or hub name.
        option: What named it, for messages.
        patterns: Files that are needed of a repository.
        **hub_options: Passed to `snapshot_download`.

    Raises:
        ValueError: There is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    patterns = list(patterns)
    return _from_hub(
        lambda: snapshot_download(name, allow_patterns=patterns, **hub_options), f"{option}={name!r}", "its files"
    )


def _from_hub(download: Callable[[], str], name: str, wanted: str) -> Path:
    try:
        return Path(download())
    except (EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ValueError(
            f"{name}: no such folder, and {wanted} could not be fetched from the hub under that name. Remedy: name "
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


def weights_to_start_from(policy: nn.Module, checkpoint: PolicyCheckpoint) -> dict[str, Tensor]:
    """Weights of a checkpoint to start training from; its regressor's only where the policy has one of that shape.

    That one is of as many cameras, joints and steps as were trained on, and learns anew within minutes.
    """
    weights, own = policy_weights(checkpoint), policy.state_dict()

    def split(values: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        head = {key: value for key, value in values.items() if key.startswith(_CHUNK_REGRESSOR)}
        return head, {key: value for key, value in values.items() if key not in head}

    (own_head, _), (head, others) = split(own), split(weights)
    fits = {key: value.shape for key, value in own_head.items()} == {key: value.shape for key, value in head.items()}
    return weights if fits else others | own_head


def select_weights(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Weights of one module of a policy, under the names that it knows itself."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _own_name(smolvla_name: str) -> str:
    for old, new in _SMOLVLA_PREFIXES.items():
        if smolvla_name.startswith(old):
            return new + smolvla_name.removeprefix(old)
    return smolvla_name
