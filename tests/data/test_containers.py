"""A container holds what it claims, and holds it itself; nothing is read or written through a link out of it."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from commands import assert_refused, geneae
from conftest import simulate

from geneae import read_profiles
from geneae.settings.errors import InputError

SECRET = np.arange(60 * 30, dtype=np.float32).reshape(60, 30)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """60 profiles x 30 genes as CSR, with a dense layer; beside it a file of somebody else."""
    adata = simulate(60, 30)
    adata.layers["dense"] = adata.X.toarray()
    adata.write_h5ad(tmp_path / "data.h5ad")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["X"], file["group/x"] = SECRET, SECRET
    (tmp_path / "secret").write_bytes(SECRET.tobytes())
    return tmp_path / "data.h5ad"


def external_link(file: h5py.File) -> None:
    file["X"] = h5py.ExternalLink("other.h5", "/X")


def link_to_one(file: h5py.File) -> None:
    file["elsewhere"] = h5py.ExternalLink("other.h5", "/")
    file["X"] = h5py.SoftLink("/elsewhere/X")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((60, 30), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "X", (60, 30))
    file.create_virtual_dataset("X", layout)


def raw_storage(file: h5py.File) -> None:
    place = str(Path(file.filename).with_name("secret"))
    file.create_dataset("X", (60, 30), np.float32, external=[(place, 0, h5py.h5f.UNLIMITED)])


OUTSIDE: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "external link": (external_link, "/X is an external link"),
    "link to one": (link_to_one, "/X is a link to an external one"),
    "virtual": (virtual, "/X is a virtual data set"),
    "raw storage": (raw_storage, "/X is raw external storage"),
}


@pytest.mark.parametrize("stream", ["yes", "no"])
@pytest.mark.parametrize("case", OUTSIDE)
def test_values_of_another_file_are_refused(case: str, stream: str, data: Path) -> None:
    make, text = OUTSIDE[case]
    with h5py.File(data, "r+") as file:
        del file["X"]
        make(file)
    with pytest.raises(InputError) as error:
        read_profiles(data, stream=stream)
    assert str(error.value).startswith(f"{data}: {text}, which would make another file be read, or written to.")
    if case == "raw storage":
        backed = anndata.read_h5ad(data, backed="r")
        with pytest.raises(InputError, match="raw external storage"):
            read_profiles(backed, stream="yes")
        backed.file.close()


@pytest.mark.parametrize("place", ["X/data", "X/indices", "obs/_index", "obs/donor/codes", "var/_index"])
def test_no_part_of_the_profiles_is_read_elsewhere(place: str, data: Path) -> None:
    with h5py.File(data, "r+") as file:
        del file[place]
        file[place] = h5py.ExternalLink("other.h5", "/X")
    with pytest.raises(InputError, match=f"/{place} is an external link"):
        read_profiles(data)


def test_links_within_a_file_and_what_is_not_read_do_no_harm(data: Path) -> None:
    expected = read_profiles(data).fingerprint
    with h5py.File(data, "r+") as file:
        file.move("X", "counts")
        file["X"] = h5py.SoftLink("/counts")
        file["uns/other"] = h5py.ExternalLink("other.h5", "/X")
        file["obs/donor/again"] = file["obs"]  # a loop
    assert read_profiles(data).fingerprint == read_profiles(data, stream="yes").fingerprint == expected


@pytest.mark.parametrize("stream", ["yes", "no"])
@pytest.mark.parametrize("group", ["obsm", "uns", "layers"])
@pytest.mark.parametrize("kind", ["external", "soft"])
def test_nothing_is_written_through_a_link(
    kind: str, group: str, stream: str, data: Path, model_folder: Path, tmp_path: Path
) -> None:
    with h5py.File(data, "r+") as file:
        file.move(group, "moved")
        file[group] = h5py.ExternalLink("other.h5", "/group") if kind == "external" else h5py.SoftLink("/moved")
    before = (tmp_path / "other.h5").read_bytes()
    output = tmp_path / "out.h5ad"
    flags = ["--min-overlap", "0", "--reconstruct", "--stream", stream, "-o", output]
    result = geneae("embed", model_folder, data, *flags)
    if kind == "external" or stream == "yes":
        what = "an external link" if kind == "external" else "a link"
        assert_refused(result, f"{data}: /{group} is {what}, which would make another file be read, or written to.")
        assert not output.exists()
    assert (tmp_path / "other.h5").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} <= {"data.h5ad", "other.h5", "secret", "out.h5ad"}


@pytest.mark.parametrize("name", ["obsm/X_geneae", "uns/geneae", "layers/geneae_reconstructed"])
def test_a_link_under_the_name_of_a_result_goes_and_what_it_leads_to_stays(
    name: str, data: Path, model_folder: Path, tmp_path: Path
) -> None:
    with h5py.File(data, "r+") as file:
        file["uns/kept"] = SECRET
        file[name] = h5py.SoftLink("/uns/kept")
    flags = ["--min-overlap", "0", "--reconstruct", "--stream", "yes", "-o", tmp_path / "out.h5ad"]
    result = geneae("embed", model_folder, data, *flags)
    assert result.exit_code == 0, result.output
    with h5py.File(tmp_path / "out.h5ad") as file:
        np.testing.assert_array_equal(file["uns/kept"][:], SECRET)
        assert file["obsm/X_geneae"].shape == (60, 4)
        assert file["layers/geneae_reconstructed"].shape == (60, 30)


def test_a_link_out_of_a_zarr_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.zarr"
    simulate(60, 30).write_zarr(path)
    described = ("zarr.json", ".zarray", ".zattrs")
    chunk = next(file for file in (path / "X" / "data").rglob("*") if file.is_file() and file.name not in described)
    (tmp_path / "secret").write_bytes(chunk.read_bytes())
    expected = read_profiles(path).fingerprint
    chunk.rename(chunk.with_name("kept"))
    chunk.symlink_to(chunk.with_name("kept"))
    assert read_profiles(path).fingerprint == expected
    chunk.unlink()
    chunk.symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=f"{chunk} is a link out of {path}, which would make other files be read"):
        read_profiles(path)


def put(place: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    def act(file: h5py.File) -> None:
        changed, attrs = change(file[place][:]), dict(file[place].attrs)
        del file[place]
        file[place] = changed
        file[place].attrs.update(attrs)

    return act


def shaped(n_rows: int) -> Callable[[h5py.File], None]:
    def act(file: h5py.File) -> None:
        file["X"].attrs["shape"] = [n_rows, 30]

    return act


def claimed(place: str) -> Callable[[h5py.File], None]:
    def act(file: h5py.File) -> None:
        stored = place if isinstance(file[place], h5py.Dataset) else f"{place}/values"  # of nullable strings
        attrs, dtype = dict(file[stored].attrs), file[stored].dtype
        del file[stored]
        file.create_dataset(stored, (10**12,), dtype, chunks=(2**16,)).attrs.update(attrs)

    return act


RISE = "pointers must rise from 0 to the number of values; found "
DAMAGES: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "early end": (put("X/indptr", lambda a: np.r_[a[:-1], a[-1] - 5]), RISE),
    "wrong start": (put("X/indptr", lambda a: np.r_[3, a[1:]]), RISE),
    "fall": (put("X/indptr", lambda a: np.r_[a[:5], 0, a[6:]]), RISE),
    "fewer indices": (put("X/indices", lambda a: a[:-1]), RISE),
    "float indices": (put("X/indices", lambda a: a.astype(float)), "indices must be a list of whole numbers; found"),
    "float pointers": (put("X/indptr", lambda a: a.astype(float)), "indptr must be a list of whole numbers; found"),
    "more rows": (shaped(10**12), "found a matrix of 1000000000000 x 30 for 60 profiles x 30 genes"),
    "fewer rows": (shaped(59), "found a matrix of 59 x 30 for 60 profiles x 30 genes"),
    "more pointers": (
        put("X/indptr", lambda a: np.r_[a, a[-1]]),
        "found pointers to 61 profiles, where its shape says",
    ),
    "claimed pointers": (claimed("X/indptr"), "/X/indptr claims 1,000,000,000,000 values, but only 0 bytes of them"),
    "claimed names": (claimed("obs/_index"), " claims 1,000,000,000,000 values, but only 0 bytes of them"),
    "claimed values": (claimed("X/data"), "/X/data claims 1,000,000,000,000 values, but only 0 bytes of them"),
    "index out of range": (put("X/indices", lambda a: np.r_[a[:-1], 10**6]), "reading it failed: "),
    "loop": (lambda file: file.move("X", "gone") or file.update({"X": h5py.SoftLink("/X")}), "reading it failed: "),
}


@pytest.mark.parametrize("stream", ["yes", "no"])
@pytest.mark.parametrize("case", DAMAGES)
def test_a_matrix_that_does_not_belong_together_is_refused(case: str, stream: str, data: Path) -> None:
    damage, text = DAMAGES[case]
    with h5py.File(data, "r+") as file:
        damage(file)
    with pytest.raises(InputError) as error:
        read_profiles(data, stream=stream)
    assert text in str(error.value)
    assert str(data) in str(error.value)
    assert "\n" not in str(error.value)


def is_plain(path: Path) -> bool:
    """Whether names are a list of text, as before anndata 0.13, and not text with a mask."""
    return not (path / "obs" / "_index" / "values").exists()


@pytest.mark.parametrize("place", ["X/indptr", "X/data", "obs/_index", "layers/dense"])
@pytest.mark.parametrize("stream", ["yes", "no"])
def test_a_zarr_that_claims_more_than_it_holds_is_refused(place: str, stream: str, tmp_path: Path) -> None:
    adata = simulate(60, 30)
    adata.layers["dense"] = adata.X.toarray()
    adata.write_zarr(tmp_path / "data.zarr")
    stored = place if place != "obs/_index" or is_plain(tmp_path / "data.zarr") else f"{place}/values"
    described = next(
        path for name in ("zarr.json", ".zarray") if (path := tmp_path / "data.zarr" / stored / name).exists()
    )
    content = json.loads(described.read_text())
    content["shape"] = [10**12, *content["shape"][1:]]
    described.write_text(json.dumps(content))
    for consolidated in (tmp_path / "data.zarr").rglob(".zmetadata"):
        consolidated.unlink()
    for group in (tmp_path / "data.zarr").rglob("zarr.json"):  # of version 3, which holds that of all below it
        metadata = json.loads(group.read_text())
        metadata.pop("consolidated_metadata", None)
        group.write_text(json.dumps(metadata))
    layer = "dense" if place.startswith("layers") else None
    with pytest.raises(
        InputError, match=f"/{stored} claims 1,000,000,000,000 .*values, but only [0-9,]+ bytes of them"
    ):
        read_profiles(tmp_path / "data.zarr", layer=layer, stream=stream)


def test_genes_of_a_matrix_by_genes_are_checked_too(tmp_path: Path) -> None:
    adata = simulate(60, 30)
    adata.X = adata.X.tocsc()
    adata.write_h5ad(tmp_path / "data.h5ad")
    assert read_profiles(tmp_path / "data.h5ad").n_genes == 30
    with h5py.File(tmp_path / "data.h5ad", "r+") as file:
        file["X/indptr"][0] = 1
    with pytest.raises(InputError, match="pointers must rise from 0 to the number of values; found 1 to"):
        read_profiles(tmp_path / "data.h5ad")
    with h5py.File(tmp_path / "data.h5ad", "r+") as file:
        put("X/indptr", lambda at: np.r_[0, at[1:-1]])(file)
    with pytest.raises(InputError, match="found pointers to 29 genes, where its shape says 30"):
        read_profiles(tmp_path / "data.h5ad")


def test_a_loop_where_nothing_is_read_stops_only_a_copy(data: Path, model_folder: Path, tmp_path: Path) -> None:
    with h5py.File(data, "r+") as file:
        file["uns/loop/again"] = 1
        file["uns/loop/deeper"] = file["uns/loop"]
    flags = ["--min-overlap", "0", "-o"]
    assert geneae("embed", model_folder, data, *flags, tmp_path / "out.csv").exit_code == 0
    result = geneae("embed", model_folder, data, *flags, tmp_path / "out.h5ad")
    assert_refused(result, f"{data}: /uns/loop/deeper is a loop: a group that holds itself. ")
    assert not (tmp_path / "out.h5ad").exists()
    with ThreadPoolExecutor(1) as other:  # HDF5 is not left blocked for other threads
        assert other.submit(lambda: len(read_profiles(data).names)).result(60) == read_profiles(data).n_profiles
