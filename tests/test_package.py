"""Truths about the package as a whole."""

import ast
import os
import re
import subprocess
import sys
import time
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest

import geneae

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "geneae"
FOLDERS = (
    "settings",
    "data",
    "losses",
    "models",
    "training",
    "evaluation",
    "folders",
    "pl",
    "report",
    "fitting",
    "tl",
    "cli",
)
"""The entries of the package in the order of a fit: each imports only from those before it."""
NAMES = {
    path.relative_to(PACKAGE).as_posix(): ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    )
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""Modules by file."""
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


NOT_NEEDED = (
    "jax",
    "lightning_fabric",
    "matplotlib",
    "numba",
    "pyarrow.parquet",
    "scanpy",
    "scipy.optimize",
    "scipy.stats",
    "sklearn",
    "torch._dynamo",
    "umap",
)
"""What takes a tenth of a second or more to load, and only parts of the package use."""


def loaded_by(code: str, names: tuple[str, ...] = HEAVY) -> set[str]:
    """Which of some packages, by default of the heavy ones, a process has loaded after some code."""
    code += f"\nimport sys\nprint(*(name for name in {names} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split()) if done.stdout.strip() else set()


def loaded_by_command(names: tuple[str, ...], *arguments: object, before: str = "") -> set[str]:
    """Which of some packages a process has loaded after a command, and code before it."""
    code = f"""
{before}
from geneae.cli.main import main
try:
    main({[str(argument) for argument in arguments]!r})
except SystemExit as end:
    assert end.code == 0
"""
    return loaded_by(code, names)


def test_import_loads_nothing_heavy() -> None:
    assert loaded_by("import geneae; geneae.__version__; dir(geneae)") == set()
    assert loaded_by("import numpy") == {"numpy"}  # what is loaded is seen


@pytest.mark.parametrize(
    "arguments",
    ["--help", "fit --help", "embed --help", "evaluate --help", "metric --help", "transfer --help", "--version"],
)
def test_help_loads_nothing_heavy(arguments: str) -> None:
    assert loaded_by_command(HEAVY, *arguments.split()) == set()


@pytest.mark.slow
def test_commands_load_only_what_they_use(counts_path: Path, model_folder: Path, tmp_path: Path) -> None:
    data, model = counts_path, model_folder
    assert loaded_by_command(NOT_NEEDED, "inspect", data) == set()
    assert loaded_by_command(NOT_NEEDED, "embed", model, data, "-o", tmp_path / "latents.h5ad") == set()
    without_report = "import geneae.report as report; report.write_report = lambda path, *_: path.touch()"
    arguments = ("evaluate", model, data, "-o", tmp_path / "judged")
    assert loaded_by_command(NOT_NEEDED, *arguments, before=without_report) == set()


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--quiet", "--verbose"])
def test_a_fit_loads_figures_with_its_report(flag: str, counts_path: Path, tmp_path: Path) -> None:
    without_report = "from geneae.fitting import runs; runs.write_report = lambda path, *_: path.touch()"
    arguments = ("fit", counts_path, "-o", tmp_path / "run", "--epochs", 1, "--latent", 4, flag)
    found = loaded_by_command(NOT_NEEDED, *arguments, before=without_report)
    assert found == {"lightning_fabric", "torch._dynamo"}  # which training takes


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
    assert geneae.Autoencoder.__module__ == "geneae.fitting.autoencoder"
    assert geneae.CosineMetric.__module__ == "geneae.fitting.cosine_metric"
    assert geneae.read_profiles.__module__ == "geneae.data.reading"
    assert (geneae.tl.__name__, geneae.pl.__name__) == ("geneae.tl", "geneae.pl")
    with pytest.raises(AttributeError, match="module 'geneae' has no attribute 'autoencoder'"):
        _ = geneae.autoencoder  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_installed_package() -> None:
    assert geneae.__version__ == version("geneae")


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            module = node.module or ""
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found if module in NAMES.values()}


def folder_of(module: str) -> str:
    """The entry of the package that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def test_imports_of_files_and_of_folders_are_seen() -> None:
    assert {"geneae.pl", "geneae.pl.values", "geneae.report.image"} <= imported(PACKAGE / "report" / "pictures.py")
    assert imported(PACKAGE / "__init__.py") >= {"geneae.tl", "geneae.data.reading", "geneae.fitting.autoencoder"}
    assert folder_of("geneae.pl.values") == folder_of("geneae.pl") == "pl"


def test_the_package_is_these_folders_in_this_order() -> None:
    entries = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert entries == {"__init__", "__main__", "py.typed", *FOLDERS}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"<!-- tree -->(.*?)<!-- /tree -->", readme, re.DOTALL)
    assert tree is not None
    assert re.findall(r"[├└]── ([a-z_]+)(?:/|\.py) ", tree[1]) == ["__init__", *FOLDERS]


def test_a_folder_imports_only_folders_above_it() -> None:
    upward = [
        (name, module)
        for name, own in NAMES.items()
        if name not in ("__init__.py", "__main__.py")
        for module in sorted(imported(PACKAGE / name))
        if FOLDERS.index(folder_of(module) or FOLDERS[0]) > FOLDERS.index(folder_of(own))
    ]
    assert upward == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    order = TopologicalSorter({own: imported(PACKAGE / name) - {own, "geneae"} for name, own in NAMES.items()})
    assert len(list(order.static_order())) >= len(NAMES) - 1  # a circle raises


FORBIDDEN = (".toarray()", ".todense()", "pickle.", "import pickle", "torch.load", "allow_pickle=True", "getattr(torch")


def test_nothing_is_made_dense_or_unpickled() -> None:
    texts = {name: (PACKAGE / name).read_text(encoding="utf-8") for name in NAMES}
    assert [(name, word) for name, text in texts.items() for word in FORBIDDEN if word in text] == []


ONE_PLACE = {
    "click.echo(": {"cli/printing.py"},  # which escapes control characters, and outlasts a closed pipe
    "print(": set(),
    ".to_csv(": {"folders/tables.py"},  # which gives back every name
    "np.save(": set(),  # which loses the end of an array on a full disk
    "shlex.": {"settings/text.py"},
}
"""What is done in one file only, so that it is right everywhere."""


@pytest.mark.parametrize("call", ONE_PLACE)
def test_one_file_does_it_for_all(call: str) -> None:
    pattern = re.compile(rf"(?<![\w.`]){re.escape(call)}" if call[0] != "." else re.escape(call))
    found = {name for name in NAMES if pattern.search((PACKAGE / name).read_text(encoding="utf-8"))}
    assert found == ONE_PLACE[call]


def test_waiting_threads_sleep_unless_the_user_wants_otherwise() -> None:
    code = "import os, geneae; print(os.environ['OMP_WAIT_POLICY'])"
    for given, expected in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.strip() == expected


def test_at_import_a_policy_of_threads_is_set_and_nothing_else_happens() -> None:
    bodies = {name: ast.parse((PACKAGE / name).read_text(encoding="utf-8")).body for name in NAMES}
    calls = [
        (name, ast.unparse(node))
        for name, body in bodies.items()
        for node in body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ]
    assert calls == [("__init__.py", "os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')")]


def test_every_module_can_be_read_in_one_sitting() -> None:
    lengths = {name: (PACKAGE / name).read_text(encoding="utf-8").count("\n") for name in NAMES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
