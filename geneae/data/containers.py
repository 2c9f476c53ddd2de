"""Checks of an HDF5 file or zarr folder before it is read: that it holds what it claims, and holds it itself."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from anndata.abc import CSCDataset, CSRDataset

from geneae.settings.errors import InputError

FREE_BYTES = 2**26  # an array of at most this size may be stored in any number of bytes
MOST_EXPANSION = 2000  # bytes of an array per stored byte; deflate reaches 1032
CURE = "Write the file again with anndata, or get it again from a source that you trust."


def check_parts(root: Any, parts: Iterable[tuple[str, ...]], where: str, is_shallow: bool = False) -> None:
    """Refuse parts of a container, and all that is below them, that lie outside it or claim more than they hold.

    Soft and hard links within an HDF5 file are followed. External links, virtual data sets and raw external storage are
    refused, because they make a command read other files of the user, and so are arrays that are far larger than what
    is stored of them.

    Parameters
    ----------
    root
        Root of the file or folder.
    parts
        Paths of the parts to be read; parts that do not exist are left out.
    where
        Name of the container for messages.
    is_shallow
        Whether what is below the parts is left unchecked, because it is not read, or checked by itself.
    """
    for names in parts:
        at = root
        for name in names:
            if name not in at and not _has_link(at, name):
                break
            at = _follow(at, name, where)
        else:
            if not is_shallow:
                _check_below(at, where, set(), None)


def check_all(root: Any, where: str, allows_loops: bool = False) -> None:
    """The same for everything in a container; groups that hold themselves are allowed where nothing follows them."""
    _check_below(root, where, set(), None if allows_loops else ())


def check_stored(matrix: Any, where: str) -> None:
    """The same for a matrix in a file, and see `check_sparse`; any other matrix passes."""
    if isinstance(matrix, h5py.Dataset):
        _check_below(matrix, where, set(), None)
    if isinstance(matrix, CSRDataset | CSCDataset):
        _check_below(matrix.group, where, set(), None)
        check_sparse(matrix, where)


def check_own(file: h5py.File, names: Iterable[str], where: str) -> None:
    """Refuse groups of an HDF5 file that are links, because what is written into them would be written elsewhere."""
    for name in names:
        link = file.get(name, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise _outside(where, f"/{name}", "a link")


def check_folder(path: Path) -> None:
    """Refuse a folder in which a link leads out of it."""
    home = path.resolve()
    for above, folders, files in os.walk(path):
        for name in (*folders, *files):
            place = Path(above, name)
            if place.is_symlink() and not Path(os.path.realpath(place)).is_relative_to(home):
                raise InputError(f"{place} is a link out of {path}, which would make other files be read. {CURE}")


def check_sparse(matrix: CSRDataset | CSCDataset, where: str) -> None:
    """Refuse a sparse matrix whose row pointers, indices and values do not belong together."""
    values, indices, pointers = (matrix.group[name] for name in ("data", "indices", "indptr"))
    n_lines, kind = (matrix.shape[1], "genes") if isinstance(matrix, CSCDataset) else (matrix.shape[0], "profiles")
    check_pointers(values, indices, pointers, n_lines, kind, where)


def check_pointers(values: Any, indices: Any, pointers: Any, n_lines: int, kind: str, where: str) -> np.ndarray:
    """The (n_lines + 1,) int64 pointers of a sparse matrix in a file; refused where the three arrays do not fit.

    Pointers have to begin at 0, end at the number of values and never fall; otherwise values would be left out, or be
    taken for those of another profile, in silence.

    Parameters
    ----------
    values, indices, pointers
        The arrays, in a file.
    n_lines
        Number of rows or columns that the pointers tell apart.
    kind
        What these are, in words for the message.
    where
        Name of the matrix for messages.
    """
    for name, array in (("indices", indices), ("indptr", pointers)):
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise InputError(f"{where}: {name} must be a list of whole numbers; found type {array.dtype}. {CURE}")
    if pointers.shape[0] != n_lines + 1:
        raise InputError(
            f"{where}: found pointers to {pointers.shape[0] - 1:,} {kind}, where its shape says {n_lines:,}. {CURE}"
        )
    at = np.asarray(pointers[:]).astype(np.int64)
    n_values = int(values.shape[0])
    if at[0] != 0 or at[-1] != n_values or indices.shape[0] != n_values or bool((np.diff(at) < 0).any()):
        raise InputError(
            f"{where}: pointers must rise from 0 to the number of values; found {at[0]:,} to {at[-1]:,} for "
            f"{n_values:,} values with {indices.shape[0]:,} indices. {CURE}"
        )
    return at


def _has_link(group: Any, name: str) -> bool:
    return isinstance(group, h5py.Group) and group.get(name, getlink=True) is not None


def _follow(group: Any, name: str, where: str) -> Any:
    """A member of a group; refused where it is in another file."""
    if not isinstance(group, h5py.Group):
        return group[name]
    place = f"{group.name.rstrip('/')}/{name}"
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        raise _outside(where, place, "an external link")
    found = group[name]
    if h5py.h5o.get_info(found.id).fileno != h5py.h5o.get_info(group.id).fileno:
        raise _outside(where, place, "a link to an external one")
    return found


def _check_below(node: Any, where: str, seen: set[int], above: tuple[int, ...] | None) -> None:
    """Check a group or array and all that is below it, each once, so that a loop of links has an end.

    A group that holds itself is refused, because whoever reads it does not come to an end, and after that HDF5 blocks
    every other thread; None for `above`, the addresses of the groups around this one, allows it.
    """
    if isinstance(node, h5py.Group | h5py.Dataset):
        address = int(h5py.h5o.get_info(node.id).addr)
        if above is not None and address in above:
            raise InputError(f"{where}: {node.name} is a loop: a group that holds itself. {CURE}")
        if address in seen:
            return
        seen.add(address)
        above = None if above is None else (*above, address)
    if isinstance(node, h5py.Dataset):
        if node.is_virtual:
            raise _outside(where, node.name, "a virtual data set")
        if node.external:
            raise _outside(where, node.name, "raw external storage")
        _check_claim(node, int(node.id.get_storage_size()), where)
    elif hasattr(node, "shape"):
        _check_claim(node, None, where)
    else:
        for name in node:
            _check_below(_follow(node, name, where), where, seen, above)


def _check_claim(array: Any, n_stored: int | None, where: str) -> None:
    """Refuse an array that would take far more memory than is stored of it; None: it is to be counted, in a zarr."""
    if array.shape is None:
        return
    size = int(np.prod([int(length) for length in array.shape], dtype=object)) * max(1, array.dtype.itemsize)
    if size <= FREE_BYTES:
        return
    stored = int(array.nbytes_stored()) if n_stored is None else n_stored
    if size > MOST_EXPANSION * stored:
        raise InputError(
            f"{where}: {array.name} claims {' x '.join(f'{length:,}' for length in array.shape)} values, but only "
            f"{stored:,} bytes of them are there. {CURE}"
        )


def _outside(where: str, place: str, what: str) -> InputError:
    return InputError(
        f"{where}: {place} is {what}, which would make another file be read, or written to. Write a file that holds "
        "everything itself: anndata.read_h5ad(FILE).write_h5ad(NEW)."
    )
