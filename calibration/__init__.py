"""LeRobot calibration files, one folder a robot type; installed as `lerobot_vla_plugin.calibration_files`."""
