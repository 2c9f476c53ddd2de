"""Folders of judged programs give back what was written, one run for each program and division."""

from pathlib import Path

import pandas as pd
from worlds import make_world

from geneae.data.halves import draw
from geneae.data.programs import table_in_memory
from geneae.fitting.judging import JudgeSettings, judge
from geneae.fitting.programs import programs_of
from geneae.folders.judged import is_judged, read_judged, write_judged


def test_runs_are_read_as_they_were_judged(tmp_path: Path) -> None:
    world = make_world(120, 40)
    other = draw(world.halves.whole(), world.halves.settings, repeat=2)
    genes = world.halves.given.genes
    frames = {"truth": world.frame(world.expected), "mean": world.frame(0 * world.expected + world.given.mean(0))}
    made = programs_of([(name, table_in_memory(frame, f"{name}.csv", genes)) for name, frame in frames.items()])
    judged = judge([world.halves, other], [made, made], JudgeSettings(n_latent=4))
    assert not is_judged(tmp_path)
    write_judged(tmp_path, judged.tables(), judged.record())
    assert is_judged(tmp_path)
    runs = read_judged(tmp_path)
    assert [run.name for run in runs] == [run.name for run in judged.runs]
    assert [run.configuration for run in runs] == ["truth", "mean"] * 2
    assert [run.config["seed"] for run in runs] == [0, 0, 1, 1]
    for read, written in zip(runs, judged.runs, strict=True):
        pd.testing.assert_frame_equal(read.metrics, written.metrics, check_dtype=False, rtol=1e-12)
        pd.testing.assert_frame_equal(read.profiles, written.profiles, check_dtype=False, rtol=1e-12)
        assert read.split_sizes == written.split_sizes
        assert read.config["data"] == written.config["data"]
