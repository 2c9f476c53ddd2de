"""Tables as CSV files that give back every name as it was given.

Names are written as they are. A cell that begins with =, +, - or @ is a formula for a spreadsheet program: a quotation
mark before it would protect who opens such a file there, and change the name for everybody else. Import such a table
as text.
"""

import csv
import io
from pathlib import Path
from typing import Literal

import pandas as pd

SURROGATES = "surrogatepass"
"""How UTF-8 keeps the halves of surrogate pairs, which stand for file names that are not UTF-8."""


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table without its index; `read_table` gives back every text as it is here, and every number as text."""
    quoting: Literal[0, 2] = csv.QUOTE_MINIMAL
    if _has_carriage_returns(table):  # which the csv module would leave bare, and a reader take for the end of a line
        quoting, table = csv.QUOTE_NONNUMERIC, as_written(table)
    with path.open("w", encoding="utf-8", errors=SURROGATES, newline="") as file:
        table.to_csv(file, index=False, quoting=quoting, lineterminator="\n")


def read_table(content: bytes) -> pd.DataFrame:
    """Every cell of a table as text: a gene may be called NA or 1e5, and an empty cell is an empty text."""
    # at a null the C parser of pandas ends a cell; its texts of pandas 3 would have to be UTF-8, objects need not
    engine: Literal["c", "python"] = "python" if b"\0" in content else "c"
    file = io.BytesIO(content)
    return pd.read_csv(file, dtype=object, keep_default_na=False, encoding_errors=SURROGATES, engine=engine)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table without its index as Parquet."""
    from pyarrow import Table  # slow to import, and seldom needed
    from pyarrow.parquet import write_table as write

    with path.open("wb") as file:  # a path would have to be UTF-8
        write(Table.from_pandas(table, preserve_index=False), file)


def as_written(table: pd.DataFrame) -> pd.DataFrame:
    """The table as a CSV file would give it back: float32 numbers as the float64 of their shortest decimals."""
    single = table.select_dtypes("float32")
    return table.assign(**{str(name): single[name].astype(str).astype(float) for name in single})


def _has_carriage_returns(table: pd.DataFrame) -> bool:
    texts = [table[name] for name in table.columns if table[name].dtype.kind not in "biuf"]
    return any("\r" in str(cell) for column in [table.columns, *texts] for cell in column)
