"""A checkpoint of any policy that LeRobot or a plugin knows, loaded to predict chunks from recorded frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from draccus.utils import DraccusException
from huggingface_hub.constants import CONFIG_NAME
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.constants import ACTION, OBS_STATE
from lerobot.utils.import_utils import register_third_party_plugins, require_package
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch.utils.data import default_collate

from .action_tokenizers.chunk_codec import ChunkCodec
from .action_tokens import ActionTokens

# Of LeRobot's policies: a camera that a checkpoint can do without.
_EMPTY_CAMERA = "empty_camera"


def find_checkpoint(path: Path) -> Path:
    """Folder of a checkpoint on this machine.

    Args:
        path: The folder `pretrained_model`, or the output folder of a training run: its last checkpoint.

    Raises:
        FileNotFoundError: No checkpoint is there.
    """
    candidates = [path, path / "pretrained_model", path / "checkpoints" / "last" / "pretrained_model"]
    for folder in candidates:
        if (folder / CONFIG_NAME).is_file():
            return folder
    raise FileNotFoundError(
        f"no checkpoint {path}: {CONFIG_NAME} is missing there and in {' and in '.join(map(str, candidates[1:]))}. "
        "Name the output folder of a training run, or the folder `pretrained_model` in it; one on the hub comes into a "
        "folder with: hf download <name> --local-dir=<folder>"
    )


class Prediction(NamedTuple):
    """Chunks predicted from some frames.

    Attributes:
        chunks: In robot units, (n, c, j).
        token_counts: Action tokens of each chunk, (n,); None for a policy without tokens.
    """

    chunks: NDArray[np.float64]
    token_counts: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class SavedPolicy:
    """A checkpoint as LeRobot's factory loads it.

    Attributes:
        folder: Where it lies.
        policy: In evaluation mode.
        preprocessor: Observations of the data set -> batch.
        postprocessor: Actions as the policy predicts them -> robot units.
    """

    folder: Path
    policy: PreTrainedPolicy
    preprocessor: PolicyProcessorPipeline
    postprocessor: PolicyProcessorPipeline

    @classmethod
    def load(cls, folder: Path) -> "SavedPolicy":
        """Load a checkpoint, on the device that it was trained on where this machine has it.

        Args:
            folder: As `find_checkpoint` returns it.

        Raises:
            ValueError: The checkpoint is damaged, or of a policy that this installation does not know.
        """
        register_third_party_plugins()
        try:
            config = PreTrainedConfig.from_pretrained(str(folder))
            config.pretrained_path = folder
            processors = make_pre_post_processors(
                config,
                pretrained_path=str(folder),
                preprocessor_overrides={"device_processor": {"device": config.device}},
            )
            return cls(folder, _load_policy(config, folder).eval(), *processors)
        except (ValueError, KeyError, DraccusException, SafetensorError) as error:
            raise ValueError(f"the checkpoint {folder} cannot be loaded: {error}") from error

    def check_predicts_from_one_frame(self) -> None:
        """Refuse a policy that no single frame suffices for.

        Raises:
            ValueError: The policy looks back, or predicts no chunk.
        """
        config = self.policy.config
        if config.action_delta_indices is None or config.observation_delta_indices not in (None, [0]):
            raise ValueError(
                f"the checkpoint is of a {config.type}, which predicts no chunk or needs earlier frames as well; "
                "expected a policy that predicts a chunk from one frame, as act, smolvla, vla_flow and vla_fast do"
            )

    @property
    def steps(self) -> NDArray[np.int64]:
        """Step of each action of a chunk, counted from its frame, (c,)."""
        return np.asarray(self.policy.config.action_delta_indices)

    @property
    def codec(self) -> ChunkCodec | None:
        """What turns the policy's action tokens into chunks; None for a policy without tokens of this package."""
        tokens = getattr(self.policy, "action_tokens", None)  # an adapted policy has its base's
        return tokens.codec if isinstance(tokens, ActionTokens) else None

    def check_joints(self, state_names: Sequence[str], action_names: Sequence[str]) -> None:
        """Refuse a data set of other joints than the checkpoint's.

        Args:
            state_names: Names of the data set's `observation.state`.
            action_names: Names of its `action`.

        Raises:
            ValueError: The joints differ in number or, where the checkpoint names them, in name or order.
        """
        config = self.policy.config
        trained = contract.joint_names if (contract := getattr(config, "contract", None)) else []
        if trained and trained != list(action_names):
            raise ValueError(
                f"the checkpoint was trained on the joints {trained}, the data set has {list(action_names)}; name a "
                "data set of the same joints in the same order"
            )
        for key, feature, names in (
            (ACTION, config.action_feature, action_names),
            (OBS_STATE, config.robot_state_feature, state_names),
        ):
            if feature is not None and feature.shape[0] != len(names):
                raise ValueError(
                    f"{key}: the checkpoint was trained on {feature.shape[0]} joints, the data set has {list(names)}"
                )

    def predict(self, frames: Sequence[Mapping[str, Any]], seed: int) -> Prediction:
        """Predict a chunk from each frame.

        Args:
            frames: Frames of a data set; only observations and task reach the policy.
            seed: Same seed, same noise: predictions differ only where the frames do.

        Raises:
            ValueError: The frames lack a camera of the checkpoint, or the policy cannot take them.
        """
        seen = [{k: v for k, v in frame.items() if k.startswith("observation.") or k == "task"} for frame in frames]
        batch = self.preprocessor(default_collate(seen))
        self._check_cameras(batch, seen[0])
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            actions = self.policy.predict_action_chunk(batch)
        counts = getattr(self.policy, "token_counts", None)
        chunks = self.postprocessor(actions).double().cpu().numpy()
        return Prediction(chunks, None if counts is None else np.asarray(counts))

    def _check_cameras(self, batch: Mapping[str, Any], frame: Mapping[str, Any]) -> None:
        # After the pre-processor, which may rename cameras.
        expected = [key for key in self.policy.config.image_features if _EMPTY_CAMERA not in key]
        missing = [key for key in expected if key not in batch]
        if missing:
            pictures = [key for key, value in frame.items() if isinstance(value, torch.Tensor) and value.ndim == 3]
            raise ValueError(
                f"the data set lacks {', '.join(missing)}, which the checkpoint was trained on; its cameras are "
                f"{', '.join(pictures) or 'none'}. Name a data set with the cameras of the training"
            )


def _load_policy(config: PreTrainedConfig, folder: Path) -> PreTrainedPolicy:
    """Weights of a checkpoint; those of an adapter on top of the base that it names."""
    policy_class = get_policy_class(config.type)
    if not config.use_peft:
        return policy_class.from_pretrained(str(folder), config=config)
    require_package("peft", extra="peft")
    from peft import PeftConfig, PeftModel
    from peft.utils import CONFIG_NAME as CONFIG_OF_ADAPTER

    adapter = PeftConfig.from_pretrained(str(folder))
    name = str(adapter.base_model_name_or_path)
    try:
        base = policy_class.from_pretrained(name, config=config, revision=adapter.revision)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"it adapts {name}, which cannot be loaded: {error}. Has the base moved? Then say where it is now: "
            f"base_model_name_or_path in {folder / CONFIG_OF_ADAPTER}"
        ) from error
    # An adapted policy answers to every name that the policy has.
    return PeftModel.from_pretrained(base, str(folder), config=adapter)  # pyright: ignore[reportReturnType, reportArgumentType]
