"""`geneae evaluate`."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from commands import Run, assert_refused, geneae, there, write
from conftest import N_PROFILES, simulate, thinned
from scipy import sparse

from geneae import Autoencoder, read_profiles
from geneae.evaluation.depth import AT_RATIO
from geneae.evaluation.records import HELD_OUT, value
from geneae.models.depths import COMPLETE

THINNED = "Held-out cosine from inputs thinned to a share of all molecules, means over"


def test_where_no_profile_has_a_value_there_is_nothing_to_evaluate(run: Run, tmp_path: Path) -> None:
    adata = simulate()
    adata.X = adata.X * 0
    data = write(tmp_path / "zero.h5ad", adata)
    for flags in ([], ["--stream", "yes"]):
        result = geneae("evaluate", run.folder, data, "-o", tmp_path / "new" / "judged", "--quiet", *flags)
        assert_refused(result, f"no profile of {data} has a value in the ")
        assert there(tmp_path) == {"zero.h5ad"}


def test_a_single_profile_with_values_is_evaluated_without_a_warning(run: Run, tmp_path: Path) -> None:
    adata = simulate()
    dense = adata.X.toarray()
    dense[1:] = 0
    adata.X = dense
    result = geneae("evaluate", run.folder, write(tmp_path / "one.h5ad", adata), "-o", tmp_path / "judged", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    metrics = pd.read_csv(tmp_path / "judged" / "metrics.csv")
    assert metrics.loc[metrics["metric"] == "cosine", "n_profiles"].max() >= 1


def test_evaluate_tells_the_splits_of_the_training_data_apart(run: Run, counts_path: Path, tmp_path: Path) -> None:
    result = geneae("evaluate", run.folder, counts_path, "-o", tmp_path / "judged", "--verbose")
    assert result.exit_code == 0, result.output
    assert there(tmp_path / "judged") == {"SHA256SUMS", "metrics.csv", "profiles.csv", "report.html", "umap.csv"}
    assert "Means over 192 train / 24 validation / 24 test profiles;" in result.stdout
    assert "On 24 test profiles, evaluated against the other half" in result.stdout
    profiles = pd.read_csv(tmp_path / "judged" / "profiles.csv")
    assert dict(profiles["split"].value_counts()) == {"train": 192, "validation": 24, "test": 24}
    known = pd.read_csv(run.folder / "profiles.csv").set_index("profile")
    again = profiles.set_index("profile").loc[known.index]
    np.testing.assert_allclose(again["cosine"], known["cosine"], rtol=1e-9)
    assert list(again["split"]) == list(known["split"])


def test_on_the_data_of_the_fit_its_own_numbers_come_out_again(run: Run, counts_path: Path, tmp_path: Path) -> None:
    said, metrics, profiles = judged(tmp_path / "judged", run.folder, counts_path)
    keys = ["model", "split", "metric", "statistic"]
    own, again = (table.set_index(keys)["value"] for table in (pd.read_csv(run.folder / "metrics.csv"), metrics))
    shared = own.index.intersection(again.index)
    assert {"heldout_cosine", "ceiling", "skill", "cosine", *AT_RATIO.values()} <= set(
        shared.get_level_values("metric")
    )
    np.testing.assert_allclose(again[shared], own[shared], rtol=1e-6, atol=1e-9)
    assert list(profiles["profile"]) == list(pd.read_csv(run.folder / "split.csv")["profile"])  # in their own order
    for line in run.result.stdout.splitlines():
        if line.startswith("Held-out cosine on 24 profiles (test)"):
            assert line in said


def test_without_verbose_an_evaluation_ends_with_three_lines(run: Run, counts_path: Path, tmp_path: Path) -> None:
    result = geneae("evaluate", run.folder, counts_path, "-o", tmp_path / "judged")
    *_, numbers, sentence, report = result.stdout.splitlines()
    assert numbers.startswith("Held-out cosine on 24 profiles (test): model 0.")
    assert sentence.startswith("The model ")
    assert report == f"Report: {tmp_path / 'judged' / 'report.html'}, with all splits, baselines and metrics"
    assert "Means over" not in result.stdout


def test_profiles_of_the_fit_are_told_from_new_ones_in_other_files(
    run: Run, counts: anndata.AnnData, tmp_path: Path
) -> None:
    split = pd.read_csv(run.folder / "split.csv", index_col="profile")["split"]
    other = simulate(40, seed=8)  # cells of the same names with other values
    other.obs_names = [*counts.obs_names[:10], *(f"new{i}" for i in range(30))]
    more = anndata.AnnData(
        sparse.hstack([counts.X, sparse.csr_matrix(np.ones((N_PROFILES, 2), np.float32))], format="csr"),
        obs=counts.obs,
        var=pd.DataFrame(index=[*counts.var_names, "a", "b"]),
    )
    atlas = anndata.concat([counts[10:], other])
    renamed = counts.copy()
    renamed.obs_names = [f"{name}-1" for name in counts.obs_names]
    for name, adata, expected in (
        ("one less", counts[:-1], split.iloc[:-1]),
        ("more genes", more[:, ::-1], split),
        ("atlas", atlas, pd.concat([split.iloc[10:], pd.Series(["new"] * 40, index=other.obs_names)])),
        ("renamed", renamed, split.set_axis(renamed.obs_names)),
    ):
        data = write(tmp_path / f"{name}.h5ad", adata.copy())
        said, metrics, profiles = judged(tmp_path / name, run.folder, data)
        assert profiles.set_index("profile")["split"].to_dict() == expected.to_dict()
        sizes = [f"{n:,} {part}" for part in ("train", "validation", "test") if (n := (expected == part).sum())]
        n_new = int((expected == "new").sum())
        assert f"Of the fit are {sizes[0]}, {sizes[1]} and {sizes[2]} profiles; {n_new} profiles are new." in said
        assert f"Means over {' / '.join(sizes)}" in said
        assert ("10 profiles have names of the fit and other values" in said) == (name == "atlas")
        assert ("profiles have values of the fit under other names" in said) == (name == "renamed")
        assert set(metrics["split"]) == set(expected)
    assert "On 40 new profiles, evaluated against" in judged(tmp_path / "again", run.folder, tmp_path / "atlas.h5ad")[0]


def test_the_report_of_an_evaluation_is_about_the_profiles_that_are_new_to_the_model(run: Run, tmp_path: Path) -> None:
    new = simulate(seed=5)[:40]
    new.obs_names = [f"new{number}" for number in range(new.n_obs)]
    result = geneae("evaluate", run.folder, write(tmp_path / "new.h5ad", new), "-o", tmp_path / "judged", "--quiet")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "judged" / "report.html").read_text(encoding="utf-8")
    metrics = pd.read_csv(tmp_path / "judged" / "metrics.csv")
    (split,) = metrics["split"].unique()
    assert split in ("new", "all")
    assert "means over 40 " in text
    for model in ("model", "pca", "mean_profile"):
        assert f"{value(metrics, model, split, HELD_OUT):.4f}" in text
    assert "--color" not in text
    assert "chose the epoch" not in text


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_the_report_says_what_the_profiles_lack_and_how_deep_they_are(
    run: Run, shallow: Path, tmp_path: Path, quiet: tuple[str, ...]
) -> None:
    some = anndata.read_h5ad(shallow)[:, :-8].copy()
    data = write(tmp_path / "less.h5ad", some)
    result = geneae("evaluate", run.folder, data, "-o", tmp_path / "judged", *quiet)
    assert result.exit_code == 0, result.output
    head = (tmp_path / "judged" / "report.html").read_text(encoding="utf-8").split("</header>")[0]
    for said in (" of the model's ", "Genes that the data lack are compared as zeros", "read at a depth ratio of "):
        assert said in head.replace("&#39;", "'")
        assert (said in result.stdout) != bool(quiet)


def test_evaluate_calls_other_profiles_all(run: Run, tmp_path: Path) -> None:
    data = write(tmp_path / "other.h5ad", simulate(50, seed=8))
    result = geneae("evaluate", run.folder, data, "-o", tmp_path / "judged", "--verbose")
    assert result.exit_code == 0, result.output
    assert "Means over 50 all profiles;" in result.stdout
    assert "On all 50 profiles, evaluated against" in result.stdout
    assert "None of these profiles is known to be of the fit." in result.stdout
    metrics = pd.read_csv(tmp_path / "judged" / "metrics.csv")
    assert set(metrics["split"]) == {"all"}
    assert {"model", "mean_profile", "pca", "shrunken_pca"} <= set(metrics["model"])
    assert set(metrics["n_profiles"]) == {50}


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other profiles of the same programmes with a quarter of the molecules."""
    return write(tmp_path_factory.mktemp("shallow") / "shallow.h5ad", thinned(simulate(), 0.25))


def judged(folder: Path, *arguments: object) -> tuple[str, pd.DataFrame, pd.DataFrame]:
    """What `geneae evaluate` prints, its metrics and its profiles."""
    result = geneae("evaluate", *arguments, "-o", folder, "--verbose")
    assert result.exit_code == 0, result.output
    return result.stdout, pd.read_csv(folder / "metrics.csv"), pd.read_csv(folder / "profiles.csv")


def test_shallow_profiles_are_judged_at_their_depth(
    run: Run, shallow: Path, fitted: Autoencoder, tmp_path: Path
) -> None:
    said, metrics, profiles = judged(tmp_path / "own", run.folder, shallow)
    assert "they are read at a depth ratio of 4" in said
    n_known = metrics.loc[metrics["metric"] == AT_RATIO[4], "n_profiles"].iloc[0]
    assert f"{THINNED} {n_known} all profiles" in said  # those with 10 molecules or more in the thinned half
    assert N_PROFILES / 2 < n_known < N_PROFILES
    reached, trivial = (value(metrics, name, "all", HELD_OUT) for name in ("model", "mean_profile"))
    assert reached > trivial
    assert value(metrics, "model", "all", AT_RATIO[4]) > value(metrics, "mean_profile", "all", AT_RATIO[4])
    _, as_deep, before = judged(tmp_path / "deep", run.folder, shallow, "--depth-ratio", "1")
    assert value(as_deep, "model", "all", HELD_OUT) < reached
    assert profiles["mse"].mean() < before["mse"].mean()

    model = fitted.fitted()
    expression = model.preprocess.match(read_profiles(shallow))[0]
    x = model.preprocess.apply(expression).toarray().astype(float)
    assert model.estimator is not None
    (depth,) = model.depths_of(expression)
    delta = np.log(depth.ratio) + COMPLETE
    mean = model.estimator.at(delta, delta).output_mean.double().numpy()
    assert value(metrics, "mean_profile", "all", "mse") == pytest.approx(((x - mean) ** 2).mean(), rel=1e-5)
    assert value(as_deep, "mean_profile", "all", "mse") == pytest.approx(
        ((x - model.baselines.whole.mean.double().numpy()) ** 2).mean(), rel=1e-5
    )
    assert value(metrics, "mean_profile", "all", "mse") < value(as_deep, "mean_profile", "all", "mse")


def test_profiles_of_several_depths_have_no_common_table_of_shares(
    run: Run, counts: anndata.AnnData, tmp_path: Path
) -> None:
    is_shallow = np.arange(N_PROFILES) % 2 == 0
    mixed = thinned(counts, np.where(is_shallow, 0.25, 1.0))
    mixed.obs["run"] = np.where(is_shallow, "late", "early")
    data = write(tmp_path / "mixed.h5ad", mixed)
    said, metrics, by_run = judged(tmp_path / "by", run.folder, data, "--depth-by", "run")
    assert said.count("\nProfiles of ") == 2
    assert THINNED not in said
    assert not set(metrics["metric"]) & {AT_RATIO[ratio] for ratio in (4, 10, 20)}
    for name, some in (("late", is_shallow), ("early", ~is_shallow)):
        part = write(tmp_path / f"{name}.h5ad", mixed[some].copy())
        _, _, alone = judged(tmp_path / name, run.folder, part)
        both = by_run.set_index("profile").loc[alone["profile"]]
        np.testing.assert_allclose(both["cosine"], alone["cosine"], rtol=1e-4)
