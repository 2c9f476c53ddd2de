"""Tables of text: `.csv` and `.tsv`, with profiles or genes in the rows, whole or compressed."""

import csv
import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from geneae.data.gene_names import OF_GENES, OF_PROFILES, are_genes_in_rows
from geneae.data.memory import check_fits
from geneae.data.texts import texts
from geneae.settings.errors import InputError, listed
from geneae.settings.text import counted

CELLS = 2**22  # cells of the table that are read at a time: about 30 MB of numbers
LEAST_ROWS = 512  # as each read takes about 0.1 ms for each column, whatever the number of rows
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}
LONGEST = 2**27  # characters of the first line; more are no names of genes
OF_READS = ("chr", "chrom", "chromosome", "start", "end", "strand", "length", "effective_length", "effectivelength")
"""Columns, in lower case, that programs which count reads write beside those of samples."""
OF_CELLS = (
    *(
        "total_counts",
        "n_genes_by_counts",
        "n_counts",
        "n_genes",
        "n_umi",
        "pct_counts_mt",
        "percent_mito",
        "percent.mt",
    ),
    *("ncount_rna", "nfeature_rna", "doublet_score", "leiden", "louvain", "seurat_clusters"),
)
"""Columns, in lower case, that scanpy and Seurat write beside those of genes."""
MISSING = ("", "NA", "NaN", "nan", "N/A", "null")


def read_table(path: Path) -> tuple[sparse.csr_matrix, pd.Index, pd.Index, str]:
    """Matrix of profiles x genes, names of profiles and genes, and a sentence on which of them the rows hold.

    The first line names the columns and the first column names the rows; a table of R, whose first line lacks the
    corner, is read, too. Rows are taken to be genes or profiles by their names, see
    `geneae.data.gene_names.are_genes_in_rows`, and to be profiles where these do not tell.
    """
    separator, columns, corner = _head(path)
    names, parts = [], []
    for block in _blocks(path, separator, len(columns)):
        if not len(block):  # of a table without rows
            break
        names += list(block.index)
        parts.append(sparse.csr_matrix(_numbers(block.set_axis(columns, axis=1), path)))
        check_fits(path, sum(part.nnz for part in parts), len(names))
    if not parts:
        raise InputError(
            f"{path} has a first line of {counted(len(columns), 'name')}, and no row below it. Write the file again."
        )
    matrix = sparse.vstack(parts, format="csr")
    in_rows = are_genes_in_rows(pd.Index(names), pd.Index(columns), corner)
    _check_names(path, names, columns, corner)
    is_by_names = in_rows == are_genes_in_rows(pd.Index(names), pd.Index(columns), "")
    by = "their names" if is_by_names else f"the title '{corner}' of the rows"
    if in_rows:
        said = f"{path}: by {by} the rows are genes, so that each column is a profile."
        return matrix.T.tocsr(), pd.Index(columns, dtype=object), pd.Index(names, dtype=object), said
    if in_rows is None:
        said = (
            f"{path}: no names tell which side the genes are on; each row is taken to be a profile. If the rows are "
            "genes, title their column 'gene'."
        )
    else:
        said = f"{path}: by {by} the columns are genes, so that each row is a profile."
    return matrix, pd.Index(names, dtype=object), pd.Index(columns, dtype=object), said


def _check_names(path: Path, rows: list[str], columns: list[str], corner: str) -> None:
    """Refuse a table whose first column holds values, and columns that describe what the rows are."""
    is_value = OF_GENES.fullmatch(corner) or (OF_PROFILES.fullmatch(corner) and re.search(r"\d", corner))
    if is_value and all(map(_is_number, rows)):
        raise InputError(
            f"{path}: the first column should name the rows; its title '{corner}' is that of a gene or a profile, and "
            "it holds numbers. Write the table with a column of names."
        )
    if found := [name for name in columns if name.strip().lower() in OF_READS + OF_CELLS]:
        raise InputError(
            f"{path}: every column should be a gene or a profile; '{found[0]}' describes what the rows are. Remove "
            f"{listed(found)}."
        )


def _open(path: Path) -> io.TextIOBase:
    """Text of a file; a byte-order mark is left out."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open("r", encoding="utf-8-sig", newline="")


def _head(path: Path) -> tuple[str, list[str], str]:
    """Separator, names of the columns without that of names, and title of the column of names."""
    with _open(path) as file:
        first, second = file.readline(LONGEST), file.readline(LONGEST)
    if not first.strip():
        raise InputError(f"{path} is empty. A table of a line of names, and a row of numbers below, was expected.")
    if "\0" in first:
        raise InputError(
            f"{path} should be a table of text, but its content is not text. Give it the ending of its kind."
        )
    separator = max(SEPARATORS, key=lambda one: (_are_alike(first, second, one), first.count(one)))
    if separator not in first:
        raise InputError(
            f"{path} should have columns separated by {listed(SEPARATORS.values())}; its first line has none of them: "
            f"'{first.strip()[:40]}'. Write the table with one of them."
        )
    names, values = (next(csv.reader([line], delimiter=separator), []) for line in (first, second))
    if len(values) == len(names) + 1:  # as R writes it
        names = ["", *names]
    if values and len(values) != len(names):
        raise InputError(
            f"{path}: every row should have as many cells as the first line, {len(names):,}; the second line has "
            f"{len(values):,}. Write the table again."
        )
    if len(names) < 2:
        raise InputError(f"{path}: found names alone, and no column of values. Write the table again.")
    if all(map(_is_number, names[1:])):
        raise InputError(
            f"{path}: the first line should name the columns; found numbers, first {names[1]}. Add a line of "
            "names, and a column of names."
        )
    return separator, names[1:], names[0]


def _are_alike(first: str, second: str, separator: str) -> bool:
    """Whether two lines have as many columns by a separator, and several; the first may lack a corner."""
    try:
        n_first, n_second = (len(next(csv.reader([line], delimiter=separator), [])) for line in (first, second))
    except csv.Error:  # a field that is far too long for a name, as the separator is another one
        return False
    return n_second > 1 and n_first in (n_second, n_second - 1)


def _blocks(path: Path, separator: str, n_columns: int) -> Iterator[pd.DataFrame]:
    """Rows of a table, some at a time, all as text or numbers, indexed by their names."""
    n_rows = max(LEAST_ROWS, CELLS // max(1, n_columns))
    options: dict[str, Any] = {
        "sep": separator,
        "header": None,
        "skiprows": 1,
        "index_col": 0,
        "chunksize": n_rows,
        "low_memory": False,
    }
    with _open(path) as file:
        try:
            yield from pd.read_csv(
                file,
                names=list(range(n_columns + 1)),
                dtype={0: str},
                na_filter=False,  # names such as NA are names; values that are missing are found by _numbers
                **options,
            )
        except pd.errors.ParserError as error:
            raise InputError(
                f"{path}: every row should have a name and {n_columns:,} values; "
                f"{str(error).strip().split('error: ')[-1]}. Write the table again."
            ) from error
        except pd.errors.EmptyDataError:
            return


def _numbers(block: pd.DataFrame, path: Path) -> np.ndarray:
    """Values of some rows, as float64 with NaN for missing ones; text is refused with its place."""
    values = np.empty(block.shape)
    are_numbers = np.array([dtype.kind in "iuf" for dtype in block.dtypes])
    values[:, are_numbers] = block.loc[:, are_numbers].to_numpy(np.float64)
    for place in map(int, np.flatnonzero(~are_numbers)):
        text = texts(block.iloc[:, place]).str.strip()
        is_missing = text.isin(MISSING)
        values[:, place] = pd.to_numeric(text.mask(is_missing), errors="coerce")
        is_bad = np.isnan(values[:, place]) & ~is_missing.to_numpy()
        if is_bad.any():
            row = int(np.argmax(is_bad))
            raise InputError(
                f"{path}: every value must be a number; column '{block.columns[place]}' holds '{text.iloc[row]}' in "
                f"row '{block.index[row]}'. Remove columns that are no numbers, or write numbers with a decimal point."
            )
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
