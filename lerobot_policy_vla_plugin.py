"""The module LeRobot imports when it looks for plugins: it registers everything and holds nothing else."""

import lerobot_vla_plugin  # noqa: F401
