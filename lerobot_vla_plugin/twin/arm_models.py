"""The arms for which there is physics."""

from lerobot_vla_plugin.twin.koch_model import KOCH
from lerobot_vla_plugin.twin.so101_model import SO101

ARM_MODELS = {arm.name: arm for arm in (SO101, KOCH)}
