import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import N_PROFILES, simulate
from scipy import sparse

from geneae import CosineMetric, read_profiles
from geneae.cli.main import main
from geneae.cli.tables import accuracy_table
from geneae.fitting.metric_comparison import WAYS, Judged, answer, judge_metric
from geneae.folders.model import load_model
from geneae.settings.errors import InputError
from geneae.training.similarity import centred_cosines, cosines, vote

FLAGS = ["--components", "4", "--epochs", "3", "--neighbors", "5"]


def learner() -> CosineMetric:
    return CosineMetric(4, rank=12, epochs=3, batch_size=64, n_neighbors=5)


@pytest.fixture(scope="module")
def judged() -> tuple[CosineMetric, Judged]:
    """A metric of the counts, not to be changed."""
    metric = learner()
    return metric, judge_metric(metric, read_profiles(simulate()), "kind", validation=0.1, test=0.2)


def test_the_split_keeps_proportions_and_every_profile_is_used(judged: tuple[CosineMetric, Judged]) -> None:
    _, found = judged
    assert found.split.value_counts().to_dict() == {"train": 168, "test": 48, "validation": 24}
    assert found.describe() == "Split into 168 train, 24 validation, 48 test profiles; 4 labels; 120 genes."
    assert set(found.profiles["split"]) == {"validation", "test"}
    assert len(found.profiles) == 72


def test_accuracies_are_those_of_neighbours_among_training_profiles(judged: tuple[CosineMetric, Judged]) -> None:
    metric, found = judged
    profiles = read_profiles(simulate())
    part = {name: profiles.take((found.split == name).to_numpy()) for name in ("train", "test")}
    classes, codes = np.unique(part["train"].obs["kind"].astype(str), return_inverse=True)
    assert metric.preprocess_ is not None
    rows = {name: metric.preprocess_.apply(metric.preprocess_.match(some)[0]) for name, some in part.items()}
    mean = rows["train"].toarray().mean(0)
    similarity = {
        "cosine": cosines(rows["test"], rows["train"]),
        "centred_cosine": centred_cosines(rows["test"], rows["train"], mean),
        "learned": metric.similarity(part["test"], part["train"]),
    }
    table = found.table[found.table["split"] == "test"].set_index("metric")
    for way, near in similarity.items():
        right = classes[vote(near, codes, 5)] == part["test"].obs["kind"].astype(str)
        assert table.loc[way, "accuracy"] == pytest.approx(right.mean())
    assert list(table.index) == list(WAYS)
    gain = table.loc["learned", "accuracy"] - table["accuracy"]
    np.testing.assert_allclose(table["learned_minus"].iloc[:3], gain.iloc[:3])
    assert (table["low"].iloc[:3] <= table["learned_minus"].iloc[:3]).all()
    assert np.isnan(table.loc["learned", "low"])


def test_training_profiles_alone_are_learned_from(judged: tuple[CosineMetric, Judged]) -> None:
    """Other test profiles, the same metric."""
    metric, found = judged
    other = simulate()
    other.X[np.flatnonzero(found.split == "test")] *= 3
    again = learner()
    judge_metric(again, read_profiles(other), "kind", validation=0.1, test=0.2)
    np.testing.assert_array_equal(again.map_, metric.map_)


def test_profiles_without_a_label_and_of_rare_labels_are_kept_out(counts: anndata.AnnData) -> None:
    counts.obs["kind"] = counts.obs["kind"].astype(object)
    counts.obs.iloc[:3, counts.obs.columns.get_loc("kind")] = np.nan
    counts.obs.iloc[3:5, counts.obs.columns.get_loc("kind")] = "rare"
    counts.X = sparse.diags_array((np.arange(N_PROFILES) != 5).astype(np.float32)) @ counts.X
    found = judge_metric(learner(), read_profiles(counts), "kind", 0.1, 0.2)
    assert (found.split.iloc[:6] == "excluded").all()
    assert (found.split == "excluded").sum() == 6
    assert found.describe().endswith(
        "Excluded: 3 without a label, 1 without any value, 2 with a label of fewer than 3 profiles."
    )
    assert "rare" not in set(found.profiles["label"])


def test_groups_stay_together(counts: anndata.AnnData) -> None:
    found = judge_metric(learner(), read_profiles(counts), "kind", 0.2, 0.2, group="donor")
    by_donor = found.split.groupby(counts.obs["donor"], observed=True)
    assert {len(set(split)) for _, split in by_donor} == {1}


def test_the_answer_names_what_is_beaten_and_what_is_not() -> None:
    rows = [("cosine", 0.1, 0.05, 0.15), ("centred_cosine", -0.1, -0.2, -0.05), ("pca", 0.0, -0.1, 0.1)]
    table = pd.DataFrame(rows, columns=["metric", "learned_minus", "low", "high"])
    table = table.assign(split="test", n_profiles=1234, accuracy=0.5)
    nothing = pd.DataFrame()
    assert answer(Judged(table, nothing, pd.Series(), {}, 2, 2, "genes")) == (
        "On 1,234 test profiles the learned metric is better than plain cosine, and worse than cosine after the mean "
        "is subtracted, and not distinguishable from cosine of PCA scores."
    )


def geneae(*arguments: object) -> tuple[int, str]:
    """Exit code and what was printed by the command, in this process."""
    result = CliRunner().invoke(main, ["metric", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_writes_a_folder_that_can_be_loaded(counts_path: Path, tmp_path: Path) -> None:
    code, said = geneae(counts_path, "--label", "kind", "-o", tmp_path / "metric", *FLAGS)
    assert code == 0, said
    assert {path.name for path in (tmp_path / "metric").iterdir()} == {
        "SHA256SUMS",
        "config.json",
        "metric.safetensors",
        *(f"{name}.csv" for name in ("genes", "history", "metrics", "profiles", "split")),
    }
    metric = CosineMetric.load(tmp_path / "metric")
    table = pd.read_csv(tmp_path / "metric" / "metrics.csv")
    split = pd.read_csv(tmp_path / "metric" / "split.csv")
    profiles = read_profiles(counts_path)
    part = {name: profiles.take((split["split"] == name).to_numpy()) for name in ("train", "test")}
    classes, codes = np.unique(part["train"].obs["kind"].astype(str), return_inverse=True)
    right = classes[vote(metric.similarity(part["test"], part["train"]), codes, 5)] == part["test"].obs["kind"]
    learned = table[(table["metric"] == "learned") & (table["split"] == "test")]
    assert learned["accuracy"].item() == pytest.approx(right.mean())
    assert accuracy_table(table) in said
    assert f"{learned['accuracy'].item():.4f}" in said
    assert re.search(r"On 48 test profiles the learned metric is (better|worse|not distinguishable)", said)
    code, again = geneae(counts_path, "--label", "kind", "-o", tmp_path / "metric", *FLAGS)
    assert (code, "already exists. Choose another one, or add --overwrite" in again) == (2, True)
    code, said = geneae(counts_path, "--label", "kind", "-o", tmp_path / "metric", "--overwrite", "--quiet", *FLAGS)
    assert (code, said) == (0, "")


def test_the_command_learns_on_the_latents_of_a_model(counts_path: Path, model_folder: Path, tmp_path: Path) -> None:
    flags = ["--model", model_folder, "--test", "0.3", "--epsilon", "0.3", *FLAGS]
    code, said = geneae(counts_path, "--label", "kind", "-o", tmp_path / "metric", *flags)
    assert code == 0, said
    assert "4 labels; 4 latents." in said
    metric = CosineMetric.load(tmp_path / "metric")
    latents = load_model(model_folder).latent(load_model(model_folder).preprocess.match(read_profiles(counts_path))[0])
    assert metric.transform(latents).shape == (N_PROFILES, 4)
    assert metric.epsilon == 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("name", "unknown obs column 'kinds'; did you mean 'kind'? Available: donor, kind"),
        ("one", "obs column 'kind' must have at least two labels; found k. Name another column."),
        (
            "few",
            "at least two labels of obs column 'kind' must have 3 or more profiles, for train, validation, test; found "
            "'k' 238, 'l' 2. Merge labels, or name another column.",
        ),
    ],
)
def test_labels_that_cannot_be_used_are_refused(
    counts: anndata.AnnData, tmp_path: Path, change: str, message: str
) -> None:
    if change != "name":
        counts.obs["kind"] = ["l"] * (2 if change == "few" else 0) + ["k"] * (238 if change == "few" else 240)
    counts.write_h5ad(tmp_path / "data.h5ad")
    key = "kinds" if change == "name" else "kind"
    code, said = geneae(tmp_path / "data.h5ad", "--label", key, "-o", tmp_path / "metric")
    assert (code, said.splitlines()[-1]) == (2, f"Error: {message}")
    assert not (tmp_path / "metric").exists()
    with pytest.raises(InputError):
        judge_metric(learner(), read_profiles(counts), key, 0.1, 0.2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--components", "0"], "components must be at least 1; found 0."),
        (["--epsilon", "1"], "epsilon must be at least 0 and below 1; found 1."),
        (["--seed", "-1"], "seed must be between 0 and 4,294,967,295; found -1."),
    ],
)
def test_impossible_flags_are_refused_before_data_are_read(flags: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["metric", str(tmp_path / "none.h5ad"), "--label", "kind", *flags])
    assert result.exit_code == 2
    assert message in result.output
