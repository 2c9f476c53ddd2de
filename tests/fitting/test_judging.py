"""Programs beside controls: the same numbers whoever makes them, paired, and wrong input in one sentence."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from worlds import World, make_world

import geneae
from geneae.data.halves import draw
from geneae.data.programs import Table, table_in_memory
from geneae.evaluation.records import HELD_OUT, value
from geneae.fitting.judged import Judged
from geneae.fitting.judging import JudgeSettings, judge
from geneae.fitting.programs import Programs, parse_spaces, programs_of
from geneae.settings.errors import InputError

SETTINGS = JudgeSettings(n_latent=4)


@pytest.fixture(scope="module")
def world() -> World:
    """Halves of counts with known rates."""
    return make_world()


def tables(world: World, **values: np.ndarray | pd.DataFrame) -> Programs:
    genes = world.halves.given.genes
    frames = {name: x if isinstance(x, pd.DataFrame) else world.frame(x) for name, x in values.items()}
    return programs_of([(name, table_in_memory(frame, f"{name}.csv", genes)) for name, frame in frames.items()])


def pca_of_training(world: World, size: int = 4) -> np.ndarray:
    """PCA of both halves of training profiles, predicting from the given half, in plain NumPy."""
    train = (world.halves.split == "train").to_numpy()
    both = np.concatenate([world.given[train], world.held_out[train]])
    mean = both.mean(0)
    components = np.linalg.svd(both - mean, full_matrices=False)[2][:size]
    found: np.ndarray = (world.given - mean) @ components.T @ components + mean
    return found


@pytest.fixture(scope="module")
def judged(world: World) -> Judged:
    """The truth, a PCA of our own and the input, judged."""
    made = tables(world, truth=world.expected, own=pca_of_training(world), copy=world.given)
    return judge([world.halves], [made], SETTINGS)


def of(judged: Judged, arm: str, metric: str = HELD_OUT) -> float:
    metrics = judged.metrics
    return value(metrics[metrics["arm"] == arm], "model", "test", metric)


def test_a_program_that_does_what_a_control_does_has_its_numbers(judged: Judged) -> None:
    for metric in (HELD_OUT, "heldout_mse", "heldout_gene_correlation", "skill"):
        assert of(judged, "own", metric) == pytest.approx(of(judged, "PCA", metric), abs=0.01)


def test_the_order_of_the_report_is_that_of_the_truth(judged: Judged) -> None:
    order = ("truth", "whitened linear", "PCA", "mean profile")
    numbers = [of(judged, arm) for arm in order]
    assert numbers == sorted(numbers, reverse=True)
    assert of(judged, "truth") > of(judged, "shrunken PCA") > of(judged, "mean profile")
    assert "better: " in judged.answer
    assert "truth (+" in judged.answer.partition("worse: ")[0]
    assert "copy (-" in judged.answer.partition("worse: ")[2]
    assert "one division, which says nothing about the spread between divisions" in judged.answer


def test_differences_are_paired_by_profile_and_corrected_together(judged: Judged) -> None:
    paired = judged.paired
    assert set(paired["reference"]) == {"shrunken PCA"}
    assert {"truth", "own", "copy", "PCA", "mean profile", "whitened linear"} == set(paired["arm"])
    profiles = judged.table("profiles")
    test = profiles[profiles["split"] == "test"].pivot_table(HELD_OUT, "profile", "arm")
    row = paired[(paired["arm"] == "truth") & (paired["metric"] == HELD_OUT)].iloc[0]
    assert row["difference"] == pytest.approx((test["truth"] - test["shrunken PCA"]).mean())
    assert row["n_profiles"] == len(test) == 78
    assert (paired["p_holm"] >= paired["p"]).all()


def test_profiles_and_genes_are_matched_by_name(world: World, judged: Judged) -> None:
    rng = np.random.default_rng(0)
    frame = world.frame(world.expected)
    shuffled = frame.iloc[rng.permutation(len(frame)), rng.permutation(frame.shape[1])]
    shuffled.insert(3, "another gene", 7.0)
    found = judge([world.halves], [tables(world, truth=shuffled)], SETTINGS)
    assert of(found, "truth") == pytest.approx(of(judged, "truth"), abs=1e-12)


def test_all_are_judged_on_the_genes_that_all_have(world: World) -> None:
    fewer = world.frame(world.expected).iloc[:, :90]
    found = judge([world.halves], [tables(world, fewer=fewer, all=world.expected)], SETTINGS)
    assert found.said[0] == "Everything is judged on the 90 of 120 genes that all reconstructions have."
    assert of(found, "fewer") == of(found, "all")
    metrics = found.metrics
    assert set(metrics.loc[metrics["metric"] == HELD_OUT, "n_profiles"]) == {52, 78}


def test_several_divisions_are_paired_each_with_itself(world: World) -> None:
    other = draw(world.halves.whole(), world.halves.settings, repeat=2)
    halves = [world.halves, other]
    found = judge(halves, [tables(world, truth=world.expected)] * 2, SETTINGS)
    assert set(found.paired["n_seeds"]) == {2}
    assert [run.name for run in found.runs] == ["truth", "truth, repeat 2"]
    assert "2 divisions, against shrunken PCA" in found.answer


def test_halves_that_do_not_add_up_are_refused(world: World) -> None:
    wrong = replace(world.halves, held_out=world.halves.given)
    with pytest.raises(InputError, match="the halves do not add up to the profiles that were divided"):
        judge([wrong], [tables(world, truth=world.expected)], SETTINGS)


BAD = {
    "profiles": (lambda frame: frame.iloc[:200], "must have every profile that is judged, 130 in all, matched by name"),
    "other profiles": (lambda frame: frame.set_axis([f"x{i}" for i in range(len(frame))]), "130 are missing, first"),
    "few genes": (lambda frame: frame.iloc[:, :50], "must have at least 50 % of the 120 genes that are judged"),
    "space": (lambda frame: frame**0.5, "its gene means are near those of the given half in none of them"),
}


@pytest.mark.parametrize("kind", BAD)
def test_wrong_reconstructions_are_refused(world: World, kind: str) -> None:
    change, said = BAD[kind]
    with pytest.raises(InputError) as refused:
        judge([world.halves], [tables(world, bad=change(world.frame(world.expected)))], SETTINGS)
    assert said in str(refused.value)


def test_wrong_names_are_refused(world: World) -> None:
    made = tables(world, PCA=world.expected)
    with pytest.raises(InputError, match="the name 'PCA' is that of a control"):
        judge([world.halves], [made], SETTINGS)
    with pytest.raises(InputError, match="at least one program must be judged"):
        judge([world.halves], [Programs()], SETTINGS)
    with pytest.raises(InputError, match="unknown program 'trith'; did you mean 'truth'"):
        judge([world.halves], [tables(world, truth=world.expected)], SETTINGS, {"trith": "counts"})
    with pytest.raises(InputError, match="unknown space 'count'; did you mean 'counts'"):
        parse_spaces(["a=count"])
    with pytest.raises(InputError, match="a space is given as NAME=SPACE, such as magic=log1p_cp10k; found 'counts'"):
        parse_spaces(["counts"])


def test_in_python_a_program_is_judged_in_two_calls(counts: anndata.AnnData) -> None:
    halves = geneae.tl.split(counts, test=0.4)
    seen = halves.input
    dense = seen.X.toarray()
    seen.layers["log"] = np.log1p(1e4 * dense / dense.sum(1, keepdims=True))
    judged = geneae.tl.judge(halves, {"copy": (seen, "layer=log"), "counts": seen}, n_latent=4)
    assert of(judged, "copy") < of(judged, "shrunken PCA")
    assert judged.said[1].startswith("counts: what 'counts' has made is in counts, by its gene means; converted to")


@pytest.mark.slow
def test_latents_are_judged_by_labels_depth_and_the_other_half(world: World) -> None:
    rng = np.random.default_rng(0)
    kinds = pd.get_dummies(world.halves.given.obs["kind"]).to_numpy(float)
    told = pd.DataFrame(kinds + 0.01 * rng.standard_normal(kinds.shape), world.halves.given.names, ["a", "b"])
    noise = pd.DataFrame(rng.standard_normal((len(told), 5)), told.index, list("vwxyz"))
    depth = pd.DataFrame(
        {"depth": np.log(world.halves.given.totals), "one": rng.standard_normal(len(told))}, told.index
    )
    genes = world.halves.given.genes

    def table(frame: pd.DataFrame) -> Table:
        return table_in_memory(frame, "latent.csv", genes)

    tables = [("told", table(told)), ("noise", table(noise)), ("depth", table(depth))]
    others = [("told", table(told)), ("noise", table(noise.iloc[rng.permutation(len(noise))].set_axis(noise.index)))]
    settings = JudgeSettings(n_latent=4, label="kind")
    found = judge([world.halves], [programs_of(tables, others)], settings)
    assert of(found, "told", "knn_20") == 1
    assert of(found, "noise", "knn_20") < 0.8
    assert of(found, "told", "linear_probe") == 1
    assert of(found, "depth", "depth_r2") == pytest.approx(1, abs=1e-6)
    assert of(found, "noise", "depth_r2") < 0.2
    assert of(found, "told", "shared_neighbours") == 1
    assert of(found, "told", "other_half_rank") == 0
    assert of(found, "noise", "other_half_rank") == pytest.approx(0.5, abs=0.15)
    assert of(found, "PCA", "other_half_rank") < 0.3
    assert np.isnan(of(found, "depth", "shared_neighbours"))
    assert {"raw input", "random encoder", "PCA", "shrunken PCA"} <= set(found.metrics["arm"])
    assert "By 20-NN accuracy of the latents on 78 test profiles and one division" in found.answer
    assert "told (+" in found.answer.partition("better: ")[2]
    assert HELD_OUT not in set(found.metrics["metric"])


@pytest.mark.slow
def test_a_program_may_have_a_reconstruction_and_latents(world: World) -> None:
    frame = world.frame(world.expected)
    latent = pd.DataFrame(world.shares[:, :3], frame.index, list("abc"))
    genes = world.halves.given.genes
    tables = [(name, table_in_memory(x, "made.csv", genes)) for name, x in (("both", frame), ("both", latent))]
    found = judge([world.halves], [programs_of(tables)], JudgeSettings(n_latent=4, label="kind", batch_key="kind"))
    (run,) = found.runs
    assert {HELD_OUT, "knn_20", "ilisi", "depth_r2"} <= set(run.metrics.loc[run.metrics["model"] == "model", "metric"])
    assert {HELD_OUT, "knn_20"} <= set(run.profiles.columns)
    assert "By held-out cosine on" in found.answer
    assert "By 20-NN accuracy of the latents on" in found.answer
    with pytest.raises(InputError, match="the name 'both' is given more than once"):
        programs_of([*tables, tables[0]])
    with pytest.raises(InputError, match="'other' has none of these"):
        programs_of(tables, [("other", tables[1][1])])


def test_without_a_label_the_latents_are_described_and_not_ranked(world: World) -> None:
    latent = pd.DataFrame(world.shares[:, :3], world.halves.given.names, list("abc"))
    made = programs_of([("shares", table_in_memory(latent, "made.csv", world.halves.given.genes))])
    found = judge([world.halves], [made], SETTINGS)
    assert "Latents were not judged by a label" in found.answer
    bad = latent.mask(latent.index.to_series() == "cell3")
    made = programs_of([("bad", table_in_memory(bad, "made.csv", world.halves.given.genes))])
    with pytest.raises(InputError, match="1 profile has NaN or infinite latents, first 'cell3'"):
        judge([world.halves], [made], SETTINGS)


def test_values_that_are_nan_are_said_to_be_judged_as_zero(world: World) -> None:
    values = world.expected.copy()
    values[0, :3] = np.nan, np.inf, np.nan
    found = judge([world.halves], [tables(world, holes=values, whole=world.expected)], SETTINGS)
    said = [text for text in found.said if "NaN" in text]
    assert len(said) == 1
    assert said[0].startswith("holes: 3 of ")
    assert said[0].endswith("are NaN or infinite; they were judged as 0.")


def test_what_is_refused_may_be_left_out_and_is_said(world: World) -> None:
    settings = JudgeSettings(n_latent=4, skip_refused=True)
    made = tables(
        world,
        wrong=world.held_out,
        truth=world.expected,
        few=world.frame(world.expected).iloc[:, :9],
        root=world.expected**0.5,
    )
    found = judge([world.halves], [made], settings)
    assert [run.configuration for run in found.runs] == ["truth"]
    left = [text.partition(" is left out: ")[0] for text in found.said if "is left out" in text]
    assert left == ["few", "wrong", "root"]
    with pytest.raises(InputError, match=r"no program is left to be judged\. wrong is left out: wrong\.csv was made"):
        judge([world.halves], [tables(world, wrong=world.held_out)], settings)
