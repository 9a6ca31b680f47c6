"""Environments that `lerobot-eval` runs policies in, and the report they write."""
