"""Several files are one file of all their profiles in the genes that they share."""

import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from commands import assert_refused, geneae
from conftest import QUICK, simulate
from reference import assert_same_profiles
from written import write_csv, write_tenx_h5

from geneae import Autoencoder, read_profiles
from geneae.data.joined import names_of
from geneae.data.reading import check_unchanged
from geneae.settings.errors import InputChanged, InputError


def part(seed: int, names: str, genes: list[int]) -> anndata.AnnData:
    """40 profiles in some of 30 genes, in this order."""
    adata = simulate(40, 30, seed=seed)[:, genes].copy()
    adata.obs_names = [f"{names}{number}" for number in range(40)]
    return adata


FIRST, SECOND = list(range(28)), [29, 5, *range(10, 28), 0]
COMMON = [0, 5, *range(10, 28)]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Two files with 20 genes in common; half of the names of the second are those of the first."""
    part(0, "cell", FIRST).write_h5ad(tmp_path / "a.h5ad")
    other = part(1, "cell", SECOND)
    other.obs_names = [*other.obs_names[:20], *(f"other{number}" for number in range(20))]
    other.obs["tissue"] = "blood"
    other.write_h5ad(tmp_path / "b.h5ad")
    return [tmp_path / "a.h5ad", tmp_path / "b.h5ad"]


def joined_by_anndata(paths: list[Path]) -> anndata.AnnData:
    """The slow reference: concatenated in memory, with names as promised."""
    parts = [anndata.read_h5ad(path) for path in paths]
    chosen = [part[:, [f"gene{number}" for number in COMMON]] for part in parts]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of repeated names, which are made unique below
        both = anndata.concat(chosen, join="inner")
    shared = set(parts[0].obs_names) & set(parts[1].obs_names)
    both.obs_names = [
        f"{name}-{path.name}" if name in shared else name
        for path, some in zip(paths, parts, strict=True)
        for name in some.obs_names
    ]
    return both


@pytest.mark.parametrize("stream", ["no", "auto", "yes"])
def test_they_are_what_anndata_concatenates(stream: str, paths: list[Path]) -> None:
    expected = read_profiles(joined_by_anndata(paths))
    found = read_profiles(paths, stream=stream)
    assert found.is_streamed == (stream == "yes")
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(found.totals, expected.totals)
    rows = np.array([70, 3, 39, 40, 0])
    assert_same_profiles(found.take(rows), expected.take(rows))
    assert list(found.obs["file"]) == ["a.h5ad"] * 40 + ["b.h5ad"] * 40
    assert list(found.obs["kind"]) == list(expected.obs["kind"])
    assert found.obs["tissue"].isna().sum() == 40
    assert found.source == f"{paths[0]}, {paths[1]}"
    assert found.said == (
        "The files have 20 genes in common; left out are 8 of a.h5ad, 1 of b.h5ad.",
        "40 profiles have a name that another file has, too; the name of the file was added to it, first "
        "'cell0-a.h5ad'.",
    )


def test_what_was_left_out_and_counts_beside_are_said_of_all_files(paths: list[Path]) -> None:
    for path in paths:
        adata = anndata.read_h5ad(path)
        adata.layers["counts"] = adata.X.copy()
        adata.X = np.log1p(adata.X.toarray())
        adata.var["feature_types"] = [
            "Antibody Capture" if name == "gene5" else "Gene Expression" for name in adata.var_names
        ]
        adata.write_h5ad(path)
    found = read_profiles(paths)
    assert "gene5" not in found.genes
    assert found.notes["left_out_features"].startswith("1 of type Antibody Capture in var")
    assert "layers['counts'] holds counts: --layer counts" in found.notes["counts_at_hand"]
    assert "gene5" in read_profiles(paths, features="all").genes
    assert read_profiles(paths, layer="counts").notes.keys() == {"left_out_features"}
    assert read_profiles(paths, state="scaled").state == "scaled"


def test_the_order_of_the_files_is_the_order_of_the_profiles_and_genes(paths: list[Path]) -> None:
    one, other = read_profiles(paths), read_profiles(paths[::-1])
    assert list(other.genes) == [gene for gene in anndata.read_h5ad(paths[1]).var_names if gene in set(one.genes)]
    order = other.names.get_indexer(one.names)
    columns = other.genes.get_indexer(one.genes)
    np.testing.assert_array_equal(other.matrix.toarray()[order][:, columns], one.matrix.toarray())


def test_files_that_are_small_apart_and_large_together_are_streamed(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = read_profiles(paths[0]).megabytes
    monkeypatch.setattr("geneae.data.memory.free_megabytes", lambda: 1.5 * size * 16)
    assert not read_profiles(paths[0], stream="auto").is_streamed
    assert read_profiles(paths, stream="auto").is_streamed
    assert not read_profiles(paths, stream="no").is_streamed


def test_formats_may_differ_and_one_may_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = part(0, "cell", FIRST), part(1, "other", SECOND)
    files = [write_tenx_h5(first, tmp_path), write_csv(second, tmp_path)]
    whole = read_profiles(files)
    monkeypatch.setattr("geneae.data.memory.free_megabytes", lambda: 0.1)
    streamed = read_profiles(files, stream="auto")
    assert (whole.is_streamed, streamed.is_streamed) == (False, True)
    assert streamed.fingerprint == whole.fingerprint


def test_a_fit_of_streamed_files_is_the_fit_of_their_concatenation(paths: list[Path]) -> None:
    said = ("The files have 20 genes in common", "40 profiles have a name that another file has")
    with pytest.warns(UserWarning, match=said[0]), pytest.warns(UserWarning, match=said[1]):
        found = Autoencoder(**QUICK).fit(read_profiles(paths, stream="yes"))
    expected = Autoencoder(**QUICK).fit(read_profiles(joined_by_anndata(paths)))
    assert found.model_.config["data"]["fingerprint"] == expected.model_.config["data"]["fingerprint"]
    np.testing.assert_array_equal(found.split_, expected.split_)
    np.testing.assert_array_equal(found.model_.preprocess.genes, expected.model_.preprocess.genes)


def test_the_commands_take_several_files(paths: list[Path], model_folder: Path, tmp_path: Path) -> None:
    result = geneae("inspect", *paths)
    assert "80 profiles x 20 genes" in result.output
    assert "The files have 20 genes in common" in result.output
    out = tmp_path / "out.h5ad"
    for stream in ("no", "yes"):
        result = geneae("embed", model_folder, *paths, "-o", out, "--min-overlap", 0, "--stream", stream, "--overwrite")
        assert result.exit_code == 0, result.output
        written = anndata.read_h5ad(out)
        assert (read_profiles(paths).matrix != written.X).nnz == 0
        assert list(written.obs["file"]) == list(read_profiles(paths).obs["file"])
        assert np.isfinite(written.obsm["X_geneae"]).all()
    assert_refused(geneae("fit", *paths, "-o", paths[1]), f"the output {paths[1]} is the input")


def test_the_default_output_is_named_for_the_first(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ["--latent", 3, "--hidden", 8, "--rank", 8, "--epochs", 1, "--splits", 1]
    result = geneae("fit", *(path.name for path in paths), *quick)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a_and_1_more_geneae" / "config.json").is_file()


def test_a_file_that_changes_under_a_streamed_join_is_noticed(paths: list[Path]) -> None:
    profiles = read_profiles(paths, stream="yes")
    check_unchanged(profiles)
    changed = anndata.read_h5ad(paths[1])
    changed.X.data += 1
    changed.write_h5ad(paths[1].with_name("new.h5ad"))
    paths[1].with_name("new.h5ad").replace(paths[1])
    with pytest.raises(InputChanged, match=r"a\.h5ad, .*b\.h5ad changed while it was in use"):
        check_unchanged(profiles)


def logs(adata: anndata.AnnData) -> None:
    adata.X = np.log1p(adata.X.toarray() * 1.7)


def renamed(adata: anndata.AnnData) -> None:
    adata.var_names = [f"ENSG{number:011}" for number in range(adata.n_vars)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (logs, "must hold values of the same kind; found counts in a.h5ad, log values in b.h5ad"),
        (renamed, "must have genes in common; found none (a.h5ad: gene0, gene1, gene2, ...; b.h5ad: ENSG00000000000,"),
    ],
)
def test_files_that_do_not_go_together_are_refused(change: Any, said: str, paths: list[Path]) -> None:
    adata = anndata.read_h5ad(paths[1])
    change(adata)
    adata.write_h5ad(paths[1])
    assert_refused(geneae("inspect", *paths), said)


MADE: dict[str, Any] = {
    "CP10k": lambda x, totals: np.log1p(1e4 * x / totals),
    "CPM": lambda x, totals: np.log1p(1e6 * x / totals),
    "base 2": lambda x, totals: np.log2(1 + 1e4 * x / totals),
    "logs of counts": lambda x, totals: np.log1p(x),
    "not logged": lambda x, totals: 1e4 * x / totals,
}


def with_values(paths: list[Path], kinds: tuple[str, str]) -> np.ndarray:
    """Turn the counts of two files into other values; returns their counts in the genes in common."""
    columns = [f"gene{number}" for number in COMMON]
    counts = []
    for path, kind in zip(paths, kinds, strict=True):
        adata = anndata.read_h5ad(path)
        x = np.random.default_rng(0).binomial(
            adata.X.toarray().astype(int), 0.2
        )  # so that single molecules tell the unit
        adata.X = MADE[kind](x, x.sum(1, keepdims=True))
        adata.write_h5ad(path)
        counts.append(x[:, adata.var_names.get_indexer(columns)])
    return np.vstack(counts)


@pytest.mark.parametrize("kinds", [("CP10k", "CPM"), ("CP10k", "base 2"), ("logs of counts", "CP10k")])
def test_files_that_were_normalised_differently_are_refused_and_their_counts_offered(
    kinds: tuple[str, str], paths: list[Path]
) -> None:
    counts = with_values(paths, kinds)
    with pytest.raises(
        InputError, match=r"must be normalised alike; found log\(x .* in a\.h5ad, and log\(x .* in b"
    ) as said:
        read_profiles(paths)
    assert "--state counts recovers the counts of all of them; --state log reads them as they are." in str(said.value)
    np.testing.assert_array_equal(read_profiles(paths, state="counts").matrix.toarray(), counts)
    assert read_profiles(paths, state="log").state == "log"


@pytest.mark.parametrize("kind", ["CP10k", "logs of counts", "not logged"])
def test_files_that_were_normalised_alike_are_read(kind: str, paths: list[Path]) -> None:
    with_values(paths, (kind, kind))
    assert read_profiles(paths).state == ("normalised" if kind == "not logged" else "log")


def test_a_file_is_given_once_and_named_by_what_tells_it_apart(paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "again.h5ad").symlink_to(paths[0])
    with pytest.raises(InputError, match="is given twice, so that every profile would count double"):
        read_profiles([*paths, tmp_path / "again.h5ad"])
    samples = [Path("/data/s1/outs/m.h5"), Path("/data/s2/outs/m.h5"), Path("/data/s2/n.h5")]
    assert names_of(samples) == ["s1/outs/m.h5", "s2/outs/m.h5", "data/s2/n.h5"]
    assert names_of(paths) == ["a.h5ad", "b.h5ad"]


def test_columns_of_obs_with_other_types_in_each_file_can_be_written(
    paths: list[Path], model_folder: Path, tmp_path: Path
) -> None:
    first, second = (anndata.read_h5ad(path) for path in paths)
    first.obs["age"], second.obs["age"] = np.arange(40), ["old"] * 40
    first.obs["kind"], second.obs["kind"] = pd.Categorical([1, 2] * 20), pd.Categorical(["1", "x"] * 20)
    first.obs["doublet"], first.obs["n"] = True, 3
    for adata, path in zip((first, second), paths, strict=True):
        adata.write_h5ad(path)
    found = read_profiles(paths)
    assert "read as text: kind, age." in " ".join(found.said)
    assert list(found.obs["age"])[38:42] == ["38", "39", "old", "old"]
    assert list(found.obs["kind"].cat.categories) == ["1", "2", "x"]
    assert (found.obs["doublet"].sum(), found.obs["doublet"].isna().sum()) == (40, 40)
    out = tmp_path / "out.h5ad"
    assert geneae("embed", model_folder, *paths, "-o", out, "--min-overlap", 0).exit_code == 0
    assert {"age", "kind", "doublet", "n"} <= set(anndata.read_h5ad(out).obs.columns)


def test_a_column_called_file_is_replaced_and_that_is_said(paths: list[Path]) -> None:
    adata = anndata.read_h5ad(paths[0])
    adata.obs["file"] = "mine"
    adata.write_h5ad(paths[0])
    found = read_profiles(paths)
    assert "obs['file'] of the files is replaced by the name of the file of each profile." in found.said
    assert pd.Index(found.obs["file"]).unique().tolist() == ["a.h5ad", "b.h5ad"]
