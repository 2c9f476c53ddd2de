"""`latents.h5ad` holds what an .h5ad can hold of the profiles of a fit, and names the rest."""

from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from conftest import simulate, thinned

from geneae import Autoencoder, read_profiles
from geneae.folders.embedding import Embedded, embed
from geneae.folders.latents import latents_of, read_column, write_latents
from geneae.folders.manifest import LATENTS_FILE, write_list
from geneae.settings.errors import InputError


def embedded_of(fitted: Autoencoder, adata: anndata.AnnData) -> Embedded:
    profiles = read_profiles(adata)
    model = fitted.fitted()
    return embed(model, profiles, model.preprocess.match(profiles)[0], 1.0)


@pytest.fixture(scope="module")
def embedded(fitted: Autoencoder) -> Embedded:
    """Sixty profiles, the first of them empty."""
    return embedded_of(fitted, thinned(simulate(60, 120), np.arange(60) > 0))


def umap_table(n_profiles: int) -> pd.DataFrame:
    place = np.arange(n_profiles, dtype=np.float32)
    return pd.DataFrame({"umap_1": place, "umap_2": -place, "cluster": (place % 3).astype(int).astype(str)})


def write(embedded: Embedded, path: Path, **columns: object) -> tuple[str, anndata.AnnData]:
    """What is said, and what is read again, with these columns beside those of the data."""
    split = pd.Series(["excluded"] + ["train"] * 40 + ["test"] * 19, index=embedded.profiles.names)
    found = latents_of(embedded, split, np.arange(60.0), umap_table(59))
    for name, values in columns.items():
        found.obs[name] = pd.Series(values, found.obs.index, object) if isinstance(values, list) else values
    said = write_latents(path, found)
    return said, anndata.read_h5ad(path)


def test_it_holds_latents_and_columns_of_all_profiles_that_have_any(embedded: Embedded, tmp_path: Path) -> None:
    said, found = write(embedded, tmp_path / "latents.h5ad")
    assert said == ""
    assert found.X is None
    assert found.n_vars == 0
    assert list(found.obs_names) == list(embedded.profiles.names[1:])
    assert list(found.obs) == ["donor", "kind", "geneae_split", "geneae_molecules", "geneae_cluster"]
    known = embedded.profiles.obs[["donor", "kind"]][1:]
    pd.testing.assert_frame_equal(found.obs[["donor", "kind"]], known, check_index_type=False)
    assert list(found.obs["geneae_split"]) == ["train"] * 40 + ["test"] * 19
    assert list(found.obs["geneae_molecules"]) == list(range(1, 60))
    np.testing.assert_array_equal(found.obsm["X_geneae"], embedded.latent[1:])
    np.testing.assert_array_equal(found.obsm["X_geneae_sd"], embedded.in_obsm("X")["X_sd"][1:])
    np.testing.assert_array_equal(found.obsm["X_umap"][:, 1], -np.arange(59.0))
    assert found.uns["geneae"]["key_added"] == "X_geneae"


@pytest.mark.slow
def test_scanpy_draws_and_clusters_it_as_it_is(embedded: Embedded, tmp_path: Path) -> None:
    _, found = write(embedded, tmp_path / "latents.h5ad")
    sc.pp.neighbors(found, use_rep="X_geneae")
    assert found.obsp["connectivities"].shape == (59, 59)
    axes = sc.pl.embedding(found, "X_umap", color="kind", show=False)
    assert len(axes.collections[0].get_offsets()) == 59


def test_a_umap_of_some_profiles_stays_out(embedded: Embedded) -> None:
    split = pd.Series("train", index=embedded.profiles.names)
    assert "X_umap" not in latents_of(embedded, split, None, umap_table(50)).obsm
    assert not {"geneae_molecules", "geneae_cluster"} & set(latents_of(embedded, split).obs)


def test_columns_are_written_as_anndata_does(embedded: Embedded, tmp_path: Path) -> None:
    said, found = write(
        embedded,
        tmp_path / "latents.h5ad",
        age=pd.array([None, *range(58)], dtype="Int64"),
        is_old=pd.array([None, *[True] * 58], dtype="boolean"),
        kind=["a", None] + ["b"] * 57,
        word=pd.array([None, *["c"] * 58], dtype="string"),
        **{"1 (%)\n細胞": np.arange(59.0)},
    )
    assert said == ""
    assert found.obs["age"].dtype == "Int64"
    assert found.obs["age"].isna().sum() == found.obs["is_old"].isna().sum() == 1
    assert list(found.obs["kind"].astype(object).fillna("-")) == ["a", "-"] + ["b"] * 57
    assert list(found.obs["word"].cat.categories) == ["c"]
    assert found.obs["1 (%)\n細胞"].sum() == np.arange(59).sum()


def test_what_no_file_can_hold_is_left_out_and_named(embedded: Embedded, tmp_path: Path) -> None:
    bad = {"mixed": [1, "a", 2.5] + ["b"] * 56, "lists": [[1]] * 59, "null": ["a\0b"] * 59, "half": ["\udcff"] * 59}
    bad |= {"day": pd.date_range("2020-01-01", periods=59), "a/b": 1.0, "_index": 1.0, "": 1.0}
    said, found = write(embedded, tmp_path / "latents.h5ad", **bad, depth=2.0)
    names = ", ".join(map(repr, bad))
    assert said == f"An .h5ad cannot hold obs {names}, left out of latents.h5ad."
    assert list(found.obs) == ["donor", "kind", "geneae_split", "geneae_molecules", "geneae_cluster", "depth"]


def test_names_of_profiles_that_no_file_can_hold_cost_the_file_and_not_the_fit(
    embedded: Embedded, tmp_path: Path
) -> None:
    found = latents_of(embedded, pd.Series("train", index=embedded.profiles.names))
    found.obs.index = pd.Index([f"\udcff{number}" for number in range(59)], dtype=object)
    said = write_latents(tmp_path / "latents.h5ad", found)
    assert said.startswith("latents.h5ad could not be written (")
    assert said.endswith("): give profiles and columns other names.")
    assert list(tmp_path.iterdir()) == []


def test_the_same_latents_are_the_same_bytes(embedded: Embedded, tmp_path: Path) -> None:
    for name in ("a.h5ad", "b.h5ad"):
        write(embedded, tmp_path / name)
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()


def test_a_column_is_read_by_profile(embedded: Embedded, tmp_path: Path) -> None:
    write(embedded, tmp_path / LATENTS_FILE)
    write_list(tmp_path, [LATENTS_FILE])
    found = read_column(tmp_path, "kind")
    assert list(found) == list(embedded.profiles.obs["kind"][1:])
    assert list(found.index) == list(embedded.profiles.names[1:])
    with pytest.raises(InputError, match="unknown obs column 'kid'; did you mean 'kind'"):
        read_column(tmp_path, "kid")
    with h5py.File(tmp_path / LATENTS_FILE, "r+") as file:
        file["obs/geneae_molecules"][0] = 7.0
    with pytest.raises(InputError, match=r"latents\.h5ad does not have the checksum that SHA256SUMS lists for it: it"):
        read_column(tmp_path, "kind")


def test_a_run_without_them_says_so(model_folder: Path) -> None:
    with pytest.raises(InputError, match=r"has no latents\.h5ad, whose columns could be shown: it is a"):
        read_column(model_folder, "kind")


def remove(file: h5py.File) -> None:
    del file["obs"]


def lose_index(file: h5py.File) -> None:
    del file["obs"].attrs["_index"]


def repeat_name(file: h5py.File) -> None:
    names = file["obs"][file["obs"].attrs["_index"]]
    names[1] = names[0]


def shorten(file: h5py.File) -> None:
    column = file["obs/geneae_molecules"]
    attributes = dict(column.attrs)
    del file["obs/geneae_molecules"]
    file["obs/geneae_molecules"] = np.zeros(3)
    file["obs/geneae_molecules"].attrs.update(attributes)


def point_beyond(file: h5py.File) -> None:
    file["obs/kind/codes"][0] = 100


def lead_nowhere(file: h5py.File) -> None:
    file["obs/lost"] = h5py.SoftLink("/nowhere")


def be_an_array(file: h5py.File) -> None:
    del file["obs"]
    file["obs"] = np.zeros(59)


DAMAGES = (remove, lose_index, repeat_name, shorten, point_beyond, lead_nowhere, be_an_array)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: str(damage.__name__))
def test_latents_of_somebody_else_that_no_table_can_be_read_of_are_refused(
    damage: Callable[[h5py.File], None], embedded: Embedded, tmp_path: Path
) -> None:
    """A folder that somebody hands on may have true checksums, and anything in its files."""
    write(embedded, tmp_path / LATENTS_FILE)
    with h5py.File(tmp_path / LATENTS_FILE, "r+") as file:
        damage(file)
    write_list(tmp_path, [LATENTS_FILE])
    with pytest.raises(InputError, match=r"^obs of .*latents\.h5ad cannot be read \(.*\)\. Copy the complete folder"):
        read_column(tmp_path, "geneae_molecules")
