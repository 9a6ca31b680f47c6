"""Lines of lerobot-train, as it really prints them."""

import math

from lerobot_vla_plugin.training_log import LOSS, TrainingLog

FIGURES = (
    "INFO 2026-01-01 06:53:55 ot_train.py:641 step:{step} smpl:14K ep:121 epch:30.13 loss:{loss} grdn:1.655 "
    "lr:6.5e-05 updt_s:0.304 data_s:0.143 smp/s:{rate}"
)


def test_figures_and_progress():
    log = TrainingLog()
    log.read_line("Training:   0%|          | 0/500 [00:00<?, ?step/s]")
    assert log.step == 0
    # the bar leaves its line open, so that figures follow in the same line
    bar = "Training:  90%|█████████ | 450/500 [03:40<00:18,  2.77step/s]"
    log.read_line(bar + FIGURES.format(step=450, loss="1.339", rate=72))
    log.read_line(FIGURES.format(step="1K", loss="0.327", rate=85))
    log.read_line(FIGURES.format(step="1K", loss="3e-2", rate=90))
    assert log.step == 450
    assert (log.first(LOSS), log.last(LOSS)) == (1.339, 0.03)
    assert log.median_samples_per_s == 85


def test_a_loss_that_is_not_a_number_is_shown():
    log = TrainingLog()
    log.read_line(FIGURES.format(step=50, loss="nan", rate=72))
    assert math.isnan(log.last(LOSS))


def test_other_lines_say_nothing():
    log = TrainingLog()
    for line in ("", "INFO cfg.steps=500 (500)", "{'loss': 1, 'steps': 3}", "step:5 without the rest"):
        log.read_line(line)
    assert (log.step, log.figures) == (0, {})
    assert math.isnan(log.first(LOSS))
    assert math.isnan(log.median_samples_per_s)


def test_figures_of_the_policy_stand_behind():
    log = TrainingLog()
    line = FIGURES.format(step="1K", loss="1.339", rate=72)
    log.read_line(f"{line} token_accuracy:0.412 decoded_error:2.035")
    assert log.last("token_accuracy") == 0.412
    assert log.last("decoded_error") == 2.035
    assert set(log.figures) == {
        "epch", "ep", "loss", "grdn", "lr", "updt_s", "data_s", "smp/s", "token_accuracy", "decoded_error"
    }  # fmt: skip
