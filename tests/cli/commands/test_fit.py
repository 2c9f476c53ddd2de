"""`geneae fit`."""

import hashlib
import json
import shlex
import shutil
import signal
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from commands import (
    BAD_DATA,
    FILES,
    FLAGS,
    Run,
    assert_refused,
    geneae,
    stopped,
    there,
    with_values,
    write,
)
from conftest import simulate, write_checkpoint

from geneae import Autoencoder, __version__, read_profiles
from geneae.cli.tables import latent_tables, metrics_table
from geneae.data.permuted import NULLS
from geneae.evaluation.reconstruction import verdict
from geneae.fitting import runs
from geneae.folders.model import load_model
from geneae.settings.errors import InputError
from geneae.settings.settings import LOSS_NAMES
from geneae.settings.text import counted


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
    assert [line.split("  ")[0] for line in lines[4:12]] == [
        "model",
        "from the latent alone",
        "whitened linear",
        "own counts and mean profile",
        "shrunken PCA",
        "PCA",
        "mean profile",
        "noise ceiling",
    ]
    assert lines[12] == "Held-out cosine from inputs thinned to a share of all molecules, means over 24 test profiles"
    shown = ["model", "from the latent alone", "shrunken PCA", "mean profile"]
    assert [line.split("  ")[0] for line in lines[14:18]] == shown
    assert lines[18].startswith("The model ")
    for text in (
        " On 24 test profiles, evaluated against the other half of the molecules (held-out cosine)",
        " PCA of the same size (",
        " shrunken PCA of the same size (",
        " its whitened linear start (",
        "Step by step: ",
    ):
        assert text in lines[18]
    assert lines[19].startswith("Best epoch by validation: ")
    assert "Steps, with the decrease of the loss cosine of validation profiles: " in lines[19]
    assert lines[-5].startswith("Held-out cosine on 24 profiles (test): model 0.")
    n_warnings = len([line for line in lines if line.startswith("Note: ")])
    warned = f", with {counted(n_warnings, 'warning')} at its top" if n_warnings else ""
    assert lines[-3] == f"Report: {run.folder}/report.html{warned}"
    assert run.result.stderr == ""


def test_without_verbose_a_fit_ends_with_five_lines(counts_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    lines = geneae("fit", counts_path, "-o", folder, *FLAGS).stdout.splitlines()
    assert len(lines) == 2 + 5
    metrics = pd.read_csv(folder / "metrics.csv").query("split == 'test' and statistic == 'mean'")
    means = metrics.set_index(["model", "metric"])["value"]
    reached = [means["model", "heldout_cosine"], means["shrunken_pca", "heldout_cosine"], means["model", "ceiling"]]
    model, shrunken, ceiling = (f"{number:.4f}" for number in reached)
    assert lines[2] == (
        f"Held-out cosine on 24 profiles (test): model {model}, shrunken PCA {shrunken}, noise ceiling {ceiling}"
    )
    assert lines[3].startswith("The model ")
    assert len(lines[3].split()) <= 25
    assert lines[4].startswith(f"Report: {folder}/report.html")
    assert lines[5] == f"Latents: {folder}/latents.h5ad, for scanpy"
    words = shlex.split(lines[6].removeprefix("Next: "))
    assert words == ["geneae", "report", str(folder), "--color", "donor"]
    lines = geneae("fit", counts_path, "-o", folder, *FLAGS, "--color", "kind", "--overwrite").stdout.splitlines()
    said, _, line = lines[6].partition(": ")  # the report has a color already
    assert said == "Next, in Python"
    shown = f"sc.read_h5ad('{folder}/latents.h5ad'), 'X_umap', color='kind'"
    assert line == f"import scanpy as sc; sc.pl.embedding({shown})"
    exec(line)
    assert len(plt.gca().collections[0].get_offsets()) == 240
    plt.close("all")


def test_columns_of_an_earlier_fit_are_replaced_and_said(
    counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adata = anndata.read_h5ad(counts_path)
    adata.obs = pd.DataFrame({"geneae_split": "mine", "geneae_cluster": ["a", "b"] * 120}, adata.obs_names)
    write(tmp_path / "again.h5ad", adata)
    monkeypatch.chdir(tmp_path)
    lines = geneae("fit", "again.h5ad", "-o", "-dash", *FLAGS).stdout.splitlines()
    assert "Report: -dash/report.html, with 1 warning at its top" in lines
    table = pd.read_csv("-dash/diagnostics.csv").set_index("name")
    assert table.loc["data_latents", "message"] == (
        "latents.h5ad has its own obs 'geneae_split', obs 'geneae_cluster' in place of the data's."
    )
    found = anndata.read_h5ad("-dash/latents.h5ad").obs
    assert set(found["geneae_split"]) == {"train", "validation", "test"}
    assert "color='geneae_cluster'" in lines[-1]  # of this fit; no column of the data to colour by
    lines = geneae("fit", counts_path, "-o", "-dash", "--overwrite", *FLAGS).stdout.splitlines()
    assert lines[-1] == "Next: geneae report ./-dash --color donor"
    assert geneae(*shlex.split(lines[-1].removeprefix("Next: geneae "))).exit_code == 0


def test_without_a_umap_a_fit_ends_with_the_latents_of_other_profiles(
    counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_all = runs.umap_of
    monkeypatch.setattr(runs, "umap_of", lambda *given: of_all(*given)[:100])  # as of more than 5,000 profiles
    folder = tmp_path / "a run"
    lines = geneae("fit", counts_path, "-o", folder, *FLAGS, "--color", "kind").stdout.splitlines()
    assert "X_umap" not in anndata.read_h5ad(folder / "latents.h5ad").obsm
    said, _, line = lines[6].partition(": ")
    assert said == "Next, for a file of other profiles, here other.h5ad"  # no such file has been named so far
    assert shlex.split(line) == ["geneae", "embed", str(folder), "other.h5ad", "-o", "other_latents.h5ad"]


@pytest.mark.parametrize("flags", [[], ["--objective", "simclr"], ["--stream", "yes"]], ids=str)
def test_the_latents_that_a_fit_writes_are_those_of_embed(flags: list[str], counts_path: Path, tmp_path: Path) -> None:
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *FLAGS, *flags)
    assert result.exit_code == 0, result.output
    assert geneae("embed", tmp_path / "run", counts_path, "-o", tmp_path / "out.h5ad").exit_code == 0
    found, again = anndata.read_h5ad(tmp_path / "run" / "latents.h5ad"), anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_allclose(found.obsm["X_geneae"], again.obsm["X_geneae"], rtol=1e-5, atol=1e-6)
    pd.testing.assert_frame_equal(found.obs[list(again.obs)], again.obs)
    split = pd.read_csv(tmp_path / "run" / "split.csv").set_index("profile")["split"]
    assert (found.obs["geneae_split"].astype(str) == split).all()
    assert found.obsm["X_umap"].shape == (240, 2)
    assert ("X_geneae_sd" in found.obsm) == ("X_geneae_sd" in again.obsm)
    listed = (tmp_path / "run" / "SHA256SUMS").read_text()
    assert f"{hashlib.sha256((tmp_path / 'run' / 'latents.h5ad').read_bytes()).hexdigest()}  latents.h5ad" in listed


def test_columns_that_no_file_can_hold_are_warned_of(
    counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geneae.folders.latents._is_name", lambda name: name != "kind")
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *FLAGS)
    assert " at its top" in result.stdout
    table = pd.read_csv(tmp_path / "run" / "diagnostics.csv").set_index("name")
    assert table.loc["data_latents", "message"] == "An .h5ad cannot hold obs 'kind', left out of latents.h5ad."
    assert "kind" not in anndata.read_h5ad(tmp_path / "run" / "latents.h5ad").obs


def test_latents_that_cannot_be_had_cost_no_model(
    counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise InputError("latents must be finite numbers.")

    monkeypatch.setattr("geneae.fitting.runs.embed", fail)
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *FLAGS)
    assert result.exit_code == 0, result.output
    assert "Latents: " not in result.stdout
    assert there(tmp_path / "run") == FILES - {"latents.h5ad", "umap.csv"}
    message = pd.read_csv(tmp_path / "run" / "diagnostics.csv").set_index("name").loc["data_latents", "message"]
    assert message == "There is no latents.h5ad: latents must be finite numbers."


def test_the_command_and_python_give_the_same(run: Run, counts_path: Path, fitted: Autoencoder) -> None:
    found = Autoencoder.load(run.folder)
    assert found.get_params() == fitted.get_params()
    np.testing.assert_array_equal(found.transform(counts_path), fitted.transform(counts_path))
    tables = [metrics_table(fitted.evaluation_), *latent_tables(fitted.evaluation_, {})]
    assert "\n".join([*tables, verdict(fitted.evaluation_, "test")]) in run.result.stdout


def test_nulls_are_printed_beside_the_fit_and_written(run: Run, counts_path: Path, tmp_path: Path) -> None:
    result = geneae("fit", counts_path, "--loss", "cosine", "-o", tmp_path / "run", "--null", *FLAGS, "--verbose")
    lines = result.stdout.splitlines()
    assert lines[19] == "The same training where there is nothing to learn, means over 24 test profiles"
    assert [title.strip() for title in lines[20].split("  ")[-3:]] == [
        "held-out cosine ↑",
        "gain over mean profile ↑",
        "skill ↑",
    ]
    assert [line.split("  ")[0] for line in lines[21:24]] == ["this fit", *NULLS.values()]
    assert lines[21].split()[2] == lines[5].split()[-1]  # the held-out cosine from the latent alone, as above
    written = pd.read_csv(tmp_path / "run" / "diagnostics.csv").set_index("name")
    assert f"{written.loc['pair_permuted_skill', 'value']:.4f}" == lines[23].split()[-1]
    assert not any("permuted" in name for name in pd.read_csv(run.folder / "diagnostics.csv")["name"])
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()


def test_the_output_is_named_after_the_data(counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = geneae("fit", counts_path, *FLAGS, "--epochs", "1")
    assert result.exit_code == 0
    assert "\nReport: counts_geneae/report.html" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["counts_geneae"]


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
    alone |= {"positives": "views", "balance": None}
    alone |= {"metric": None, "batch_key": None, "attainable": False}
    alone |= {"state": "auto", "features": "genes"}
    expected |= {"scale": True, "latent_norm": True} | alone  # what others have tests of
    assert found == expected


def test_what_a_fixed_margin_is_at_a_perfect_reconstruction_is_printed(counts_path: Path, tmp_path: Path) -> None:
    flags = ["fit", counts_path, "--loss", "cosine-embedding", *FLAGS, "--epochs", "1", "--verbose"]
    said = geneae(*flags, "--margin", "0.5", "-o", tmp_path / "fixed").stdout
    number = json.loads((tmp_path / "fixed" / "config.json").read_text())["loss_at_perfection"]
    assert f"The loss cosine-embedding is {number:.3g}, not 0, at a perfect reconstruction, because it" in said
    assert "at a perfect" not in geneae(*flags, "-o", tmp_path / "by-pair").stdout


def test_help_names_every_loss_and_every_default() -> None:
    text = geneae("fit", "--help").stdout
    for name in LOSS_NAMES:
        assert name in text
    for flag in ("--n-top-genes", "--cut-where", "--stratify", "--precision", "--overwrite", "--quiet", "--raw"):
        assert flag in text
    assert "[default: mse]" in " ".join(text.split())
    assert geneae("--version").stdout.strip().endswith(__version__)


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_input_of_fit_is_one_clear_message_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    make, flags, text = BAD_DATA[case]
    data = make(tmp_path)
    before = there(tmp_path)
    result = geneae("fit", data, "-o", tmp_path / "new" / "run", *FLAGS, *flags)
    assert_refused(result, text.format(data=data))
    assert there(tmp_path) == before


def test_profiles_without_molecules_are_kept_out_and_named(tmp_path: Path) -> None:
    def empty(dense: np.ndarray) -> None:
        dense[[2, 5, 8, 9]] = 0

    data = write(tmp_path / "data.h5ad", with_values(empty))
    result = geneae("fit", data, "-o", tmp_path / "run", *FLAGS)
    assert result.exit_code == 0
    assert "4 profiles without any value were excluded: cell2, cell5, cell8 and others.\n" in result.stdout
    split = pd.read_csv(tmp_path / "run" / "split.csv", index_col="profile")["split"]
    assert list(split.index[split == "excluded"]) == ["cell2", "cell5", "cell8", "cell9"]


def test_a_runaway_loss_is_one_message_and_leaves_the_weights_before(tmp_path: Path) -> None:
    data, folder = write(tmp_path / "data.h5ad", simulate(60, 30)), tmp_path / "run"
    result = geneae("fit", data, "-o", folder, *FLAGS, "--learning-rate", "1e18")
    assert_refused(result, "on the profiles 'cell")
    assert f"Earlier weights are in {folder / 'checkpoint.safetensors'}." in result.stderr
    assert there(folder) == {"checkpoint.safetensors"}


def test_a_resumed_run_logs_every_epoch_once(
    counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["fit", counts_path, "-o", tmp_path / "run", *FLAGS, "--log", "csv"]
    assert stopped(*arguments, monkeypatch=monkeypatch).exit_code == 143
    assert geneae(*arguments, "--resume").exit_code == 0
    logged, history = (pd.read_csv(tmp_path / name / "history.csv") for name in ("run_log", "run"))
    assert list(logged["epoch"]) == list(history["epoch"])


def test_a_run_that_is_stopped_before_its_first_step_says_what_is_there(
    counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("geneae.data.source.Source.read", stop)
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *FLAGS)
    assert result.exit_code == 130
    assert "Stopped by SIGINT. Training had not started. Run the same command again." in result.output
    (tmp_path / "run").mkdir()
    write_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *FLAGS, "--resume")
    assert result.exit_code == 130
    assert f"Stopped by SIGINT. The training so far is saved in {tmp_path / 'run'}. Resume it with:" in result.output


def test_a_stopped_run_goes_on_with_resume_alone(
    run: Run, counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    arguments = ["fit", counts_path, "--loss", "cosine", "-o", folder, *FLAGS]
    result = stopped(*arguments, monkeypatch=monkeypatch)
    assert result.exit_code == 143
    assert f"Stopped by SIGTERM. The training so far is saved in {folder}. Resume it with:\ngeneae " in result.stderr
    assert there(tmp_path) == {"run", "run/checkpoint.safetensors"}
    assert_refused(geneae(*arguments), f"{folder} holds the checkpoint of an unfinished run. Add --resume to")
    other = geneae(*arguments, "--resume", "--epochs", "5")
    assert_refused(other, "is the checkpoint of a run with different epochs (3 in the checkpoint, 5 now). Resume with")
    assert geneae(*arguments, "--resume").exit_code == 0
    assert there(folder) == FILES
    for name in ("model.safetensors", "metrics.csv", "profiles.csv"):
        assert (folder / name).read_bytes() == (run.folder / name).read_bytes()
    assert json.loads((folder / "config.json").read_text())["parts"] == 2
    before = (folder / "config.json").stat().st_mtime_ns
    result = geneae(*arguments, "--resume")
    assert f"{folder} already holds this run, complete: nothing to do.\n" in result.stdout
    assert (folder / "config.json").stat().st_mtime_ns == before
    other = geneae(*arguments, "--resume", "--epochs", "5")
    assert_refused(other, f"{folder} holds a run that differs in epochs. Choose")
    assert_refused(geneae(*arguments, "--resume", "--null"), f"{folder} holds a run that differs in null. Choose")
    assert_refused(geneae(*arguments, "--resume", "--overwrite"), "--resume resumes an existing run, but --overw")


def test_a_closed_terminal_stops_a_run_as_a_scheduler_does(
    counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    try:
        arguments = ["fit", counts_path, "-o", tmp_path / "run", *FLAGS]
        result = stopped(*arguments, monkeypatch=monkeypatch, by=signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result.exit_code == 129
    assert "Stopped by SIGHUP. The training so far is saved in " in result.stderr
    assert there(tmp_path / "run") == {"checkpoint.safetensors"}


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
    arguments = ["fit", counts_path, "--loss", "cosine", "-o", tmp_path / "run", *FLAGS, "--null", "--verbose"]
    assert stopped(*arguments, monkeypatch=monkeypatch, after=20).exit_code == 143  # of 13 in each training
    assert there(tmp_path / "run") == {"checkpoint.safetensors", "checkpoint-gene_permuted.safetensors"}
    result = geneae(*arguments, "--resume")
    assert result.exit_code == 0
    assert len([line for line in result.stdout.splitlines() if line.startswith(tuple(NULLS.values()))]) == 2
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()


def test_overwrite_never_replaces_what_is_not_ours(counts_path: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    result = geneae("fit", counts_path, "-o", tmp_path / "thesis", "--overwrite", *FLAGS)
    assert_refused(
        result, f"{tmp_path / 'thesis'} already exists and was not written by geneae. Choose another name for"
    )
    assert there(tmp_path) == {"thesis", "thesis/chapter.txt"}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--learning-rate", "3"], "No epoch was better than the start, the whitened linear prediction, "),
        (
            ["--learning-rate", "3"],
            "so that the network is left out. Steps, with the decrease of the loss mse of validation profiles: ",
        ),
        (["--learning-rate", "3"], "left out: network"),
        (
            ["--learning-rate", "3", "--basis", "free"],
            "No epoch was better than the start, shrunken PCA, so that the network is left out.",
        ),
        (
            ["--learning-rate", "3", "--target", "self"],
            "No epoch was better than the start, PCA, so that the network is left out.",
        ),
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
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *FLAGS, *flags, "--verbose")
    assert text in result.stdout


def test_a_loss_under_a_metric_says_how_many_genes_it_has(
    counts_path: Path, metric_folder: Path, tmp_path: Path
) -> None:
    flags = [*FLAGS, "--loss", "cosine", "--metric", metric_folder, "--label", "kind", "--verbose"]
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *flags)
    assert result.exit_code == 0, result.output
    loaded = load_model(tmp_path / "run")
    assert loaded.config["settings"]["metric"] == str(metric_folder)
    n_genes = len(loaded.preprocess.genes)
    said = f"{n_genes} genes. The learned metric of the loss knows {n_genes} of these genes (100.0 %); the numbers"
    assert said in result.stdout.splitlines()[1]
    assert "labels that may have taken part in training, by the metric of the loss, on 24 validation" in result.stdout


def test_an_encoder_without_labels_says_so(counts_path: Path, tmp_path: Path) -> None:
    result = geneae("fit", counts_path, "-o", tmp_path / "run", *FLAGS, "--objective", "byol", "--verbose")
    assert result.exit_code == 0, result.output
    assert "Without labels, the quality of these latents is unknown: fit with --label KEY." in result.stdout
    assert "Best epoch by the neighbours that both halves of validation profiles have in common: " in result.stdout
    flags = ["--objective", "byol", "--basis", "free", "--verbose"]
    result = geneae("fit", counts_path, "-o", tmp_path / "free", *FLAGS, *flags)
    assert "epochs, of which the last is used" in result.stdout
    flags = ["--objective", "byol+reconstruction", "--verbose"]  # its epoch is chosen, too
    result = geneae("fit", counts_path, "-o", tmp_path / "both", *FLAGS, *flags)
    assert "Best epoch by the neighbours that both halves of validation profiles have in common: " in result.stdout
