import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import FIVE, assert_same_profiles, five_profiles
from scipy import sparse

from geneae.data import matrix_check, reading
from geneae.data.reading import read_profiles
from geneae.settings.errors import InputError

SPARSE_FORMATS: Any = ("csr", "csc", "coo", "lil", "dok", "bsr", "dia")


def write_zarr(adata: anndata.AnnData, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata announces a change of the default zarr version
        adata.write_zarr(path)
    return path


def write_h5ad(adata: anndata.AnnData, path: Path) -> Path:
    adata.write_h5ad(path)
    return path


MATRICES = st.tuples(
    hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 100)),
    st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i8", "u8", ">f4", ">i4", "?"]),
).map(lambda pair: pair[0].astype(pair[1]))


@given(MATRICES)
@settings(max_examples=60, deadline=None)
def test_all_forms_in_memory_give_the_same_profiles(dense: np.ndarray) -> None:
    expected = read_profiles(dense)
    np.testing.assert_array_equal(expected.matrix.toarray(), dense.astype(np.float32))
    assert_same_profiles(read_profiles(pd.DataFrame(dense)), expected)
    assert_same_profiles(read_profiles(anndata.AnnData(dense.astype(np.float32))), expected)
    if dense.dtype.isnative and dense.dtype != np.float16:  # scipy has neither
        for form in SPARSE_FORMATS:
            assert_same_profiles(read_profiles(sparse.coo_matrix(dense).asformat(form)), expected)
            assert_same_profiles(read_profiles(sparse.coo_array(dense).asformat(form)), expected)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("where", ["X", "layer", "raw"])
def test_memory_h5ad_backed_and_zarr_give_the_same_profiles(
    tmp_path: Path, form: Callable[[np.ndarray], Any], where: str
) -> None:
    other = np.full_like(FIVE, 0.5)
    adata = five_profiles(form(other if where != "X" else FIVE))
    if where == "layer":
        adata.layers["counts"] = form(FIVE)
    if where == "raw":
        adata.raw = five_profiles(form(FIVE))
    asked: Any = {"X": {}, "layer": {"layer": "counts"}, "raw": {"use_raw": True}}[where]
    expected = read_profiles(five_profiles())
    h5ad, folder = write_h5ad(adata, tmp_path / "a.h5ad"), write_zarr(adata, tmp_path / "a.zarr")
    backed = anndata.read_h5ad(h5ad, backed="r")
    for data in (adata, adata[:], h5ad, str(h5ad), folder, backed):
        found = read_profiles(data, **asked)
        assert_same_profiles(found, expected)
        assert found.location == {"X": "X", "layer": "layers['counts']", "raw": "raw"}[where]
        pd.testing.assert_frame_equal(found.obs, adata.obs, check_names=False, check_index_type=False)
    backed.file.close()
    assert [read_profiles(data, **asked).source for data in (adata, h5ad)] == ["AnnData in memory", str(h5ad)]


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    expected = read_profiles(five_profiles())
    path = write_h5ad(five_profiles(), tmp_path / "a.h5ad")
    for module in (reading, matrix_check):
        monkeypatch.setattr(module, "CHUNK", chunk)
    for data in (five_profiles(), five_profiles(sparse.csc_matrix(FIVE)), path):
        assert_same_profiles(read_profiles(data), expected)


def test_one_negative_or_fraction_anywhere_decides_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reading, matrix_check):
        monkeypatch.setattr(module, "CHUNK", 2)
    for row, column in np.ndindex(FIVE.shape):
        for value, state in ((7, "counts"), (0.25, "normalised"), (-1, ""), (-0.5, "")):
            x = FIVE.copy()
            x[row, column] = value
            for form in (np.asarray, sparse.csr_matrix, sparse.csc_matrix):
                if state:
                    assert read_profiles(form(x)).state == state
                else:
                    assert_refused(f"1 is below zero ({value:g})", form(x))
                    assert read_profiles(form(x), state="scaled").state == "scaled"


def test_duplicates_are_summed_zeros_dropped_and_the_input_left_alone() -> None:
    given_matrix = sparse.csr_matrix(
        (np.array([0.5, 2.0, 0.5, 0.0, -0.0]), np.array([2, 0, 2, 1, 0]), np.array([0, 3, 5])), shape=(2, 3)
    )
    data = given_matrix.data.copy()
    found = read_profiles(given_matrix)
    np.testing.assert_array_equal(found.matrix.toarray(), [[2, 0, 1], [0, 0, 0]])
    assert found.state == "counts"
    assert found.matrix.nnz == 2
    np.testing.assert_array_equal(given_matrix.data, data)


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_sums_of_duplicates_do_not_overflow_small_integers(form: str, dtype: str, tmp_path: Path) -> None:
    half = np.iinfo(dtype).max // 2 + 1  # twice of it is more than the type holds
    parts = (np.array([half, 1, half], dtype), (np.array([0, 1, 0]), np.array([2, 0, 2])))
    given_matrix = sparse.coo_matrix(parts, shape=(2, 3))
    if form != "coo":
        lines, others = parts[1] if form == "csr" else parts[1][::-1]
        order = np.argsort(lines, kind="stable")
        pointers = np.searchsorted(lines[order], np.arange((2 if form == "csr" else 3) + 1))
        made = sparse.csr_matrix if form == "csr" else sparse.csc_matrix
        given_matrix = made((parts[0][order], others[order], pointers), shape=(2, 3))
    assert given_matrix.nnz == 3
    expected = [[0, 0, 2 * half], [1, 0, 0]]
    np.testing.assert_array_equal(read_profiles(given_matrix).matrix.toarray(), expected)
    if form == "csr":
        anndata.AnnData(given_matrix).write_h5ad(tmp_path / "a.h5ad")
        np.testing.assert_array_equal(read_profiles(tmp_path / "a.h5ad").matrix.toarray(), expected)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", ">f4", ">f8", ">i4", ">u8"])
@pytest.mark.parametrize(("form", "stream"), [("csr", "no"), ("csr", "yes"), ("csc", "no")])
def test_sparse_files_of_half_precision_and_foreign_byte_order_are_read(
    dtype: str, form: str, stream: str, tmp_path: Path
) -> None:
    matrix = sparse.csr_matrix(FIVE) if form == "csr" else sparse.csc_matrix(FIVE)
    anndata.AnnData(matrix.astype(np.float32)).write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        del file["X/data"]
        file["X/data"] = matrix.data.astype(dtype)
    found = read_profiles(tmp_path / "a.h5ad", stream=stream)
    np.testing.assert_array_equal(
        found.matrix[np.arange(5)].read().toarray() if stream == "yes" else found.matrix.toarray(), FIVE
    )


def test_float32_csr_in_memory_is_shared() -> None:
    matrix = sparse.csr_matrix(FIVE)
    assert np.shares_memory(read_profiles(matrix).matrix.data, matrix.data)


def peak_megabytes(data: Any) -> float:
    tracemalloc.start()
    read_profiles(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def test_sparse_is_never_made_dense() -> None:
    for form in SPARSE_FORMATS[:3]:
        wide = sparse.coo_matrix((np.ones(1), (np.array([3]), np.array([7]))), shape=(20_000, 10_000)).asformat(form)
        assert peak_megabytes(wide) < 20  # dense: 1,600


def test_a_dense_file_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_h5ad(anndata.AnnData(np.eye(1000, 8000, dtype=np.float32)), tmp_path / "a.h5ad")
    for module in (reading, matrix_check):
        monkeypatch.setattr(module, "CHUNK", 2**16)
    assert peak_megabytes(path) < 8  # whole: 32


def test_arrays_are_named_by_number_and_tables_by_their_labels() -> None:
    found = read_profiles(FIVE)
    assert (list(found.names), list(found.genes)) == (list("01234"), list("0123"))
    assert (found.source, found.location) == ("array in memory", "X")
    frame = pd.DataFrame(FIVE, index=list("abcde"), columns=["A1BG", "A2M", 7, "AAK1"])
    found = read_profiles(frame)
    assert (list(found.names), list(found.genes)) == (list("abcde"), ["A1BG", "A2M", "7", "AAK1"])
    assert_same_profiles(read_profiles(frame.astype(pd.SparseDtype(np.float32, 0))), found)
    assert_same_profiles(read_profiles(frame.astype({"A2M": "Int64", "A1BG": "float64"})), found)


def test_only_the_matrix_asked_for_is_read(tmp_path: Path) -> None:
    path = write_h5ad(five_profiles(layers={"huge": sparse.csr_matrix(FIVE)}, uns={"a": 1}), tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        del file["layers/huge/indices"], file["uns"]
        file["uns"] = "cannot be read"
    assert_same_profiles(read_profiles(path), read_profiles(five_profiles()))
    with pytest.raises(InputError, match="should be a complete AnnData file, but reading it failed"):
        read_profiles(path, layer="huge")


def test_files_written_before_anndata_0_7_are_read(tmp_path: Path) -> None:
    path, matrix = tmp_path / "old.h5ad", sparse.csr_matrix(FIVE)
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", matrix.shape
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        for key, names in (("obs", [f"cell{i}" for i in range(5)]), ("var", [f"gene{i}" for i in range(4)])):
            file[key] = np.array([(name.encode(),) for name in names], dtype=[("index", "S8")])
    assert_same_profiles(read_profiles(path), read_profiles(five_profiles()))


def test_no_warning_is_given_for_a_file_with_repeated_names(tmp_path: Path) -> None:
    path = write_h5ad(five_profiles(), tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        names = file["var/_index"]
        (names if isinstance(names, h5py.Dataset) else names["values"])[1] = "gene0"
    assert list(read_profiles(path).genes) == ["gene0", "gene0-1", "gene2", "gene3"]


def assert_refused(message: str, data: Any, **options: Any) -> None:
    with pytest.raises(InputError) as caught:
        read_profiles(data, **options)
    assert message in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    write_h5ad(five_profiles(), tmp_path / "pbmc3k.h5ad")
    assert_refused("pbmc3.h5ad does not exist; did you mean 'pbmc3k.h5ad'? Give the path", tmp_path / "pbmc3.h5ad")
    assert_refused("zzz does not exist. Give the path of an .h5ad file, a .zarr folder or another", tmp_path / "zzz")
    assert_refused(f"does not exist; nor does its folder {tmp_path / 'no'}. Give the path", tmp_path / "no" / "a.h5ad")


def test_folders_and_files_of_another_kind(tmp_path: Path) -> None:
    assert_refused("is a folder, but neither a .zarr written by anndata nor a 10x folder with matrix.mtx", tmp_path)
    written = tmp_path / "run"
    written.mkdir()
    for name in ("config.json", "report.html"):
        (written / name).touch()
    assert_refused("run is a folder that geneae has written, but profiles are needed here. Give the file", written)
    table = tmp_path / "counts.h5ad"
    table.write_text("cell,gene\na,1\n")
    assert_refused("should be an .h5ad (HDF5) file, but its content is not HDF5", table)
    assert_refused("Give a table the ending .csv or .tsv", table)
    table.rename(tmp_path / "counts.xlsx")
    assert_refused("counts.xlsx is of no kind that geneae reads: its content is not HDF5", tmp_path / "counts.xlsx")
    with h5py.File(tmp_path / "10x.h5", "w") as file:
        file.create_group("matrix")
    assert_refused("10x.h5 holds matrix, but AnnData has obs and var", tmp_path / "10x.h5")
    zarr.open_group(tmp_path / "foreign.zarr", mode="w").create_group("images")
    assert_refused("foreign.zarr holds images, but AnnData has obs and var", tmp_path / "foreign.zarr")


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated_files(tmp_path: Path, kept: float) -> None:
    path = write_h5ad(five_profiles(), tmp_path / "a.h5ad")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert_refused("a.h5ad should be a complete AnnData file, but reading it failed: ", path)
    assert_refused("interrupted copy or download is a common cause; copy, download or write it again.", path)


def test_damaged_matrices(tmp_path: Path) -> None:
    path = write_h5ad(five_profiles(sparse.csr_matrix(FIVE)), tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        file["X/indices"][0] = 1000
    assert_refused("should be a complete AnnData file, but reading it failed: ", path)
    path = write_h5ad(five_profiles(), tmp_path / "b.h5ad")
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = FIVE[:3]
    assert_refused("b.h5ad, X: found a matrix of 3 x 4 for 5 profiles x 4 genes. Write the file again.", path)


@pytest.mark.parametrize("is_file", [False, True])
def test_no_other_matrix_is_read_in_place_of_the_one_asked_for(tmp_path: Path, is_file: bool) -> None:
    def stored(adata: anndata.AnnData) -> Any:
        return write_h5ad(adata, tmp_path / "a.h5ad") if is_file else adata

    layers = {"counts": FIVE, "spliced": FIVE}
    assert_refused(
        "unknown layer 'count'; did you mean 'counts'? Available: counts, spliced",
        stored(five_profiles(layers=layers)),
        layer="count",
    )
    assert_refused(
        "has no raw. Leave raw out; its layers: counts, spliced.", stored(five_profiles(layers=layers)), use_raw=True
    )
    layers = {"counts": FIVE, "spliced": FIVE}  # anndata 0.13 has added X to the other
    message = "has no X. Choose another matrix (layers: counts, spliced; raw: no)."
    assert_refused(message, stored(five_profiles(None, layers=layers)))
    assert_refused(
        "both layer 'counts' and raw were requested. Drop one.", stored(five_profiles()), layer="counts", use_raw=True
    )


def test_a_zarr_array_is_read() -> None:
    np.testing.assert_array_equal(read_profiles(five_profiles(zarr.array(FIVE))).matrix.toarray(), FIVE)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_streamed_file_says_what_a_file_in_memory_says(form: Any, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    (five_profiles(form(FIVE)).write_h5ad if ending == "h5ad" else five_profiles(form(FIVE)).write_zarr)(path)
    streamed, whole = read_profiles(path, stream="yes"), read_profiles(path)
    assert streamed.is_streamed
    assert not whole.is_streamed
    assert streamed.fingerprint == whole.fingerprint
    np.testing.assert_array_equal(streamed.totals, whole.totals)
    np.testing.assert_array_equal(streamed.scan.lengths, whole.scan.lengths)
    assert (streamed.state, streamed.density, streamed.megabytes) == (whole.state, whole.density, whole.megabytes)
    assert "left in its file" in streamed.describe()
    np.testing.assert_array_equal(streamed.take([3, 0]).matrix.toarray(), FIVE[[3, 0]])


def test_a_backed_anndata_can_be_streamed(tmp_path: Path) -> None:
    five_profiles(sparse.csr_matrix(FIVE)).write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    assert read_profiles(backed, stream="yes").take([1]).matrix.toarray().tolist() == [FIVE[1].tolist()]


def test_streaming_is_chosen_by_the_memory_that_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    five_profiles(sparse.csr_matrix(FIVE)).write_h5ad(tmp_path / "x.h5ad")
    assert not read_profiles(tmp_path / "x.h5ad", stream="auto").is_streamed
    monkeypatch.setattr("geneae.data.memory.free_megabytes", lambda: 1e-3)
    assert read_profiles(tmp_path / "x.h5ad", stream="auto").is_streamed
    assert not read_profiles(tmp_path / "x.h5ad", stream="no").is_streamed
    assert not read_profiles(FIVE, stream="auto").is_streamed


def test_what_cannot_be_streamed_is_refused(tmp_path: Path) -> None:
    five_profiles(sparse.csc_matrix(FIVE)).write_h5ad(tmp_path / "x.h5ad")
    assert_refused("stored gene by gene (CSC), which does not allow reading", tmp_path / "x.h5ad", stream="yes")
    assert_refused(
        "X is in memory, and only files that hold rows of numbers can be streamed", five_profiles(), stream="yes"
    )
    assert_refused("only files can be streamed; found ndarray", FIVE, stream="yes")
    assert_refused("unknown stream 'maybe'", FIVE, stream="maybe")


def test_a_streamed_file_with_a_value_that_is_no_number_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geneae.data.reading.CHUNK_ROWS", 2)
    x = FIVE.copy()
    x[3, 2] = np.nan
    five_profiles(sparse.csr_matrix(x)).write_h5ad(tmp_path / "x.h5ad")
    assert_refused("first in profile 'cell3', gene 'gene2'", tmp_path / "x.h5ad", stream="yes")


def test_layers_and_raw_belong_to_anndata() -> None:
    assert_refused("only AnnData has layers and raw; found ndarray", FIVE, layer="counts")


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_nan_and_infinity_are_counted_and_the_first_is_named(form: Callable[[np.ndarray], Any]) -> None:
    x = FIVE.copy()
    x[1, 2], x[3, 0], x[4, 0] = np.nan, np.inf, -np.inf
    assert_refused(
        "3 are NaN or infinite, first in profile 'cell1', gene 'gene2'. Remove these", five_profiles(form(x))
    )


def test_what_only_the_first_rows_of_a_dense_matrix_have_shown_is_called_the_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "CHUNK", 3 * FIVE.shape[1])
    x = FIVE.copy()
    x[1, 2], x[4, 0] = np.nan, np.nan
    assert_refused("finite number; at least 1 are NaN or infinite, first in profile 'cell1'", five_profiles(x))
    x[1, 2] = 1
    assert_refused("finite number; 1 are NaN or infinite, first in profile 'cell4'", five_profiles(x))


def test_a_missing_value_of_a_table_is_nan() -> None:
    frame = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [0, 1]}, index=["p", "q"])
    assert_refused("1 are NaN or infinite, first in profile 'q', gene 'a'", frame)


def test_titles_of_names_that_are_no_text_are_left_out() -> None:
    adata = five_profiles()
    adata.obs.index.name, adata.var.index.name = "barcode", "gene"
    assert (read_profiles(adata).names.name, read_profiles(adata).genes.name) == ("barcode", "gene")
    table = pd.DataFrame(FIVE, index=pd.Index(list("abcde"), name=0), columns=pd.Index(list("wxyz"), name=1))
    assert read_profiles(table).names.name is read_profiles(table).genes.name is None


def test_repeated_names() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata warns when such names are set
        genes, names = five_profiles(), five_profiles()
        genes.var_names, names.obs_names = ["A", "B", "A", "A"], list("ppqqr")
    found = read_profiles(genes)
    assert list(found.genes) == ["A", "B", "A-1", "A-2"]  # as adata.var_names_make_unique() has it
    repeated = "2 of 4 gene names repeat an earlier one and were made unique as scanpy does, first 'A' as 'A-1'."
    assert found.said == (f"AnnData in memory, X: {repeated}",)
    assert_refused("profile names must be unique; 2 of 5 repeat an earlier one, first 'p', 'q'. ", names)
    assert_refused("Make them unique with adata.obs_names_make_unique().", names)


def test_nothing_to_read() -> None:
    assert_refused("at least one profile and one gene are needed; found 0 profiles x 4 genes.", five_profiles()[:0])
    assert_refused("at least one profile and one gene are needed; found 5 profiles x 0 genes.", five_profiles()[:, :0])
    assert_refused("found 0 profiles x 3 genes", np.zeros((0, 3)))
    assert_refused("found 2 profiles x 0 genes", pd.DataFrame(index=["a", "b"]))


def test_values_that_float32_cannot_hold() -> None:
    assert read_profiles(np.array([[2**24]])).matrix.data[0] == 2**24
    assert_refused(
        "counts must be at most 16,777,216 to be exact in float32; found 16,777,217.", np.array([[2**24 + 1]])
    )
    assert_refused("below 3.4e38; found 1e+39. Scale them down.", np.array([[1e39, 0.5]]))
    assert_refused("below 3.4e38; found 1e+39. Scale them down.", np.array([[-1e39, 0.5]]))
    assert read_profiles(np.array([[2.0**24 + 1.5, 0.5]])).state == "normalised"


def test_unsupported_types() -> None:
    assert_refused("values must be real numbers; found type complex128. Convert", np.ones((2, 2), complex))
    assert_refused("values must be real numbers; found type object. Convert", np.ones((2, 2), object))
    assert_refused("values must be real numbers; found type <U1. Convert", np.array([["a"]]))
    assert_refused("or a DataFrame; found list. Convert it to one of these.", [[1, 2]])
    assert_refused("found MaskedArray. Convert it", np.ma.masked_array(FIVE, FIVE > 2))
    assert_refused("an array of profiles x genes must have two dimensions; its shape is (4,).", FIVE[0])
    assert_refused(
        "must be a gene with numbers; column 'kind' holds ",
        pd.DataFrame({"a": [1], "kind": pd.array(["T"], object)}),
    )
