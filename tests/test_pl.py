import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from geneae import pl
from geneae.evaluation.records import HELD_OUT
from geneae.models.baselines import BASELINES
from geneae.pl.epochs import LEAST_NORM_RANGE, LEAST_RANGE
from geneae.pl.names import names_of
from geneae.pl.style import GREY, PALETTE, arm_style, shown
from geneae.pl.values import label_differences, main_metric, shown_split

NASTY = [
    "<img src=x onerror=alert(1)>",
    "a$b$",
    "$\\frac{1$",
    "",
    "zwei\nZeilen",
    "long " * 40,
    "_under^{score",
    "β-αρμ",
    "x\\$y",
]
N_PROFILES = 40


@pytest.fixture(autouse=True)
def _agg() -> Iterator[None]:
    """Figures are drawn without a window, and closed."""
    mpl.use("Agg")
    yield
    plt.close("all")


def one_table(shift: float = 0.0, seed: int = 0, n_profiles: int = N_PROFILES) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    cosine = np.linspace(0.3, 0.8, n_profiles) + shift + rng.normal(0, 0.01, n_profiles)
    table = pd.DataFrame({"profile": [f"c{i}" for i in range(n_profiles)], "cosine": cosine, "mse": 1.2 - cosine})
    table = table.assign(
        direction_error=1.0 - cosine, magnitude_error=0.2, label=["T", "T", "B", "NK"] * (n_profiles // 4)
    )
    table[HELD_OUT] = cosine - 0.1
    table["molecules"] = np.linspace(500.0, 5000.0, n_profiles)
    return table.assign(split=["validation", "test"] * (n_profiles // 2))


def tables(names: list[str], n_seeds: int = 2) -> dict[str, pd.DataFrame]:
    return {
        name: pd.concat([one_table(0.01 * n, 10 * n + seed) for seed in range(n_seeds)]) for n, name in enumerate(names)
    }


def metrics_table(arms: list[str], split: str = "test") -> pd.DataFrame:
    """Baselines that are the same for all arms, but for PCA."""
    rows = []
    for n, arm in enumerate(arms):
        for metric in (HELD_OUT, "cosine", "direction_error", "magnitude_error"):
            for model, value in (("mean_profile", 0.4), ("pca", 0.5 + 0.01 * n), ("shrunken_pca", 0.55)):
                rows += [(arm, model, split, metric, "mean", value), (arm, model, split, metric, "median", 9.0)]
                rows.append((arm, model, "other", metric, "mean", 9.0))
        rows.append((arm, "model", split, "ceiling", "mean", 0.75))
    return pd.DataFrame(rows, columns=["arm", "model", "split", "metric", "statistic", "value"])


def histories(names: list[str], lengths: tuple[int, ...] = (6, 4)) -> dict[str, list[pd.DataFrame]]:
    return {
        name: [
            pd.DataFrame({"epoch": range(length)}).assign(
                validation_cosine=lambda table, n=n, seed=seed: 0.5 + 0.01 * table["epoch"] + 0.1 * n + 0.02 * seed,
                validation_mse=lambda table: 1 - table["validation_cosine"],
                norm_ratio=lambda table, n=n: 0.6 + 0.05 * n + 0.01 * table["epoch"],
            )
            for seed, length in enumerate(lengths)
        ]
        for n, name in enumerate(names)
    }


def genes_table(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"gene": [f"g{i}" for i in range(200)], "mean": rng.lognormal(0, 1, 200), "correlation": rng.uniform(size=200)}
    )


def umap_table(labels: list[str]) -> pd.DataFrame:
    rng = np.random.default_rng(len(labels))
    first, second = rng.normal(size=(2, len(labels)))
    return pd.DataFrame({"profile": range(len(labels)), "umap_1": first, "umap_2": second, "label": labels})


def labelled_table() -> pd.DataFrame:
    """Labels of a query: half of those of probability 0.6 are right, all of those of 0.95, and one is refused."""
    return pd.DataFrame(
        {
            "geneae_label": pd.Categorical(["T", "B"] * 5 + ["T"] * 10 + [None]),
            "geneae_probability": [0.6] * 10 + [0.95] * 10 + [0.1],
            "kind": ["T"] * 20 + ["B"],
        }
    )


def paired_table(arms: list[str], reference: str = "mse") -> pd.DataFrame:
    rows = []
    for n, arm in enumerate(arms):
        for metric, better in ((HELD_OUT, "higher"), ("mse", "lower")):
            verdict = ("better", "worse", "no difference that these data can show")[n % 3]
            rows.append((arm, reference, "test", metric, 0.01 * n, 0.01 * n - 0.005, 0.01 * n + 0.004, verdict, better))
    return pd.DataFrame(
        rows, columns=["arm", "reference", "split", "metric", "difference", "low", "high", "verdict", "better"]
    )


def draw(ax: Axes) -> Figure:
    figure = ax.figure
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    return figure


def lines(ax: Axes, marker: str | None = None) -> list[Any]:
    return [line for line in ax.lines if marker is None or line.get_marker() == marker]


def dots(ax: Axes) -> np.ndarray:
    found = [np.asarray(artist.get_offsets()) for artist in ax.collections if isinstance(artist, PathCollection)]
    return np.concatenate(found)


def names_of_rows(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def legend_of(ax: Axes) -> list[str]:
    return [text.get_text() for text in draw(ax).legends[0].get_texts()]


def test_distribution_shows_quantiles_mean_and_lines() -> None:
    profiles = tables(["mse", "cosine"])
    ax = pl.cosine_distribution(profiles, metrics_table(["mse", "cosine"]))
    for row, table in enumerate(profiles.values()):
        values = table[table["split"] == "test"].groupby("profile")[HELD_OUT].mean()
        bar = next(line for line in ax.lines if list(line.get_ydata()) == [row, row])
        np.testing.assert_allclose(bar.get_xdata(), values.quantile([0.05, 0.95]))
        assert lines(ax, "o")[row].get_xdata() == [pytest.approx(values.median())]
        assert lines(ax, "D")[row].get_xdata() == [pytest.approx(values.mean())]
    found = {artist.get_label(): artist for artist in ax.collections if isinstance(artist, LineCollection)}
    at = {name: [segment[0, 0] for segment in found[name].get_segments()] for name in (*BASELINES, "ceiling")}
    assert at == {"mean_profile": [0.4, 0.4], "pca": [0.5, 0.51], "shrunken_pca": [0.55, 0.55], "ceiling": [0.75, 0.75]}
    said = {text.get_text() for text in ax.texts}
    assert said == {"mean profile 0.4000", "PCA (varies)", "shrunken PCA 0.5500", "noise ceiling 0.7500"}
    assert len([artist for artist in ax.collections if isinstance(artist, PolyCollection)]) == 2
    assert names_of_rows(ax) == ["mse", "cosine"]
    assert ax.get_ylim() == (1.5, -0.5)
    height = {text.get_text(): text.xyann[1] for text in ax.texts if isinstance(text, Annotation)}
    # rising to the left of their lines and falling to the right, so that no leader crosses a name
    assert height["mean profile 0.4000"] < height["PCA (varies)"]
    assert height["noise ceiling 0.7500"] < height["shrunken PCA 0.5500"]
    assert ax.get_xlabel() == "held-out cosine (higher is better →)"


def test_distribution_of_the_own_input_cosine_has_no_ceiling() -> None:
    profiles = {"run": one_table().drop(columns=HELD_OUT)}
    assert main_metric(profiles) == "centred_cosine"
    ax = pl.cosine_distribution(profiles, metrics_table(["run"]).drop(columns="arm"), metric="cosine")
    assert ax.get_xlabel() == "cosine (higher is better →)"
    assert {artist.get_label() for artist in ax.collections} >= set(BASELINES)
    assert "ceiling" not in {artist.get_label() for artist in ax.collections}


def test_distribution_of_few_or_no_values() -> None:
    table = one_table(n_profiles=4)
    nothing = table.assign(**{HELD_OUT: np.nan})
    ax = pl.cosine_distribution({"few": table, "none": nothing}, metric=HELD_OUT)
    assert not [artist for artist in ax.collections if isinstance(artist, PolyCollection)]
    assert len(lines(ax, "o")) == 1
    assert names_of_rows(ax) == ["few", "none"]


def test_split_is_test_unless_asked_for_or_absent() -> None:
    table = one_table()
    assert shown_split({"a": table}) == "test"
    assert shown_split({"a": table}, "validation") == "validation"
    assert shown_split({"a": table[table["split"] == "validation"]}) == "validation"
    with pytest.raises(ValueError, match=r"no profile is in split 'train'\. Available: validation, test"):
        pl.cosine_distribution({"a": table}, split="train")


def test_cosine_against_mse_has_a_dot_for_each_profile() -> None:
    profiles = tables(["mse", "cosine"], n_seeds=1)
    axes = pl.cosine_against_mse(profiles)
    assert [ax.get_title() for ax in axes] == ["mse", "cosine"]
    for ax, table in zip(axes, profiles.values(), strict=True):
        chosen = table[table["split"] == "test"]
        np.testing.assert_allclose(dots(ax), chosen[["mse", "cosine"]])
        scatter = ax.collections[0]
        np.testing.assert_allclose(scatter.get_array(), chosen["molecules"])
        assert isinstance(scatter.norm, LogNorm)
        assert (scatter.norm.vmin, scatter.norm.vmax) == (chosen["molecules"].min(), chosen["molecules"].max())
        assert ax.get_xlim() == axes[0].get_xlim()
        assert ax.get_xlabel() == "MSE (← lower is better)"
    bar = draw(axes[0]).axes[-1]
    assert bar.get_ylabel() == "molecules per profile"
    assert "1,000" in [label.get_text() for label in bar.get_yticklabels()]


def test_cosine_against_mse_without_molecules_and_of_very_different_errors() -> None:
    profiles = {"a": one_table().drop(columns="molecules"), "b": one_table().drop(columns="molecules")}
    profiles["b"]["mse"] *= 1e6
    axes = pl.cosine_against_mse(profiles)
    assert len(draw(axes[0]).axes) == 2
    assert {ax.get_xscale() for ax in axes} == {"log"}
    assert axes[0].get_xlim() == axes[1].get_xlim()


@pytest.mark.parametrize("error", [0.0, 0.3, 1e17])
def test_cosine_against_mse_shows_equal_errors_of_any_size(error: float) -> None:
    table = one_table().assign(mse=error, cosine=0.5)
    (ax,) = pl.cosine_against_mse({"a": table})
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left < error < right
    assert bottom < 0.5 < top


def test_error_parts_are_stacked_means() -> None:
    profiles = tables(["mse", "cosine"])
    ax = pl.error_parts(profiles, metrics_table(["mse", "cosine"]))
    direction, magnitude = ax.containers
    chosen = [table[table["split"] == "test"] for table in profiles.values()]
    expected = [table["direction_error"].mean() for table in chosen]
    np.testing.assert_allclose([bar.get_width() for bar in direction], [*expected, 0.4, 0.5, 0.55])
    np.testing.assert_allclose([bar.get_width() for bar in magnitude], [0.2, 0.2, 0.4, 0.5, 0.55])
    np.testing.assert_allclose([bar.get_x() for bar in magnitude], [bar.get_width() for bar in direction])
    assert names_of_rows(ax) == ["mse", "cosine", "mean profile", "PCA", "shrunken PCA"]
    assert ax.texts[0].get_text() == f"{expected[0] + 0.2:#.4g}"
    assert legend_of(ax) == ["due to direction", "due to magnitude"]


def test_error_parts_cut_a_bar_that_would_hide_the_others() -> None:
    profiles = {"mse": one_table(), "cosine": one_table().assign(magnitude_error=500.0)}
    ax = pl.error_parts(profiles)
    assert ax.get_xlim()[1] < 5
    assert ax.texts[1].get_text().endswith("→")
    assert not ax.texts[0].get_text().endswith("→")


def test_training_curves_are_means_as_far_as_all_seeds_go() -> None:
    runs = histories(["mse", "cosine"])
    cosine, mse = pl.training_curves(runs)
    for ax, column in ((cosine, "validation_cosine"), (mse, "validation_mse")):
        thick = [line for line in ax.lines if line.get_linewidth() == 2]
        thin = [line for line in ax.lines if line.get_linewidth() < 1]
        assert [len(line.get_xdata()) for line in thin] == [6, 4, 6, 4]
        for line, several in zip(thick, runs.values(), strict=True):
            assert list(line.get_xdata()) == [0, 1, 2, 3]
            expected = (several[0][column].iloc[:4] + several[1][column]) / 2
            np.testing.assert_allclose(line.get_ydata(), expected)
    assert legend_of(cosine) == ["mse", "cosine"]
    assert cosine.get_ylabel() == "validation cosine (higher is better →)"
    flat = histories(["mse"], (4,))
    flat["mse"][0]["validation_cosine"] = [0.70001, 0.70002, 0.70003, 0.70002]
    low, high = pl.training_curves(flat)[0].get_ylim()
    assert high - low == pytest.approx(LEAST_RANGE * 0.70002, rel=1e-3)  # a change of the fifth decimal looks small
    assert mse.get_ylabel() == "validation MSE (← lower is better)"


@pytest.mark.parametrize("has_labels", [False, True])
def test_encoder_curves_are_of_views_and_of_labels_where_all_have_them(has_labels: bool) -> None:
    runs = histories(["simclr", "byol"])
    for number, history in enumerate(history for several in runs.values() for history in several):
        history["view_cosine"] = 0.1 * history["epoch"] + 0.01 * number
        history["opposite_halves"] = 0.5 - 0.02 * history["epoch"]
        if has_labels or number == 0:  # one run with labels among others without has nothing to stand beside
            history["validation_knn_20"] = 0.3 + 0.1 * history["epoch"] + 0.05 * number
    axes = pl.encoder_curves(runs)
    columns = ["view_cosine", "opposite_halves"] + ["validation_knn_20"] * has_labels
    titles = ["cosine of two views", "share of views below cosine 0", "validation 20-NN accuracy\n(higher is better →)"]
    assert [ax.get_ylabel() for ax in axes] == titles[: len(columns)]
    for ax, column in zip(axes, columns, strict=True):
        thick = [line for line in ax.lines if line.get_linewidth() == 2]
        for line, several in zip(thick, runs.values(), strict=True):
            assert list(line.get_xdata()) == [0, 1, 2, 3]  # as far as all seeds go
            np.testing.assert_allclose(line.get_ydata(), (several[0][column].iloc[:4] + several[1][column]) / 2)
        thin = [line for line in ax.lines if line.get_linewidth() < 1]
        for line, history in zip(thin, (history for several in runs.values() for history in several), strict=True):
            np.testing.assert_allclose(line.get_ydata(), history[column])
    assert legend_of(axes[0]) == ["simclr", "byol"]


def test_encoder_curves_go_onto_given_axes() -> None:
    run = histories(["dino"], (3,))
    run["dino"][0] = run["dino"][0].assign(view_cosine=[0.1, 0.2, 0.3], opposite_halves=0.0)
    given = list(plt.subplots(1, 2)[1])
    assert pl.encoder_curves(run, given) == given
    assert [len(ax.lines) for ax in given] == [1, 1]
    with pytest.raises(ValueError, match="axes"):
        pl.encoder_curves(run, given[:1])


def test_one_seed_has_no_thin_lines() -> None:
    cosine, _ = pl.training_curves(histories(["mse"], (3,)))
    assert len(cosine.lines) == 1


def test_norm_by_epoch_keeps_its_range_and_shows_small_changes_small() -> None:
    ax = pl.norm_by_epoch(histories(["mse", "cosine"], (4,)))
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0.65, 0.66, 0.67, 0.68])
    low, high = ax.get_ylim()
    assert high - low >= LEAST_NORM_RANGE - 1e-12
    assert low < 0.6
    assert 0.68 < high < 1.0
    wide = histories(["cosine"], (4,))
    wide["cosine"][0]["norm_ratio"] = [1.0, 10.0, 100.0, 1000.0]
    assert pl.norm_by_epoch(wide).get_yscale() == "log"


def test_difference_by_label_is_paired() -> None:
    profiles = tables(["mse", "cosine"])
    ax = pl.difference_by_label(profiles)
    first, second = (table[table["split"] == "test"].groupby("profile")[HELD_OUT].mean() for table in profiles.values())
    labels = one_table().set_index("profile")["label"]
    container = ax.containers[0]
    points, _, (bars,) = container
    assert names_of_rows(ax) == ["T (10)", "NK (10)"]
    for place, label in enumerate(["T", "NK"]):
        differences = (second - first)[labels.reindex(first.index) == label]
        assert points.get_xdata()[place] == pytest.approx(differences.mean())
        low, high = bars.get_segments()[place][:, 0]
        error = 1.96 * differences.std() / np.sqrt(len(differences))
        assert (low, high) == (pytest.approx(differences.mean() - error), pytest.approx(differences.mean() + error))
    assert ax.get_xlabel() == "difference in held-out cosine from mse (right is better →)"
    assert "← left is better" in pl.difference_by_label(profiles, metric="mse").get_xlabel()
    ratios = {name: table.assign(norm_ratio=table["cosine"]) for name, table in profiles.items()}
    assert "is better" not in pl.difference_by_label(ratios, metric="norm_ratio").get_xlabel()


def test_difference_by_label_with_one_profile_of_a_label_has_no_interval() -> None:
    table = label_differences({"a": one_table(n_profiles=4), "b": one_table(0.1, n_profiles=4)}, "cosine", "test")
    assert list(table["n_profiles"]) == [1, 1]
    assert table["low"].isna().all()
    pl.difference_by_label({"a": one_table(n_profiles=4), "b": one_table(0.1, n_profiles=4)})


def test_difference_by_label_needs_two_arms_and_labels() -> None:
    for profiles in ({"a": one_table()}, {name: one_table().drop(columns="label") for name in "ab"}):
        with pytest.raises(ValueError, match="at least two configurations, and tables with a column 'label'"):
            pl.difference_by_label(profiles)


def test_gene_correlation_of_one_arm_shows_its_genes() -> None:
    genes = genes_table()
    ax = pl.gene_correlation({"mse": genes})
    np.testing.assert_allclose(dots(ax), genes[["mean", "correlation"]])
    ordered = genes.sort_values("mean")
    np.testing.assert_allclose(
        ax.lines[0].get_xdata(), [ordered["mean"][i : i + 10].median() for i in range(0, 200, 10)]
    )
    medians = [ordered["correlation"][i : i + 10].median() for i in range(0, 200, 10)]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), medians)
    assert ax.get_xscale() == "log"
    assert legend_of(ax) == ["median, mse"]


def test_gene_correlation_of_several_arms_is_mean_over_seeds_and_lines_only() -> None:
    ax = pl.gene_correlation({"mse": pd.concat([genes_table(0), genes_table(1)]), "cosine": genes_table(2)})
    assert not [artist for artist in ax.collections if isinstance(artist, PathCollection)]
    mean = (genes_table(0)[["mean", "correlation"]] + genes_table(1)[["mean", "correlation"]]) / 2
    expected = mean.sort_values("mean")["mean"][:10].median()
    assert ax.lines[0].get_xdata()[0] == pytest.approx(expected)
    assert legend_of(ax) == ["mse", "cosine"]


def test_gene_correlation_of_centred_means_is_not_logarithmic() -> None:
    genes = genes_table()
    genes["mean"] -= 5
    genes.loc[0, "correlation"] = np.nan
    ax = pl.gene_correlation({"mse": genes})
    assert ax.get_xscale() == "linear"
    assert len(dots(ax)) == 199


def test_umap_colours_are_those_of_the_labels() -> None:
    labels = ["B"] * 5 + ["T"] * 9 + ["NK"] * 2
    axes = pl.umap({"mse": umap_table(labels), "cosine": umap_table(labels[::-1])}, title="cell $type$")
    table = umap_table(labels)
    np.testing.assert_allclose(np.sort(dots(axes[0]), axis=0), np.sort(table[["umap_1", "umap_2"]], axis=0))
    expected = {"T": PALETTE[0], "B": PALETTE[1], "NK": PALETTE[2]}
    scatter = axes[0].collections[0]
    found = [to_hex(color, keep_alpha=False).upper() for color in scatter.get_facecolor()]
    assert found == [expected[label] for label in labels]
    assert legend_of(axes[0]) == ["T", "B", "NK"]
    assert draw(axes[0]).legends[0].get_title().get_text() == r"cell \$type\$"


def test_umap_greys_out_what_is_rarer_than_the_twenty_most_frequent() -> None:
    labels = [f"type {n}" for n in range(25) for _ in range(30 - n)]
    (ax,) = pl.umap({"mse": umap_table(labels)})
    assert len(dots(ax)) == len(labels)
    assert legend_of(ax) == [*(f"type {n}" for n in range(20)), "5 rarer labels"]
    grey = ax.collections[0]
    assert {to_hex(color) for color in grey.get_facecolor()} == {GREY}
    assert len(np.asarray(grey.get_offsets())) == sum(30 - n for n in range(20, 25))


def test_a_umap_without_names_of_profiles_names_its_dots_by_the_index() -> None:
    table = umap_table(["a", "a"]).drop(columns="profile").set_axis(["cell7", "cell9"])
    (ax,) = pl.umap({"mse": table})
    assert names_of(ax.collections[0]) == ("cell7: a", "cell9: a")


def test_umap_of_many_numbers_is_continuous() -> None:
    values = [f"{n / 7}" for n in range(50)]
    (ax,) = pl.umap({"mse": umap_table(values)}, title="age")
    np.testing.assert_allclose(ax.collections[0].get_array(), [float(value) for value in values])
    assert not draw(ax).legends
    assert draw(ax).axes[-1].get_ylabel() == "age"


def test_umap_of_molecules_is_logarithmic_and_clusters_are_no_numbers() -> None:
    table = umap_table(["B"] * 30).assign(molecules=np.geomspace(100, 5000, 30), cluster=[str(n) for n in range(30)])
    (ax,) = pl.umap({"mse": table}, color="molecules")
    assert isinstance(ax.collections[0].norm, LogNorm)
    assert draw(ax).axes[-1].get_ylabel() == "molecules"
    (ax,) = pl.umap({"mse": table}, color="cluster")
    assert legend_of(ax)[-1] == "10 rarer labels"
    table["molecules"] = [np.nan, *range(29)]
    (ax,) = pl.umap({"mse": table}, color="molecules")
    assert not isinstance(ax.collections[1].norm, LogNorm)  # a zero has no logarithm
    assert [len(np.asarray(part.get_offsets())) for part in ax.collections[:2]] == [1, 29]


def test_the_forest_plot_says_numbers_and_how_far_baselines_are() -> None:
    paired = paired_table(["cosine", "combined", "pearson"])
    row = paired[paired["metric"] == HELD_OUT].iloc[0]
    near = 0.002
    ax = pl.paired_differences(paired, rivals={"shrunken PCA": -1.5, "PCA": 2.5, "near": near})
    said = [text.get_text() for text in ax.texts]
    assert said[0] == f"0.00000  ({row['low']:+.5f} to {row['high']:+.5f})"
    assert said[3:] == ["PCA +2.5000 →", "← shrunken PCA -1.5000", f"near {near:+.4f}"]
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"] == [near]
    low, high = ax.get_xlim()
    assert -1.5 < low < 0 < high < 2.5  # an interval is seen, whatever the distance of a baseline


def test_what_is_drawn_has_its_name() -> None:
    profiles = {"mse": one_table()}
    (ax,) = pl.cosine_against_mse(profiles)
    (dots_of,) = [one for one in ax.collections if isinstance(one, PathCollection)]
    named = names_of(dots_of)
    table = one_table().query("split == 'test'")
    assert len(named) == len(table)
    first = table.iloc[0]
    assert named[0].startswith(f"{first['profile']}: cosine {first['cosine']:.4f}, MSE {first['mse']:.4g}")
    ax = pl.error_parts(profiles)
    assert {names_of(bar)[0].split(": ")[0] for bar in ax.patches} == {"mse"}


def test_paired_differences_show_interval_and_verdict() -> None:
    paired = paired_table(["cosine", "combined", "pearson"])
    ax = pl.paired_differences(paired)
    rows = paired[paired["metric"] == HELD_OUT].reset_index()
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2]
    points = [line for line in ax.lines if line.get_marker() in ("o", "s", "D")]
    for place, row in rows.iterrows():
        assert list(bars[place].get_xdata()) == [row["low"], row["high"]]
        assert list(points[place].get_xdata()) == [row["difference"]]
    assert [line.get_marker() for line in points] == ["o", "s", "D"]
    assert len({line.get_color() for line in points}) == 3
    assert legend_of(ax) == ["better", "worse", "no difference that these data can show"]
    assert names_of_rows(ax) == ["cosine", "combined", "pearson"]
    low, high = ax.get_xlim()
    assert low == -high
    assert legend_of(pl.paired_differences(paired.assign(verdict="not comparable"))) == ["not comparable"]
    tiny = paired.assign(**{name: paired[name] * 1e-4 for name in ("difference", "low", "high")})
    figure = draw(pl.paired_differences(tiny))
    assert figure.axes[0].xaxis.get_offset_text().get_text() == ""  # numbers as in the table, no power of ten aside
    assert "← left is better" in pl.paired_differences(paired, metric="mse").get_xlabel()
    with pytest.raises(ValueError, match="no difference in skill on test profiles"):
        pl.paired_differences(paired, metric="skill")


FIGURES: dict[str, Callable[[list[str], Any], Any]] = {
    "calibration": lambda names, ax: pl.calibration({name: labelled_table() for name in names}, "kind", ax),
    "distribution": lambda names, ax: pl.cosine_distribution(tables(names, 1), metrics_table(names), ax),
    "against_mse": lambda names, ax: pl.cosine_against_mse(tables(names, 1), ax),
    "parts": lambda names, ax: pl.error_parts(tables(names, 1), metrics_table(names), ax),
    "curves": lambda names, ax: pl.training_curves(histories(names), ax),
    "norm": lambda names, ax: pl.norm_by_epoch(histories(names), ax),
    "by_label": lambda names, ax: pl.difference_by_label(tables([*names, "other"], 1), ax),
    "genes": lambda names, ax: pl.gene_correlation({name: genes_table() for name in names}, ax),
    "umap": lambda names, ax: pl.umap({name: umap_table(NASTY) for name in names}, ax, title=names[0]),
    "paired": lambda names, ax: pl.paired_differences(paired_table(names, names[0]), ax),
}
PANELS = {"against_mse": len, "curves": lambda names: 2, "umap": len}


@pytest.mark.parametrize("figure", FIGURES)
def test_hostile_names_are_drawn_as_they_are(figure: str) -> None:
    drawn = FIGURES[figure](NASTY, None)
    ax = drawn if isinstance(drawn, Axes) else drawn[0]
    texts = [text.get_text() for text in draw(ax).findobj(Text)]  # drawing a formula that is none would raise
    for name in NASTY:
        assert any(shown(name)[:12] in text for text in texts), name
    assert not [text for text in texts if any(name in text for name in NASTY if "$" in name or "\n" in name)]


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("n_arms", [1, 20])
def test_axes_given_are_drawn_on_and_nothing_else_changes(figure: str, n_arms: int) -> None:
    names = [f"arm {n}" for n in range(n_arms)]
    before = dict(mpl.rcParams)
    if figure in PANELS:
        canvas = Figure()
        given: Any = [canvas.add_subplot(5, 4, n + 1) for n in range(PANELS[figure](names))]
        assert list(FIGURES[figure](names, given)) == given
    else:
        given = Figure().add_subplot()
        assert FIGURES[figure](names, given) is given
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_too_few_axes_are_refused_and_spare_ones_hidden() -> None:
    axes = list(Figure().subplots(1, 3))
    with pytest.raises(ValueError, match="4 panels need 4 axes; found 3"):
        pl.cosine_against_mse(tables(list("abcd"), 1), axes)
    pl.cosine_against_mse(tables(list("ab"), 1), axes)
    assert [ax.get_visible() for ax in axes] == [True, True, False]


def test_twenty_arms_are_told_apart() -> None:
    styles = [tuple(arm_style(n).values()) for n in range(20)]
    assert len(set(styles)) == 20


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a$b", r"a\$b"),
        ("", "(no name)"),
        ("a\nb\tc", "a b c"),
        ("x\u202ey", "x y"),
        ("x" * 50, "x" * 16 + "…" + "x" * 15),
    ],
)
def test_names_in_figures(name: str, text: str) -> None:
    assert shown(name) == text


@pytest.mark.parametrize("name", pl.__all__)
def test_every_figure_can_be_shown_and_saved(name: str) -> None:
    parameters = inspect.signature(getattr(pl, name)).parameters
    assert parameters["show"].default is False
    assert parameters["save"].default is None
    assert {"ax", "axes"} & set(parameters)


def test_a_figure_is_saved_and_shown_and_its_axes_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_figures: list[int] = []
    monkeypatch.setattr(plt, "show", lambda: shown_figures.append(plt.gcf().number))
    ax = pl.cosine_distribution(tables(["mse"]), save=tmp_path / "one.png", show=True)
    assert isinstance(ax, Axes)
    assert shown_figures == [plt.gcf().number]
    axes = pl.cosine_against_mse(tables(["mse", "cosine"]), save=str(tmp_path / "two.pdf"))
    assert len(axes) == 2
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "two.pdf").read_bytes().startswith(b"%PDF")
    assert len(shown_figures) == 1
