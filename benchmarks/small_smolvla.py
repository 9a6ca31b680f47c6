"""LeRobot's own `smolvla` at the geometry nearest to our `small` backbone: the folder that its loader wants.

    python benchmarks/small_smolvla.py outputs/small_vlm
    OMP_NUM_THREADS=1 lerobot-train --config_path=configs/train_twin_smolvla.yaml --output_dir=outputs/twin_smolvla

Same language model as `small` (128 wide, 4 layers, 4 heads of which 2 for keys, MLP of 256, byte tokenizer), same
pictures of 128 pixels, everything trained from scratch, action expert of LeRobot's default width. What differs, because
`smolvla` has no place for it: SigLIP patches of 8 pixels and 4 transformer layers in place of a convolutional stem; 64
tokens a picture (pixel shuffle 2) in place of keypoints that the instruction chooses; no guess; it predicts velocities.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from smolvla_reference import write_vlm_folder

TEXT = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
VISION = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 128,
    "patch_size": 8,
}


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new folder: configuration, tokenizer, processor; no weights")
    folder = parser.parse_args().folder
    if folder.exists():
        sys.exit(f"small_smolvla.py: {folder} exists already")
    write_vlm_folder(folder, TEXT, VISION)
    print(f"Wrote {folder}; next: lerobot-train --config_path=configs/train_twin_smolvla.yaml --output_dir=...")


if __name__ == "__main__":
    main()
