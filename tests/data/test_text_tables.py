"""Tables of text in every shape that people write them, and what is said of those that are none."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from reference import FIVE

from geneae import read_profiles
from geneae.data.text_tables import read_table
from geneae.settings.errors import InputError

GENES = ["MT-CO1", "ACTB", "RPL13", "ENSG00000141510"]
CELLS = ["AAACCTGAGA-1", "AAACCTGAGC-1", "AAACCTGTTT-1", "AAACGGGCAT-1", "AAACGGGTTC-1"]


def written(
    path: Path, rows: list[str], columns: list[str], values: np.ndarray, separator: str = ",", corner: str | None = ""
) -> Path:
    """A table; without a corner as R writes it."""
    head = separator.join(columns if corner is None else [corner, *columns])
    lines = [separator.join([name, *(f"{value:g}" for value in row)]) for name, row in zip(rows, values, strict=True)]
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("corner", ["", None, "x"])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_either_orientation_gives_the_same_profiles_and_is_said(
    corner: str | None, separator: str, tmp_path: Path
) -> None:
    upright = written(tmp_path / "a.csv", CELLS, GENES, FIVE, separator, corner)
    turned = written(tmp_path / "b.tsv", GENES, CELLS, FIVE.T, separator, corner)
    for path, said in (
        (upright, "the columns are genes, so that each row"),
        (turned, "the rows are genes, so that each"),
    ):
        found = read_profiles(path)
        np.testing.assert_array_equal(found.matrix.toarray(), FIVE)
        assert (list(found.names), list(found.genes)) == (CELLS, GENES)
        assert found.said == (
            f"{path}: by their names {said} {'is a profile.' if said[-3:] == 'row' else 'column is a profile.'}",
        )


@pytest.mark.parametrize(
    ("rows", "columns", "corner", "in_rows"),
    [
        (["a", "b"], ["p", "q", "r"], "gene_symbol", True),
        (["a", "b"], ["p", "q", "r"], "CellID", False),
        (["a", "b"], ["sample_1", "sample_2", "sample_3"], "", True),
        (["GSM1", "GSM2"], ["p", "q", "r"], "", False),
        (["a", "b"], ["p", "q", "r"], "", None),
        (CELLS[:2], GENES[:3], "gene/cell", False),
        (GENES[:2], CELLS[:3], "gene/cell", True),
    ],
)
def test_what_tells_the_orientation(
    rows: list[str], columns: list[str], corner: str, in_rows: bool | None, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.csv", rows, columns, FIVE[:2, :3], corner=corner)
    matrix, profiles, genes, said = read_table(path)
    assert (list(genes), list(profiles)) == ((rows, columns) if in_rows else (columns, rows))
    assert matrix.shape == (len(profiles), len(genes))
    unsure = "no names tell which side the genes are on; each row is taken to be a profile."
    assert (unsure in said) == (in_rows is None)
    is_by_title = corner in ("gene_symbol", "CellID")
    assert (f"by the title '{corner}' of the rows the " in said) == is_by_title
    assert ("by their names the " in said) == (not is_by_title and in_rows is not None)


def test_names_of_columns_may_hold_the_other_separators(tmp_path: Path) -> None:
    names = ["a,b,c", "d,e", "f;g,h", "i,j"]
    path = written(tmp_path / "a.tsv", CELLS, names, FIVE, "\t")
    assert list(read_profiles(path).genes) == names


def test_a_table_of_many_columns_is_read(tmp_path: Path) -> None:
    values = np.arange(60_000).reshape(2, 30_000) % 7
    path = written(tmp_path / "a.csv", ["a", "b"], [f"gene{number}" for number in range(30_000)], values)
    np.testing.assert_array_equal(read_profiles(path).matrix.toarray(), values)


@pytest.mark.parametrize("corner", ["cell", "sample_id", "", "entrez"])
def test_numbers_may_name_rows(corner: str, tmp_path: Path) -> None:
    numbers = ["4", "0", "3", "17", "2"]
    assert list(read_profiles(written(tmp_path / "a.csv", numbers, GENES, FIVE, corner=corner)).names) == numbers


def test_a_table_is_read_in_blocks_and_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.csv", CELLS, GENES, FIVE)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    monkeypatch.setattr("geneae.data.text_tables.LEAST_ROWS", 2)
    monkeypatch.setattr("geneae.data.text_tables.CELLS", 9)
    np.testing.assert_array_equal(read_profiles(tmp_path / "a.csv.gz").matrix.toarray(), FIVE)


def test_names_are_kept_as_they_are(tmp_path: Path) -> None:
    names = ["NA", "007", "1e5", '"a,b"', "nan"]
    path = written(tmp_path / "a.csv", names, ["None", "TRUE", "2", "é"], FIVE)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a byte-order mark, as spreadsheet programs write it
    found = read_profiles(path)
    assert list(found.names) == ["NA", "007", "1e5", "a,b", "nan"]
    assert list(found.genes) == ["None", "TRUE", "2", "é"]


def test_large_counts_and_fractions_are_not_rounded(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("cell,A,B\nx,16777216,0.1\ny,1e-3,2\n")
    expected = np.array([[16777216, 0.1], [1e-3, 2]], np.float32)
    np.testing.assert_array_equal(read_profiles(tmp_path / "a.csv").matrix.toarray(), expected)
    (tmp_path / "b.csv").write_text("cell,A,B\nx,16777217,0\n")
    with pytest.raises(InputError, match="counts must be at most 16,777,216"):
        read_profiles(tmp_path / "b.csv")


BAD = {
    "empty": ("", r"a\.csv is empty\. A table of a line of names"),
    "blank": ("\n\n", r"a\.csv is empty"),
    "no rows": ("cell,A,B\n", "has a first line of 2 names, and no row below it"),
    "no columns": ("cell\nx\n", "should have columns separated by commas, tabs, semicolons; its first line has none"),
    "no names": ("1,2,3\n4,5,6\n", "the first line should name the columns; found numbers, first 2"),
    "text": ("cell,A,type\nx,1,B cell\ny,2,T cell\n", "column 'type' holds 'B cell' in row 'x'. Remove columns"),
    "one word": ("cell,A,B\nx,1,2\ny,2,n.d.\n", "column 'B' holds 'n.d.' in row 'y'"),
    "decimal comma": (
        'cell,A,B\nx,"1,5",2\n',
        "column 'A' holds '1,5' in row 'x'.* write numbers with a decimal point",
    ),
    "truth": ("cell,A,B\nx,True,1\ny,False,1\n", "column 'A' holds 'True' in row 'x'"),
    "long row": (
        "cell,A,B\nx,1,2\ny,1,2,3\n",
        "every row should have a name and 2 values; Expected 3 fields in line 3, saw 4",
    ),
    "long rows": (
        "cell,A,B\nx,1,2,3,4\ny,1,2,3,4\n",
        "should have as many cells as the first line, 3; the second line has 5",
    ),
    "short row": ("cell,A,B\nx,1,2\ny,1\n", "1 are NaN or infinite, first in profile 'y', gene 'B'"),
    "missing value": ("cell,A,B\nx,1,2\ny,1,NA\n", "1 are NaN or infinite, first in profile 'y', gene 'B'"),
    "values as names": (
        "RPL13,ACTB,CD3D\n10,1,2\n7,3,4\n",
        "the first column should name the rows; its title 'RPL13' is",
    ),
    "sample as names": ("sample_1,sample_2\n10,1\n7,3\n", "its title 'sample_1' is that of a gene or a profile"),
    "length of genes": (
        "gene,Length,a,b\nx,900,1,2\ny,700,3,4\n",
        "'Length' describes what the rows are. Remove Length",
    ),
    "totals of cells": ("cell,A,B,total_counts\nx,1,2,3\ny,3,4,7\n", "'total_counts' describes what the rows are"),
    "binary": ("a\0,b\n1\0,2\n", "its content is not text"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_table_is_one_sentence(case: str, tmp_path: Path) -> None:
    content, said = BAD[case]
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        read_profiles(tmp_path / "a.csv")
    assert "\n" not in str(caught.value)


def test_text_of_a_spreadsheet_in_utf16_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("cell,A,B\nx,1,2\ny,1,2\n", encoding="utf-16")
    with pytest.raises(InputError, match=r"a\.csv is text in UTF-16, and geneae reads UTF-8\. Save it as"):
        read_profiles(tmp_path / "a.csv")


def test_damaged_and_foreign_content_is_one_sentence(tmp_path: Path) -> None:
    whole = gzip.compress(("cell,A,B\n" + "x,1,2\n" * 9).encode())
    for name, content, said in (
        ("cut.csv.gz", whole[:-9], "Compressed file ended before"),
        ("none.csv.gz", b"cell,A,B\nx,1,2\n", "Not a gzipped file"),
        ("latin.csv", "cell,A,B\nü,1,2\n".encode("latin-1"), "it is no text in UTF-8"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"should be a table of profiles x genes, but reading it failed: {said}"):
            read_profiles(tmp_path / name)


def test_a_table_that_does_not_fit_into_memory_says_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.csv", CELLS, GENES, FIVE)
    monkeypatch.setattr("geneae.data.memory.free_megabytes", lambda: 1e-6)
    with pytest.raises(
        InputError, match="has at least 8 values, which take 0 MB of memory, and 0 MB are free; text is"
    ):
        read_profiles(path)
