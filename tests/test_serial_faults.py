"""Faults of the servos in the log."""

import logging

import pytest

from lerobot_vla_plugin.arms.serial_faults import FEETECH_FAULTS, ServoFaultLog, faults_in


def test_faults_are_said_when_they_come_and_go_but_not_every_time(caplog: pytest.LogCaptureFixture) -> None:
    log, faults = ServoFaultLog(), faults_in(0x21, FEETECH_FAULTS)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            log.update("jaw", faults)
            log.update("jaw", ())
    assert [r.levelname for r in caplog.records].count("ERROR") == 2
    assert log.present == {}
    assert [fault.name for fault in faults_in(0x40, FEETECH_FAULTS)] == ["unknown fault 0x40"]
