"""The report: run folders as one HTML file that needs nothing else and shows what their tables hold."""

import base64
import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image  # what matplotlib itself writes PNGs with

from geneae import pl
from geneae.diagnostics import null_table
from geneae.errors import InputError
from geneae.evaluation import HELD_OUT
from geneae.judging import BY_PROFILE, OF_CLUSTERS
from geneae.judging import TITLES as JUDGED_TITLES
from geneae.losses import ALIASES, LOSSES
from geneae.nulls import NULLS
from geneae.saving import SPLIT, read_config

MAIN_METRICS = (HELD_OUT, "skill", "cosine", "centred_cosine", "mse", "rescaled_mse", *BY_PROFILE, *OF_CLUSTERS)
PAIRED_METRICS = (HELD_OUT, "cosine", "rescaled_mse", "mse", BY_PROFILE[0])
SPLITS = ("test", "validation")
NEEDED = {
    "metrics": ("model", "seed", "split", "metric", "statistic", "value", "n_profiles"),
    "profiles": ("profile", "split", "cosine", "mse", "direction_error", "magnitude_error"),
    "history": ("epoch", "validation_cosine", "validation_mse", "norm_ratio"),
    "genewise": ("gene", "mean", "correlation"),
    "umap": ("profile", "umap_1", "umap_2", "label"),
    "diagnostics": ("name", "value", "limit", "fires", "message"),
}
ENCODER_NEEDED = NEEDED | {"profiles": ("profile", "split"), "history": ("epoch", "view_cosine", "opposite_halves")}
TEXT_COLUMNS = {"model", "split", "metric", "statistic", "better", "profile", "gene", "label"} | {
    "name", "limit", "fires", "message"
}  # fmt: skip
WHOLE_COLUMNS = {"seed", "n_profiles", "epoch"}
N_WORST = 20  # profiles named
N_GENES = 10  # named at either end
MOST_VECTOR_DOTS = 2000  # above it, a figure is smaller as PNG than as SVG
NOTHING = 1e-12  # smaller numbers are rounding
DPI = 110  # of a PNG
CSS_DPI = 96  # of a browser: an inch has so many of its pixels


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder, read."""

    name: str
    """Of the folder."""
    arm: str
    """What is compared: runs of one arm differ in their seeds alone."""
    config: dict[str, Any]
    """`config.json`."""
    metrics: pd.DataFrame
    """`metrics.csv`."""
    profiles: pd.DataFrame
    """`profiles.csv`."""
    history: pd.DataFrame
    """`history.csv`."""
    genewise: pd.DataFrame | None = None
    """`genewise.csv`, where there is one."""
    umap: pd.DataFrame | None = None
    """`umap.csv`, where there is one."""
    diagnostics: pd.DataFrame | None = None
    """`diagnostics.csv`, where there is one."""
    split_sizes: dict[str, int] = field(default_factory=dict)
    """Profiles by split, from `split.csv`."""

    @property
    def is_encoder(self) -> bool:
        """Whether it has latents alone, and no reconstruction."""
        return _is_encoder(self.config)


def read_run(folder: Path, arm: str | None = None) -> Run:
    """A run from its files; `arm` is by default the name of its loss."""
    config = read_config(folder)
    needed = ENCODER_NEEDED if _is_encoder(config) else NEEDED
    metrics, profiles, history = (
        _read_table(folder / f"{name}.csv", needed) for name in ("metrics", "profiles", "history")
    )
    genewise, umap, diagnostics = (
        _read_table(path) if (path := folder / f"{name}.csv").is_file() else None
        for name in ("genewise", "umap", "diagnostics")
    )
    sizes: dict[str, int] = {}
    if (folder / SPLIT).is_file():
        split = pd.read_csv(folder / SPLIT, dtype=str, keep_default_na=False)["split"]
        sizes = {str(name): int(size) for name, size in split.value_counts().items()}
    arm = arm or str(config["settings"]["loss"])
    return Run(folder.name, arm, config, metrics, profiles, history, genewise, umap, diagnostics, sizes)


def _is_encoder(config: dict[str, Any]) -> bool:
    network = config.get("network")
    return isinstance(network, dict) and network.get("has_decoder") is False


def _read_table(path: Path, needed: dict[str, tuple[str, ...]] = NEEDED) -> pd.DataFrame:
    """A table with names as text (a gene may be called NA), and numbers to their last bit."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        missing = [name for name in needed[path.stem] if name not in table]
        if missing:
            raise ValueError(f"it lacks the columns {', '.join(missing)}")
        for name in table.columns.difference(list(TEXT_COLUMNS)):
            table[name] = table[name].replace("", "nan").astype(int if name in WHOLE_COLUMNS else float)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a table of geneae ({str(error).splitlines()[0]}). "
            "Copy the whole folder again, or fit again."
        ) from error
    return table


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    """As shown."""
    value: str = ""
    """What it is sorted by where that is not the text: a number in full."""
    kind: str = ""
    """Class of its style."""


@dataclass(frozen=True)
class Table:
    """A table of the report."""

    title: str
    """Its caption."""
    headers: tuple[str, ...]
    """Of the columns; the first names the rows."""
    rows: list[list[Cell]]
    """Cells of every row."""
    note: str = ""
    """Below it."""


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    title: str
    """In a few words."""
    caption: str
    """What is seen and how to read it."""
    alternative: str
    """The main numbers, for those who do not see it."""
    source: str
    """The image as a `data:` address."""
    width: int
    """In pixels."""
    height: int
    """In pixels."""


@dataclass(frozen=True)
class Scores:
    """A row of the table of results: an arm, a baseline or the ceiling."""

    title: str
    """As shown."""
    kind: str
    """`arm`, `baseline` or `ceiling`."""
    means: dict[str, list[float]]
    """By metric, one mean over profiles for every run."""
    n_profiles: dict[str, list[int]]
    """By metric, the number of profiles of every run."""
    n_runs: int
    """Seeds."""


def write_report(path: Path, runs: list[Run], answer: str, paired: pd.DataFrame | None = None) -> None:
    """Write the report of one run or of many.

    Parameters
    ----------
    path
        Of the HTML file.
    runs
        At least one. Those of equal `arm` are seeds of one another; the first arm is the reference.
    answer
        The sentences that it opens with.
    paired
        `paired.csv` of a comparison.
    """
    path.write_text(render_report(runs, answer, paired), encoding="utf-8")


def render_report(runs: list[Run], answer: str, paired: pd.DataFrame | None = None) -> str:
    """The report as HTML; takes what `write_report` does."""
    source = files("geneae").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    judged = _judged_split(runs)
    present = [split for split in SPLITS if any((run.metrics["split"] == split).any() for run in runs)]
    metrics = pd.concat([run.metrics.assign(run=run.name, arm=run.arm) for run in runs], ignore_index=True)
    others = [str(name) for name in metrics["metric"].unique() if name not in (*MAIN_METRICS, "ceiling")]
    splits = [judged, *(split for split in present if split != judged)]
    scores = {split: score_rows(runs, split) for split in splits}
    return environment.from_string(source).render(
        policy=_policy(source),
        title=_title(runs),
        answer=answer,
        facts=_facts(runs),
        results=[table for split in splits if (table := _score_table(scores[split], split, MAIN_METRICS)).rows],
        more=[table for split in splits if (table := _score_table(scores[split], split, others)).rows],
        notes=_notes(runs),
        paired=[] if paired is None else _paired_tables(paired),
        paired_pictures=[] if paired is None else _paired_pictures(paired),
        diagnostics=_diagnostics(runs),
        nulls=_nulls(runs, judged),
        pictures=_pictures(runs, metrics, judged),
        missing=_missing(runs),
        worst=_worst_profiles(runs, judged),
        genes=_genes(runs, judged),
        making=_making(runs),
        runs_table=_runs_table(runs),
        settings=_settings_table(runs),
    )


def _policy(source: str) -> str:
    """Content security policy: no request at all, and no script but our own."""

    def digest(tag: str) -> str:
        found = re.search(f"<{tag}>(.*?)</{tag}>", source, re.DOTALL)
        assert found is not None
        return "sha256-" + base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()

    return (
        f"default-src 'none'; img-src data:; style-src '{digest('style')}'; script-src '{digest('script')}'; "
        "base-uri 'none'; form-action 'none'"
    )


def number(value: float) -> str:
    """Four decimals, or three digits where these say too little; `–` where there is none."""
    if not np.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size < NOTHING:
        return "0.0000"
    return f"{value:.4f}" if size >= 0.001 else f"{value:.2e}"


def _number_cell(value: float, text: str | None = None) -> Cell:
    is_known = bool(np.isfinite(value))
    text = number(value) if text is None or not is_known else text
    return Cell(text, repr(float(value)) if is_known else "", "number")


def _count_cell(value: float) -> Cell:
    return _number_cell(value, f"{value:,.0f}")


def _range(low: float, high: float) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def arms_of(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by arm, in order of appearance."""
    arms: dict[str, list[Run]] = {}
    for run in runs:
        arms.setdefault(run.arm, []).append(run)
    return arms


def _judged_split(runs: list[Run]) -> str:
    return pl.shown_split({str(number): run.profiles for number, run in enumerate(runs)})


def _of_config(run: Run, *keys: str) -> Any:
    """A value of the nested config; None where it is not there."""
    found: Any = run.config
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _distinct(runs: Iterable[Run], *keys: str) -> list[str]:
    """Different values in the configs of runs, as text."""
    return list(dict.fromkeys(str(found) for run in runs if (found := _of_config(run, *keys)) is not None))


def _has_held_out(runs: list[Run]) -> bool:
    return any(bool((run.metrics["metric"] == HELD_OUT).any()) for run in runs)


def _title(runs: list[Run]) -> str:
    arms = list(arms_of(runs))
    data = ", ".join(_distinct(runs, "data", "source")) or "unknown data"
    return f"{len(arms)} arms compared on {data}" if len(arms) > 1 else f"{arms[0]} on {data}"


def _facts(runs: list[Run]) -> str:
    n_arms, n_seeds = len(arms_of(runs)), len({run.config.get("seed") for run in runs})
    said = [
        f"{n_arms} arm{'s' * (n_arms > 1)}, {n_seeds} seed{'s' * (n_seeds > 1)}, {len(runs)} run{'s' * (len(runs) > 1)}"
    ]
    sizes = {
        name: [run.split_sizes[name] for run in runs if name in run.split_sizes] for name in ("train", *SPLITS[::-1])
    }
    sizes = {name: found for name, found in sizes.items() if found}
    if sizes:
        said.append(
            ", ".join(f"{_range(min(found), max(found))} {name}" for name, found in sizes.items()) + " profiles"
        )
    genes = _distinct(runs, "network", "n_genes")
    if genes:
        said.append(f"{_range(min(map(int, genes)), max(map(int, genes)))} genes")
    return "; ".join(said)


def score_rows(runs: list[Run], split: str) -> list[Scores]:
    """Arms, then baselines, then the ceiling. A baseline that is the same beside several arms is one row."""
    arms = arms_of(runs)
    rows = [_scores(arm, "arm", several, split, "model") for arm, several in arms.items()]
    merged: dict[tuple[str, str, str], tuple[Scores, list[str]]] = {}
    for arm, several in arms.items():
        for scores in _baselines(several, split):
            values = {metric: [f"{value:.9g}" for value in found] for metric, found in scores.means.items()}
            merged.setdefault((scores.kind, scores.title, repr(values)), (scores, []))[1].append(arm)
    titles: set[str] = set()
    found = []
    for scores, beside in merged.values():
        again = scores.title in titles
        titles.add(scores.title)
        title = f"{scores.title} (beside {', '.join(beside)})" if again else scores.title
        found.append(Scores(title, scores.kind, scores.means, scores.n_profiles, scores.n_runs))
    return [*rows, *sorted(found, key=lambda scores: scores.kind == "ceiling")]


def _baselines(runs: list[Run], split: str) -> list[Scores]:
    """Of one arm, from the strongest kind to the weakest; the ceiling last."""
    size = _of_config(runs[0], "settings", "n_latent")
    sized = "" if size is None else f", size {size}"
    names = {"shrunken_pca": f"shrunken PCA{sized}", "pca": f"PCA{sized}"}
    known = set(runs[0].metrics["model"])
    sizes = [name for name in dict.fromkeys(runs[0].metrics["model"]) if re.fullmatch(r"pca_\d+", name)]
    names |= {
        name: f"PCA, size {name.removeprefix('pca_')}"
        for name in sorted(sizes, key=lambda name: -int(name.removeprefix("pca_")))
        if name != f"pca_{size}"
    }
    names |= {"mean_profile": "mean profile"}
    names |= {name: title for name, title in JUDGED_TITLES.items() if name not in ("model", *names)}
    names |= {name: name for name in dict.fromkeys(runs[0].metrics["model"]) if name not in (*names, "model", *sizes)}
    found = [_scores(title, "baseline", runs, split, name) for name, title in names.items() if name in known]
    ceiling = _scores("noise ceiling", "ceiling", runs, split, "model", "ceiling")
    return [scores for scores in [*found, ceiling] if scores.means]


def _scores(title: str, kind: str, runs: list[Run], split: str, model: str, metric: str | None = None) -> Scores:
    means: dict[str, list[float]] = {}
    sizes: dict[str, list[int]] = {}
    for run in runs:
        table = run.metrics
        rows = table[(table["split"] == split) & (table["model"] == model) & (table["statistic"] == "mean")]
        rows = rows[rows["metric"] == metric] if metric is not None else rows[rows["metric"] != "ceiling"]
        for name, value, size in zip(rows["metric"], rows["value"], rows["n_profiles"], strict=True):
            name = HELD_OUT if name == "ceiling" else str(name)
            means.setdefault(name, []).append(float(value))
            sizes.setdefault(name, []).append(int(size))
    return Scores(title, kind, means, sizes, len(runs))


def _score_table(rows: list[Scores], split: str, metrics: Sequence[str]) -> Table:
    """Mean over profiles and seeds ± deviation over seeds; how many these are in the caption, or where they differ."""
    shown = [metric for metric in metrics if any(metric in scores.means for scores in rows)]
    rows = [scores for scores in rows if any(metric in scores.means for metric in shown)]
    sizes = {metric: [size for scores in rows for size in scores.n_profiles.get(metric, [])] for metric in shown}
    by_metric = {metric: _range(min(found), max(found)) for metric, found in sizes.items()}
    is_one_size, seeds = len(set(by_metric.values())) == 1, sorted({scores.n_runs for scores in rows})
    headers = ["model"]
    for metric in shown:
        headers.append(_metric_header(metric) + ("" if is_one_size else f" of {by_metric[metric]} profiles"))
    if len(seeds) > 1:
        headers.append("seeds")
    cells = []
    for scores in rows:
        row = [Cell(scores.title, kind=scores.kind), *(_mean_cell(scores.means.get(metric, [])) for metric in shown)]
        cells.append([*row, _count_cell(scores.n_runs)] if len(seeds) > 1 else row)
    n_profiles = f"{by_metric[shown[0]]} " if is_one_size else ""
    of_seeds = f"{seeds[0]} seed{'s' * (seeds[0] > 1)}" if len(seeds) == 1 else "seeds"
    spread = " ± standard deviation over seeds" if any(size > 1 for size in seeds) else ""
    title = f"{split.capitalize()}: means over {n_profiles}{split} profiles and {of_seeds}{spread}"
    return Table(title, tuple(headers), cells)


def _metric_header(metric: str) -> str:
    title = pl.title_of(metric)
    if metric in pl.NEITHER_IS_BETTER:
        return title
    arrow = "↓" if metric in pl.LOWER_IS_BETTER else "↑"
    return f"{title}\N{NO-BREAK SPACE}{arrow}"


def _mean_cell(values: list[float]) -> Cell:
    known = np.array([value for value in values if np.isfinite(value)])
    if not len(known):
        return _number_cell(float("nan"))
    mean = float(known.mean()) if len(known) > 1 else float(known[0])
    if len(known) == 1:
        return _number_cell(mean)
    spread = float(known.std(ddof=1))
    is_small = NOTHING < abs(mean) < 0.001  # four decimals say too little
    return _number_cell(mean, f"{number(mean)} ± {f'{spread:.2e}' if is_small else f'{spread:.4f}'}")


def _notes(runs: list[Run]) -> list[str]:
    """What a reader of the table has to know."""
    said = []
    if any("knn_20" in run.profiles for run in runs):
        said.append(
            "k-NN accuracy: the training profiles whose latents are nearest by cosine vote for the label of a profile. "
            "Linear probe: logistic regression on the latents of training profiles. ARI and NMI: how far Leiden "
            "clusters of the latents agree with the labels. Labels took no part in training, except in that of the "
            "supervised encoder, which is the ceiling."
        )
    if any(run.is_encoder for run in runs):
        said.append(
            "An encoder that learns by agreement of views reconstructs nothing: it has no cosine with a profile and no "
            "squared error. Its last epoch is taken, as labels choose nothing."
        )
    if all(run.is_encoder for run in runs):
        return said
    if _has_held_out(runs):
        said.append(
            "Cosine compares a profile with its own reconstruction, so that copying the noise of a profile raises it. "
            "Held-out cosine compares the reconstruction of a random half of a profile's molecules with the other "
            "half: noise cannot be copied, and the noise ceiling is what a perfect reconstruction would reach."
        )
        said.append(
            "The ceiling takes noise for Poisson, as that of molecules counted one by one is; other technical noise, "
            "which the two halves share, makes it too high."
        )
        said.append(
            "Skill is the held-out cosine on a scale where the mean profile is 0 and the noise ceiling 1. The "
            "disattenuated cosine, among the other metrics, is the held-out cosine divided by the ceiling: an estimate "
            "of the cosine with the noise-free profile (Spearman 1904)."
        )
    else:
        said.append(
            "Cosine compares a profile with its own reconstruction, so that copying the noise of a profile raises it. "
            "Without counts, its molecules cannot be divided into halves: there is no held-out cosine, which would not "
            "reward that, no noise ceiling, and no shrunken PCA."
        )
    said.append("Centred cosine is taken after the gene means are subtracted: the mean profile is at 0.")
    said.append(
        "PCA and shrunken PCA are fitted to the training profiles. Validation profiles choose the epoch; test profiles "
        "choose nothing."
    )
    free = [arm for arm, several in arms_of(runs).items() if _is_scale_free(several[0])]
    if free:
        said.append(
            f"The loss of {', '.join(free)} does not see the length of a reconstruction, so that its raw MSE says "
            "nothing about the loss and is not to be compared with others. Rescaled MSE is taken after all "
            "reconstructions of a model were multiplied by the one factor that suits the validation profiles best."
        )
    centred = [
        f"{arm} ({center})"
        for arm, several in arms_of(runs).items()
        if (center := _of_config(several[0], "center")) not in (None, "none")
    ]
    if centred:
        said.append(
            f"Rescaled MSE is taken after the centring of the loss: {', '.join(centred)} has one of its own, and is to "
            "be compared with the baselines beside it."
        )
    if len(runs) == len(arms_of(runs)):
        said.append("One seed says nothing about the spread between seeds.")
    return said


def _is_scale_free(run: Run) -> bool:
    name = str(_of_config(run, "settings", "loss"))
    name = ALIASES.get(name, name)
    return name in LOSSES and LOSSES[name].is_scale_free


def _missing(runs: list[Run]) -> list[str]:
    """What a reader would look for in vain."""
    said = []
    if _judged_split(runs) != "test":
        said.append("No test profiles were set aside: the numbers are of validation profiles, which chose the epoch.")
    if not any("label" in run.profiles or run.umap is not None for run in runs):
        said.append(
            "The runs carry no labels: --color KEY, with a column of obs such as the cell type, adds a UMAP and, "
            "between arms, differences by label."
        )
    return said


def _signed(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:+.5f}" if round(value, 5) else "0.00000"


def _paired_tables(paired: pd.DataFrame) -> list[Table]:
    """Paired differences in the metrics that count, and in the others."""
    counts = paired["metric"].isin(PAIRED_METRICS)
    return [_paired_table(table) for table in (paired[counts], paired[~counts]) if len(table)]


def _paired_table(paired: pd.DataFrame) -> Table:
    """A row for each metric and arm."""
    order = [*PAIRED_METRICS, *(str(metric) for metric in paired["metric"].unique() if metric not in PAIRED_METRICS)]
    rows = []
    for row in sorted(paired.to_dict("records"), key=lambda row: order.index(str(row["metric"]))):
        difference, low, high, p = (float(row[name]) for name in ("difference", "low", "high", "p_holm"))
        verdict = str(row["verdict"])
        rows.append(
            [
                Cell(str(row["arm"])),
                Cell(_metric_header(str(row["metric"]))),
                _number_cell(difference, _signed(difference)),
                Cell(f"{_signed(low)} to {_signed(high)}", repr(low) if np.isfinite(low) else "", "number"),
                _number_cell(p, "< 0.0001" if p < 1e-4 else f"{p:.4f}"),
                Cell(verdict, kind=verdict if verdict in ("better", "worse") else ""),
                _count_cell(row["n_profiles"]),
                _count_cell(row["n_seeds"]),
            ]
        )
    reference = ", ".join(dict.fromkeys(map(str, paired["reference"])))
    split = ", ".join(dict.fromkeys(map(str, paired["split"])))
    headers = ("arm", "metric", "difference", "95 % interval", "p (Holm)", "verdict", "profiles", "seeds")
    return Table(
        f"Difference of each arm to {reference}, {split} profiles",
        headers,
        rows,
        "Differences are taken profile by profile and seed by seed; the interval holds for other profiles and other "
        "seeds alike. p values are corrected for the number of comparisons in all metrics (Holm 1979); the "
        "verdict follows from them.",
    )


def _canvas(size: tuple[float, float], shape: tuple[int, int] = (1, 1)) -> list[Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = [figure.add_subplot(*shape, place + 1) for place in range(shape[0] * shape[1])]
    for spine in [spine for ax in axes for spine in ax.spines.values()]:
        spine.set_in_layout(False)  # they lie within the axes, and to ask each for its size takes half of the time
    return axes


def _panels(n_panels: int, n_names: int = 1) -> list[Axes]:
    return _canvas(pl.panels_size(n_panels, n_names), pl.panels_shape(n_panels))


def _picture(title: str, caption: str, alternative: str, draw: Callable[[], Axes | Sequence[Axes]]) -> Picture:
    """Draw and embed: as SVG, or as PNG where there are many dots. The user's settings of matplotlib play no part."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "geneae", "font.size": 10})
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # browsers find other fonts; a PNG shows a box
        drawn = draw()
        figure = (drawn if isinstance(drawn, Axes) else drawn[0]).figure
        assert isinstance(figure, Figure)
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")  # else it is drawn once more, only to be laid out
        kind = "png" if _n_dots(figure) > MOST_VECTOR_DOTS else "svg"
        file = io.BytesIO()
        without = {"Date": None, "Creator": None, "Format": None, "Type": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, dpi=DPI, metadata=without)
    width, height = figure.get_size_inches()
    content = file.getvalue() if kind == "svg" else _few_colors(file)
    media = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    source = f"data:{media};base64,{base64.b64encode(content).decode()}"
    return Picture(title, caption, alternative, source, round(width * CSS_DPI), round(height * CSS_DPI))


def _few_colors(file: io.BytesIO) -> bytes:
    """A PNG in 255 colours, a third of the size: what 20 arms with 5,000 dots each need to stay below 3 MB."""
    smaller = io.BytesIO()
    with Image.open(file) as image:
        image.convert("RGB").quantize(255).save(smaller, "png", optimize=True)
    return smaller.getvalue()


def _n_dots(figure: Figure) -> int:
    dots = [artist for ax in figure.axes for artist in ax.collections if isinstance(artist, PathCollection)]
    return sum(len(np.asarray(artist.get_offsets())) for artist in dots)


def _paired_pictures(paired: pd.DataFrame) -> list[Picture]:
    found = []
    split = pl.shown_split({"": paired})
    for metric in (metric for metric in PAIRED_METRICS if metric != "mse"):
        rows = paired[(paired["metric"] == metric) & (paired["split"] == split)]
        if rows.empty:
            continue
        said = "; ".join(
            f"{row['arm']} {_signed(row['difference'])} ({_signed(row['low'])} to {_signed(row['high'])}), "
            f"{row['verdict']}"
            for row in rows.to_dict("records")
        )
        title = f"Difference in {pl.title_of(metric)} to {rows['reference'].iloc[0]}"

        def draw(metric: str = metric, size: tuple[float, float] = pl.rows_size(len(rows))) -> Axes:
            return pl.paired_differences(paired, _canvas(size)[0], metric=metric, split=split)

        found.append(_picture(title, "Mean over profiles and seeds with its 95 % interval.", f"{title}: {said}.", draw))
    return found


def _pictures(runs: list[Run], metrics: pd.DataFrame, split: str) -> list[Picture]:
    """The figures whose numbers are there."""
    by_views = arms_of(run for run in runs if "view_cosine" in run.history)
    found = []
    if by_views:
        found.append(_encoder_picture({arm: [run.history for run in several] for arm, several in by_views.items()}))
    runs = [run for run in runs if not run.is_encoder]
    arms = arms_of(runs)
    profiles = {arm: pd.concat([run.profiles for run in several]) for arm, several in arms.items()}
    histories = {arm: [run.history for run in several] for arm, several in arms.items()}
    if runs:
        found += [
            _distribution_picture(profiles, metrics, split),
            _against_mse_picture(profiles, split),
            _parts_picture(profiles, metrics, split),
            _curves_picture(histories),
            _norm_picture(histories),
        ]
    is_one_key = len(_distinct(runs, "color")) < 2  # values of different columns cannot stand in one legend
    if len(arms) > 1 and is_one_key and all("label" in table for table in profiles.values()):
        found.append(_labels_picture(profiles, split, _label_name(runs)))
    genes = _genes_by_arm(runs)
    if genes:
        found.append(_genes_picture(genes, split))
    umaps = {arm: run.umap for arm, several in arms.items() for run in several[::-1] if run.umap is not None}
    if umaps and is_one_key:
        found.append(_umap_picture(umaps, _label_name(runs)))
    return found


def _label_name(runs: list[Run]) -> str:
    return ", ".join(_distinct(runs, "color")) or "label"


def _distribution_picture(profiles: dict[str, pd.DataFrame], metrics: pd.DataFrame, split: str) -> Picture:
    metric = pl.main_metric(profiles)
    said = []
    for arm, table in profiles.items():
        values = pl.by_profile(table, split)[metric].dropna()
        if len(values):
            low, median, high = values.quantile([0.05, 0.5, 0.95])
            said.append(f"{arm}: mean {values.mean():.4f}, median {median:.4f} ({low:.4f} to {high:.4f})")
    titles = pl.BASELINES | {"ceiling": "noise ceiling"}
    lines = [
        f"{titles[name]} {np.nanmean(values):.4f}"
        for name, values in pl.baseline_values(metrics, list(profiles), split, metric).items()
    ]
    return _picture(
        f"Distribution of the {pl.title_of(metric)}",
        f"{split.capitalize()} profiles, mean over seeds. The bar goes from the 5th to the 95th percentile; the dot is "
        "the median, the white diamond the mean. Lines are means of the baselines, to be compared with the diamond.",
        f"{pl.title_of(metric)} with 5th to 95th percentile. {'; '.join(said)}. Lines: {', '.join(lines) or 'none'}.",
        lambda: pl.cosine_distribution(profiles, metrics, _canvas(pl.rows_size(len(profiles)))[0], split=split),
    )


def _against_mse_picture(profiles: dict[str, pd.DataFrame], split: str) -> Picture:
    tables = {arm: pl.by_profile(table, split) for arm, table in profiles.items()}
    said = [
        f"{arm}: {len(table):,} profiles, rank correlation of cosine and MSE {_rank_correlation(table):.2f}"
        for arm, table in tables.items()
    ]
    coloured = all("molecules" in table for table in tables.values())
    caption = "Each dot is a profile; cosine and MSE are those of its own reconstruction."
    if coloured:
        caption += " Colour is the number of molecules: profiles of few molecules are noisier, and reach less."
    return _picture(
        "Cosine against MSE",
        caption,
        f"Cosine against MSE, a dot for each of the {split} profiles. {'; '.join(said)}.",
        lambda: pl.cosine_against_mse(profiles, _panels(len(profiles)), split=split),
    )


def _rank_correlation(table: pd.DataFrame) -> float:
    """Spearman; NaN where one of the two does not vary."""
    ranks = table[["mse", "cosine"]].dropna().rank()
    if len(ranks) < 2 or (ranks.std() == 0).any():
        return float("nan")
    return float(np.corrcoef(ranks["mse"], ranks["cosine"])[0, 1])


def _parts_picture(profiles: dict[str, pd.DataFrame], metrics: pd.DataFrame, split: str) -> Picture:
    said = []
    for arm, table in profiles.items():
        means = pl.by_profile(table, split)[["direction_error", "magnitude_error"]].mean()
        direction, magnitude = (number(float(value)) for value in means)
        said.append(f"{arm}: direction {direction}, magnitude {magnitude}")
    n_baselines = len(pl.baseline_values(metrics, list(profiles)[:1], split, "direction_error"))
    size = pl.rows_size(len(profiles) + n_baselines)
    return _picture(
        "Parts of the error",
        "MSE is the sum of two parts: reconstructions that point in another direction, and reconstructions that are "
        "too long or too short. A cosine loss sees the first part only."
        + (" Baselines are those beside the first arm." if n_baselines and len(profiles) > 1 else ""),
        f"Mean over {split} profiles of the two parts of the MSE. {'; '.join(said)}.",
        lambda: pl.error_parts(profiles, metrics, _canvas(size)[0], split=split),
    )


def _curve_ends(histories: dict[str, list[pd.DataFrame]], column: str) -> str:
    said = []
    for arm, several in histories.items():
        curve = pl.mean_curve(several, column)
        said.append(
            f"{arm} from {number(float(curve.iloc[0]))} to {number(float(curve.iloc[-1]))} at epoch {curve.index[-1]}"
        )
    return "; ".join(said)


def _curves_picture(histories: dict[str, list[pd.DataFrame]]) -> Picture:
    return _picture(
        "Training curves",
        "What training saw of the validation profiles, epoch by epoch; epoch 0 is the start. With count splits these "
        "are numbers of halves against halves. Thick lines are means over seeds, thin lines single seeds.",
        f"Validation cosine by epoch: {_curve_ends(histories, 'validation_cosine')}. "
        f"Validation MSE: {_curve_ends(histories, 'validation_mse')}.",
        lambda: pl.training_curves(histories, _panels(2, len(histories))),
    )


def _encoder_picture(histories: dict[str, list[pd.DataFrame]]) -> Picture:
    has_labels = all("validation_knn_20" in history for several in histories.values() for history in several)
    said = [f"Cosine of views: {_curve_ends(histories, 'view_cosine')}"]
    if has_labels:
        said.append(f"20-NN accuracy: {_curve_ends(histories, 'validation_knn_20')}")
    return _picture(
        "Agreement of views",
        "Validation profiles, epoch by epoch; epoch 0 is the start. Views of a profile that point in opposite "
        "directions are many at the start of some methods and should be few at the end. Thick lines are means.",
        f"{'. '.join(said)}.",
        lambda: pl.encoder_curves(histories, _panels(2 + has_labels, len(histories))),
    )


def _norm_picture(histories: dict[str, list[pd.DataFrame]]) -> Picture:
    return _picture(
        "Norm of the reconstruction",
        "Median over validation profiles of the length of the reconstruction over that of its target. The MSE is least "
        "where this ratio equals the cosine; a cosine loss leaves it free.",
        f"Norm ratio by epoch: {_curve_ends(histories, 'norm_ratio')}.",
        lambda: pl.norm_by_epoch(histories, _panels(1, len(histories))[0]),
    )


def _labels_picture(profiles: dict[str, pd.DataFrame], split: str, name: str) -> Picture:
    metric, reference = pl.main_metric(profiles), next(iter(profiles))
    table = pl.label_differences(profiles, metric, split)
    size = pl.label_size(table["label"].nunique(), len(profiles) - 1)
    said = [
        f"{row['label']}, {row['arm']}: {_signed(row['difference'])} ({_signed(row['low'])} to {_signed(row['high'])})"
        for row in table.head(40).to_dict("records")
    ]
    return _picture(
        f"Difference to {reference} by {name}",
        f"Mean difference in {pl.title_of(metric)} over the {split} profiles of each {name}, with its 95 % interval "
        "over profiles; number of profiles in brackets. Intervals are not corrected for their number."
        + (f" The {pl.MOST_LABELS} most frequent are shown." if table["label"].nunique() > pl.MOST_LABELS else ""),
        f"Difference in {pl.title_of(metric)} to {reference}. {'; '.join(said)}.",
        lambda: pl.difference_by_label(profiles, _canvas(size)[0], split=split),
    )


def _genes_by_arm(runs: list[Run]) -> dict[str, pd.DataFrame]:
    tables = {
        arm: [run.genewise for run in several if run.genewise is not None] for arm, several in arms_of(runs).items()
    }
    return {arm: pd.concat(several) for arm, several in tables.items() if several}


def _genes_picture(genes: dict[str, pd.DataFrame], split: str) -> Picture:
    said = []
    for arm, table in genes.items():
        found = pl.by_gene(table)["correlation"].dropna()
        said.append(f"{arm}: median {found.median():.4f} over {len(found):,} genes")
    return _picture(
        "Correlation by gene",
        f"Pearson correlation over {split} profiles between a gene and its reconstruction, against the mean expression "
        "of the gene. Lines are medians of equally many genes. Rare genes are nearly all noise.",
        f"Correlation of genes with their reconstruction. {'; '.join(said)}.",
        lambda: pl.gene_correlation(genes, _panels(1, len(genes))[0]),
    )


def _umap_picture(tables: dict[str, pd.DataFrame], name: str) -> Picture:
    said = [f"{arm}: {len(table):,} profiles, {table['label'].nunique():,} labels" for arm, table in tables.items()]
    return _picture(
        f"UMAP of the latents by {name}",
        "Of the first seed of each arm. Distances between groups mean little in a UMAP.",
        f"UMAP of the latents coloured by {name}. {'; '.join(said)}.",
        lambda: pl.umap(tables, _panels(len(tables)), title=name),
    )


def _diagnostics(runs: list[Run]) -> tuple[list[tuple[str, str]], Table] | None:
    """What fires, as message and the arms that it is said of; and a table of all diagnostics."""
    tables = [run.diagnostics.assign(arm=run.arm) for run in runs if run.diagnostics is not None]
    if not tables:
        return None
    said: dict[str, list[str]] = {}
    rows = []
    for (arm, name), found in pd.concat(tables).groupby(["arm", "name"], sort=False):
        fires = found["fires"] == "True"
        often = f"in {fires.sum()} of {len(found)} runs" if len(runs) > 1 else "yes"
        if fires.any():
            message = str(found.loc[fires, "message"].iloc[0])
            said.setdefault(message, []).append(f"{arm} ({often})" if len(runs) > 1 else str(arm))
        shown = (str(name).replace("_", " "), str(found["limit"].iloc[0]), often if fires.any() else "no")
        rows.append([Cell(str(arm)), Cell(shown[0]), _mean_cell(list(found["value"])), *map(Cell, shown[1:])])
    spread = ": means ± standard deviation over seeds" if len(runs) > len(arms_of(runs)) else ""
    table = Table(f"All diagnostics{spread}", ("arm", "diagnostic", "value", "should be", "fires"), rows)
    return [(message, ", ".join(arms)) for message, arms in said.items()], table


def _nulls(runs: list[Run], split: str) -> Table | None:
    """Every fit with nulls beside them."""
    rows: list[list[Cell]] = []
    headers: list[str] = []
    for run in runs:
        table = pd.DataFrame() if run.diagnostics is None else null_table(run.metrics, run.diagnostics, split)
        headers = headers or [_metric_header(str(name)) for name in table.columns]
        for title, *numbers in table.itertuples():
            name = title if len(runs) == 1 else f"{run.name}, {title}"
            rows.append([Cell(name, kind="" if title in NULLS.values() else "arm"), *map(_number_cell, numbers)])
    if not rows:
        return None
    return Table(
        f"The same training where there is nothing to learn: means over {split} profiles",
        ("fit", *headers),
        rows,
        "Genes permuted: each profile keeps its values at random genes, so that profiles share nothing but their "
        "depth. Targets permuted: each profile is to predict another one. A gain over the mean profile that is left "
        "there needs no signal; a fit that gains no more has learned nothing.",
    )


def _worst_profiles(runs: list[Run], split: str) -> Table | None:
    """The twenty profiles of least cosine, mean over arms and seeds; None where nothing is reconstructed."""
    arms = arms_of(run for run in runs if not run.is_encoder)
    if not arms:
        return None
    profiles = {
        arm: pl.by_profile(pd.concat([run.profiles for run in several]), split) for arm, several in arms.items()
    }
    metric = pl.main_metric({arm: table.reset_index() for arm, table in profiles.items()})
    values = pd.DataFrame({arm: table[metric] for arm, table in profiles.items()})
    order = values.mean(axis=1).dropna().sort_values(kind="stable").index[:N_WORST]
    first = next(iter(profiles.values())).reindex(order)
    extra = [name for name in ("label", "molecules") if name in first]
    rows = []
    for name in order:
        row = [Cell(str(name))]
        if "label" in extra:
            row.append(Cell(str(first.loc[name, "label"])))
        if "molecules" in extra:
            row.append(_count_cell(float(first["molecules"][name])))
        rows.append([*row, *(_number_cell(float(values[arm][name])) for arm in arms)])
    headers = {"label": _label_name(runs), "molecules": "molecules"}
    columns = list(arms) if len(arms) > 1 else [_metric_header(metric)]
    mean = "mean over arms and seeds" if len(runs) > 1 else "this run"
    return Table(
        f"The {len(rows)} {split} profiles of lowest {pl.title_of(metric)} ({mean})",
        ("profile", *(headers[name] for name in extra), *columns),
        rows,
    )


def _genes(runs: list[Run], split: str) -> Table | None:
    """The genes of highest and of lowest correlation among the better expressed half."""
    genes = {arm: pl.by_gene(table) for arm, table in _genes_by_arm(runs).items()}
    if not genes:
        return None
    values = pd.DataFrame({arm: table["correlation"] for arm, table in genes.items()})
    means = pd.DataFrame({arm: table["mean"] for arm, table in genes.items()}).mean(axis=1)
    order = values.mean(axis=1)[means >= means.median()].dropna().sort_values(ascending=False, kind="stable").index
    named = order if len(order) <= 2 * N_GENES else order[:N_GENES].append(order[-N_GENES:])
    rows = [
        [Cell(str(gene)), _number_cell(float(means[gene])), *(_number_cell(float(values[arm][gene])) for arm in genes)]
        for gene in named
    ]
    columns = list(genes) if len(genes) > 1 else ["correlation ↑"]
    return Table(
        f"Genes of highest and of lowest correlation with their reconstruction, {split} profiles",
        ("gene", "mean expression", *columns),
        rows,
        "Among the half of the genes that is expressed more, as rare genes are nearly all noise.",
    )


def _making(runs: list[Run]) -> list[tuple[str, list[str]]]:
    """How the runs were made: what they have in common, and where they differ all of it."""
    seconds = [float(found) for run in runs if (found := _of_config(run, "seconds")) is not None]
    memory = [float(found) for run in runs if (found := _of_config(run, "peak_memory_mb")) is not None]
    versions = {name: None for run in runs for name in (_of_config(run, "versions") or {})}
    sizes = {name: None for run in runs for name in run.split_sizes}
    of_split = [
        f"{name} {_range(min(found), max(found))}"
        for name in sizes
        if (found := [run.split_sizes.get(name, 0) for run in runs])
    ]
    facts = [
        ("Command", _distinct(runs, "command")),
        ("Data", _distinct(runs, "data", "source")),
        ("Matrix", _distinct(runs, "data", "location")),
        ("Fingerprint of the data", _distinct(runs, "data", "fingerprint")),
        ("Profiles and genes in the data", [
            f"{n_profiles} x {n_genes}"
            for n_profiles, n_genes in zip(
                _distinct(runs, "data", "n_profiles"), _distinct(runs, "data", "n_genes"), strict=False
            )
        ]),
        ("Space", _distinct(runs, "space")),
        ("Profiles by split", [", ".join(of_split)] if of_split else []),
        ("Seed", [", ".join(_distinct(runs, "seed"))]),
        ("Seed of the split", [", ".join(_distinct(runs, "split_seed"))]),
        ("Time", [f"{sum(seconds):,.1f} seconds in all runs together"] if seconds else []),
        ("Peak memory", [f"{max(memory):,.0f} MB in the largest run"] if memory else []),
        ("Versions", [", ".join(f"{name} {' or '.join(_distinct(runs, 'versions', name))}" for name in versions)]),
    ]  # fmt: skip
    return [(title, lines) for title, lines in facts if any(lines)]


def _runs_table(runs: list[Run]) -> Table:
    rows = []
    for run in runs:
        row = [Cell(run.name), Cell(run.arm)]
        for key in ("seed", "best_epoch", "epochs_run", "seconds", "peak_memory_mb"):
            found = _of_config(run, key)
            value = float("nan") if found is None else float(found)
            row.append(_number_cell(value, f"{value:,.1f}" if key == "seconds" else f"{value:,.0f}"))
        rows.append(row)
    headers = ("run", "arm", "seed", "best epoch", "epochs run", "seconds", "peak memory, MB")
    return Table("Runs", headers, rows, "A best epoch of 0 means that no epoch was better than the start.")


def _settings_table(runs: list[Run]) -> Table:
    names = {str(name): None for run in runs for name in (_of_config(run, "settings") or {})}
    rows = [[Cell(name), Cell(", ".join(_distinct(runs, "settings", name)) or "none")] for name in names]
    return Table("Settings", ("setting", "value"), rows)
