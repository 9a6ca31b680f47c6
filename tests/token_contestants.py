"""LeRobot's `pi0_fast`, `vla_fast` and `vla_flow` on the same geometry, and the same batch for each of them."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from fast_policy import make_config
from fast_reference import ReferenceFast
from lerobot.policies.pi0_fast.modeling_pi0_fast import PI0FastPolicy
from pi0_fast_reference import PALIGEMMA_VOCAB_SIZE, SKIPPED_IDS, make_pi0_fast, tokenize_actions
from reaching_motion import reaching_chunks
from smolvla_reference import write_vlm_folder
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMConfig

from lerobot_vla_plugin.action_tokenizers.chunk_codec import ChunkCodec
from lerobot_vla_plugin.configuration_vla import VLAFlowConfig
from lerobot_vla_plugin.modeling_vla import VLAFastPolicy, VLAFlowPolicy

# No pixel shuffle: PaliGemma has none, so both vision towers see the same patches and give the same tokens.
GEOMETRIES = {
    "tiny": {
        "text": {
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 32,
        },
        "vision": {
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 96,
            "patch_size": 32,
        },
    },
    "half": {
        "text": {
            "hidden_size": 480,
            "intermediate_size": 1280,
            "num_hidden_layers": 16,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "head_dim": 32,
        },
        "vision": {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "image_size": 256,
            "patch_size": 32,
        },
    },
}
WORDS = 40
CHUNK_SIZE, JOINTS = 50, 6
# "Action: " is three tokens, "|" is one.
PI0_FAST_FRAME = 4
THEIRS, THEIRS_SMALL, OURS, FLOW = "pi0_fast", "pi0_fast small", "vla_fast", "vla_flow"


@dataclass
class Contestants:
    """The policies, their batches, and the tokenizer that all but vla_flow speak."""

    codec: ChunkCodec
    pi0_fast: dict[str, PI0FastPolicy]
    vla_fast: VLAFastPolicy
    vla_flow: VLAFlowPolicy
    batches: dict[str, dict] = field(default_factory=dict)


def make_contestants(geometry: str, folder: Path) -> Contestants:
    """Every policy on the same geometry; all of each learns."""
    spec = GEOMETRIES[geometry]
    vlm = write_vlm_folder(folder / "vlm", **spec, scale_factor=1)
    config, num_layers = SmolVLMConfig.from_pretrained(vlm), spec["text"]["num_hidden_layers"]
    codec = ChunkCodec.fit(*reaching_chunks(2_000, CHUNK_SIZE, JOINTS), [f"joint_{j}" for j in range(JOINTS)])
    codec.save(folder / "tokenizer")
    learning = {
        "vlm_model_name": str(vlm),
        "load_vlm_weights": False,
        "num_vlm_layers": num_layers,
        "freeze_vision_encoder": False,
        "train_expert_only": False,
        "chunk_size": CHUNK_SIZE,
        "device": "cpu",
    }
    side = config.vision_config.image_size
    fast_config = make_config(
        ("front",), JOINTS, (side, side), action_tokenizer_path=str(folder / "tokenizer"), **learning
    )
    flow_config = VLAFlowConfig(
        input_features=fast_config.input_features, output_features=fast_config.output_features, **learning
    )
    sizes = {THEIRS: PALIGEMMA_VOCAB_SIZE, THEIRS_SMALL: 300 + SKIPPED_IDS + codec.vocab_size}
    theirs = {
        name: make_pi0_fast(
            folder / name, ReferenceFast.load(folder / "tokenizer"), config, num_layers, joints=JOINTS, vocab_size=size
        )
        for name, size in sizes.items()
    }
    for policy in theirs.values():
        policy.config.validate_action_token_prefix = False  # random weights do not begin with "Action: "
    return Contestants(codec, theirs, VLAFastPolicy(fast_config), VLAFlowPolicy(flow_config))


def make_batches(who: Contestants, batch_size: int) -> None:
    """The same training batch for everyone, each with actions in its own unit."""
    side = who.vla_fast.config.image_features["observation.images.front"].shape[1]
    actions, states = reaching_chunks(batch_size, CHUNK_SIZE, JOINTS, seed=1)
    normalised = torch.from_numpy(who.codec.scaling.normalize(actions, states)).float()
    observation = {
        "observation.images.front": torch.rand(batch_size, 3, side, side),
        "observation.state": torch.from_numpy(states).float(),
        "observation.language.tokens": torch.randint(4, 200, (batch_size, WORDS)),
        "observation.language.attention_mask": torch.ones(batch_size, WORDS, dtype=torch.bool),
    }
    longest = max(map(len, who.codec.encode(actions, states)))
    for name, policy in who.pi0_fast.items():
        # One more for the end-of-text marker behind "|". Its default would pad to 256.
        policy.config.max_action_tokens = longest + PI0_FAST_FRAME + 2
        who.batches[name] = observation | tokenize_actions(policy, normalised)
    who.batches[OURS] = observation | {"action": torch.from_numpy(actions).float()}
    who.batches[FLOW] = observation | {"action": normalised}
