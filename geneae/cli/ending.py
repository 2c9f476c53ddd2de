"""The last lines of a fit: three numbers, one sentence, the report, the latents, and what to do next."""

from pathlib import Path
from typing import TYPE_CHECKING

from geneae.settings.text import counted, sentences_of, shell_line

if TYPE_CHECKING:
    import pandas as pd

    from geneae.fitting.fit import Fitted

MOST_COLORS = 20  # values of a column that a figure tells apart


def ending(fitted: "Fitted", folder: Path, obs: "pd.DataFrame") -> list[str]:
    """At most five lines; everything else stands in the report.

    Parameters
    ----------
    fitted
        The fit.
    folder
        Where it was written.
    obs
        Annotation of the profiles: one of its columns may colour the report.
    """
    from geneae.evaluation.headline import main_numbers
    from geneae.evaluation.records import judged_split
    from geneae.evaluation.views import start_sentence
    from geneae.folders.manifest import LATENTS_FILE, REPORT

    numbers = main_numbers(fitted.evaluation, judged_split(fitted.split))
    said, is_of_start = sentences_of(fitted.conclusion), bool(start_sentence(fitted.model.config))
    sentence = " ".join(said[: 2 if is_of_start and not numbers else 1])  # what latents of the start are worth, too
    n_warnings = int(fitted.diagnostics["fires"].sum())
    warned = f", with {counted(n_warnings, 'warning')} at its top" if n_warnings else ""
    report, latents = f"Report: {folder / REPORT}{warned}", folder / LATENTS_FILE
    written = f"Latents: {latents}, for scanpy" if latents.is_file() else ""
    return [line for line in (numbers, sentence, report, written, _next(fitted, folder, obs)) if line]


def _next(fitted: "Fitted", folder: Path, obs: "pd.DataFrame") -> str:
    """What can be done now: the report in the colours of a column, if there is one and none was given; else the UMAP in
    scanpy; else, if none was written, the latents of other profiles.
    """
    from geneae.folders.latents import ADDED, UMAP, color_of_umap
    from geneae.folders.manifest import LATENTS_FILE

    latents, color = folder / LATENTS_FILE, fitted.model.config["color"]
    word = f"./{folder}" if str(folder).startswith("-") else str(folder)  # no option
    columns = (str(name) for name in obs.columns if name not in ADDED and 1 < obs[name].nunique() <= MOST_COLORS)
    column = next(columns, None)
    if column is not None and color is None and latents.is_file():
        return f"Next: {shell_line(['geneae', 'report', word, '--color', column])}"
    if latents.is_file() and (shown := color_of_umap(latents, color)):
        line = f"sc.pl.embedding(sc.read_h5ad({str(latents)!r}), {UMAP!r}, color={shown!r})"
        return f"Next, in Python: import scanpy as sc; {line}"
    line = shell_line(["geneae", "embed", word, "other.h5ad", "-o", "other_latents.h5ad"])
    return f"Next, for a file of other profiles, here other.h5ad: {line}"
