import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from conftest import N_PROFILES, simulate
from scipy import sparse

from geneae import Autoencoder, __version__, read_profiles
from geneae.cli.main import main
from geneae.cli.tables import metrics_table
from geneae.data.permuted import NULLS
from geneae.evaluation.reconstruction import verdict
from geneae.fitting import runs
from geneae.folders.model import load_model
from geneae.settings.settings import LOSS_NAMES
from geneae.training.checkpoints import Checkpoint

FLAGS = ["--latent", "4", "--hidden", "16", "--rank", "12", "--epochs", "3", "--splits", "2", "--batch-size", "64"]
TABLES = {"diagnostics.csv", "genes.csv", "genewise.csv", "history.csv", "metrics.csv", "profiles.csv", "split.csv"}
FILES = {"README.md", "config.json", "model.safetensors", "report.html", "settings.toml", *TABLES}


def geneae(*arguments: object) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def there(folder: Path) -> set[str]:
    """Everything in a folder, hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@dataclass
class Run:
    """What `geneae fit` did."""

    result: Result
    folder: Path


@pytest.fixture(scope="module")
def run(counts_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A fit of the counts, not to be changed."""
    folder = tmp_path_factory.mktemp("fit") / "run"
    return Run(geneae("fit", counts_path, "--loss", "cosine", "-o", folder, *FLAGS), folder)


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of so small a fit; `run` and the processes of their own write whole reports."""
    monkeypatch.setattr(runs, "write_report", lambda path, *_: path.write_text("<html></html>"))


def test_fit_writes_the_promised_files(run: Run) -> None:
    assert run.result.exit_code == 0, run.result.output
    assert there(run.folder.parent) == {"run", *(f"run/{name}" for name in FILES)}
    config = json.loads((run.folder / "config.json").read_text())
    assert config["settings"]["loss"] == "cosine"
    assert (config["settings"]["n_latent"], config["settings"]["epochs"]) == (4, 3)


def test_fit_prints_what_it_found_what_it_did_and_what_came_of_it(run: Run, counts_path: Path) -> None:
    lines = run.result.stdout.splitlines()
    assert lines[0] == read_profiles(counts_path).describe()
    assert lines[0].startswith(f"{counts_path}, X: counts: will be normalised to 10,000 per profile and log1p'd; 240 p")
    n_genes = len(load_model(run.folder).preprocess.genes)
    assert lines[1] == f"Split into 192 train, 24 validation, 24 test profiles; {n_genes} genes."
    assert lines[2] == "Means over 24 validation / 24 test profiles; ↑ higher is better, ↓ lower is better"
    assert [line.split("  ")[0] for line in lines[4:9]] == [
        "model",
        "shrunken PCA",
        "PCA",
        "mean profile",
        "noise ceiling",
    ]
    assert lines[9].startswith("On 24 test profiles, judged against the other half of the molecules (held-out cosine)")
    assert " PCA of the same size (" in lines[9]
    assert " shrunken PCA of the same size (" in lines[9]
    assert lines[10].startswith("Best epoch by validation: ")
    assert lines[-1].startswith(f"Written to {run.folder}: ")
    assert run.result.stderr == ""


def test_the_command_and_python_give_the_same(run: Run, counts_path: Path, fitted: Autoencoder) -> None:
    found = Autoencoder.load(run.folder)
    assert found.get_params() == fitted.get_params()
    np.testing.assert_array_equal(found.transform(counts_path), fitted.transform(counts_path))
    table, said = metrics_table(fitted.evaluation_), verdict(fitted.evaluation_, "test")
    assert f"{table}\n{said}\n" in run.result.stdout


def test_nulls_are_printed_beside_the_fit_and_written(run: Run, counts_path: Path, tmp_path: Path) -> None:
    result = geneae("fit", counts_path, "--loss", "cosine", "-o", tmp_path / "run", "--null", *FLAGS)
    lines = result.stdout.splitlines()
    assert lines[10] == "The same training where there is nothing to learn, means over 24 test profiles"
    assert [title.strip() for title in lines[11].split("  ")[-3:]] == [
        "held-out cosine ↑",
        "gain over mean profile ↑",
        "skill ↑",
    ]
    assert [line.split("  ")[0] for line in lines[12:15]] == ["this fit", *NULLS.values()]
    assert lines[12].split()[2] == lines[4].split()[-1]  # the held-out cosine of the test profiles, as above
    written = pd.read_csv(tmp_path / "run" / "diagnostics.csv").set_index("name")
    assert f"{written.loc['pair_permuted_skill', 'value']:.4f}" == lines[14].split()[-1]
    assert not any("permuted" in name for name in pd.read_csv(run.folder / "diagnostics.csv")["name"])
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()


def test_quiet_prints_nothing(counts_path: Path, run: Run, tmp_path: Path) -> None:
    result = geneae("fit", counts_path, "-o", tmp_path / "run", "--quiet", *FLAGS)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    result = geneae("evaluate", run.folder, counts_path, "-o", tmp_path / "judged", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    result = geneae("embed", run.folder, counts_path, "-o", tmp_path / "out.csv", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_the_output_is_named_after_the_data(counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = geneae("fit", counts_path, *FLAGS, "--epochs", "1")
    assert result.exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["counts_geneae"]
    assert "Written to counts_geneae: " in result.stdout


def test_each_flag_becomes_its_setting(counts_path: Path, tmp_path: Path) -> None:
    flags = {"loss": "combined", "center": "gene", "alpha": 0.3, "beta": 2.0, "gamma": 3.0, "latent": 3, "hidden": 8}
    flags |= {"basis": "free", "rank": 9, "init": "random", "target": "self", "cut": 2.0, "cut-where": "decoder"}
    flags |= {"n-top-genes": 60, "validation": 0.2, "test": 0.25, "group": "donor", "stratify": "kind", "epochs": 2}
    flags |= {"patience": 5, "batch-size": 99, "learning-rate": 0.01, "weight-decay": 0.1, "dropout": 0.1, "splits": 3}
    flags |= {"seed": 4, "split-seed": 7, "device": "cpu", "precision": "bf16", "margin": 0.4, "temperature": 0.2}
    flags |= {"negatives": "hardest", "label": "kind", "cut-bias": "zero", "target-norm": 3.0, "grad-scale": 1.0}
    flags |= {"optimizer": "sgd"}
    arguments = [text for flag, value in flags.items() for text in (f"--{flag}", str(value))]
    result = geneae("fit", counts_path, "-o", tmp_path / "run", "--scale", "--latent-norm", "--quiet", *arguments)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    names = {"latent": "n_latent", "splits": "n_splits"}
    expected = {names.get(flag, flag.replace("-", "_")): value for flag, value in flags.items()}
    alone = {"devices": 1, "nodes": 1, "objective": "reconstruction", "views": "auto", "agreement": 0.1}
    alone |= {"metric": None, "batch_key": None}
    expected |= {"scale": True, "latent_norm": True} | alone  # what others have tests of
    assert found == expected


def test_what_a_fixed_margin_is_at_a_perfect_reconstruction_is_printed(counts_path: Path, tmp_path: Path) -> None:
    flags = ["fit", counts_path, "--loss", "cosine-embedding", *FLAGS, "--epochs", "1"]
    said = geneae(*flags, "--margin", "0.5", "-o", tmp_path / "fixed").stdout
    number = json.loads((tmp_path / "fixed" / "config.json").read_text())["loss_at_perfection"]
    assert f"At a perfect reconstruction the loss cosine-embedding is {number:.3g}, not 0: it asks for more" in said
    assert "At a perfect" not in geneae(*flags, "-o", tmp_path / "by-pair").stdout


def test_help_names_every_loss_and_every_default() -> None:
    text = geneae("fit", "--help").stdout
    for name in LOSS_NAMES:
        assert name in text
    for flag in ("--n-top-genes", "--cut-where", "--stratify", "--precision", "--overwrite", "--quiet", "--raw"):
        assert flag in text
    assert "[default: mse]" in " ".join(text.split())
    assert geneae("--version").stdout.strip().endswith(__version__)


def write(path: Path, adata: anndata.AnnData) -> Path:
    adata.write_h5ad(path)
    return path


def with_values(change: Callable[[np.ndarray], None]) -> anndata.AnnData:
    adata = simulate(60, 30)
    dense = adata.X.toarray()
    change(dense)
    adata.X = dense
    return adata


def put(row: int, column: int, value: float) -> Callable[[np.ndarray], None]:
    def change(dense: np.ndarray) -> None:
        dense[row, column] = value

    return change


def make_text(folder: Path) -> Path:
    path = folder / "data.h5ad"
    path.write_text("gene,cell0\nA,1\n")
    return path


def make_truncated(folder: Path) -> Path:
    path = write(folder / "data.h5ad", simulate(60, 30))
    path.write_bytes(path.read_bytes()[:-5000])
    return path


def make_duplicates(folder: Path) -> Path:
    import h5py

    path = write(folder / "data.h5ad", simulate(60, 30))
    with h5py.File(path, "r+") as file:
        file["var/_index"][4] = "gene3"
    return path


BAD_DATA: dict[str, tuple[Callable[[Path], Path], list[str], str]] = {
    "missing file": (lambda folder: folder / "data.h5ad", [], "{data} does not exist"),
    "not an h5ad": (make_text, [], "{data} should be an .h5ad (HDF5) file, but its content is not HDF5."),
    "truncated": (make_truncated, [], "{data} should be a complete AnnData file, but reading it failed: "),
    "missing layer": (
        lambda folder: write(folder / "data.h5ad", simulate(60, 30)),
        ["--layer", "counts"],
        "unknown layer 'counts'. Available: none",
    ),
    "missing raw": (
        lambda folder: write(folder / "data.h5ad", simulate(60, 30)),
        ["--raw"],
        "{data} has no raw. Leave raw out; its layers: none.",
    ),
    "negative values": (
        lambda folder: write(folder / "data.h5ad", with_values(put(3, 5, -1.0))),
        ["--target", "split"],
        "--target split divides molecules and needs counts; {data}, X holds scaled values. Name the counts with",
    ),
    "NaN": (
        lambda folder: write(folder / "data.h5ad", with_values(put(3, 5, np.nan))),
        [],
        "1 are NaN or infinite, first in profile 'cell3', gene 'gene5'. Remove these profiles or genes, or fill in",
    ),
    "infinity": (
        lambda folder: write(folder / "data.h5ad", with_values(put(7, 2, np.inf))),
        [],
        "1 are NaN or infinite, first in profile 'cell7', gene 'gene2'.",
    ),
    "duplicate genes": (
        make_duplicates,
        [],
        "{data}, X: gene names must be unique; 1 of 30 repeat an earlier one, first 'gene3'. Make them unique with",
    ),
    "too few profiles": (
        lambda folder: write(folder / "data.h5ad", simulate(2, 30)),
        [],
        "a split into train, validation, test needs at least 3 profiles; found 2.",
    ),
    "latent too large": (
        lambda folder: write(folder / "data.h5ad", simulate(30, 40)),
        ["--latent", "32"],
        "the latent must be at most 23, as there are 24 training profiles and ",
    ),
    "unknown group": (
        lambda folder: write(folder / "data.h5ad", simulate(60, 30)),
        ["--group", "doner"],
        "unknown obs column 'doner'; did you mean 'donor'? Available: donor, kind",
    ),
    "impossible setting": (
        lambda folder: folder / "data.h5ad",
        ["--dropout", "1"],
        "dropout must be at least 0 and below 1; found 1.",
    ),
    "unknown loss": (
        lambda folder: folder / "data.h5ad",
        ["--loss", "cosin"],
        "unknown loss 'cosin'; did you mean 'cosine'? Available: mse, relative-mse, cosine,",
    ),
}


def assert_refused(result: Result, text: str) -> None:
    """One message on standard error, nothing else, exit code 2."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_input_of_fit_is_one_clear_message_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    make, flags, text = BAD_DATA[case]
    data = make(tmp_path)
    before = there(tmp_path)
    result = geneae("fit", data, "-o", tmp_path / "new" / "run", *FLAGS, *flags)
    assert_refused(result, text.format(data=data))
    assert there(tmp_path) == before


@pytest.mark.parametrize(
    "case", ["missing file", "not an h5ad", "truncated", "missing layer", "NaN", "duplicate genes"]
)
@pytest.mark.parametrize("command", ["embed", "evaluate"])
def test_bad_input_of_the_other_commands_too(run: Run, command: str, case: str, tmp_path: Path) -> None:
    make, flags, text = BAD_DATA[case]
    data = make(tmp_path)
    before = there(tmp_path)
    result = geneae(command, run.folder, data, "-o", tmp_path / "new" / "out.csv", *flags)
    assert_refused(result, text.format(data=data))
    assert there(tmp_path) == before


def test_words_that_are_no_options_are_refused_by_click(counts_path: Path, tmp_path: Path) -> None:
    for flags in (["--basis", "pcs"], ["--epochs", "many"], ["--nothing", "1"]):
        result = geneae("fit", counts_path, "-o", tmp_path / "run", *flags)
        assert result.exit_code == 2
        assert "Traceback" not in result.output
    assert there(tmp_path) == set()


def test_profiles_without_molecules_are_kept_out_and_named(tmp_path: Path) -> None:
    def empty(dense: np.ndarray) -> None:
        dense[[2, 5, 8, 9]] = 0

    data = write(tmp_path / "data.h5ad", with_values(empty))
    result = geneae("fit", data, "-o", tmp_path / "run", *FLAGS)
    assert result.exit_code == 0
    assert "4 profiles without any value were kept out: cell2, cell5, cell8 and others.\n" in result.stdout
    split = pd.read_csv(tmp_path / "run" / "split.csv", index_col="profile")["split"]
    assert list(split.index[split == "excluded"]) == ["cell2", "cell5", "cell8", "cell9"]


@pytest.mark.parametrize("command", ["embed", "evaluate"])
def test_too_small_an_overlap_of_genes_is_refused_unless_told(run: Run, command: str, tmp_path: Path) -> None:
    genes = load_model(run.folder).preprocess.genes
    adata = simulate(40)
    some = adata[:, [*genes[:20], *genes[:0]]].copy()
    data = write(tmp_path / "data.h5ad", some)
    output = tmp_path / "new" / "out.csv"
    result = geneae(command, run.folder, data, "-o", output)
    assert_refused(result, f"at least 50 % of the model's {len(genes)} genes must be in the data; found 20 of them")
    assert there(tmp_path) == {"data.h5ad"}
    result = geneae(command, run.folder, data, "-o", output, "--min-overlap", "0.1")
    assert result.exit_code == 0
    share = 100 * 20 / len(genes)
    assert f"20 of the model's {len(genes)} genes are in the data ({share:.1f} %).\n" in result.stdout


@pytest.mark.parametrize("command", ["fit", "embed", "evaluate"])
def test_an_output_that_cannot_be_made_is_refused(run: Run, counts_path: Path, command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    output = tmp_path / "file" / "out.csv"
    given = [counts_path] if command == "fit" else [run.folder, counts_path]
    result = geneae(command, *given, "-o", output)
    assert_refused(result, f"the output {output} cannot be made: {tmp_path / 'file'} is not a folder that can be")
    assert there(tmp_path) == {"file"}


def damage(run: Run, folder: Path, kind: str) -> Path:
    """A folder that is no model any more."""
    path = folder / "model"
    if kind == "missing":
        return path
    shutil.copytree(run.folder, path)
    if kind == "foreign":
        for name in FILES:
            (path / name).unlink()
        (path / "notes.txt").write_text("mine")
    if kind == "truncated":
        content = (path / "model.safetensors").read_bytes()
        (path / "model.safetensors").write_bytes(content[: len(content) // 2])
    if kind == "no json":
        (path / "config.json").write_text('{"format": 1,')
    if kind == "other format":
        (path / "config.json").write_text('{"format": 99}')
    if kind == "no weights":
        (path / "model.safetensors").unlink()
    if kind == "other genes":
        table = pd.read_csv(path / "genes.csv")
        table.iloc[:-3].to_csv(path / "genes.csv", index=False)
    return path


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing", "{model} is not a folder. Give the folder that geneae fit has written."),
        ("foreign", "{model} is not a model folder of geneae: it lacks config.json, model.safetensors, genes.csv."),
        ("truncated", "{model} should be a model folder, but its files do not fit together (SafetensorError: "),
        ("no json", "{model}/config.json is not JSON ("),
        ("other format", "{model} has format 99, but this version of geneae reads format 1."),
        ("no weights", "{model} is not a model folder of geneae: it lacks model.safetensors."),
        ("other genes", "{model} should be a model folder, but its files do not fit together (ValueError: numbers"),
    ],
)
@pytest.mark.parametrize("command", ["embed", "evaluate"])
def test_a_damaged_or_foreign_model_is_refused(
    run: Run, counts_path: Path, command: str, kind: str, text: str, tmp_path: Path
) -> None:
    model = damage(run, tmp_path, kind)
    before = there(tmp_path)
    result = geneae(command, model, counts_path, "-o", tmp_path / "new" / "out.csv")
    assert_refused(result, text.format(model=model))
    assert there(tmp_path) == before


def test_an_existing_folder_is_refused_before_any_work_is_done(run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    before = (folder / "metrics.csv").read_bytes()
    text = f"the output folder {folder} is there. Choose another one, or add --overwrite to replace it."
    for arguments in (["fit", tmp_path / "no.h5ad"], ["evaluate", tmp_path / "no", tmp_path / "no.h5ad"]):
        assert_refused(geneae(*arguments, "-o", folder), text)
    assert (folder / "metrics.csv").read_bytes() == before


def test_a_runaway_loss_is_one_message_and_leaves_the_weights_before(tmp_path: Path) -> None:
    data, folder = write(tmp_path / "data.h5ad", simulate(60, 30)), tmp_path / "run"
    result = geneae("fit", data, "-o", folder, *FLAGS, "--learning-rate", "1e18")
    assert_refused(result, "on the profiles 'cell")
    assert f"The weights before are in {folder / 'checkpoint.safetensors'}." in result.stderr
    assert there(folder) == {"checkpoint.safetensors"}


def stopped(*arguments: object, monkeypatch: pytest.MonkeyPatch, after: int = 2) -> Result:
    """The command, stopped by a signal in the middle of an epoch."""
    real, left = Checkpoint.is_due, [after]

    def is_due(self: Checkpoint) -> bool:
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(signal.SIGTERM)
        return real(self)

    monkeypatch.setattr(Checkpoint, "is_due", is_due)
    result = geneae(*arguments)
    monkeypatch.setattr(Checkpoint, "is_due", real)
    return result


def test_a_stopped_run_goes_on_with_resume_alone(
    run: Run, counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    arguments = ["fit", counts_path, "--loss", "cosine", "-o", folder, *FLAGS]
    result = stopped(*arguments, monkeypatch=monkeypatch)
    assert result.exit_code == 143
    assert f"Stopped by SIGTERM. What was trained is in {folder}. Go on with:\ngeneae " in result.stderr
    assert there(tmp_path) == {"run", "run/checkpoint.safetensors"}
    assert_refused(geneae(*arguments), f"{folder} holds the checkpoint of a run that has not ended. Add --resume to go")
    other = geneae(*arguments, "--resume", "--epochs", "5")
    assert_refused(other, "is the checkpoint of a run with other epochs (3 there, 5 now). Go on with the data and")
    assert geneae(*arguments, "--resume").exit_code == 0
    assert there(folder) == FILES
    for name in ("model.safetensors", "metrics.csv", "profiles.csv"):
        assert (folder / name).read_bytes() == (run.folder / name).read_bytes()
    assert json.loads((folder / "config.json").read_text())["parts"] == 2
    before = (folder / "config.json").stat().st_mtime_ns
    result = geneae(*arguments, "--resume")
    assert f"{folder} holds this run and is whole: nothing is left to do.\n" in result.stdout
    assert (folder / "config.json").stat().st_mtime_ns == before
    assert_refused(geneae(*arguments, "--resume", "--epochs", "5"), f"{folder} holds a run with other epochs. Choose")
    assert_refused(geneae(*arguments, "--resume", "--null"), f"{folder} holds a run with other null. Choose")
    assert_refused(geneae(*arguments, "--resume", "--overwrite"), "--resume goes on with what is there, and --overw")


def test_overwrite_starts_anew_and_keeps_the_old_run_until_the_end(
    run: Run, counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    arguments = ["fit", counts_path, "-o", folder, *FLAGS, "--seed", "5"]
    assert stopped(*arguments, "--overwrite", monkeypatch=monkeypatch).exit_code == 143
    assert there(folder) == FILES | {"checkpoint.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()
    assert geneae(*arguments, "--resume").exit_code == 0
    assert json.loads((folder / "config.json").read_text())["seed"] == 5
    assert there(folder) == FILES
    assert stopped(*arguments, "--seed", "6", "--overwrite", monkeypatch=monkeypatch).exit_code == 143
    assert geneae(*arguments, "--seed", "7", "--overwrite").exit_code == 0
    assert json.loads((folder / "config.json").read_text())["seed"] == 7


def test_nulls_go_on_too(run: Run, counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["fit", counts_path, "--loss", "cosine", "-o", tmp_path / "run", *FLAGS, "--null"]
    assert stopped(*arguments, monkeypatch=monkeypatch, after=20).exit_code == 143  # of 13 in each training
    assert there(tmp_path / "run") == {"checkpoint.safetensors", "checkpoint-gene_permuted.safetensors"}
    result = geneae(*arguments, "--resume")
    assert result.exit_code == 0
    assert len([line for line in result.stdout.splitlines() if line.startswith(tuple(NULLS.values()))]) == 2
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()


def test_overwrite_replaces_what_is_ours(run: Run, counts_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    result = geneae("fit", counts_path, "-o", folder, "--overwrite", *FLAGS, "--seed", "5")
    assert result.exit_code == 0
    assert json.loads((folder / "config.json").read_text())["seed"] == 5
    result = geneae("evaluate", run.folder, counts_path, "-o", tmp_path / "judged")
    result = geneae("evaluate", run.folder, counts_path, "-o", tmp_path / "judged", "--overwrite")
    assert result.exit_code == 0
    result = geneae("embed", run.folder, counts_path, "-o", tmp_path / "out.npy")
    result = geneae("embed", run.folder, counts_path, "-o", tmp_path / "out.npy", "--overwrite")
    assert result.exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"run", "judged", "out.npy"}


def test_overwrite_never_replaces_what_is_not_ours(counts_path: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    result = geneae("fit", counts_path, "-o", tmp_path / "thesis", "--overwrite", *FLAGS)
    assert_refused(result, f"{tmp_path / 'thesis'} is there and was not written by geneae. Choose another name for")
    assert there(tmp_path) == {"thesis", "thesis/chapter.txt"}


@pytest.mark.parametrize("name", ["out.h5ad", "out.csv", "out.parquet", "out.npy"])
def test_embed_writes_the_latents_in_each_format(
    run: Run, counts_path: Path, fitted: Autoencoder, name: str, tmp_path: Path
) -> None:
    result = geneae("embed", run.folder, counts_path, "-o", tmp_path / name)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f"Written to {tmp_path / name}: 240 profiles x 4 latents.\n")
    path = tmp_path / name
    found = {
        ".h5ad": lambda: anndata.read_h5ad(path).obsm["X_geneae"],
        ".csv": lambda: pd.read_csv(path, index_col="profile").to_numpy(),
        ".parquet": lambda: pd.read_parquet(path).set_index("profile").to_numpy(),
        ".npy": lambda: np.load(path),
    }[path.suffix]()
    np.testing.assert_allclose(found, fitted.transform(counts_path), rtol=1e-6)
    assert there(tmp_path) == {name}


def test_embed_adds_key_and_reconstruction(run: Run, counts_path: Path, fitted: Autoencoder, tmp_path: Path) -> None:
    arguments = ["-o", tmp_path / "out.h5ad", "--key-added", "X_mine", "--reconstruct"]
    assert geneae("embed", run.folder, counts_path, *arguments).exit_code == 0
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    genes = fitted.model_.preprocess.genes
    assert list(found.obsm) == ["X_mine"]
    layer = found.to_df("geneae_reconstructed")
    np.testing.assert_array_equal(layer[genes], fitted.inverse_transform(found.obsm["X_mine"]))
    assert layer.drop(columns=genes).isna().all(axis=None)
    assert found.uns["geneae"]["space"] == "log1p_cp10k"
    assert found.uns["geneae"]["key_added"] == "X_mine"


@pytest.mark.parametrize(
    ("name", "flags", "text"),
    [
        ("out.txt", [], "the output must end in .h5ad, .csv, .parquet, .npy; found 'out.txt'."),
        ("out.csv", ["--reconstruct"], "a reconstruction is a layer and needs an .h5ad output; found 'out.csv'."),
        ("there.csv", [], "there.csv is there. Choose another name, or add --overwrite to replace a file."),
    ],
)
def test_an_output_that_embed_cannot_write_is_refused(
    run: Run, counts_path: Path, name: str, flags: list[str], text: str, tmp_path: Path
) -> None:
    (tmp_path / "there.csv").write_text("years of work")
    assert_refused(geneae("embed", run.folder, counts_path, "-o", tmp_path / name, *flags), text)
    assert there(tmp_path) == {"there.csv"}
    assert (tmp_path / "there.csv").read_text() == "years of work"


def test_a_failure_while_embedding_leaves_nothing(
    run: Run, counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", fail)
    result = geneae("embed", run.folder, counts_path, "-o", tmp_path / "out.npy")
    assert result.exit_code == 1
    assert isinstance(result.exception, OSError)
    assert there(tmp_path) == set()


def test_evaluate_tells_the_splits_of_the_training_data_apart(run: Run, counts_path: Path, tmp_path: Path) -> None:
    result = geneae("evaluate", run.folder, counts_path, "-o", tmp_path / "judged")
    assert result.exit_code == 0, result.output
    assert there(tmp_path / "judged") == {"metrics.csv", "profiles.csv"}
    assert "Means over 192 train / 24 validation / 24 test profiles;" in result.stdout
    assert "On 24 test profiles, judged against the other half" in result.stdout
    profiles = pd.read_csv(tmp_path / "judged" / "profiles.csv")
    assert dict(profiles["split"].value_counts()) == {"train": 192, "validation": 24, "test": 24}
    known = pd.read_csv(run.folder / "profiles.csv").set_index("profile")
    again = profiles.set_index("profile").loc[known.index]
    np.testing.assert_allclose(again["cosine"], known["cosine"], rtol=1e-9)
    assert list(again["split"]) == list(known["split"])


def test_evaluate_calls_other_profiles_all(run: Run, tmp_path: Path) -> None:
    data = write(tmp_path / "other.h5ad", simulate(50, seed=8))
    result = geneae("evaluate", run.folder, data, "-o", tmp_path / "judged")
    assert result.exit_code == 0, result.output
    assert "Means over 50 all profiles;" in result.stdout
    assert "On all 50 profiles, judged against" in result.stdout
    metrics = pd.read_csv(tmp_path / "judged" / "metrics.csv")
    assert set(metrics["split"]) == {"all"}
    assert {"model", "mean_profile", "pca", "shrunken_pca"} <= set(metrics["model"])
    assert set(metrics["n_profiles"]) == {50}


def test_values_without_counts_go_through_all_commands(tmp_path: Path) -> None:
    adata = simulate(60, 30)
    adata.layers["logs"] = adata.X.log1p()
    data = write(tmp_path / "data.h5ad", adata)
    result = geneae("fit", data, "--layer", "logs", "-o", tmp_path / "run", *FLAGS)
    assert result.exit_code == 0, result.output
    assert (
        ", layers['logs']: log-normalised: values used as they are, no held-out half without counts;" in result.stdout
    )
    assert "Without counts no held-out number can be had" in result.stdout
    assert "noise ceiling" not in result.stdout
    assert_refused(
        geneae("embed", tmp_path / "run", data, "-o", tmp_path / "out.npy"),
        f"the model was fitted on log-normalised values, but {data}, X holds counts values. Name the matrix to read",
    )
    result = geneae("embed", tmp_path / "run", data, "--layer", "logs", "-o", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (60, 4)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--learning-rate", "3"], "No epoch was better than the start, shrunken PCA, which was kept."),
        (["--learning-rate", "3", "--target", "self"], "No epoch was better than the start, PCA, which was kept."),
        (
            ["--basis", "free", "--init", "random", "--learning-rate", "0.01"],
            "Best epoch by validation: 3 of 3; ",
        ),
        (
            ["--basis", "free", "--init", "random", "--learning-rate", "0.01"],
            "It was still improving: more --epochs may help.",
        ),
    ],
)
def test_fit_says_what_the_best_epoch_means(counts_path: Path, flags: list[str], text: str, tmp_path: Path) -> None:
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *FLAGS, *flags)
    assert text in result.stdout


def in_a_process(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """The installed command, on its own."""
    command = [sys.executable, "-m", "geneae.cli", *map(str, arguments)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, timeout=120, check=False)


def test_another_process_gives_the_same_model_and_tables(run: Run, counts_path: Path, tmp_path: Path) -> None:
    flags = ["--loss", "cosine", "-o", "run", *FLAGS]
    done = in_a_process("fit", counts_path, *flags, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:10] == run.result.stdout.splitlines()[:10]
    for name in ("model.safetensors", "genes.csv", "split.csv", "profiles.csv", "metrics.csv", "genewise.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (run.folder / name).read_bytes(), name
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["command"] == f"geneae fit {counts_path} {' '.join(flags)}"


def test_a_real_process_ends_with_2_and_one_line(tmp_path: Path) -> None:
    done = in_a_process("fit", "missing.h5ad", "-o", "run", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: missing.h5ad does not exist. Give the path of an .h5ad file or .zarr folder.\n"
    assert there(tmp_path) == set()


def test_sparse_columns_and_dense_files_give_the_same_run(counts: anndata.AnnData, run: Run, tmp_path: Path) -> None:
    latents = []
    for name, form in (("csc", sparse.csc_matrix), ("dense", lambda x: x.toarray())):
        changed = counts.copy()
        changed.X = form(counts.X)
        data = write(tmp_path / f"{name}.h5ad", changed)
        assert geneae("embed", run.folder, data, "-o", tmp_path / f"{name}.npy").exit_code == 0
        latents.append(np.load(tmp_path / f"{name}.npy"))
    np.testing.assert_array_equal(*latents)
    assert latents[0].shape == (N_PROFILES, 4)


def test_an_encoder_goes_through_all_commands(counts_path: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, "--objective", "simclr", "--label", "kind", "--views", "thin+mask:0.2"]
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *flags)
    assert result.exit_code == 0, result.output
    assert "Latents judged by labels that took no part in training, on 24 validation / 24 test" in result.stdout
    assert "Judged by labels of 20 neighbours (k-NN accuracy) on 24 test profiles, the latent " in result.stdout
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES - {"genewise.csv"}
    result = geneae("embed", tmp_path / "run", counts_path, "-o", tmp_path / "out.h5ad")
    assert result.exit_code == 0, result.output
    latent = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(latent.obsm["X_geneae"], Autoencoder.load(tmp_path / "run").transform(counts_path))
    assert latent.uns["geneae"]["objective"] == "simclr"
    for command in (
        ("embed", tmp_path / "run", counts_path, "-o", tmp_path / "other.h5ad", "--reconstruct"),
        ("evaluate", tmp_path / "run", counts_path, "-o", tmp_path / "judged"),
    ):
        result = geneae(*command)
        assert result.exit_code == 2
        assert "a model of objective simclr has latents alone: no decoder was trained" in result.stderr


def test_a_loss_under_a_metric_says_how_many_genes_it_has(
    counts_path: Path, metric_folder: Path, tmp_path: Path
) -> None:
    flags = [*FLAGS, "--loss", "cosine", "--metric", metric_folder, "--label", "kind"]
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *flags)
    assert result.exit_code == 0, result.output
    loaded = load_model(tmp_path / "run")
    assert loaded.config["settings"]["metric"] == str(metric_folder)
    n_genes = len(loaded.preprocess.genes)
    said = f"{n_genes} genes. The metric of the loss has {n_genes} of these genes (100.0 %); what follows is plain."
    assert said in result.stdout.splitlines()[1]
    assert "labels that may have taken part in training, by the metric of the loss, on 24 validation" in result.stdout


@pytest.mark.parametrize("command", ["fit", "compare", "sweep-cut"])
def test_a_folder_without_a_metric_is_refused_before_anything_is_read(command: str, tmp_path: Path) -> None:
    result = geneae(command, tmp_path / "none.h5ad", "-o", tmp_path / "out", "--metric", tmp_path)
    assert result.exit_code == 2
    assert f"Error: {tmp_path} is not the folder of a metric: it lacks config.json, metric.safetensors. Give" in (
        result.stderr
    )
    assert not (tmp_path / "out").exists()


def test_an_encoder_without_labels_says_so(counts_path: Path, tmp_path: Path) -> None:
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *FLAGS, "--objective", "byol")
    assert result.exit_code == 0, result.output
    assert "Without labels nothing says how good these latents are: fit with --label KEY." in result.stdout
    assert "the last one is taken" in result.stdout
