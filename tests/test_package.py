"""Truths about the package as a whole."""

import ast
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

import geneae
from geneae.losses import LOSSES
from geneae.negatives import NEGATIVE_LOSSES
from geneae.settings import LOSS_NAMES, NEGATIVE_NAMES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "geneae"
MODULES = sorted(
    path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"
)
HEAVY = (
    "torch",
    "scanpy",
    "anndata",
    "pandas",
    "sklearn",
    "scipy",
    "numpy",
    "matplotlib",
    "lightning_fabric",
    "rich",
    "jax",
)


def loaded_by(code: str) -> set[str]:
    """Which of the heavy packages a process has loaded after some code."""
    code += f"\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split()) if done.stdout.strip() else set()


def test_import_loads_nothing_heavy() -> None:
    assert loaded_by("import geneae; geneae.__version__; dir(geneae)") == set()
    assert loaded_by("import numpy") == {"numpy"}  # what is loaded is seen


@pytest.mark.parametrize(
    "arguments", ["--help", "fit --help", "embed --help", "evaluate --help", "metric --help", "--version"]
)
def test_help_loads_nothing_heavy(arguments: str) -> None:
    code = f"""
from geneae.cli import main
try:
    main({arguments.split()!r})
except SystemExit as end:
    assert end.code == 0
"""
    assert loaded_by(code) == set()


def test_help_answers_at_once() -> None:
    taken = []
    for _ in range(3):  # the quickest counts: the machine may have other work
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "geneae.cli", "--help"], capture_output=True, text=True, check=True
        )
        taken.append(time.perf_counter() - begin)
    assert "Usage: " in done.stdout
    assert min(taken) < 1.0


def test_public_names_are_the_promised_ones() -> None:
    assert geneae.__all__ == ["Autoencoder", "CosineMetric", "__version__", "pl", "read_profiles", "tl"] == dir(geneae)
    assert geneae.pl.umap.__module__ == "geneae.pl.latents"
    assert geneae.Autoencoder.__module__ == "geneae.estimator"
    assert geneae.CosineMetric.__module__ == "geneae.cosine_metric"
    assert geneae.read_profiles.__module__ == "geneae.profiles"
    assert (geneae.tl.__name__, geneae.pl.__name__) == ("geneae.tl", "geneae.pl")
    with pytest.raises(AttributeError, match="module 'geneae' has no attribute 'autoencoder'"):
        _ = geneae.autoencoder  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_installed_package() -> None:
    assert geneae.__version__ == version("geneae")


def test_the_names_in_settings_are_those_of_the_losses() -> None:
    assert tuple(LOSSES) == LOSS_NAMES
    assert tuple(NEGATIVE_LOSSES) == NEGATIVE_NAMES


def file_map() -> list[str]:
    """Files in the order of the README's map; of a row, the first name."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- file-map -->(.*?)<!-- /file-map -->", readme, re.DOTALL)
    assert found is not None
    rows = re.findall(r"^\|\s*`([^`]+)`", found.group(1), re.MULTILINE)
    return [name.removeprefix("geneae/") for name in rows if name.endswith(".py")]


def test_the_map_in_the_readme_names_every_file_once() -> None:
    found = file_map()
    assert (set(MODULES) - set(found), set(found) - set(MODULES)) == (set(), set())
    assert len(found) == len(set(found))


def imported(path: Path) -> set[str]:
    """Files of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            module = node.module or ""
            found |= {file_of(module), *(file_of(f"{module}.{alias.name}") for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names}
    return found - {"", "__init__.py"}


def file_of(module: str) -> str:
    """The file of a module of the package, a folder by its `__init__.py`; nothing for other names."""
    package, *inside = module.split(".")
    path = Path(*inside)
    places = [path.with_suffix(".py"), path / "__init__.py"] if inside else [path / "__init__.py"]
    there = [place.as_posix() for place in places if package == "geneae" and (PACKAGE / place).is_file()]
    return there[0] if there else ""


def test_imports_of_files_and_of_folders_are_seen() -> None:
    assert {"pl/__init__.py", "pl/values.py", "report/image.py"} <= imported(PACKAGE / "report" / "pictures.py")
    assert {"report/__init__.py", "comparison.py"} <= imported(PACKAGE / "runs.py")
    public = {"cosine_metric.py", "estimator.py", "pl/__init__.py", "profiles.py", "tl.py"}
    assert imported(PACKAGE / "__init__.py") == public
    assert file_of("numpy.linalg") == file_of("geneae.losses.LOSSES") == ""


@pytest.mark.parametrize("name", [name for name in MODULES if name.endswith("/__init__.py")])
def test_a_folder_only_passes_on_what_its_files_hold(name: str) -> None:
    body = ast.parse((PACKAGE / name).read_text(encoding="utf-8")).body
    names = [alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert [type(node) for node in body if not isinstance(node, ast.ImportFrom)] == [ast.Expr, ast.Assign]
    assert ast.literal_eval(ast.unparse(body[-1]).removeprefix("__all__ = ")) == sorted(names)
    assert {path.split("/")[0] for path in imported(PACKAGE / name)} == {name.split("/")[0]}


@pytest.mark.parametrize("name", MODULES)
def test_a_file_imports_only_files_above_it_in_the_map(name: str) -> None:
    order = file_map()
    assert name in order
    assert imported(PACKAGE / name) - set(order[: order.index(name)]) == set()


FORBIDDEN = (".toarray()", ".todense()", "pickle.", "import pickle", "torch.load", "allow_pickle=True", "getattr(torch")


@pytest.mark.parametrize("name", ["__init__.py", *MODULES])
def test_nothing_is_made_dense_or_unpickled(name: str) -> None:
    text = (PACKAGE / name).read_text(encoding="utf-8")
    assert [word for word in FORBIDDEN if word in text] == []


def calls_at_import(path: Path) -> list[str]:
    """Plain calls that stand by themselves at the top of a file."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return [ast.unparse(node) for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]


@pytest.mark.parametrize("name", ["__init__.py", *MODULES])
def test_nothing_happens_at_import(name: str) -> None:
    assert calls_at_import(PACKAGE / name) == []
