"""The `lerobot-vla` command line.

A package beside `lerobot_vla_plugin`, not inside it: importing the plugin imports LeRobot and torch, whereas help must
be quick and `lerobot-vla check` must be able to say why that very import fails.
"""

# Exit codes. The middle one is `check`'s.
FINE, PROBLEMS_FOUND, COULD_NOT_RUN = 0, 1, 2
