import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geneae.folders.tables import read_table, write_table

HOSTILE = [
    *("a\rb", "a\nb", "a\r\nb", "\r", "a\0b", "\0", "x" * 10_000, "", " lead", "trail ", "NA", "nan", "007", "1e5"),
    *('quo"te', "com,ma", "\ufeffmark", "\u2028", "\x85", "\x1a", "\x1b[31m", "\u202e", "tab\t", "\\n", "'a"),
    *("run\udcff", "\ud800", "=1+1", "+1", "-1", "@SUM(A1)"),
]
"""Names that CSV files, spreadsheets or terminals take for something else."""


def given_back(names: list[str], path: Path) -> list[str]:
    texts = pd.Series(names, dtype=object)  # those of pandas 3 hold UTF-8 alone
    write_table(pd.DataFrame({"profile": texts, "value": 0.1}), path)
    return list(read_table(path.read_bytes())["profile"])


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_table_gives_back_the_name_that_it_was_given(name: str, tmp_path: Path) -> None:
    assert given_back(["first", name, "last"], tmp_path / "t.csv") == ["first", name, "last"]


def test_all_of_them_together_too(tmp_path: Path) -> None:
    assert given_back(HOSTILE, tmp_path / "t.csv") == HOSTILE


@given(names=st.lists(st.text(st.characters(), max_size=5), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_and_any_other_name(names: list[str], tmp_path: Path) -> None:
    assert given_back(names, tmp_path / "t.csv") == names


def test_numbers_are_the_same_whether_a_name_needs_quotes_or_not(tmp_path: Path) -> None:
    numbers = {"single": np.float32([0.1, np.nan]), "double": [1 / 3, np.nan], "whole": [7, 8], "is": [True, False]}
    for names in (["a", "b"], ["a", "b\r"]):
        write_table(pd.DataFrame({"profile": names} | numbers), tmp_path / "t.csv")
        found = read_table((tmp_path / "t.csv").read_bytes()).drop(columns="profile")
        assert found.to_dict("list") == {
            "single": ["0.1", ""],
            "double": [repr(1 / 3), ""],
            "whole": ["7", "8"],
            "is": ["True", "False"],
        }


def test_other_programs_read_the_same_names(tmp_path: Path) -> None:
    names = [name for name in HOSTILE if name.isascii() and "\0" not in name]
    given_back(names, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        assert [row["profile"] for row in csv.DictReader(file)] == names
