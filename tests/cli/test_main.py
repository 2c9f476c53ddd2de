"""What all commands have in common."""

import json
import os
import shutil
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import anndata
import click
import numpy as np
import pytest
from commands import (
    BAD_DATA,
    FILES,
    FLAGS,
    Run,
    assert_refused,
    damage,
    geneae,
    there,
    write,
)
from conftest import simulate

from geneae import Autoencoder
from geneae.cli import commands
from geneae.cli.main import _said_once, main
from geneae.folders.model import load_model

NAMED = {"embed": "out.csv", "evaluate": "out", "fit": "out"}
"""A possible output of each command: a file or a folder."""


def test_quiet_prints_nothing(counts_path: Path, run: Run, tmp_path: Path) -> None:
    result = geneae("fit", counts_path, "-o", tmp_path / "run", "--quiet", *FLAGS)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    result = geneae("evaluate", run.folder, counts_path, "-o", tmp_path / "judged", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    result = geneae("embed", run.folder, counts_path, "-o", tmp_path / "out.csv", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "case", ["missing file", "not an h5ad", "truncated", "missing layer", "NaN", "duplicate profiles"]
)
@pytest.mark.parametrize("command", ["embed", "evaluate"])
def test_bad_input_of_the_other_commands_too(run: Run, command: str, case: str, tmp_path: Path) -> None:
    make, flags, text = BAD_DATA[case]
    data = make(tmp_path)
    before = there(tmp_path)
    result = geneae(command, run.folder, data, "-o", tmp_path / "new" / NAMED[command], *flags)
    assert_refused(result, text.format(data=data))
    assert there(tmp_path) == before


def test_words_that_are_no_options_are_refused_by_click(counts_path: Path, tmp_path: Path) -> None:
    for flags in (["--basis", "pcs"], ["--epochs", "many"], ["--nothing", "1"]):
        result = geneae("fit", counts_path, "-o", tmp_path / "run", *flags)
        assert result.exit_code == 2
        assert "Traceback" not in result.output
    assert there(tmp_path) == set()


@pytest.mark.parametrize("command", ["embed", "evaluate"])
def test_too_small_an_overlap_of_genes_is_refused_unless_told(run: Run, command: str, tmp_path: Path) -> None:
    genes = load_model(run.folder).preprocess.genes
    adata = simulate(40)
    some = adata[:, [*genes[:20], *genes[:0]]].copy()
    data = write(tmp_path / "data.h5ad", some)
    output = tmp_path / "new" / NAMED[command]
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
    output = tmp_path / "file" / NAMED[command]
    given = [counts_path] if command == "fit" else [run.folder, counts_path]
    result = geneae(command, *given, "-o", output)
    assert_refused(result, f"the output {output} cannot be created: {tmp_path / 'file'} is not a writable folder. ")
    assert there(tmp_path) == {"file"}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing", "{model} is not a folder. Give the folder that geneae fit has written."),
        ("foreign", "{model} is not a model folder of geneae: it lacks config.json, model.safetensors, genes.csv."),
        ("truncated", "{model} should be a model folder, but its files do not fit together (SafetensorError: "),
        ("no json", "{model}/config.json is not JSON ("),
        ("other format", "{model} has format 99, but this version of geneae reads format 1 and 2."),
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
    result = geneae(command, model, counts_path, "-o", tmp_path / "new" / NAMED[command])
    assert_refused(result, text.format(model=model))
    assert there(tmp_path) == before


def test_an_existing_folder_is_refused_before_any_work_is_done(run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    before = (folder / "metrics.csv").read_bytes()
    text = f"the output folder {folder} already exists. Choose another one, or add --overwrite to replace it."
    for arguments in (["fit", tmp_path / "no.h5ad"], ["evaluate", tmp_path / "no", tmp_path / "no.h5ad"]):
        assert_refused(geneae(*arguments, "-o", folder), text)
    assert (folder / "metrics.csv").read_bytes() == before


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


def test_values_without_counts_go_through_all_commands(tmp_path: Path) -> None:
    adata = simulate(60, 30)
    adata.layers["logs"] = adata.X.log1p()
    data = write(tmp_path / "data.h5ad", adata)
    result = geneae("fit", data, "--layer", "logs", "-o", tmp_path / "run", *FLAGS, "--verbose")
    assert result.exit_code == 0, result.output
    assert ", layers['logs']: log values: used as they are, no held-out half without counts (" in result.stdout
    assert "Without counts there is no held-out cosine" in result.stdout
    assert "the noise ceiling (" not in result.stdout
    assert "Note: X holds counts: --layer X, from which" in result.stdout
    assert_refused(
        geneae("embed", tmp_path / "run", data, "--layer", "X", "-o", tmp_path / "out.npy"),
        f"the model was fitted on log values, but {data}, X holds counts. Name the matrix to read",
    )
    result = geneae("embed", tmp_path / "run", data, "-o", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (60, 4)


def in_a_process(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """The installed command, on its own."""
    command = [sys.executable, "-m", "geneae.cli", *map(str, arguments)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_another_process_gives_the_same_model_and_tables(run: Run, counts_path: Path, tmp_path: Path) -> None:
    flags = ["--loss", "cosine", "-o", "run", *FLAGS, "--verbose"]
    done = in_a_process("fit", counts_path, *flags, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:10] == run.result.stdout.splitlines()[:10]
    for name in ("model.safetensors", "genes.csv", "split.csv", "profiles.csv", "metrics.csv", "genewise.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (run.folder / name).read_bytes(), name
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["command"] == f"geneae fit {counts_path} {' '.join(flags)}"


@pytest.mark.slow
def test_a_real_process_ends_with_2_and_one_line(tmp_path: Path) -> None:
    done = in_a_process("fit", "missing.h5ad", "-o", "run", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    remedy = "Give the path of an .h5ad file, a .zarr folder or another format that geneae reads."
    assert done.stderr == f"Error: missing.h5ad does not exist. {remedy}\n"
    assert there(tmp_path) == set()


def test_an_encoder_goes_through_all_commands(counts_path: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, "--objective", "simclr", "--label", "kind", "--views", "thin+mask:0.2"]
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *flags, "--verbose")
    assert result.exit_code == 0, result.output
    assert "Latents evaluated by labels that took no part in training, on 24 validation / 24 test" in result.stdout
    assert "By 20-NN accuracy of labels on 24 test profiles, the latent " in result.stdout
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
        assert "a model of objective simclr has latents only: no decoder was trained" in result.stderr


@pytest.mark.parametrize("command", ["fit", "compare", "sweep-cut"])
def test_a_folder_without_a_metric_is_refused_before_anything_is_read(command: str, tmp_path: Path) -> None:
    result = geneae(command, tmp_path / "none.h5ad", "-o", tmp_path / "out", "--metric", tmp_path)
    assert result.exit_code == 2
    assert f"Error: {tmp_path} is not the folder of a metric: it lacks config.json, metric.safetensors. Give" in (
        result.stderr
    )
    assert not (tmp_path / "out").exists()


def test_a_command_is_a_file_and_its_name_that_of_the_file() -> None:
    files = {path.stem.replace("_", "-") for path in Path(commands.__file__).parent.glob("[a-z]*.py")}
    context = click.Context(main)
    assert set(main.list_commands(context)) == files >= {"fit", "sweep-cut"}
    said = geneae("--help").stdout
    for name in files:
        assert f"\n  {name} " in said
        assert geneae(name, "--help").stdout.startswith(f"Usage: main {name} ")
    result = geneae("sweep_cut")
    assert result.exit_code == 2
    assert "No such command 'sweep_cut'" in result.stderr


def test_the_list_of_commands_shows_the_first_sentence_of_each_and_imports_none() -> None:
    context = click.Context(main, max_content_width=110, terminal_width=110)
    listed = main.get_help(context).split("Commands:\n")[1].splitlines()
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    sentences = {name: (one.help or "").split("\n")[0] for name, one in found.items() if one is not None}
    assert dict(line.split(maxsplit=1) for line in listed) == sentences
    code = "import sys; from geneae.cli.main import main; main(['--help'], standalone_mode=False); "
    code += "assert not [name for name in sys.modules if name.startswith('geneae.cli.commands.')]"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("seed", [2**32, 2**63, 2**64])
def test_a_seed_that_a_library_would_refuse_is_refused_first(seed: int) -> None:
    for command in (["fit", "none.h5ad", "--color", "kind"], ["metric", "none.h5ad", "--label", "kind"]):
        result = geneae(*command, "--seed", seed)
        assert_refused(result, f"seed must be between 0 and 4,294,967,295; found {seed:,}.")
    assert geneae("inspect", "none.h5ad", "--seed", seed).exit_code == 2
    assert_refused(geneae("inspect", "none.h5ad", "--seed", 2**32 - 1), "none.h5ad does not exist")


def test_a_negative_seed_is_refused_before_data_are_read(tmp_path: Path) -> None:
    for command in (["inspect", "none.h5ad"], ["fit", "none.h5ad"], ["metric", "none.h5ad", "--label", "kind"]):
        result = geneae(*command, "--seed", "-1")
        assert result.exit_code == 2
        assert "-1" in result.stderr
        assert "none.h5ad" not in result.stderr


PATHS = {
    "fit DATA": (["fit", ""], "DATA"),
    "fit -o": (["fit", "data.h5ad", "-o", ""], "--output"),
    "fit --config": (["fit", "data.h5ad", "--config", ""], "--config"),
    "embed MODEL": (["embed", "", "data.h5ad", "-o", "out.csv"], "MODEL"),
    "compare DATA": (["compare", " ", "-o", "out"], "DATA"),
    "metric --model": (["metric", "data.h5ad", "--label", "kind", "--model", ""], "--model"),
}


@pytest.mark.parametrize("case", PATHS)
def test_an_empty_path_is_not_the_current_folder(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, name = PATHS[case]
    monkeypatch.chdir(tmp_path)
    text = f"Error: {name} must name a file or folder; found an empty text. Check the variables of your script.\n"
    assert geneae(*arguments).stderr == text
    assert there(tmp_path) == set()


def test_threads_that_wait_do_not_spin_unless_the_user_wants_it() -> None:
    code = "import os, sys; from geneae.cli.main import main; main(['--version'], standalone_mode=False); "
    code += "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    for given, policy in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        own = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        env = own | ({"OMP_WAIT_POLICY": given} if given else {})
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.split()[-2:] == [policy, "False"]


LAST = """
import atexit, sys, threading, time
from geneae.cli.main import main

class Last:
    def __del__(self):
        print("taken apart")

last = Last()
atexit.register(print, "registered")
sys.argv = ["geneae", *sys.argv[1:]]
"""


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["--nothing"], 2)])
def test_a_command_ends_its_process_without_taking_apart_what_is_loaded(arguments: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-c", f"{LAST}main()", *arguments], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == "registered"
    assert "taken apart" not in done.stdout
    assert ("No such option" in done.stderr) == (code == 2)


def test_a_command_with_other_threads_ends_after_them() -> None:
    thread = "threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()"
    done = subprocess.run(
        [sys.executable, "-c", f"{LAST}{thread}\nmain()", "--version"], capture_output=True, text=True, check=True
    )
    assert [line for line in done.stdout.splitlines() if "version" not in line] == [
        "thread",
        "registered",
        "taken apart",
    ]


def test_an_error_is_said_where_memory_is_too_short_to_ask_who_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "geneae.cli.steps", None)  # its import fails
    result = geneae("report", tmp_path / "none")
    assert_refused(result, "Give the folder that geneae fit has written.")


def test_a_thread_that_runs_out_of_memory_prints_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda found: said.append(found.exc_type))

    def fail(error: Exception) -> None:
        raise error

    for error in (MemoryError(), KeyError("a fault of ours")):
        with _said_once():
            thread = threading.Thread(target=fail, args=[error])
            thread.start()
            thread.join()
    assert said == [KeyError]


def test_python_m_geneae_is_the_command() -> None:
    found = subprocess.run([sys.executable, "-m", "geneae", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == version("geneae")
