"""A run in memory is the run that is read back."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import QUICK, simulate

from geneae import read_profiles
from geneae.fitting.fitted import fit_with_nulls, run_of
from geneae.fitting.runs import umap_of
from geneae.folders.run import COLOR, read_run, write_run
from geneae.report import render_report
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings

KINDS: dict[str, dict[str, Any]] = {
    "counts": {"loss": "cosine"},
    "labels": {"label": "kind"},
    "no test": {"test": 0.0},
    "encoder": {"objective": "simclr", "label": "kind"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_in_memory_is_the_run_of_its_folder_to_the_last_bit(kind: str, tmp_path: Path) -> None:
    profiles = read_profiles(simulate(90, 40))
    fitted = fit_with_nulls(profiles, Settings(**QUICK | KINDS[kind]), null=kind == "counts")
    colors = profiles.obs["kind"].astype(str)
    umap = umap_of(profiles.names, fitted.model.latent(fitted.model.preprocess.match(profiles)[0]), seed=0)
    umap[COLOR] = colors.to_numpy()[umap.pop("row")]
    before = run_of(fitted, "run", colors, umap)
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", fitted.model, before)
    after = read_run(tmp_path / "run")
    assert (before.name, before.configuration, before.split_sizes) == (
        after.name,
        after.configuration,
        after.split_sizes,
    )
    tables, again = before.tables(), after.tables()
    assert tables.keys() - again.keys() == {"split"}
    for name, table in again.items():
        pd.testing.assert_frame_equal(tables[name], table, check_exact=True, check_dtype=False)
    assert list(before.diagnostics["fires"]) == list(after.diagnostics["fires"])  # type: ignore[index]
    assert COLOR not in fitted.evaluation.profiles
    assert render_report([before], "said").split() == render_report([after], "said").split()


def test_what_is_neither_true_nor_false_is_refused(model_folder: Path, tmp_path: Path) -> None:
    for file in model_folder.iterdir():
        if file.name != "SHA256SUMS":  # by which the change would be found first
            (tmp_path / file.name).write_bytes(file.read_bytes())
    table = pd.read_csv(tmp_path / "diagnostics.csv", dtype=str).assign(fires="maybe")
    table.to_csv(tmp_path / "diagnostics.csv", index=False)
    with pytest.raises(
        InputError, match=r"diagnostics.csv cannot .*the column fires must hold True or False; found 'ma"
    ):
        read_run(tmp_path)
