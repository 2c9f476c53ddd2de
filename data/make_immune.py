"""Make data/immune_559.h5ad from the sample matrix inside the celltypist package.

    python data/make_immune.py            # fetches the wheel with pip
    python data/make_immune.py WHEEL      # uses a wheel that is already here

The same wheel gives the same file, byte for byte, under the versions of constraints.txt.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

VERSION = "1.7.1"
WHEEL_SHA256 = "3953f96a4476ed1dd2807446d97d3945e8905bbdac6bfef0d20b84a9a00d1101"
CSV = "celltypist/data/samples/sample_cell_by_gene.csv"
CSV_SHA256 = "0d729bd7a9e4d8f5a8ccc167f222530f4ece8d334b939d21b796bd77daf967f2"
OUTPUT = Path(__file__).with_name("immune_559.h5ad")

# The CSV holds counts that went through floating-point arithmetic (0.999999999999999, 32.0000000000001).
# Anything further from an integer than this is no rounding error.
TOLERANCE = 1e-9


def download_wheel(folder: Path) -> Path:
    """The celltypist wheel, fetched by pip into `folder`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), f"celltypist=={VERSION}"], check=True)
    return next(folder.glob("celltypist-*.whl"))


def check_sha256(name: str, content: bytes, expected: str) -> None:
    """Stop unless `content` is the content this script was written for."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        sys.exit(f"{name}: expected SHA-256 {expected}, found {found}. Take the wheel of celltypist {VERSION}.")


def read_csv(wheel: Path) -> bytes:
    """The sample matrix inside the wheel, both checked."""
    check_sha256(wheel.name, wheel.read_bytes(), WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(CSV)
    check_sha256(CSV, content, CSV_SHA256)
    return content


def make_immune(csv: bytes) -> anndata.AnnData:
    """559 cells x 32,786 genes of raw counts, CSR, float32."""
    table = pd.read_csv(BytesIO(csv), index_col=0)
    values = table.to_numpy(dtype=np.float64)
    counts = np.rint(values)
    error = np.abs(values - counts).max()
    if error > TOLERANCE or counts.min() < 0:
        sys.exit(f"Expected non-negative integer counts, found {counts.min():g} at least and {error:g} off an integer.")
    immune = anndata.AnnData(
        X=sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(index=pd.Index(table.index.astype(str), name="cell")),
        var=pd.DataFrame(index=pd.Index(table.columns.astype(str), name="gene")),
    )
    if not (immune.obs_names.is_unique and immune.var_names.is_unique):
        sys.exit("Expected every cell and every gene once, found duplicate names.")
    immune.uns["source"] = f"celltypist {VERSION}, {CSV}"
    immune.uns["licence"] = "MIT, Copyright (c) 2020 Teichmann Lab"
    immune.uns["space"] = "counts"
    return immune


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(sys.argv[1]) if len(sys.argv) > 1 else download_wheel(Path(folder))
        immune = make_immune(read_csv(wheel))
    immune.write_h5ad(OUTPUT, compression="gzip", compression_opts=9)
    print(f"{OUTPUT.name}: {immune.n_obs} x {immune.n_vars}, {immune.X.nnz} counts above zero")
    print(f"SHA-256 {hashlib.sha256(OUTPUT.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
