"""`geneae transfer`."""

import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from commands import BAD_DEPTHS, Run, assert_refused, geneae, there, write
from conftest import QUICK, simulate, thinned

from geneae import Autoencoder, tl


@pytest.fixture
def query_path(counts: anndata.AnnData, tmp_path: Path) -> Path:
    """The same profiles with a fifth of the molecules, under other names, without a label column."""
    adata = thinned(counts, 0.2)
    adata.obs_names = [f"other{number}" for number in range(adata.n_obs)]
    del adata.obs["kind"]
    return write(tmp_path / "query.h5ad", adata)


def test_transfer_says_what_it_has_done(run: Run, counts_path: Path, query_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    result = geneae("transfer", run.folder, counts_path, query_path, "--label", "kind", "-o", output)
    assert result.exit_code == 0, result.output
    said = result.stdout.splitlines()[2:]
    assert said.pop(0) == "Reference: 240 profiles with 4 labels in 'kind'."
    assert said[2].startswith("These profiles have 1")
    table = pd.read_csv(output, index_col="profile")
    n_labelled = int(table["geneae_label"].notna().sum())
    assert re.match(rf"Labelled: {n_labelled} of 240 profiles\. Refused: {240 - n_labelled} \(", said[3])
    assert said[-1] == f"Written to {output}: geneae_label, geneae_probability, geneae_distance, geneae_closest_label."
    assert "Accuracy" not in result.stdout  # the query has no labels of its own
    assert there(tmp_path) == {"query.h5ad", "out.csv"}


def test_the_command_and_python_give_the_same(
    run: Run, counts: anndata.AnnData, counts_path: Path, query_path: Path, tmp_path: Path
) -> None:
    flags = ["--label", "kind", "--neighbors", "7", "--refuse", "0.2", "--seed", "3", "--depth-ratio", "4"]
    assert geneae("transfer", run.folder, counts_path, query_path, "-o", tmp_path / "out.h5ad", *flags).exit_code == 0
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    expected = anndata.read_h5ad(query_path)
    choices = {"n_neighbors": 7, "refuse": 0.2, "seed": 3, "depth_ratio": 4}
    tl.transfer(expected, counts, run.folder, label="kind", **choices)
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    np.testing.assert_array_equal(found.obsm["X_geneae"], expected.obsm["X_geneae"])
    assert found.uns["geneae"]["transfer"]["n_refused"] == found.obs["geneae_label"].isna().sum() > 20


def test_a_query_with_labels_is_judged(run: Run, counts_path: Path, counts: anndata.AnnData, tmp_path: Path) -> None:
    adata = thinned(counts, 0.5)
    adata.obs_names = [f"other{number}" for number in range(adata.n_obs)]
    adata.obs["kind"] = adata.obs["kind"].astype(object)
    adata.obs.iloc[:3, adata.obs.columns.get_loc("kind")] = ["new", "new", None]
    data = write(tmp_path / "query.h5ad", adata)
    result = geneae("transfer", run.folder, counts_path, data, "--label", "kind", "-o", tmp_path / "out.parquet")
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(tmp_path / "out.parquet")
    is_given = table["geneae_label"].notna().to_numpy()
    is_judged = is_given & adata.obs["kind"].notna().to_numpy()
    right = (table["geneae_label"].astype(object).to_numpy() == adata.obs["kind"].to_numpy())[is_judged]
    said = f"Accuracy by the query's own 'kind': {100 * right.mean():.1f} % of {is_judged.sum()} labelled profiles"
    assert said in result.stdout
    number = 2 - is_given[:2].sum()
    assert f"Labels of the query that the reference lacks: new ({number} of 2 refused)." in result.stdout


def test_each_file_can_be_streamed(run: Run, counts_path: Path, query_path: Path, tmp_path: Path) -> None:
    found = []
    for stream in ("yes", "no"):
        output = tmp_path / f"{stream}.csv"
        flags = ["--label", "kind", "-o", output, "--stream", stream]
        result = geneae("transfer", run.folder, counts_path, query_path, *flags)
        assert result.exit_code == 0, result.output
        assert result.stdout.count("left in its file") == 2 * (stream == "yes")
        found.append(pd.read_csv(output, index_col="profile"))
    pd.testing.assert_frame_equal(*found, rtol=1e-4)


@pytest.mark.parametrize(
    ("flags", "name", "text"),
    [
        (["--label", "kinds"], "out.csv", "unknown obs column 'kinds'; did you mean 'kind'? Available: donor, kind"),
        (["--label", "kind"], "out.npy", "the output must end in .h5ad, .csv, .parquet; found 'out.npy'."),
        (["--label", "kind"], "there.csv", "there.csv already exists. Choose another name, or add --overwrite to"),
        (["--label", "kind", "--neighbors", "0"], "out.csv", "neighbors must be at least 1; found 0."),
        (["--label", "kind", "--refuse", "1"], "out.csv", "refuse must be at least 0 and below 1 (0 refuses none)"),
        (["--label", "kind", "--refuse", "nan"], "out.csv", "refuse must be at least 0 and below 1"),
        *((["--label", "kind", *flags], "out.csv", text) for flags, text in BAD_DEPTHS.values()),
    ],
)
def test_what_cannot_be_done_is_refused(
    run: Run, counts_path: Path, query_path: Path, flags: list[str], name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "there.csv").write_text("years of work")
    assert_refused(geneae("transfer", run.folder, counts_path, query_path, "-o", tmp_path / name, *flags), text)
    assert there(tmp_path) == {"query.h5ad", "there.csv"}
    assert (tmp_path / "there.csv").read_text() == "years of work"


def test_a_reference_of_one_label_or_of_other_genes_is_refused(run: Run, query_path: Path, tmp_path: Path) -> None:
    one, foreign = simulate(30), simulate(30)
    one.obs["kind"] = "T cell"
    foreign.var_names = [f"other{number}" for number in range(foreign.n_vars)]
    for name, adata, text in (
        ("one", one, "the reference must have profiles of at least 2 labels; column 'kind' of "),
        ("foreign", foreign, "at least 50 % of the model's "),
    ):
        data = write(tmp_path / f"{name}.h5ad", adata)
        result = geneae("transfer", run.folder, data, query_path, "--label", "kind", "-o", tmp_path / "out.csv")
        assert_refused(result, text)
    assert not (tmp_path / "out.csv").exists()


def test_a_model_of_one_depth_transfers_and_takes_no_depth(counts: anndata.AnnData, tmp_path: Path) -> None:
    counts.X = counts.X.log1p()
    data = write(tmp_path / "logs.h5ad", counts)
    Autoencoder(**QUICK | {"epochs": 1}).fit(data).save(tmp_path / "model")
    call = ("transfer", tmp_path / "model", data, data, "--label", "kind", "-o", tmp_path / "out.csv")
    assert_refused(geneae(*call, "--depth-ratio", "10"), "this model knows one depth only")
    result = geneae(*call)
    assert result.exit_code == 0, result.output
    assert "This model knows one depth only: profiles that are shallower or deeper" in result.stdout
    assert "240 profiles have names of reference profiles: each is looked up among the others" in result.stdout


def test_truth_values_and_numbers_are_the_same_labels(run: Run, counts: anndata.AnnData, tmp_path: Path) -> None:
    counts.obs["is_first"] = counts.obs["kind"].astype(str) == "k0"
    reference = write(tmp_path / "reference.h5ad", counts)
    adata = thinned(counts, 0.9)
    adata.obs_names = [f"other{number}" for number in range(adata.n_obs)]
    adata.obs["is_first"] = counts.obs["is_first"].to_numpy().astype(int)
    adata.obs["geneae_label"] = "mine"
    query = write(tmp_path / "query.h5ad", adata)
    call = ("transfer", run.folder, reference, query, "--label", "is_first", "-o", tmp_path / "out.h5ad")
    said = geneae(*call).stdout
    right = re.search(r"Accuracy by the query's own 'is_first': ([0-9.]+) %", said)
    assert right is not None
    assert float(right[1]) > 90
    assert f"In the output obs['geneae_label'] of {query} is replaced." in said
    adata.obs["is_first"] = np.where(adata.obs["is_first"] == 1, "yes", "no")
    write(query, adata)
    said = geneae(*call, "--overwrite").stdout
    assert "No label of the query is one of the reference (query: no, yes; reference: False, True)" in said
    assert "Accuracy" not in said
