"""`geneae judge`: a foreign program's output to verdict in three commands."""

import json
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from commands import Run, assert_refused, geneae, there
from sklearn.decomposition import NMF

FILES = {
    *(
        "SHA256SUMS",
        "judged.json",
        "split.csv",
        "metrics.csv",
        "profiles.csv",
        "paired.csv",
        "genewise.csv",
        "diagnostics.csv",
    ),
    "report.html",
}


def denoise(data: Path, output: Path) -> None:
    """A real program: the NMF of scikit-learn on log-normalised counts."""
    adata = anndata.read_h5ad(data)
    dense = adata.X.toarray()
    log = np.log1p(1e4 * dense / dense.sum(1, keepdims=True))
    model = NMF(4, init="nndsvda", max_iter=2000, tol=1e-3)
    adata.layers["nmf"] = (model.fit_transform(log) @ model.components_).astype(np.float32)
    adata.layers["copy"] = log.astype(np.float32)
    adata.write_h5ad(output)


@pytest.fixture(scope="module")
def halves(counts_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Halves of the counts, and what the program has made of them; not to be changed."""
    folder = tmp_path_factory.mktemp("judge")
    assert geneae("split", counts_path, "-o", folder / "halves", "--test", "0.3", "--quiet").exit_code == 0
    denoise(folder / "halves" / "input.h5ad", folder / "made.h5ad")
    return folder / "halves"


def test_three_commands_lead_from_a_file_to_a_verdict(halves: Path, tmp_path: Path) -> None:
    made = halves.parent / "made.h5ad"
    names = f"nmf={made}:layer=nmf", f"copy={made}:layer=copy", f"counts={made}"
    result = geneae("judge", halves, *names, "-o", tmp_path / "judged", "--latent", "4")
    assert result.exit_code == 0, result.output
    assert there(tmp_path / "judged") == FILES
    assert f"nmf: {made}, layer 'nmf' is in log1p_cp10k, by its gene means." in result.stdout
    assert "counts, by its gene means; converted to expected log1p_cp10k for Poisson counts." in result.stdout
    assert "By held-out cosine on 72 test profiles and one division" in result.stdout
    lines = result.stdout.splitlines()
    place = {name: next(i for i, line in enumerate(lines) if line.startswith(name)) for name in ("nmf ", "copy ")}
    assert place["nmf "] < place["copy "]
    report = (tmp_path / "judged" / "report.html").read_text(encoding="utf-8")
    for said in ("nmf", "shrunken PCA", "noise ceiling", "p (Holm)", "negative values", "Correlation by gene"):
        assert said in report
    for wrong in ("own reconstruction", "Without --color", "seed says nothing", "chose the epoch", "nan"):
        assert wrong not in report.replace("nan values", "")
    record = json.loads((tmp_path / "judged" / "judged.json").read_text())
    assert record["programs"] == {name: name for name in ("nmf", "copy", "counts")}
    profiles = pd.read_csv(tmp_path / "judged" / "profiles.csv")
    assert dict(profiles[profiles["arm"] == "nmf"]["split"].value_counts()) == {"test": 72, "validation": 24}


@pytest.mark.usefixtures("no_pictures")
def test_latents_alone_have_a_verdict_without_a_label(halves: Path, tmp_path: Path) -> None:
    adata = anndata.read_h5ad(halves / "input.h5ad")
    adata.obsm["X_mine"] = np.random.default_rng(0).normal(size=(adata.n_obs, 4))
    adata.write_zarr(tmp_path / "made.zarr")
    result = geneae("judge", halves, f"mine={tmp_path / 'made.zarr'}:obsm=X_mine", "-o", tmp_path / "judged")
    assert result.exit_code == 0, result.output
    assert there(tmp_path / "judged") <= FILES - {"paired.csv", "genewise.csv"}
    report = (tmp_path / "judged" / "report.html").read_text(encoding="utf-8")
    assert "mine" in report
    assert 'id="differences"' not in report


def test_several_divisions_are_judged_together(counts_path: Path, tmp_path: Path) -> None:
    assert geneae("split", counts_path, "-o", tmp_path / "halves", "--repeats", "2", "--quiet").exit_code == 0
    for repeat in (1, 2):
        denoise(tmp_path / "halves" / f"repeat_{repeat}" / "input.h5ad", tmp_path / f"made_{repeat}.h5ad")
    arguments = ("judge", tmp_path / "halves", "-o", tmp_path / "judged", "--latent", "4", "--quiet")
    result = geneae(*arguments, f"nmf={tmp_path}/made_{{repeat}}.h5ad:layer=nmf")
    assert (result.exit_code, result.output) == (0, "")
    assert set(pd.read_csv(tmp_path / "judged" / "paired.csv")["n_seeds"]) == {2}
    page = (tmp_path / "judged" / "report.html").read_text(encoding="utf-8")
    shown = re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "profiles and 2 divisions ± standard deviation over divisions" in shown
    assert "Differences between programs" in shown
    assert set(re.findall(r"\b[Ss]eeds?\b.{13}", shown)) == {"Seed of the split"}
    result = geneae(*arguments, f"nmf={tmp_path}/made_1.h5ad:layer=nmf", "--overwrite")
    assert_refused(result, "holds 2 divisions, so that a file must be named for each: write {repeat} where its number")


def test_wrong_input_is_refused_in_one_sentence_and_nothing_is_written(halves: Path, tmp_path: Path) -> None:
    made, held_out = halves.parent / "made.h5ad", halves / "held_out.h5ad"
    denoise(held_out, tmp_path / "wrong.h5ad")
    few = anndata.read_h5ad(made)[:200].copy()
    few.write_h5ad(tmp_path / "few.h5ad")
    cases = {
        f"a={tmp_path}/wrong.h5ad:layer=copy": "was made from the wrong half: it agrees better with the held-out half",
        f"a={tmp_path}/few.h5ad:layer=nmf": "are missing, first 'cell2",
        f"a={made}:layer=nfm": "unknown layer 'nfm'; did you mean 'nmf'?",
        f"a={tmp_path}/none.h5ad": "none.h5ad does not exist.",
        "a": "what a program has made is given as NAME=FILE",
        f"PCA={made}": "the name 'PCA' is that of a control.",
    }
    for text, said in cases.items():
        assert_refused(geneae("judge", halves, text, "-o", tmp_path / "judged", "--latent", "4"), said)
    twice = geneae("judge", halves, f"a={made}", f"a={made}:layer=nmf", "-o", tmp_path / "judged")
    assert_refused(twice, "the name 'a' is given more than once.")
    assert_refused(geneae("judge", tmp_path, f"a={made}", "-o", tmp_path / "judged"), "is not a folder of geneae split")
    assert there(tmp_path) == {"wrong.h5ad", "few.h5ad"}


def test_a_space_that_is_named_is_taken(halves: Path, tmp_path: Path) -> None:
    made = f"nmf={halves.parent}/made.h5ad:layer=nmf"
    result = geneae("judge", halves, made, "-o", tmp_path / "judged", "--latent", "4", "--space", "nmf=log1p_cp10k")
    assert result.exit_code == 0, result.output
    assert "layer 'nmf' is in log1p_cp10k, as you say." in result.stdout


def test_a_judged_folder_is_compared_with_fits_as_one_more_run(run: Run, counts_path: Path, tmp_path: Path) -> None:
    assert geneae("split", counts_path, "-o", tmp_path / "halves", "--quiet").exit_code == 0
    denoise(tmp_path / "halves" / "input.h5ad", tmp_path / "made.h5ad")
    names = f"nmf={tmp_path}/made.h5ad:layer=nmf", f"copy={tmp_path}/made.h5ad:layer=copy"
    arguments = ("judge", tmp_path / "halves", *names, "-o", tmp_path / "judged", "--latent", "4", "--quiet")
    assert geneae(*arguments).exit_code == 0
    result = geneae("compare", run.folder, tmp_path / "judged", "-o", tmp_path / "compared")
    assert result.exit_code == 0, result.output
    assert "By held-out cosine on 24 test profiles" in result.stdout
    assert "copy (-" in result.stdout.partition("worse: ")[2]
    assert "are of one division of the molecules, those of fits means over three in both directions" in result.stdout
    paired = pd.read_csv(tmp_path / "compared" / "paired.csv")
    row = paired[(paired["arm"] == "nmf") & (paired["metric"] == "heldout_cosine")].iloc[0]
    of_fit = pd.read_csv(run.folder / "profiles.csv").query("split == 'test'").set_index("profile")
    judged = pd.read_csv(tmp_path / "judged" / "profiles.csv").query("arm == 'nmf' and split == 'test'")
    differences = judged.set_index("profile")["heldout_cosine"] - of_fit["heldout_cosine"]
    assert row["difference"] == pytest.approx(differences.mean(), rel=1e-6)
    report = (tmp_path / "compared" / "report.html").read_text(encoding="utf-8")
    assert "Training curves" in report
    alone = geneae("compare", tmp_path / "judged", "-o", tmp_path / "alone")
    assert alone.exit_code == 0, alone.output
    assert "against nmf: worse: copy (-" in alone.stdout


def test_a_folder_judged_on_another_split_is_not_compared(run: Run, halves: Path, tmp_path: Path) -> None:
    made = f"nmf={halves.parent}/made.h5ad:layer=nmf"
    assert geneae("judge", halves, made, "-o", tmp_path / "judged", "--latent", "4", "--quiet").exit_code == 0
    result = geneae("compare", run.folder, tmp_path / "judged", "-o", tmp_path / "compared")
    assert_refused(result, "cannot be compared: they differ in their ")
    (tmp_path / "judged" / "judged.json").write_text('{"format": 9}')
    (tmp_path / "judged" / "SHA256SUMS").unlink()
    result = geneae("compare", tmp_path / "judged", run.folder, "-o", tmp_path / "compared")
    assert_refused(result, "judged.json is of another version of geneae. Judge the programs again.")
