"""What geneae reads: one line for each ending of a file or folder, and what is refused before anything is opened."""

import contextlib
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import pandas as pd

from geneae.data.anndata_groups import found_in_anndata, found_in_group
from geneae.data.containers import check_all, check_folder
from geneae.data.loom import is_loom, loom_layers, loom_matrices, read_loom
from geneae.data.matrix_choice import Found, MatrixChoice
from geneae.data.tenx import is_tenx_folder, read_tenx_folder, read_tenx_h5, tenx_group
from geneae.data.text_tables import read_table
from geneae.settings.errors import InputError, did_you_mean, listed

Stack = contextlib.ExitStack
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,3}[^/].*")


@dataclass(frozen=True)
class Format:
    """One kind of file or folder."""

    title: str
    """What it is, with its article, for messages."""
    read: Callable[[Path, MatrixChoice, Stack, bool], Found]
    """Reads the annotation, and finds the matrix; what it opens is closed with the stack. The last argument: past what
    HDF5 keeps in memory of an open file."""


def _from_hdf5(path: Path, choice: MatrixChoice, stack: Stack, is_fresh: bool) -> Found:
    """The matrix of an HDF5 file of any of the layouts, which the content tells."""
    source = str(path)
    file = stack.enter_context(h5py.File(stack.enter_context(path.open("rb")) if is_fresh else path, "r"))
    if is_loom(file):
        choice.check_no_modality(source)
        layers = loom_layers(file, source)
        location = choice.location(source, layers)
        found = read_loom(file, choice.layer_among(layers), source)
        return Found(*found, location, matrices=lambda: loom_matrices(file, source))
    if "obs" not in file and (group := tenx_group(file)) is not None:
        choice.check_no_modality(source)
        location = choice.location(source)
        return Found(*read_tenx_h5(file, group, source), location)
    if "obs" in file and "encoding-type" not in file["obs"].attrs:  # written before anndata 0.7
        check_all(file, source)
        return found_in_anndata(anndata.read_h5ad(path), choice, source)
    return found_in_group(file, choice, source)


def _from_zarr(path: Path, choice: MatrixChoice, _: Stack, __: bool) -> Found:
    check_folder(path)
    import zarr  # slow to import, and most files are .h5ad

    return found_in_group(zarr.open_group(path, mode="r"), choice, str(path))


def _from_zip(path: Path, choice: MatrixChoice, stack: Stack, _: bool) -> Found:
    """The matrix of a zarr in a zip, at its top or in its only folder."""
    import zarr
    from zarr.storage import ZipStore

    with zipfile.ZipFile(path) as opened:
        names = [name for name in opened.namelist() if name.rpartition("/")[2] in (".zgroup", "zarr.json")]
    if not names:
        raise InputError(f"{path} is a zip, but holds no zarr. Give the zip of an AnnData written by write_zarr.")
    above = min(names, key=len).rpartition("/")[0]
    store = stack.enter_context(contextlib.closing(ZipStore(path, mode="r")))
    return found_in_group(zarr.open_group(store, path=above, mode="r"), choice, str(path))


def _from_tenx_folder(path: Path, choice: MatrixChoice, _: Stack, __: bool) -> Found:
    if path.is_dir():
        check_folder(path)
    choice.check_no_modality(str(path))
    location = choice.location(str(path))
    return Found(*read_tenx_folder(path), location)


def _from_table(path: Path, choice: MatrixChoice, _: Stack, __: bool) -> Found:
    choice.check_no_modality(str(path))
    location = choice.location(str(path))
    matrix, profiles, genes, said = read_table(path)
    return Found(matrix, pd.DataFrame(index=profiles), pd.DataFrame(index=genes), location, (said,))


HDF5, TABLE = "an .h5ad (HDF5) file", "a table of profiles x genes"
FOLDER = Format("a 10x matrix folder", _from_tenx_folder)
FORMATS: dict[str, Format] = {
    ".h5ad": Format(HDF5, _from_hdf5),
    ".zarr": Format("a zarr of AnnData", _from_zarr),
    ".zarr.zip": Format("a zip of a zarr of AnnData", _from_zip),
    ".h5mu": Format("an .h5mu (HDF5) file of MuData", _from_hdf5),
    ".h5": Format("a 10x .h5 (HDF5) file", _from_hdf5),
    ".loom": Format("a .loom (HDF5) file", _from_hdf5),
    ".mtx": FOLDER,
    ".mtx.gz": FOLDER,
    **{f".{kind}{packed}": Format(TABLE, _from_table) for kind in ("csv", "tsv", "txt") for packed in ("", ".gz")},
}
"""Formats by the ending of the name; folders and HDF5 files are told by their content."""


def format_of(path: Path) -> Format:
    """Format of a path; a URL, a missing path and content of no known kind are refused."""
    _check_there(path)
    if path.is_dir():
        if any((path / name).exists() for name in (".zgroup", "zarr.json")):
            return FORMATS[".zarr"]
        if is_tenx_folder(path):
            return FOLDER
        if (path / "config.json").is_file() and (path / "report.html").is_file():
            raise InputError(
                f"{path} is a folder that geneae has written, but profiles are needed here. Give the file of profiles; "
                f"what the run has found is in {path}/report.html."
            )
        raise InputError(
            f"{path} is a folder, but neither a .zarr written by anndata nor a 10x folder with matrix.mtx, "
            f"barcodes and features; it holds {listed(sorted(os.listdir(path)))}. Give the folder that does, or a file."
        )
    ending = ending_of(path)
    if h5py.is_hdf5(path):
        return FORMATS[ending] if ending in FORMATS and FORMATS[ending].read is _from_hdf5 else FORMATS[".h5ad"]
    if (ending or path.suffix == ".gz") and not ending.endswith(".gz") and is_packed(path):
        raise InputError(
            f"{path} is compressed with gzip, which is read of text and .mtx alone. Unpack it with gunzip."
        )
    if ending == "":
        raise InputError(
            f"{path} is of no kind that geneae reads: its content is not HDF5, and its name has none of the endings "
            f"{', '.join(FORMATS)}. Rename or convert it; docs/reference/data.md says what each kind holds."
        )
    found = FORMATS[ending]
    if found.read is _from_hdf5 or found.read is _from_zarr:
        raise InputError(
            f"{path} should be {found.title if found.read is _from_hdf5 else 'a .zarr folder'}, but its content is not "
            "HDF5. Give a table the ending .csv or .tsv; download or copy a damaged file again."
        )
    if found.read is _from_zip and not zipfile.is_zipfile(path):
        raise InputError(f"{path} should be a zip, but is none, or only a part of one. Download or copy it again.")
    return found


def is_packed(path: Path) -> bool:
    """Whether the content of a file is compressed with gzip, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def is_utf16(path: Path) -> bool:
    """Whether a file begins with the mark of UTF-16, in which some spreadsheets write text."""
    with path.open("rb") as file:
        return file.read(2) in (b"\xff\xfe", b"\xfe\xff")


def ending_of(path: Path) -> str:
    """The longest ending in `FORMATS` of a name, in any case; empty where there is none."""
    name = path.name.lower()
    return max((ending for ending in FORMATS if name.endswith(ending)), key=len, default="")


def stem_of(path: Path) -> str:
    """The name of a file or folder without its ending."""
    return path.name[: -len(ending)] if (ending := ending_of(path)) and path.name != ending else path.stem


def is_anndata(path: Path) -> bool:
    """Whether this is an HDF5 file or a zarr folder with AnnData at its top, which anndata reads as a whole."""
    if path.is_dir():
        return format_of(path) is FORMATS[".zarr"]
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        return "obs" in file and "mod" not in file and not is_loom(file)


def check_no_url(data: str) -> None:
    """Refuse a URL, which would be taken for a path that does not exist."""
    if URL.fullmatch(data) and not os.path.exists(data):
        raise InputError(f"{data} is a URL, but geneae reads files of this machine. Download it, and give its path.")


def _check_there(path: Path) -> None:
    check_no_url(str(path))
    if path.is_dir() or path.is_file():
        return
    if path.exists():
        raise InputError(f"{path} is no file or folder, but a pipe or a device. Write it to a file, and give its path.")
    there = sorted(os.listdir(path.parent)) if path.parent.is_dir() else []
    nothing = "." if path.parent.is_dir() else f"; nor does its folder {path.parent}."
    hint = did_you_mean(path.name, there) or nothing
    raise InputError(
        f"{path} does not exist{hint} Give the path of an .h5ad file, a .zarr folder or another format that geneae "
        "reads."
    )


def failed_reading(path: Path, found: Format, error: Any, reason: str) -> InputError:
    """One error for whatever a library raised when it read a file."""
    if isinstance(error, UnicodeDecodeError):
        if is_utf16(path):
            return InputError(f"{path} is text in UTF-16, and geneae reads UTF-8. Save it as CSV or TSV in UTF-8.")
        reason = "it is no text in UTF-8"
    what = "a complete AnnData file" if found.title == HDF5 or found.read is _from_zarr else found.title
    return InputError(
        f"{path} should be {what}, but reading it failed: {reason.rstrip('.')}. An interrupted copy or download is a "
        "common cause; copy, download or write it again."
    )
