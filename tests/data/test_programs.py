"""What other programs have made: every format gives the same numbers under the same names, or one sentence."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from geneae.data.programs import Made, Table, parse_made, read_made, table_in_memory
from geneae.settings.errors import InputError

PROFILES = pd.Index([f"cell{i}" for i in range(6)])
GENES = pd.Index([f"gene{i}" for i in range(4)])
VALUES = np.random.default_rng(0).random((6, 4)).astype(np.float32)


def write_zarr(adata: anndata.AnnData, path: Path) -> None:
    """Without a warning of anndata about what will be the default."""
    with anndata.settings.override(auto_shard_zarr_v3=False):
        adata.write_zarr(path)


def write(folder: Path, ending: str, columns: pd.Index = GENES) -> Made:
    """The values in a file, with columns that are genes or not."""
    path = folder / f"made{ending}"
    table = pd.DataFrame(VALUES, PROFILES, columns)
    if ending == ".h5ad":
        anndata.AnnData(table).write_h5ad(path)
    elif ending == ".zarr":
        write_zarr(anndata.AnnData(table), path)
    elif ending == ".csv":
        table.to_csv(path)
    elif ending == ".parquet":
        table.rename_axis("profile").reset_index().to_parquet(path)
    else:
        np.save(path, VALUES)
        (folder / "made.npy.profiles.txt").write_text("\n".join(PROFILES))
        if columns is GENES:
            (folder / "made.npy.genes.txt").write_text("\n".join(GENES))
    return Made("a", path)


@pytest.mark.parametrize("ending", [".h5ad", ".zarr", ".csv", ".parquet", ".npy"])
def test_every_format_gives_profiles_and_genes_by_name(tmp_path: Path, ending: str) -> None:
    table = read_made(write(tmp_path, ending), GENES)
    assert not table.is_latent
    chosen = table.of(PROFILES[[4, 0, 3]]).in_genes(GENES[[2, 1]])
    np.testing.assert_allclose(chosen.block(slice(0, 3)), VALUES[[4, 0, 3]][:, [2, 1]], rtol=1e-6)
    np.testing.assert_allclose(chosen.block(slice(1, 3)), VALUES[[0, 3]][:, [2, 1]], rtol=1e-6)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npy"])
def test_columns_that_are_no_genes_are_latents(tmp_path: Path, ending: str) -> None:
    table = read_made(write(tmp_path, ending, pd.Index(["one", "two", "three", "four"])), GENES)
    assert table.is_latent
    np.testing.assert_allclose(table.block(slice(0, 6)), VALUES, rtol=1e-6)


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_layers_and_obsm_are_named(tmp_path: Path, ending: str) -> None:
    adata = anndata.AnnData(pd.DataFrame(VALUES, PROFILES, GENES))
    adata.layers["denoised"] = sparse.csc_matrix(VALUES * 2)
    adata.obsm["X_pca"] = VALUES[:, :2]
    adata.obsm["frame"] = pd.DataFrame(VALUES[:, 1:], PROFILES, ["a", "b", "c"])
    path = tmp_path / f"made{ending}"
    if ending == ".zarr":
        write_zarr(adata, path)
    else:
        adata.write_h5ad(path)
    for equals in ("=", " "):
        layer = read_made(parse_made(f"a={path}:layer{equals}denoised"), GENES)
        assert not layer.is_latent
        np.testing.assert_allclose(layer.block(slice(0, 6)), 2 * VALUES, rtol=1e-6)
        latent = read_made(parse_made(f"a={path}:obsm{equals}X_pca"), GENES)
        assert latent.is_latent
        np.testing.assert_array_equal(latent.block(slice(0, 6)), VALUES[:, :2])
    np.testing.assert_array_equal(read_made(parse_made(f"a={path}:obsm=frame"), GENES).values, VALUES[:, 1:])
    for of in (path, adata):

        def read(key: str, of: object = of) -> Table:
            return (
                table_in_memory(of, "a", GENES, key) if of is adata else read_made(parse_made(f"a={of}:{key}"), GENES)
            )

        with pytest.raises(InputError, match="unknown layer 'denoise'; did you mean 'denoised'"):
            read("layer=denoise")
        with pytest.raises(InputError, match="unknown obsm 'X_pce'; did you mean 'X_pca'"):
            read("obsm=X_pce")


def test_a_csv_keeps_names_that_look_like_numbers(tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    path.write_text(",gene0,gene1\n001,1,\n1e5,3,NaN\n")
    table = read_made(Made("a", path), GENES[:2])
    assert list(table.names) == ["001", "1e5"]
    np.testing.assert_array_equal(table.block(slice(0, 2)), [[1, np.nan], [3, np.nan]])


def test_missing_profiles_are_named(tmp_path: Path) -> None:
    table = read_made(write(tmp_path, ".csv"), GENES)
    with pytest.raises(InputError) as refused:
        table.of(pd.Index(["cell0", "odd1", "odd2"]))
    assert "matched by name; 2 are missing, first 'odd1', 'odd2'. Its first names are 'cell0', 'cell1'" in str(
        refused.value
    )


def test_genes_of_another_kind_are_refused(tmp_path: Path) -> None:
    made = write(tmp_path, ".h5ad", pd.Index([f"ENSG{i}" for i in range(4)]))
    with pytest.raises(
        InputError, match=r"has 4 columns, of which 0 are genes of the profiles \(columns: ENSG0, ENSG1"
    ):
        read_made(made, GENES)


BAD = {
    "nothing": ("a", "what a program has made is given as NAME=FILE, NAME=FILE:layer=KEY or NAME=FILE:obsm=KEY; found"),
    "no name": ("=file.h5ad", "found '=file.h5ad'"),
    "no file": ("a=missing.csv", "missing.csv does not exist. Give what the program 'a' has written."),
    "ending": ("a=data.txt", "data.txt must end in .h5ad, .zarr, .csv, .parquet, .npy."),
    "folder of a fit": (
        "a=run",
        "formats. Of a fit, give what geneae embed --reconstruct --own-depth makes of input.h5ad.",
    ),
    "layer of a table": (
        "a=made.csv:layer=x",
        "only an .h5ad file or a .zarr has layers and obsm; found made.csv, layer 'x'.",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_places_are_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, ".csv")
    (tmp_path / "run").mkdir()
    text, said = BAD[kind]
    with pytest.raises(InputError) as refused:
        read_made(parse_made(text), GENES)
    assert said in str(refused.value)


def test_files_that_cannot_be_used_are_refused_in_a_sentence(tmp_path: Path) -> None:
    cases = {
        "text.csv": ("name,gene0\ncell0,high\n", "must hold numbers beside the names of the profiles in its first"),
        "empty.csv": ("", "cannot be read: No columns to parse from file. Write it again."),
        "no.h5ad": ("text", "should be an .h5ad (HDF5) file, but its content is not HDF5."),
        "no.parquet": ("text", "cannot be read: "),
        "twice.csv": (",gene0\ncell0,1\ncell0,2\n", "names of profiles must be unique; 'cell0' occurs more than once."),
    }
    for name, (content, said) in cases.items():
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(InputError) as refused:
            read_made(Made("a", path), GENES)
        assert said in str(refused.value)
    np.save(tmp_path / "no_names.npy", VALUES)
    with pytest.raises(InputError, match=r"an \.npy file has no names: write those of its profiles, a line each, to"):
        read_made(Made("a", tmp_path / "no_names.npy"), GENES)
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read: Array can't be memory-mapped"):
        read_made(Made("a", tmp_path / "object.npy"), GENES)


def test_arrays_without_names_are_refused() -> None:
    with pytest.raises(InputError, match="must be AnnData, or a DataFrame with profiles as rows; found ndarray"):
        table_in_memory(VALUES, "what 'a' has made", GENES)
