"""The stages that benchmarks name are functions and modules of the package, and the stack tells them apart."""

import ast
import json
import subprocess
import sys
from importlib import import_module, util
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import stages
from latents import RATIOS, rows_of, summary
from resampled import write_resampled
from scipy import sparse
from stages import IMPORTS, ORDER, OTHER, STAGES, stage_at, stage_of

from geneae.data import reading
from geneae.data.backed import BackedMatrix
from geneae.data.preprocess import Expression
from geneae.data.reading import read_profiles
from geneae.evaluation import inspection


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    module, _, last = name.rpartition(".")
    try:
        import_module(name)
    except ModuleNotFoundError:
        found = getattr(import_module(module), last, None)
        return found is not None and found.__module__ == module  # where it was written, not where it is imported
    return True


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_is_a_part_of_the_package(name: str) -> None:
    assert exists(name)
    assert not exists(f"{name}_of_nothing")


def names_taken(path: Path) -> set[tuple[str, str]]:
    """Modules of the package and the names in them that a script imports, wherever in its text."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {
        (node.module, name.name) for node in found for name in node.names if (node.module or "").startswith("geneae")
    }


SCRIPTS = sorted(path for path in Path(stages.__file__).parents[1].rglob("*.py") if names_taken(path))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_script_takes_from_the_package_is_there(script: Path) -> None:
    """Scripts that need other programs cannot be run here."""
    gone = []
    for module, name in sorted(names_taken(script)):
        try:
            is_there = hasattr(import_module(module), name) or util.find_spec(f"{module}.{name}") is not None
        except ModuleNotFoundError:
            is_there = False
        gone += [] if is_there else [f"{module}.{name}"]
    assert gone == []


def test_the_longest_name_counts() -> None:
    assert stage_of("geneae.folders.run.write_run") == "writing"
    assert stage_of("geneae.folders.model.load_model") == "reading"
    assert stage_of("geneae.fitting.fit.fit.<listcomp>") is None


def called_from(module: object, name: str) -> str:
    """The stage of a stack on which a function with the names of another calls `stage_at`."""
    code = compile(f"def {name}():\n    return look(sys._getframe())", "", "exec")
    space = {"__name__": module.__name__, "look": stage_at, "sys": sys}  # type: ignore[attr-defined]
    exec(code, space)
    found: str = space[name]()
    return found


def test_a_stack_is_told_by_its_outermost_known_function() -> None:
    assert stage_at(sys._getframe()) == OTHER
    assert called_from(reading, "read_profiles") == "reading"
    assert called_from(inspection, "inspect_profiles") == "judging"


def test_a_module_that_is_loaded_is_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "looks_at_its_stack.py").write_text("import sys, stages\nfound = stages.stage_at(sys._getframe())\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_module("looks_at_its_stack").found == IMPORTS


def test_the_seconds_of_a_command_are_written(tmp_path: Path) -> None:
    file = tmp_path / "stages.json"
    done = subprocess.run([sys.executable, stages.__file__, str(file), "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "Usage:")
    assert list(json.loads(file.read_text())) == list(ORDER)


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_resampled_profiles_are_counts_around_those_of_the_data(ending: str, tmp_path: Path) -> None:
    counts = np.zeros((2, 3), np.float32)
    counts[0, 0], counts[1, 2] = 50, 7
    anndata.AnnData(sparse.csr_matrix(counts)).write_h5ad(tmp_path / "data.h5ad")
    path = tmp_path / f"many{ending}"
    write_resampled(path, tmp_path / "data.h5ad", 4000, 5)
    profiles = read_profiles(path)
    assert profiles.state == "counts"
    found = profiles.matrix[:].toarray() if isinstance(profiles.matrix, BackedMatrix) else profiles.matrix.toarray()
    assert found.shape == (4000, 5)
    np.testing.assert_array_equal(found[:, [1, 3, 4]], 0)
    first, second = (found[found[:, gene] > 0, gene] for gene in (0, 2))
    assert abs(len(first) - 2000) < 200
    for values, mean in ((first, 50), (second, 7)):  # Poisson: mean and variance, to a few standard errors
        assert abs(values.mean() - mean) < 0.2 * mean**0.5
        assert abs(values.var() / mean - 1) < 0.2
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_differences_of_latents_are_of_the_same_queries() -> None:
    right = {  # by representation and seed: profiles 0 to 3; of seed 1 scvi_10 has no rows
        ("latent", 0): [1, 1, 1, 0],
        ("latent", 1): [0, 0, 0, 0],
        ("scvi_10", 0): [1, 0, 0, 1],
        ("pca", 0): [1, 1, 0, 0],
        ("pca", 1): [0, 1, 0, 0],
    }
    rows = [
        {"representation": name, "way": "cosine", "ratio": 4, "profile": profile, "right": bool(one), "data": "d"}
        | {"seed": seed}
        for (name, seed), of_profiles in right.items()
        for profile, one in enumerate(of_profiles)
    ]
    found = summary(pd.DataFrame(rows)).loc["d", "cosine", 4]
    expected = {  # pca loses a half on profile 2 and wins a half on profile 1, over two seeds
        "latent": [3 / 8, 2, 0, 0],
        "pca": [3 / 8, 2, 0, np.std([0, -0.5, 0.5, 0], ddof=1) / 2],
        "scvi_10": [1 / 2, 1, 1 / 4, np.std([0, 1, 1, -1], ddof=1) / 2],
    }
    assert list(found.columns) == ["accuracy", "seeds", "latent - it", "error"]
    for name, numbers in expected.items():
        np.testing.assert_allclose(found.loc[name].astype(float), numbers, err_msg=name)
    alone = summary(pd.DataFrame(rows[8:12]))
    assert alone["accuracy"].tolist() == [1 / 2]
    assert alone["latent - it"].isna().all()


def test_every_program_gets_the_same_queries() -> None:
    """Queries of a split are the same molecules of the same profiles; those without a label are left out."""
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(3, (60, 5)).astype(np.float32))
    expression = Expression(counts, np.asarray(counts.sum(1), np.float64).ravel())
    split = np.repeat(["train", "validation", "test"], [40, 10, 10])
    labels = pd.Series(np.where(np.arange(60) % 7 == 0, None, np.arange(60) % 2), dtype=object)
    seen: list[list[tuple[np.ndarray, np.ndarray]]] = []

    def represent(train: Expression, queries: Expression, ratio: int) -> dict[str, list[np.ndarray]]:
        found = [part.rows.toarray() for part in (train, queries)]
        seen[-1].append((found[0], found[1]))
        return {"counts": found}

    tables = []
    for _ in range(2):
        seen.append([])
        tables.append(pd.DataFrame(rows_of(split, expression, labels, represent)))
    pd.testing.assert_frame_equal(*tables)
    labelled = [row for row in range(40, 60) if row % 7]
    for ratio, (train, queries), (_, again) in zip(RATIOS, *seen, strict=True):
        np.testing.assert_array_equal(queries, again)
        assert len(train) == 34
        assert abs(queries.sum() / counts[labelled].sum() - 1 / ratio) < 0.1
        assert sorted(tables[0].query("ratio == @ratio")["profile"].unique()) == labelled
