import base64
import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from geneae.data.permuted import NULLS
from geneae.evaluation.comparison import compare_configurations
from geneae.evaluation.records import HELD_OUT
from geneae.fitting.autoencoder import Autoencoder
from geneae.fitting.compare import gather
from geneae.folders.run import Run, read_run
from geneae.report import render_report, write_report
from geneae.report.cells import mean_cell, number, show_difference
from geneae.report.image import Sheet, draw_picture
from geneae.report.scores import score_rows
from geneae.report.tables import paired_tables
from geneae.settings.errors import InputError
from geneae.settings.text import escaped

EVIL = "<img src=x onerror=alert(1)>"
NASTY = [
    "NA",
    EVIL,
    "a$b$c_{x}",
    'quote" onload="alert(1)',
    "zwei\nZeilen",
    "細胞 β",
    "{{ 7 * 7 }}",
    "</script><b>",
    "\x1b[2J\u202e",
]
N_PROFILES, N_GENES = 60, 40
ANSWER = "The cosine loss is no better than MSE. Shrunken PCA is simpler."
LOSS_SHIFT = {"mse": 0.0, "cosine": 0.01, "pearson": 0.02}


class Page(HTMLParser):
    """Elements, visible text and tables of a page, as a browser's parser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.tables: list[list[list[tuple[str, str]]]] = []
        self.captions: list[str] = []
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self._inside.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "caption":
            self.captions.append("")
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append(("", dict(attrs).get("data-value") or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"script", "style"} & set(self._inside):
            return
        data = data.replace("\N{SOFT HYPHEN}", "")  # where a browser may break a word, and shows nothing else
        self.text.append(data)
        if "caption" in self._inside:
            self.captions[-1] += data
        elif {"td", "th"} & set(self._inside):
            text, value = self.tables[-1][-1].pop()
            self.tables[-1][-1].append((text + data, value))

    def table(self, caption: str) -> pd.DataFrame:
        """Of the caption that begins so: numbers in full where there are any, by name of the row."""
        found = next(n for n, title in enumerate(self.captions) if title.startswith(caption))
        head, *rows = self.tables[found]
        cells = [[value or text for text, value in row] for row in rows]
        return pd.DataFrame(cells, columns=[text for text, _ in head]).set_index(head[0][0])


def write_run(
    folder: Path, loss: str = "mse", seed: int = 0, names: list[str] | None = None, **changes: Any
) -> tuple[Path, pd.DataFrame]:
    """A run folder as `fit` writes it, of made-up numbers; and the rows of its metrics.csv."""
    folder.mkdir(parents=True)
    rng, names = np.random.default_rng([seed, len(loss)]), names or [f"cell{i}" for i in range(N_PROFILES)]
    n_profiles, base = len(names), np.random.default_rng(7).uniform(0.3, 0.8, len(names))
    cosine = base + LOSS_SHIFT.get(loss, 0.0) + rng.normal(0, 0.002, n_profiles)
    profiles = pd.DataFrame({"profile": names, "split": ["validation", "test"] * (n_profiles // 2)})
    profiles = profiles.assign(
        cosine=cosine, centred_cosine=cosine - 0.2, mse=1 - cosine, relative_mse=1 - cosine, norm_ratio=cosine,
        direction_error=0.7 * (1 - cosine), magnitude_error=0.3 * (1 - cosine), rescaled_mse=0.99 * (1 - cosine),
        heldout_cosine=cosine - 0.1, molecules=np.round(np.exp(8 + base)),
    )  # fmt: skip
    profiles.loc[0, HELD_OUT] = np.nan  # too few molecules
    if "label" in changes:
        profiles["label"] = [changes["label"][n % len(changes["label"])] for n in range(n_profiles)]
        umap = pd.DataFrame({"profile": names, "umap_1": rng.normal(size=n_profiles), "umap_2": base})
        umap.assign(label=profiles["label"]).to_csv(folder / "umap.csv", index=False)
    rows = []
    shifts = {"model": 0.0, "mean_profile": -0.2, "pca": -0.05, "shrunken_pca": -0.01, "pca_4": -0.1}
    for split, table in profiles.groupby("split"):
        for model, shift in shifts.items():
            for metric in [HELD_OUT] if model == "pca_4" else table.columns[2:11]:
                values = table[metric].dropna() if model == "model" else 0.6 + shift + 0.0 * table[metric].dropna()
                for statistic, value in (("mean", values.mean()), ("median", values.median())):
                    better = "lower" if "mse" in metric or "error" in metric else "higher"
                    better = "" if metric == "norm_ratio" else better
                    rows.append((model, seed, split, metric, statistic, value, len(values), better))
            rows.append((model, seed, split, "skill", "mean", 0.5 + shift, len(table), "higher"))
        rows.append(("model", seed, split, "ceiling", "mean", 0.87, int(table[HELD_OUT].count()), "higher"))
    columns = ["model", "seed", "split", "metric", "statistic", "value", "n_profiles", "better"]
    metrics = pd.DataFrame(rows, columns=columns)
    history = pd.DataFrame({"epoch": range(4), "validation_cosine": [0.5, 0.6, 0.65, 0.66 + seed / 100]})
    history = history.assign(validation_mse=1 - history["validation_cosine"], norm_ratio=0.7, train_loss=np.nan)
    genes = changes.get("genes", [f"gene{i}" for i in range(N_GENES)])
    genewise = pd.DataFrame(
        {"gene": genes, "mean": np.linspace(0.01, 3, len(genes)), "correlation": rng.uniform(-1, 1, len(genes))}
    )
    fires = pd.DataFrame(
        {"name": ["skill", "norm_ratio"], "value": [0.5, np.nan], "limit": ["above 0", "0.1 to 10"],
         "fires": [changes.get("fires", False), False], "message": ["It has learned nothing.", "Never said."]}
    )  # fmt: skip
    tables = {"metrics": metrics, "profiles": profiles, "history": history, "genewise": genewise, "diagnostics": fires}
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    pd.DataFrame({"profile": ["t", *names], "split": ["train", *profiles["split"]]}).to_csv(
        folder / "split.csv", index=False
    )
    config = {
        "format": 1, "seed": seed, "split_seed": 0, "center": changes.get("center", "none"), "color": "cell type",
        "settings": {"loss": loss, "n_latent": changes.get("n_latent", 32), "test": 0.1}, "space": "log1p_cp10k",
        "data": {"source": changes.get("source", "data.h5ad"), "fingerprint": "a2d945", "n_genes": 500, "location": "X",
                 "n_profiles": n_profiles + 1},
        "network": {"n_genes": len(genes)}, "seconds": 12.5, "peak_memory_mb": 626.6, "best_epoch": 3, "epochs_run": 3,
        "versions": {"geneae": "0.1.0", "torch": "2.6"}, "command": "geneae fit data.h5ad --loss mse",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("model.safetensors", "genes.csv"):
        (folder / name).touch()
    return folder, metrics


def write_runs(folder: Path, losses: list[str], n_seeds: int = 1, **changes: Any) -> list[Run]:
    return [
        read_run(write_run(folder / f"{n}-{loss[:20].replace('/', '')}-{seed}", loss, seed, **changes)[0], loss)
        for n, loss in enumerate(losses)
        for seed in range(n_seeds)
    ]


def compare(runs: list[Run]) -> pd.DataFrame:
    for run in runs:  # losses of made-up names
        run.config["settings"]["loss"] = run.configuration if run.configuration in LOSS_SHIFT else "mse"
    return compare_configurations(gather(runs, "test"), "test")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Run], pd.DataFrame, str]:
    """Three losses with two seeds each, labelled."""
    runs = write_runs(tmp_path_factory.mktemp("compared"), list(LOSS_SHIFT), 2, label=["T", "B", "NK"])
    paired = compare(runs)
    return runs, paired, render_report(runs, ANSWER, paired)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Run], str, Path]:
    """Strangers' names in every place that can hold one."""
    folder = tmp_path_factory.mktemp("hostile")
    names = [each for name in NASTY for each in (f"{name} (validation)", name)]
    arms = ["mse", EVIL, "$x_{2}$" + "long " * 40]
    runs = write_runs(
        folder, arms, 2, names=names, label=NASTY, genes=[*map(str, range(9)), *NASTY], source=EVIL, fires=True
    )
    for run in runs:
        run.config.update(command=f"geneae fit {EVIL}", color=EVIL, versions={EVIL: EVIL})
        run.config["settings"][EVIL] = EVIL
    path = folder / "report.html"
    write_report(path, runs, f"{EVIL} wins. </script><script>alert(1)</script>", compare(runs))
    return runs, path.read_text(encoding="utf-8"), path


def test_a_run_is_read_to_the_last_bit_and_names_stay_text(tmp_path: Path) -> None:
    folder, metrics = write_run(tmp_path / "run", names=["NA", "1", "", "nan"], label=["", "1"])
    run = read_run(folder)
    assert run.configuration == "mse"
    assert run.name == "run"
    assert read_run(folder, "wide").configuration == "wide"
    assert list(run.profiles["profile"]) == ["NA", "1", "", "nan"]
    assert list(run.profiles["label"]) == ["", "1", "", "1"]
    assert (run.metrics["value"].to_numpy() == metrics["value"].to_numpy()).all()
    assert run.metrics["seed"].dtype.kind == "i"
    assert np.isnan(run.profiles.loc[0, HELD_OUT])
    assert run.split_sizes == {"train": 1, "validation": 2, "test": 2}
    assert run.genewise is not None
    assert run.umap is not None
    assert run.diagnostics is not None


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("profiles.csv", None, "profiles.csv cannot be read as a table of geneae"),
        ("metrics.csv", "a,b\n1,2\n", "lacks the columns model, seed"),
        ("history.csv", "epoch,validation_cosine,validation_mse,norm_ratio\n0,x,1,1\n", "could not convert string"),
        ("history.csv", "", "No columns to parse"),
        ("config.json", "{", "is not JSON"),
    ],
)
def test_a_damaged_run_is_refused_by_name(tmp_path: Path, file: str, text: str | None, message: str) -> None:
    folder, _ = write_run(tmp_path / "run")
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_run(folder)
    assert str(folder / file) in str(caught.value)
    assert "again" in str(caught.value)


@pytest.mark.usefixtures("no_pictures")
def test_numbers_of_one_run_are_those_of_its_files(tmp_path: Path) -> None:
    folder, metrics = write_run(tmp_path / "run")
    page = Page(render_report([read_run(folder)], ANSWER))
    rows = {
        "model": "model",
        "mean profile": "mean_profile",
        "PCA, size 32": "pca",
        "shrunken PCA, size 32": "shrunken_pca",
    }
    columns = {"held-out cosine\xa0↑": HELD_OUT, "cosine\xa0↑": "cosine", "MSE\xa0↓": "mse", "skill\xa0↑": "skill"}
    means = metrics[metrics["statistic"] == "mean"].set_index(["model", "split", "metric"])["value"]
    for split in ("test", "validation"):
        table = page.table(split.capitalize()).rename(columns=lambda name: name.split(" of ")[0])
        assert list(table.index) == [
            "model",
            "shrunken PCA, size 32",
            "PCA, size 32",
            "PCA, size 4",
            "mean profile",
            "noise ceiling",
        ]
        for row, model in rows.items():
            for column, metric in columns.items():
                assert float(table.loc[row, column]) == means[model, split, metric]
        assert float(table.loc["noise ceiling", "held-out cosine\xa0↑"]) == means["model", split, "ceiling"]
        assert table.loc["PCA, size 4", "cosine\xa0↑"] == "–"
    assert f">{means['model', 'test', HELD_OUT]:.4f}<" in render_report([read_run(folder)], ANSWER)


@pytest.mark.usefixtures("no_pictures")
def test_other_metrics_are_there_too(tmp_path: Path) -> None:
    folder, _ = write_run(tmp_path / "run")
    page = Page(render_report([read_run(folder)], ANSWER))
    titles = [n for n, caption in enumerate(page.captions) if caption.startswith("Test")]
    heads = [[text for text, _ in page.tables[number][0]] for number in titles]
    named = [name for head in heads for name in head[1:]]
    assert len(named) == len(set(named))  # a metric stands in one table
    assert max(map(len, heads)) <= 6  # columns that a page shows beside each other
    assert heads[1] == [
        "model", "centred cosine\xa0↑", "relative MSE\xa0↓", "norm ratio", "direction error\xa0↓",
        "magnitude error\xa0↓",
    ]  # fmt: skip


def test_numbers_of_seeds_are_mean_and_deviation(compared: tuple[list[Run], pd.DataFrame, str]) -> None:
    runs, _, html = compared
    table = Page(html).table("Test")
    for arm in LOSS_SHIFT:
        several = [run.metrics for run in runs if run.configuration == arm]
        rows = pd.concat(several).query(f"model == 'model' and split == 'test' and metric == '{HELD_OUT}'")
        values = rows.loc[rows["statistic"] == "mean", "value"]
        assert float(table.loc[arm, "held-out cosine\xa0↑"]) == pytest.approx(values.mean(), abs=1e-15)
        assert f">{values.mean():.4f} ±\xa0{values.std():.4f}<" in html
    assert "Test: means over 30 test profiles and 2 seeds ± standard deviation over seeds" in html
    assert "Validation: means over validation profiles and 2 seeds" in html
    assert "held-out cosine\xa0↑ of 29 profiles" in html
    assert "MSE\xa0↓ of 30 profiles" in html


def test_baselines_that_differ_between_arms_stand_beside_theirs(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "a", ["mse"]) + write_runs(tmp_path / "b", ["wide"], n_latent=64)
    assert [row.title for row in score_rows(runs, "test")][2:] == [
        "shrunken PCA, size 32", "PCA, size 32", "PCA, size 4", "mean profile", "shrunken PCA, size 64", "PCA, size 64",
        "noise ceiling",
    ]  # fmt: skip
    other = read_run(tmp_path / "a" / "0-mse-0", "pearson")
    chosen = (other.metrics["metric"] == "rescaled_mse") & (other.metrics["model"] == "pca")
    other.metrics.loc[chosen, "value"] += 0.1
    titles = [row.title for row in score_rows([runs[0], other], "test")]
    assert titles == ["mse", "pearson", "shrunken PCA, size 32", "PCA, size 32", "PCA, size 4", "mean profile",
                      "PCA, size 32 (for pearson)", "noise ceiling"]  # fmt: skip


def test_paired_differences_are_those_of_the_file(compared: tuple[list[Run], pd.DataFrame, str]) -> None:
    _, paired, html = compared
    page = Page(html)
    assert page.captions.count("Difference of each configuration from mse, 30 test profiles and 2 seeds") == 2
    table = page.table("Difference of each configuration from mse").reset_index()
    assert (
        len(table) == paired["metric"].isin([HELD_OUT, "centred_cosine", "cosine", "mse", "rescaled_mse"]).sum() == 10
    )
    assert table.loc[0, "metric"] == "held-out cosine\xa0↑"
    found = paired[(paired["arm"] == "pearson") & (paired["metric"] == HELD_OUT)].iloc[0]
    row = table[(table["configuration"] == "pearson") & (table["metric"] == "held-out cosine\xa0↑")].iloc[0]
    assert float(row["difference"]) == found["difference"]
    assert float(row["p (Holm)"]) == found["p_holm"]
    assert row["verdict"] == found["verdict"] == "better"
    assert f"{found['low']:+.5f}\xa0to {found['high']:+.5f}" in html
    fewer = paired.assign(n_profiles=paired["n_profiles"].mask(paired["arm"] == "pearson", 29))
    shown = paired_tables(fewer)[0]
    assert shown.title == "Difference of each configuration from mse, test profiles"
    sizes = {row[0].text: tuple(cell.text for cell in row[-2:]) for row in shown.rows}
    assert sizes == {"cosine": ("30", "2"), "pearson": ("29", "2")}


def test_equal_numbers_of_profiles_and_seeds_stand_in_the_caption_not_in_columns(
    compared: tuple[list[Run], pd.DataFrame, str],
) -> None:
    paired = compared[1].assign(n_profiles=30, n_seeds=2)
    table = paired_tables(paired)[0]
    assert table.title == "Difference of each configuration from mse, 30 test profiles and 2 seeds"
    assert len(table.headers) == len(table.rows[0]) == 6  # as many as a phone shows
    alone = paired_tables(paired.assign(n_profiles=1, n_seeds=1))[0]
    assert alone.title == "Difference of each configuration from mse, 1 test profile"


def test_worst_profiles_are_named_with_the_worst_first(compared: tuple[list[Run], pd.DataFrame, str]) -> None:
    runs, _, html = compared
    table = Page(html).table("The 20 test profiles of lowest held-out cosine (mean over configurations and seeds)")
    every = pd.concat([run.profiles.assign(arm=run.configuration) for run in runs]).query("split == 'test'")
    by_arm = every.pivot_table(HELD_OUT, "profile", "arm")
    expected = by_arm[list(LOSS_SHIFT)].mean(axis=1).sort_values().index[:20]
    assert list(table.index) == list(expected)
    assert float(table.iloc[0]["cosine"]) == pytest.approx(by_arm.loc[expected[0], "cosine"], abs=1e-15)
    assert list(table.columns) == ["cell type", "molecules", "mse", "cosine", "pearson"]


@pytest.mark.usefixtures("no_pictures")
def test_of_many_configurations_tables_of_profiles_and_genes_show_mean_and_extremes(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, ["mse", "cosine", "pearson", "magnitude"], 1)
    page = Page(render_report(runs, ANSWER))
    worst = page.table("The 20 test profiles of lowest held-out cosine (mean over configurations and seeds)")
    assert list(worst.columns)[-3:] == ["mean", "lowest", "highest"]
    by_arm = pd.DataFrame({run.configuration: run.profiles.set_index("profile")[HELD_OUT] for run in runs})
    for column, values in (
        ("mean", by_arm.mean(axis=1)),
        ("lowest", by_arm.min(axis=1)),
        ("highest", by_arm.max(axis=1)),
    ):
        np.testing.assert_allclose(worst[column].astype(float), values[worst.index], atol=1e-15)
    genes = page.table("Genes of highest correlation with their reconstruction")
    assert list(genes.columns) == ["mean expression", "mean", "lowest", "highest"]


@pytest.mark.usefixtures("no_pictures")
def test_worst_profiles_without_a_label_show_their_cluster(tmp_path: Path) -> None:
    folder, _ = write_run(tmp_path / "run")
    run = read_run(folder)
    known = run.profiles["profile"].iloc[::2]
    run = replace(run, umap=pd.DataFrame({"profile": known, "umap_1": 0.0, "umap_2": 0.0, "cluster": "7"}))
    table = Page(render_report([run], ANSWER)).table("The 20 test profiles of lowest held-out cosine")
    assert list(table.columns)[:2] == ["cluster in the UMAP", "molecules"]
    assert list(table["cluster in the UMAP"]) == ["7" if name in set(known) else "–" for name in table.index]


@pytest.mark.usefixtures("no_pictures")
def test_genes_are_those_of_highest_and_lowest_correlation(tmp_path: Path) -> None:
    folder, _ = write_run(tmp_path / "run", genes=[f"g{i}" for i in range(100)])
    run = read_run(folder)
    assert run.genewise is not None
    page = Page(render_report([run], ANSWER))
    expected = run.genewise.tail(50).sort_values("correlation", ascending=False)["gene"]
    assert list(page.table("Genes of highest").index) == list(expected[:10])
    assert list(page.table("Genes of lowest").index) == list(expected[::-1][:10])
    few = replace(run, genewise=run.genewise.tail(6))
    page = Page(render_report([few], ANSWER))
    shown = [*page.table("Genes of highest").index, *page.table("Genes of lowest").index]
    assert len(shown) == len(set(shown)) == 2  # of the half of higher expression, 3 genes, none in both tables


def test_how_it_was_made(compared: tuple[list[Run], pd.DataFrame, str]) -> None:
    _, _, html = compared
    text = " ".join(" ".join(Page(html).text).split())
    for fact in (
        "Command geneae fit data.h5ad --loss mse", "Fingerprint of the data a2d945", "Seed 0, 1", "Seed of the split 0",
        "Time 75.0 seconds for all runs together", "Peak memory 627 MB", "geneae 0.1.0, torch 2.6", "Space log1p_cp10k",
        "1 train, 30 validation, 30 test profiles", "validation 30", "Profiles and genes in the data 61 x 500",
    ):  # fmt: skip
        assert fact in text
    table = Page(html).table("Settings")
    assert table.loc["loss", "value"] == "mse, cosine, pearson"


def test_sections_and_figures(compared: tuple[list[Run], pd.DataFrame, str]) -> None:
    _, _, html = compared
    page = Page(html)
    sections = [found["id"] for tag, found in page.elements if tag == "section"]
    assert sections == ["differences", "results", "diagnostics", "figures", "profiles", "genes", "making"]
    first, second = ANSWER.split(". ")
    assert f"{first}." in page.text  # in large print; the rest is folded
    text = "".join(page.text)
    bar, _, text = text.partition(first)
    assert text.index("Difference in held-out cosine") < text.index(second)  # the forest plot comes first
    assert text.index(second) < text.index("Results") < text.index("Worst profiles")
    assert bar.index("Differences") < bar.index("Results") < bar.index("Worst profiles") < bar.index("How it was made")
    linked = [str(found["href"]) for tag, found in page.elements if tag == "a"]
    assert linked == [f"#{name}" for name in sections]
    titles = re.findall("<figure[^>]*>\n<h[23]>(.*?)</h", html)
    assert titles == [
        "Difference in held-out cosine from mse", "Difference in cosine from mse",
        "Difference in rescaled MSE from mse",
        "Distribution of the held-out cosine", "Cosine against MSE", "Parts of the error", "Training curves",
        "Norm of the reconstruction", "Difference from mse by cell type", "Correlation by gene",
        "UMAP of the latents by cell type",
    ]  # fmt: skip
    labels = alternatives(page)
    assert len(labels) == len(titles)
    assert all(len(label) > 60 for label in labels)


def alternatives(page: Page) -> list[str]:
    """Text alternatives of the figures; bars of the scale are no figures."""
    found = [one for tag, one in page.elements if tag == "svg" and "viewbox" in one]
    assert all(one["role"] == "img" for one in found)
    return list(dict.fromkeys(str(one["aria-label"]) for one in found))  # that of a phone is the same


def test_text_alternatives_carry_the_numbers(compared: tuple[list[Run], pd.DataFrame, str]) -> None:
    runs, paired, html = compared
    said = alternatives(Page(html))
    profiles = pd.concat([run.profiles for run in runs if run.configuration == "cosine"]).query("split == 'test'")
    mean = profiles.groupby("profile")[HELD_OUT].mean().mean()
    assert f"cosine: mean {mean:.4f}" in said[3]
    assert "noise ceiling 0.8700" in said[3]
    assert "shrunken PCA 0.5900" in said[3]
    difference = paired[(paired["arm"] == "cosine") & (paired["metric"] == HELD_OUT)]["difference"].iloc[0]
    assert f"cosine {difference:+.5f} (" in said[0]
    assert "to 0.6650 at epoch 3" in said[6]


@pytest.mark.usefixtures("no_pictures")
def test_scale_free_losses_and_centred_ones_are_explained(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "a", ["mse", "cosine"]) + write_runs(tmp_path / "b", ["pearson"], center="profile")
    html = render_report(runs, ANSWER)
    assert "The loss of cosine, pearson ignores the length of a reconstruction" in html
    assert "compare that of pearson (profile) only with the baselines of the same configuration" in html
    assert "ignores the length" not in render_report(runs[:1], ANSWER)


@pytest.mark.usefixtures("no_pictures")
def test_a_metric_of_the_loss_is_named_and_explained(tmp_path: Path) -> None:
    (run,) = write_runs(tmp_path / "a", ["cosine"])
    assert "under a learned metric" not in render_report([run], ANSWER)
    run.config["metric"] = {"fingerprint": "b3e946"}
    run.config["settings"]["metric"] = "metric"
    run.metrics.loc[len(run.metrics)] = ["model", 0, "test", "knn_20", "mean", 0.5, 10, "higher"]
    text = " ".join(" ".join(Page(render_report([run], ANSWER)).text).split())
    assert "Fingerprint of the learned metric of the loss b3e946" in text
    assert "A loss under a learned metric compares profiles by a cosine that was learned from labels beforehand" in text
    assert "Labels may have taken part in training, by the metric of the loss; the supervised encoder" in text


@pytest.mark.usefixtures("no_pictures")
def test_diagnostics_that_fire_are_said_once_with_their_arms(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "a", ["mse", "cosine"], 2, fires=True)
    page = Page(render_report(runs, ANSWER))
    text = " ".join("".join(page.text).split())
    assert "every configuration: It has learned nothing." in text
    runs[0] = replace(runs[0], diagnostics=runs[0].diagnostics.assign(fires=False))  # type: ignore[union-attr]
    text = " ".join("".join(Page(render_report(runs, ANSWER)).text).split())
    assert "mse (in 1 of 2 runs), cosine: It has learned nothing." in text
    assert "Never said." not in text
    table = page.table("All diagnostics").reset_index()
    assert list(table["warns"]) == ["in 2 of 2 runs", "no"] * 2
    calm = "".join(Page(render_report(write_runs(tmp_path / "b", ["mse"]), ANSWER)).text)
    assert "No diagnostic found anything to warn of." in calm
    assert "It has learned nothing." not in calm


@pytest.mark.usefixtures("no_pictures")
def test_the_ceiling_is_said_to_be_too_high_where_noise_is_not_poisson(tmp_path: Path) -> None:
    html = render_report(write_runs(tmp_path, ["mse"]), ANSWER)
    assert "other technical noise, which the two halves share, makes it too high" in html
    assert "an estimate of the cosine with the noise-free profile (Spearman 1904)" in html


def test_labels_of_different_columns_are_not_drawn_together(tmp_path: Path) -> None:
    several = write_runs(tmp_path, ["mse", "cosine"], label=["B", "T"])
    assert "UMAP of the latents by cell type" in render_report(several, ANSWER)
    several[1].config["color"] = "donor"
    html = render_report(several, ANSWER)
    assert "UMAP of the latents" not in html
    assert "Difference from mse by" not in html


def test_nulls_stand_beside_their_fit(tmp_path: Path) -> None:
    folder, metrics = write_run(tmp_path / "run")
    assert "nothing to learn" not in render_report([read_run(folder)], ANSWER)
    names = [f"{null}_{name}" for null in NULLS for name in (HELD_OUT, "gain_over_mean_profile", "skill")]
    rows = pd.DataFrame(
        {"name": names, "value": np.arange(6) / 8, "limit": "this fit: 1", "fires": False, "message": ""}
    )
    pd.concat([pd.read_csv(folder / "diagnostics.csv"), rows]).to_csv(folder / "diagnostics.csv", index=False)
    table = Page(render_report([read_run(folder)], ANSWER)).table("The same training where there is nothing to learn")
    assert list(table.index) == ["this fit", *NULLS.values()]
    assert list(map(float, table.loc[NULLS["gene_permuted"]])) == [0.0, 0.125, 0.25]
    assert list(map(float, table.loc[NULLS["pair_permuted"]])) == [0.375, 0.5, 0.625]
    means = metrics[(metrics["split"] == "test") & (metrics["statistic"] == "mean")].set_index(["model", "metric"])[
        "value"
    ]
    own = means["model", HELD_OUT], means["model", HELD_OUT] - means["mean_profile", HELD_OUT], means["model", "skill"]
    assert list(map(float, table.loc["this fit"])) == pytest.approx(list(own), abs=1e-15)


def test_missing_files_leave_their_parts_out(tmp_path: Path) -> None:
    folder, _ = write_run(tmp_path / "run")
    for name in ("genewise", "diagnostics", "split"):
        (folder / f"{name}.csv").unlink()
    html = render_report([read_run(folder)], ANSWER)
    page = Page(html)
    sections = [found["id"] for tag, found in page.elements if tag == "section"]
    assert sections == ["results", "figures", "profiles", "making"]
    assert "No column of obs, such as the cell type, was named with --color KEY: the UMAP shows clusters" in html
    assert "UMAP of the latents" not in html
    assert "Correlation by gene" not in html
    assert "A single seed says nothing about the variation between seeds." in html


@pytest.mark.usefixtures("no_pictures")
def test_without_counts_and_without_test_profiles_it_says_so(tmp_path: Path) -> None:
    folder, metrics = write_run(tmp_path / "run")
    kept = metrics[~metrics["metric"].isin([HELD_OUT, "skill", "ceiling"]) & (metrics["split"] == "validation")]
    kept[~kept["model"].isin(["shrunken_pca", "pca_4"])].to_csv(folder / "metrics.csv", index=False)
    profiles = pd.read_csv(folder / "profiles.csv").query("split == 'validation'").assign(heldout_cosine=np.nan)
    profiles.drop(columns="molecules").to_csv(folder / "profiles.csv", index=False)
    html = render_report([read_run(folder)], ANSWER)
    page = Page(html)
    assert list(page.table("Validation").index) == ["model", "PCA, size 32", "mean profile"]
    assert "Without counts, its molecules cannot be divided into halves" in html
    assert "PCA is fitted to the training profiles." in html
    assert "No test profiles were set aside" in html
    assert not any(caption.startswith("Test") for caption in page.captions)
    assert "The 20 validation profiles of lowest centred cosine" in page.captions
    assert "Distribution of the centred cosine" in html


def test_a_run_folder_as_fit_leaves_it(fitted: Autoencoder, model_folder: Path, tmp_path: Path) -> None:
    run = read_run(model_folder)
    write_report(tmp_path / "report.html", [run], ANSWER)
    table = Page((tmp_path / "report.html").read_text(encoding="utf-8")).table("Test")
    metrics = fitted.evaluation_.metrics
    expected = metrics.query(f"model == 'model' and split == 'test' and metric == '{HELD_OUT}' and statistic == 'mean'")
    assert float(table.loc["model", "held-out cosine\xa0↑"]) == expected["value"].item()


def test_nothing_is_loaded_and_no_name_becomes_an_element(hostile: tuple[list[Run], str, Path]) -> None:
    _, html, _ = hostile
    page = Page(html)
    for tag, found in page.elements:
        assert tag not in ("iframe", "object", "embed", "form", "base", "b")
        assert not any(name.startswith("on") for name in found)
        assert all(not str(found.get(name, "data:,")).startswith("http") for name in ("src", "href"))
        places = [str(found[name]) for name in ("src", "href", "srcset", "data") if name in found]
        assert all(
            place.startswith("#" if tag in ("a", "use") else "data:image/png;" if tag == "image" else "data:")
            for place in places
        )
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert html.count("<script") == 1
    assert "7 * 7" in html
    assert EVIL in "".join(page.text)
    named = {name for table in page.tables for row in table for name, _ in row}
    assert {escaped(name) for name in NASTY} <= named
    assert not any(sign in html for sign in "\x1b\u202e")


def test_images_hold_names_as_text_only(hostile: tuple[list[Run], str, Path]) -> None:
    _, html, _ = hostile
    drawings = re.findall(r"<svg [^>]*viewBox.*?</svg>", html, re.DOTALL)
    assert len(drawings) >= 8
    for drawing in drawings:
        assert "<img" not in drawing
        assert "<script" not in drawing
    assert any("&lt;img src=x onerror=alert(1)&gt;" in drawing for drawing in drawings)
    assert any("a$b$c_{x}" in drawing for drawing in drawings)
    assert any("zwei Zeilen" in drawing for drawing in drawings)
    assert any(f"<title>{escaped(NASTY[-1])}" in drawing for drawing in drawings)
    assert not any(sign in drawing for sign in "\x1b\u202e" for drawing in drawings)


def test_the_policy_allows_our_script_and_nothing_else(compared: tuple[list[Run], pd.DataFrame, str]) -> None:
    import hashlib

    html = compared[2]
    policy = next(str(found["content"]) for tag, found in Page(html).elements if "http-equiv" in found)
    for tag in ("script", "style"):
        content = html.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_many_arms_and_profiles_stay_small(tmp_path: Path) -> None:
    names = [f"cell{i}" for i in range(240)]
    arms = [f"a long name of an arm, so that its end tells it apart, number {n}" for n in range(20)]
    runs = write_runs(tmp_path, arms, 1, names=names)
    html = render_report(runs, ANSWER)
    assert len(html.encode()) < 3e6
    page = Page(html)
    assert list(page.table("Test").index)[:20] == arms
    assert "image/png" in html  # 20 x 120 dots


def test_the_same_figure_gives_the_same_bytes_whatever_the_users_style() -> None:
    def draw(sheet: Sheet) -> Axes:
        ax = sheet.rows((9.0, 3.0))
        ax.plot([1, 2], [3, 4], clip_on=True)
        return ax

    plain = draw_picture("", "", "", draw)
    with mpl.rc_context({"axes.facecolor": "black", "svg.fonttype": "path"}):
        assert draw_picture("", "", "", draw) == plain
        assert mpl.rcParams["axes.facecolor"] == "black"
    assert plain.is_wide
    widths = [
        float(found[1]) for svg in (plain.drawing, plain.narrow) if (found := re.search('width="([0-9.]+)pt"', svg))
    ]
    assert widths == [9.0 * 72, 5.4 * 72]  # a page and a phone


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.68219, "0.6822"),
        (-2e-18, "0.0000"),
        (0.00012345, "1.23e-04"),
        (12345.6, "12,346"),
        (109507594065.0, "1.10e+11"),
        (np.nan, "–"),
        (-0.5, "-0.5000"),
    ],
)
def test_numbers_as_shown(value: float, text: str) -> None:
    assert number(value) == text


def test_large_numbers_have_no_decimals_wherever_they_stand() -> None:
    assert mean_cell([8716.0, 6308.0]).text == "7,512 ±\xa01,703"
    assert mean_cell([0.5, 0.6]).text == "0.5500 ±\xa00.0707"
    values = (-3.28e8, -24024.95, 999.5, -283.6649, 9.5, -0.1234567, 4e-6)
    shown = ("-3.3e+08", "-24,025", "+999.50", "-283.66", "+9.50000", "-0.12346", "0.00000")
    assert tuple(map(show_difference, values)) == shown


def test_a_run_is_called_by_what_it_learns_by(tmp_path: Path) -> None:
    folder, _ = write_run(tmp_path / "run", "cosine")
    history = pd.read_csv(folder / "history.csv").assign(view_cosine=0.9, opposite_halves=0.0)
    history.to_csv(folder / "history.csv", index=False)
    config = json.loads((folder / "config.json").read_text())
    for objective, has_decoder, arm in (
        ("reconstruction", True, "cosine"),
        ("simclr+reconstruction", True, "simclr+reconstruction, cosine"),
        ("simclr", False, "simclr"),
    ):
        config["settings"]["objective"], config["network"]["has_decoder"] = objective, has_decoder
        (folder / "config.json").write_text(json.dumps(config))
        assert read_run(folder).configuration == arm


BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))),
    None,
)
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on the PATH (Debian: apt-get install chromium)")
def test_in_a_browser(hostile: tuple[list[Run], str, Path]) -> None:
    """No error, no request, names are text, and every column of every table sorts both ways."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = hostile[2]
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, headless=True, args=QUIET)
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        for _ in range(page.locator("nav a").count()):  # sections are reached by the keyboard alone
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.closest('nav') !== null")
        page.emulate_media(color_scheme="dark")
        page.evaluate("for (const found of document.querySelectorAll('details')) found.open = true")
        assert page.evaluate(
            "[...document.querySelectorAll('.card:not(.narrow) svg')].every(one => one.getBBox().width > 100)"
        )
        assert page.evaluate(UNNAMED) == []
        inks = page.evaluate("[...document.querySelectorAll('.card text')].map(one => getComputedStyle(one).fill)")
        assert set(inks) == {"rgb(231, 234, 238)"}  # light on dark
        assert page.locator("th", has_text=EVIL).count() > 0
        assert page.evaluate("document.querySelectorAll('img[onerror]').length") == 0
        n_tables = page.locator("table:not(.scale)").count()
        assert n_tables >= 8
        sorted_columns = page.evaluate(SORT_ALL)
        assert len(sorted_columns) == n_tables
        for columns in sorted_columns:
            for column in columns:
                assert column["ascending"], column
                assert column["descending"], column
        first = page.locator("thead button").first
        first.focus()
        page.keyboard.press("Enter")
        assert page.locator("thead th").first.get_attribute("aria-sort") == "ascending"
        for width in (1200, 400, 360):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator(".card:visible").count() == page.locator("figure").count()  # one of the two
            assert page.evaluate(CUT) == []
        page.emulate_media(color_scheme="light")
        inks = page.evaluate("[...document.querySelectorAll('.card text')].map(one => getComputedStyle(one).fill)")
        assert set(inks) == {"rgb(28, 31, 35)"}
        page.locator("nav a").last.focus()
        page.keyboard.press("Enter")
        page.wait_for_function("location.hash === '#making'")  # a jump is made after the key, not with it
        assert page.locator(".scale svg title").count() == page.locator(".scale svg").count() > 0
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on the PATH (Debian: apt-get install chromium)")
def test_every_table_fits_a_phone(compared: tuple[list[Run], pd.DataFrame, str], tmp_path: Path) -> None:
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = tmp_path / "report.html"
    path.write_text(compared[2], encoding="utf-8")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, headless=True, args=QUIET)
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.goto(path.as_uri())
        page.evaluate("for (const found of document.querySelectorAll('details')) found.open = true")
        wide = page.evaluate(WIDE)
        browser.close()
    assert wide == []


WIDE = """
[...document.querySelectorAll(".scroll")].filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.ariaLabel)
"""
"""Tables that are wider than their place."""
CUT = """
[...document.querySelectorAll(".card")].filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.ariaLabel)
"""
"""Figures that are wider than their place."""
UNNAMED = """
Array.from(document.querySelectorAll(".card svg")).filter((one) => !one.querySelector("title")).map(
  (one) => one.getAttribute("aria-label"))
"""
"""Figures in which nothing has a name under the pointer."""
AXE = os.environ.get("AXE")
"""Path of axe.min.js of the package axe-core, which `npm pack axe-core@4.10.3` gets."""


@pytest.mark.skipif(BROWSER is None or AXE is None, reason="AXE names no axe.min.js, or there is no Chromium or Chrome")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_axe_finds_nothing(scheme: str, width: int, hostile: tuple[list[Run], str, Path]) -> None:
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, headless=True, args=QUIET)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
        page = context.new_page()
        page.goto(hostile[2].as_uri())
        page.evaluate("for (const found of document.querySelectorAll('details')) found.open = true")
        page.evaluate(Path(str(AXE)).read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")
        browser.close()
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]] == []
    assert len(found["passes"]) > 30


SORT_ALL = """
const tables = document.querySelectorAll("table:not(.scale)");
Array.from(tables, (table) => Array.from(table.tHead.rows[0].cells, (header, index) => {
  const read = () => Array.from(table.tBodies[0].rows, (row) => row.cells[index]).map(
    (cell) => cell.dataset.value !== undefined ? Number(cell.dataset.value) : cell.textContent.trim());
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), undefined, { numeric: true });
  const isEmpty = (key) => key === "" || key === "–";
  const found = { title: header.textContent };
  for (const direction of ["ascending", "descending"]) {
    const before = read().length;
    header.querySelector("button").click();
    const keys = read(), known = keys.filter((key) => !isEmpty(key));
    const sign = direction === "ascending" ? 1 : -1;
    found[direction] = header.ariaSort === direction && keys.length === before
      && keys.slice(0, known.length).every((key) => !isEmpty(key))
      && known.every((key, n) => n === 0 || sign * compare(known[n - 1], key) <= 0);
  }
  return found;
}))
"""


@pytest.mark.usefixtures("no_pictures")
def test_which_way_is_better_is_what_the_tables_say(tmp_path: Path) -> None:
    (run,) = write_runs(tmp_path / "a", ["cosine"])
    run.metrics.loc[run.metrics["metric"] == "cosine", "better"] = "lower"  # as another version might have it
    page = Page(render_report([run], ANSWER))
    assert any("cosine\N{NO-BREAK SPACE}↓" in [text for text, _ in table[0]] for table in page.tables)
