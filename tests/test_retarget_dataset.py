"""A retargeted data set: the same ticks in other numbers, statistics as LeRobot computes them, all else untouched."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from conftest import write_dataset
from tick_dataset import (
    ACTION_TICKS,
    EPISODES,
    FRAMES,
    IN_DEGREES,
    IN_PERCENT,
    SO101,
    STATE_COLUMNS,
    STATE_TICKS,
    VIDEO,
    converter,
    digests,
    frames,
    load,
    run_retarget,
)

from lerobot_vla_plugin import retarget_dataset
from lerobot_vla_plugin.arms.annotation import ANNOTATION_FILE, read_annotation, write_annotation
from lerobot_vla_plugin.retarget import retarget


def test_lerobot_reads_every_frame_as_computed_from_the_ticks(recorded, in_percent):
    before, after = load(recorded), load(in_percent)
    ticks = {"observation.state": STATE_TICKS, "action": ACTION_TICKS}
    assert len(after) == len(before) == EPISODES * FRAMES
    for index in range(len(before)):
        old, new = before[index], after[index]
        assert old.keys() == new.keys()
        assert new["observation.state"][3] == index
        joints = {"observation.state": new["observation.state"][STATE_COLUMNS], "action": new["action"]}
        for key, values in joints.items():
            # The recording itself was rounded to float32, so the last bit of percent may differ.
            expected = converter(IN_PERCENT).to_units(ticks[key][index])
            np.testing.assert_allclose(values.numpy(), expected, rtol=0, atol=1e-5)
            np.testing.assert_array_equal(converter(IN_PERCENT).to_ticks(values.numpy()), ticks[key][index])
        for key in old.keys() - joints.keys():
            assert np.array_equal(old[key], new[key]), key


def test_statistics_are_those_that_lerobot_computes(in_percent, tmp_path):
    from lerobot.datasets.compute_stats import compute_episode_stats
    from lerobot.datasets.dataset_tools import recompute_stats

    again = load(Path(shutil.copytree(in_percent, tmp_path / "again")))
    written = {key: dict(value) for key, value in again.meta.stats.items()}
    recompute_stats(again)
    for key, statistics in written.items():
        for name, value in statistics.items():
            np.testing.assert_allclose(value, again.meta.stats[key][name], rtol=1e-12, err_msg=f"{key} {name}")

    episodes = pd.concat(pd.read_parquet(path) for path in sorted(in_percent.glob("meta/episodes/*/*.parquet")))
    for key in ("action", "observation.state"):
        values = frames(in_percent, key).reshape(EPISODES, FRAMES, -1)
        for episode in range(EPISODES):
            statistics = compute_episode_stats({key: values[episode]}, again.meta.features)[key]
            for name, value in statistics.items():
                np.testing.assert_array_equal(episodes[f"stats/{key}/{name}"].iloc[episode], value)


def test_all_else_is_carried_over(recorded, in_percent):
    before, after = digests(recorded), digests(in_percent)
    rewritten = {name for name in before if name.endswith(".parquet") and name.startswith(("data/", "meta/episodes/"))}
    assert len([name for name in rewritten if name.startswith("data/")]) > 1
    carried = {name for name in before if not name.startswith(".cache")}
    assert after.keys() == carried
    assert {"README.md", f"videos/{VIDEO}/chunk-000/file-000.mp4", "meta/tasks.parquet", "meta/info.json"} <= carried
    for name in carried - rewritten - {"meta/stats.json", str(ANNOTATION_FILE)}:
        assert after[name] == before[name], name
    for name in rewritten:
        old, new = pq.ParquetFile(recorded / name), pq.ParquetFile(in_percent / name)
        assert new.schema_arrow.equals(old.schema_arrow, check_metadata=True)
        assert new.num_row_groups == old.num_row_groups
        changed = ("action", "observation.state", "stats/action/", "stats/observation.state/")
        others = [column for column in old.schema_arrow.names if not column.startswith(changed)]
        assert new.read(columns=others).equals(old.read(columns=others))
    old, new = (json.loads((root / "meta" / "stats.json").read_text()) for root in (recorded, in_percent))
    assert {key for key in old if old[key] != new[key]} == {"action", "observation.state"}


def test_the_original_is_untouched_and_the_copy_is_annotated(copy):
    before = digests(copy)
    assert run_retarget(copy, copy.with_name("new"), "--joint-unit=percent") == 0
    assert digests(copy) == before
    assert read_annotation(copy.with_name("new")) == IN_PERCENT
    assert sorted(path.name for path in copy.parent.iterdir()) == ["copy", "new"]


def test_every_tick_survives_there_and_back(recorded, in_percent, tmp_path):
    assert run_retarget(in_percent, tmp_path / "back", "--joint-unit=degrees") == 0
    state, action = frames(tmp_path / "back", "observation.state"), frames(tmp_path / "back", "action")
    np.testing.assert_array_equal(converter(IN_DEGREES).to_ticks(state[:, STATE_COLUMNS]), STATE_TICKS)
    np.testing.assert_array_equal(converter(IN_DEGREES).to_ticks(action), ACTION_TICKS)
    np.testing.assert_allclose(action, frames(recorded, "action"), atol=1e-4)
    assert read_annotation(tmp_path / "back") == IN_DEGREES


def test_pictures_inside_parquet_are_carried_over(dataset_root, tmp_path):
    source = Path(shutil.copytree(dataset_root, tmp_path / "pictures"))
    write_annotation(source, IN_DEGREES)
    assert run_retarget(source, tmp_path / "new", "--joint-unit=percent") == 0
    old, new = load(source), load(tmp_path / "new")
    for index in (0, 12, 35):
        assert np.array_equal(old[index]["observation.images.wrist"], new[index]["observation.images.wrist"])
    # Several episodes in one file; its joints stand the other way round. The gripper's values stay.
    degrees, percent = (frames(folder, "action")[:, ::-1] for folder in (source, tmp_path / "new"))
    expected = converter(IN_PERCENT).to_units(converter(IN_DEGREES).to_exact_ticks(degrees))
    np.testing.assert_allclose(percent[:, 1:], expected[:, 1:], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(percent[:, 0], degrees[:, 0])


def test_an_arm_of_one_joint(tmp_path):
    """LeRobot stores vectors of length 1 as numbers."""
    root = tmp_path / "one"
    write_dataset(root, num_episodes=2, num_frames=3, cameras=(), joints=["elbow_flex"])
    source = replace(IN_DEGREES, calibration={"elbow_flex": SO101["elbow_flex"]})
    retarget(root, tmp_path / "new", source, replace(source, joint_unit="percent"))
    retarget(tmp_path / "new", tmp_path / "back", replace(source, joint_unit="percent"), source)
    old, new = (load(folder).hf_dataset.with_format("numpy")["action"] for folder in (root, tmp_path / "back"))
    np.testing.assert_allclose(np.array(new), np.array(old), atol=1e-4)


def test_nothing_half_written_stays_after_a_failure(copy, capsys):
    path = sorted(copy.glob("meta/episodes/*/*.parquet"))[-1]
    table = pd.read_parquet(path)
    table["stats/action/kurtosis"] = 0.0
    table.to_parquet(path)
    assert run_retarget(copy, copy.with_name("new"), "--joint-unit=percent") == 2
    assert "stats/action/kurtosis is no statistic that this LeRobot computes" in capsys.readouterr().err
    assert [entry.name for entry in copy.parent.iterdir()] == ["copy"]


def test_nothing_half_written_stays_after_an_interruption(copy, monkeypatch):
    def interrupt(*_):
        assert len(list(copy.parent.iterdir())) == 2, "the draft should be there by now"
        raise KeyboardInterrupt

    monkeypatch.setattr(retarget_dataset.shutil, "copyfile", interrupt)
    assert run_retarget(copy, copy.with_name("new"), "--joint-unit=percent") == 130
    assert [entry.name for entry in copy.parent.iterdir()] == ["copy"]


def test_a_snapshot_of_links_becomes_files(recorded, in_percent, tmp_path):
    """LeRobot's downloads are folders of links into a cache, and videos may lie on another disk."""
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "videos").symlink_to(recorded / "videos")
    for name in digests(recorded):
        if name.startswith("videos/"):
            continue
        link = tmp_path / "links" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(recorded / name)
    assert run_retarget(tmp_path / "links", tmp_path / "new", "--joint-unit=percent") == 0
    assert digests(tmp_path / "new") == digests(in_percent)
    assert not any(path.is_symlink() for path in (tmp_path / "new").rglob("*"))


def test_statistics_that_are_absent_stay_absent(copy):
    """Data sets of before quantiles; what is not there is not made up."""
    for path in copy.glob("meta/episodes/*/*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns([name for name in table.column_names if name.endswith("/q50")]), path)
    (copy / "meta" / "stats.json").unlink()
    assert run_retarget(copy, copy.with_name("new"), "--joint-unit=percent") == 0
    assert not (copy.with_name("new") / "meta" / "stats.json").exists()
    for path in copy.glob("meta/episodes/*/*.parquet"):
        written = pq.read_table(copy.with_name("new") / path.relative_to(copy))
        assert written.schema.equals(pq.read_table(path).schema)
