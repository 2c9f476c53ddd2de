"""AnnData as odd as they come, and what geneae makes of them: a fit, or one clear error and nothing written."""

import contextlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from click.testing import CliRunner
from dense_judge import dense_held_out
from hypothesis import strategies as st
from scipy import sparse
from written import WRITERS

from geneae import Autoencoder, tl
from geneae.cli.main import main
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation.records import HELD_OUT
from geneae.folders.model import load_model
from geneae.models.model import Model
from geneae.settings.errors import InputError
from geneae.settings.settings import LOSS_NAMES

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
MADE: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "normalised": (lambda counts: 1e4 * counts / _totals(counts), "normalised"),
    "shares": (lambda counts: counts / _totals(counts), "normalised"),
    "log1p": (lambda counts: np.log1p(1e4 * counts / _totals(counts)), "log"),
    "log2 of CPM": (lambda counts: np.log2(1 + 1e6 * counts / _totals(counts)), "log"),
    "log1p of counts": (np.log1p, "log"),
    "halved": (lambda counts: counts / 2, "normalised"),
    "doubled": (lambda counts: counts * 2, "normalised"),
    "nearly whole": (lambda counts: counts * (1 + 1e-7), "counts"),
    "negative": (lambda counts: -counts, ""),
    "whole z-scores": (lambda counts: np.rint((counts - counts.mean(0)) / (counts.std(0) + 1e-3)), ""),
}
"""What is made of counts, and the state that it has; an empty one is refused."""
VALUES = [
    *MADE,
    "counts",
    "few",
    "logs",
    "scaled",
    "zeros",
    "constant",
    "one",
    "nan",
    "inf",
    "huge",
    "overflow",
    "tiny",
]
NAMES = ["plain", "unicode", "odd", "duplicate"]
OBS = ["none", "categorical", "mixed", "missing"]
SURFACES = ["memory"] * 9 + ["file"] * 6 + ["backed"] * 4 + ["format"] * 6 + ["command"]  # a report takes a second
ODD_NAMES = ["", " ", "NA", "nan", "None", "a,b", 'say "x"', "two\nlines", "1e5", "007", "TRUE", "'", "a/b", "\t", "é"]

READ_FROM_FILE = ("file", "format", "command")
KINDS = {
    "negative counts": r"counts cannot be negative; of [\d,]+ (whole numbers|values, most of them whole numbers,) ",
    "NaN or infinite": r"every value must be a finite number; (at least )?\d+ are NaN or infinite",
    "counts too large": r"counts must be at most 16,777,216 to be exact in float32",
    "values too large": r"values must fit into float32",
    "names repeat": r"profile names must be unique; \d+ of \d+ repeat",
    "fractions impossible": r"their sum below 1; found validation",
    "split needs more": r"a split into .* needs at least \d",
    "split leaves none": r"leave none for training",
    "no gene seen": r"no gene is seen in at least \d+ of \d+ training profiles",
    "latent too long": r"(--latent|n_latent) must be at most \d+ with",
    "no counts": r"(--target split|target='split') divides molecules and needs counts",
    "unknown column": r"unknown obs column",
    "column has gaps": r"obs column '.*' must have a value for every profile",
    "loss has its centring": r"loss .* always centres by",
    "random needs free": r"(--init random|init='random') needs a learned basis",
    "nothing to judge by": r"without any value in the [\d,]+ genes? of the model leave nothing to judge it by",
    "runaway loss": r"the loss became (nan|inf|-inf) in epoch",
    "damaged": r"but reading it failed: |should be a zip, but is none|its content is not HDF5|is empty\. A table|"
    r"have as many cells as the first line|and no row below it|found names alone|Put the three files of one run|"
    r"which it is too small to hold|every value must be a number; column '.*' holds '",
}
"""What may be said of such input, by a part of the message."""


@dataclass(frozen=True)
class Case:
    """One input and one fit of it, small enough to be printed and tried again."""

    seed: int
    shape: tuple[int, int]
    content: str
    dtype: str
    form: str
    empty: tuple[float, float]
    genes: str
    profiles: str
    obs: str
    surface: str
    layer: bool
    format: str
    kept: float
    settings: tuple[tuple[str, Any], ...]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Every case by chance, the sound ones often enough that many fits are made."""
    sizes = st.sampled_from([*range(1, 5), *range(5, 41, 3), *range(30, 80, 4)])
    shape = draw(st.tuples(sizes, sizes))
    empty = draw(st.sampled_from([(0.0, 0.0)] * 3 + [(0.3, 0.0), (0.0, 0.5), (0.5, 0.5), (0.95, 0.0), (0.0, 0.95)]))
    bases = [("pca", "pca")] * 12 + [("free", "pca"), ("free", "random")] * 3 + [("pca", "random")]
    basis, start = draw(st.sampled_from(bases))
    settings = {
        "loss": draw(st.sampled_from(LOSS_NAMES)),
        "n_latent": draw(st.sampled_from([1] * 4 + [None] * 3 + [2, 3, 30])),
        "basis": basis,
        "init": start,
        "target": draw(st.sampled_from(["auto", "auto", "auto", "self", "split"])),
        "center": draw(st.sampled_from(["none", "none", "none", "gene", "profile"])),
        "cut": draw(st.sampled_from([1.0, 1.0, 3.0, 1e-3])),
        "n_top_genes": draw(st.sampled_from([None, None, 1, 5, 10**6])),
        "scale": draw(st.booleans()),
        "validation": draw(st.sampled_from([0.1] * 4 + [0.3, 0.5, 0.9])),
        "test": draw(st.sampled_from([0.1, 0.1, 0.0, 0.05])),
        "group": draw(st.sampled_from([None] * 12 + ["donor"] * 4 + ["nobody"])),
        "stratify": draw(st.sampled_from([None] * 12 + ["kind"] * 4 + ["number"])),
        "batch_size": draw(st.sampled_from([1, 7, 256])),
        "seed": draw(st.integers(0, 10)),
        "learning_rate": draw(st.sampled_from([2e-3] * 6 + [1e3, 1e30])),
    }
    plain = ["plain"] * 8
    return Case(
        draw(st.integers(0, 2**31)),
        shape,
        draw(st.sampled_from(["counts"] * 6 + VALUES)),
        draw(st.sampled_from(["float32"] * 4 + DTYPES)),
        draw(st.sampled_from(["dense", "csr", "csc", "zeros stored"])),
        empty,
        draw(st.sampled_from(plain + NAMES)),
        draw(st.sampled_from(plain + NAMES)),
        draw(st.sampled_from(OBS)),
        draw(st.sampled_from(SURFACES)),
        draw(st.sampled_from([False, False, True])),
        draw(st.sampled_from(sorted(WRITERS))),
        draw(st.sampled_from([1.0] * 6 + [0.0, 0.2, 0.7, 0.99])),
        tuple(settings.items()),
    )


def make(case: Case) -> anndata.AnnData:
    """The AnnData of a case."""
    rng = np.random.default_rng(case.seed)
    dtype = np.dtype(case.dtype)
    matrix: Any = _values(case, dtype, rng)
    matrix[rng.random(case.shape[0]) < case.empty[0]] = 0
    matrix[:, rng.random(case.shape[1]) < case.empty[1]] = 0
    if case.form != "dense":
        matrix = (sparse.csc_matrix if case.form == "csc" else sparse.csr_matrix)(matrix)
    if case.form == "zeros stored" and matrix.nnz:
        matrix.data[rng.random(matrix.nnz) < 0.2] = 0
    obs = _obs(case, rng)
    var = pd.DataFrame(index=_names(_kind_of_names(case, case.genes), "gene", case.shape[1], rng))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of repeated names, which are meant
        adata = anndata.AnnData(matrix, obs=obs, var=var)
        if case.layer and case.surface != "format":
            adata.layers["values"] = adata.X
            adata.X = None
    return adata


def _values(case: Case, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    counts = rng.poisson(rng.gamma(0.5, 4.0, size=case.shape)).astype(float)  # as `_counts`
    if case.content in MADE:
        counts = MADE[case.content][0](counts)
    found = {
        "few": lambda: (rng.random(case.shape) < 0.02).astype(float),
        "logs": lambda: np.log1p(counts * 1.7),
        "scaled": lambda: rng.normal(size=case.shape),
        "zeros": lambda: np.zeros(case.shape),
        "constant": lambda: np.full(case.shape, 3.0),
        "tiny": lambda: counts * 1e-38,
    }.get(case.content, lambda: counts)()
    spot = tuple(rng.integers(0, case.shape))
    if case.content == "one":
        found[:] = 0
        found[spot] = 5
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    if limits is not None:
        found = np.clip(found, limits.min, limits.max)
    matrix = found.astype(dtype)
    if case.content == "overflow" and dtype.kind in "iu":
        matrix[spot] = np.iinfo(dtype).max if rng.random() < 0.5 else np.iinfo(dtype).min
    if dtype.kind == "f" and case.content in ("nan", "inf", "huge", "overflow"):
        largest = float(np.finfo(dtype).max)
        matrix[spot] = {"nan": np.nan, "inf": np.inf * rng.choice([-1, 1]), "huge": 1e30, "overflow": largest}[
            case.content
        ]
    return matrix


def _kind_of_names(case: Case, kind: str) -> str:
    """Names of other formats are lists of lines and tables, which hold neither line breaks nor an empty name."""
    return "plain" if case.surface == "format" and kind in ("odd", "unicode") else kind


def _totals(counts: np.ndarray) -> np.ndarray:
    return np.maximum(counts.sum(1, keepdims=True), 1)


def _names(kind: str, prefix: str, number: int, rng: np.random.Generator) -> list[str]:
    names = [f"{prefix}{index}" for index in range(number)]
    if kind == "unicode":
        names = [f"ген_{index}_遺伝子_🧬" for index in range(number)]
    if kind == "odd":
        names[: len(ODD_NAMES)] = ODD_NAMES[:number]
    if kind == "duplicate" and number > 1:
        names[-1] = names[0]
    return names


def _obs(case: Case, rng: np.random.Generator) -> pd.DataFrame:
    number = case.shape[0]
    obs = pd.DataFrame(index=_names(_kind_of_names(case, case.profiles), "cell", number, rng))
    if case.obs == "none":
        return obs
    obs["donor"] = pd.Categorical([f"d{value}" for value in rng.integers(0, 5, number)], [f"d{i}" for i in range(9)])
    obs["kind"] = rng.choice(["a", "b", "c"], number)
    obs["number"] = rng.normal(size=number)
    if case.obs == "mixed":
        mixed = [[1, "one", 2.5, True][value] for value in rng.integers(0, 4, number)]
        obs["kind"] = pd.Series(mixed, index=obs.index, dtype=object)
        if case.surface != "memory":  # no file holds a mixed column
            obs["kind"] = obs["kind"].astype(str)
    if case.obs == "missing":
        obs["kind"] = pd.Categorical(obs["kind"].where(rng.random(number) < 0.8))
        obs["number"] = obs["number"].where(rng.random(number) < 0.8)
    return obs


SAID = (
    r".*(gene names repeat an earlier one|by (their names|the title .* of the rows) the |"
    r"no names tell which side|read is the modality rna|"
    r"Totals of profiles vary less than their numbers of genes)"
)
"""What is understood of an input and said in a warning; the last one, a doubt, of counts that are all of one depth."""
QUICK: dict[str, Any] = {"hidden": 4, "rank": 4, "epochs": 1, "n_splits": 1}


def attempt(case: Case, folder: Path) -> str:
    """Fit a case and write it into a folder that is empty before: `fits`, or the kind of the one error there was.

    Anything else, an error of another kind or a file left behind that it does not name, is an AssertionError.
    """
    adata, output = make(case), folder / "out" / "run"
    settings = dict(case.settings) | QUICK
    layer = "values" if case.layer and case.surface != "format" else None
    data = folder / "data.h5ad"
    if case.surface == "format":
        data = _write_format(case, adata, folder)
    elif case.surface != "memory":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adata.write_h5ad(data)
    before = set(folder.rglob("*"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "These values are not logged", UserWarning)  # as they should be
            warnings.filterwarnings("ignore", "(Observation|Variable) names are not unique", UserWarning)
            warnings.filterwarnings("ignore", SAID, UserWarning)
            warnings.filterwarnings(
                "ignore", "The '.*' option is deprecated", DeprecationWarning
            )  # of pandas 3.1, by anndata
            judged = _fit(case.surface, adata, data, layer, settings, output)
    except InputError as error:
        message = str(error)
        kinds = [kind for kind, pattern in KINDS.items() if re.search(pattern, message)]
        assert len(kinds) == 1, f"no documented kind: {message}"
        assert len(message.splitlines()) == 1, f"several lines: {message}"
        left = {path for path in folder.rglob("*") if path not in before}
        assert left <= _promised(message), f"left behind after: {message}"
        return kinds[0]
    loaded = load_model(output)
    _check(case, adata, loaded)
    _check_held_out(loaded, judged, read_profiles(data if case.surface in READ_FROM_FILE else adata, layer=layer))
    assert len(loaded.preprocess.genes) >= 1
    assert sorted(path.name for path in output.parent.iterdir()) == ["run"]
    return "fits"


def _write_format(case: Case, adata: anndata.AnnData, folder: Path) -> Path:
    """The same in another format, cut off at a share of its bytes; its profiles are those in memory if it is whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of repeated names, which are meant
        path = WRITERS[case.format](adata, folder)
        if case.kept == 1:
            with contextlib.suppress(InputError):  # a fit raises the same
                assert read_profiles(path).fingerprint == read_profiles(adata).fingerprint, f"{path.name} is misread"
            return path
    cut = max((file for file in [path, *path.rglob("*")] if file.is_file()), key=lambda file: file.stat().st_size)
    cut.write_bytes(cut.read_bytes()[: int(case.kept * cut.stat().st_size)])
    return path


def _check(case: Case, adata: anndata.AnnData, model: Model) -> None:
    """Whether a fit has understood its values: state, numbers of molecules and normalised profiles, where the making
    tells them without a doubt."""
    layer = "values" if case.layer and case.surface != "format" else None
    state = MADE[case.content][1] if case.content in MADE else "counts" if case.content == "counts" else None
    if state is None or np.dtype(case.dtype).kind != "f" or min(case.shape) < 12 or max(case.empty) > 0:
        return
    found = model.config["data"]["state"]
    assert found == state, f"{case.content} was taken for {found}"
    counts = _counts(case)
    if case.form == "zeros stored":
        return
    by_hand = read_profiles(adata, layer=layer, state="counts")
    np.testing.assert_array_equal(by_hand.totals, counts.sum(1), err_msg="numbers of molecules")
    if state == "counts":
        mine = np.log1p(1e4 * counts / _totals(counts))
        theirs = model.preprocess.apply(model.preprocess.match(read_profiles(adata, layer=layer))[0]).toarray()
        genes = by_hand.genes.get_indexer(model.preprocess.genes)
        np.testing.assert_allclose(theirs, mine[:, genes] / model.preprocess.scale, rtol=1e-4, atol=1e-5)


def _check_held_out(model: Model, judged: pd.DataFrame, profiles: Profiles) -> None:
    """Whether every held-out cosine of the model and its baselines is that of dense arrays."""
    tables = {str(name): table for name, table in judged.groupby("model", sort=False)}
    if not model.can_hold_out:
        assert judged[HELD_OUT].isna().all(), "a held-out cosine without counts"
        return
    rows = profiles.names.get_indexer(tables["model"]["profile"])
    order = np.argsort(rows)  # as in the data, in which order halves are drawn
    expression = model.preprocess.match(profiles)[0].take(rows[order])
    expected = dense_held_out(model, expression)
    assert tables.keys() >= {"model", "mean_profile", "pca"} or tables.keys() == {"model"}
    for name in tables.keys() & expected.keys():
        found = tables[name][HELD_OUT].to_numpy(float)[order]
        message = f"held-out cosine of {name}"
        np.testing.assert_allclose(found, expected[name], rtol=1e-3, atol=1e-4, err_msg=message)


def _counts(case: Case) -> np.ndarray:
    """The counts of a case, before anything was made of them."""
    rng = np.random.default_rng(case.seed)
    return np.asarray(rng.poisson(rng.gamma(0.5, 4.0, size=case.shape)).astype(float))


def _promised(message: str) -> set[Path]:
    """What an error says that it leaves: of a loss that ran away the checkpoint before, in its folder."""
    named = re.search(r"Earlier weights are in (.+\.safetensors)\.$", message)
    path = Path(named[1]) if named else None
    return set() if path is None else {path, *path.parents}


def _fit(
    surface: str, adata: anndata.AnnData, data: Path, layer: str | None, settings: dict[str, Any], output: Path
) -> pd.DataFrame:
    """Fit and write a model; returns its numbers by profile and prediction."""
    if surface == "command":
        _run_command(data, layer, settings, output)
        names = {"profile": str, HELD_OUT: float}
        found = pd.read_csv(output / "profiles.csv", keep_default_na=False, na_values={HELD_OUT: [""]}, dtype=names)
        return found.assign(model="model")
    if surface == "backed":
        adata = anndata.read_h5ad(data, backed="r")
    try:
        if surface == "backed":
            model = tl.fit(adata, layer=layer, progress=False, **settings)
            latent = adata.obsm["X_geneae"]
        else:
            source = adata if surface == "memory" else data
            model = Autoencoder(**settings).fit(source, layer=layer)
            latent = model.transform(source, layer=layer)
        assert latent.shape == (adata.n_obs, settings["n_latent"] or model.model_.n_latent)
        fitted = model.fitted()
        source = data if surface in ("file", "format") else adata
        is_blank = fitted.is_blank(fitted.preprocess.match(read_profiles(source, layer=layer))[0])
        assert np.isfinite(latent[~is_blank]).all(), "latents are not finite"
        model.save(output)
        return model.evaluation_.profiles
    finally:
        if adata.isbacked:
            adata.file.close()


def _run_command(data: Path, layer: str | None, settings: dict[str, Any], output: Path) -> None:
    names = {"n_latent": "latent", "n_splits": "splits"}
    arguments = ["fit", str(data), "-o", str(output), "--scale" if settings["scale"] else "--no-scale"]
    for name, value in settings.items():
        if value is not None and name != "scale":
            arguments += [f"--{names.get(name, name.replace('_', '-'))}", str(value)]
    result = CliRunner().invoke(main, arguments + (["--layer", layer] if layer else []))
    if result.exit_code == 2:
        assert "Traceback" not in result.output
        assert result.stderr.startswith("Error: ")
        raise InputError(result.stderr.removeprefix("Error: ").rstrip("\n"))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
