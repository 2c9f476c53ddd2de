"""Report of run folders: one HTML file that needs no other files and shows the contents of their tables."""

import base64
import hashlib
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from geneae.evaluation.steps import GAIN, GAIN_ERROR
from geneae.evaluation.table import MAIN_METRICS
from geneae.folders.run import Run
from geneae.report.across_runs import REPORTED, by_configuration, directions, main_split, name_alone, repeat_of
from geneae.report.cells import hyphenated
from geneae.report.differences import paired_pictures
from geneae.report.making import making_of, runs_table, settings_table
from geneae.report.notes import facts_of, heard_of, missing_from, notes_of, title_of_report
from geneae.report.pictures import pictures_of
from geneae.report.scale import scale_of
from geneae.report.scores import first_columns, in_parts, score_rows, score_table
from geneae.report.tables import OF_GENES, diagnostics_of, genes_of, nulls_of, paired_tables, worst_profiles
from geneae.settings.text import escaped, sentences_of

AT_A_GLANCE = 1  # sentences of the answer in large print


def write_report(path: Path, runs: list[Run], answer: str, paired: pd.DataFrame | None = None) -> None:
    """Write the report of one run or of many.

    Parameters
    ----------
    path
        The HTML file to write.
    runs
        At least one. Runs of one configuration differ only in their seeds; the first configuration is the reference.
    answer
        Sentences at the top of the report; empty for none.
    paired
        `paired.csv` of a comparison, if the runs were compared.
    """
    path.write_text(render_report(runs, answer, paired), encoding="utf-8")


def render_report(runs: list[Run], answer: str, paired: pd.DataFrame | None = None) -> str:
    """HTML of the report; parameters as in `write_report`."""
    source = files("geneae.report").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, finalize=_safe, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["hyphenated"] = hyphenated
    paired = None if paired is None or paired.empty else paired  # nothing tells latents alone, without a label, apart
    judged = main_split(runs)
    present = [split for split in REPORTED if any((run.metrics["split"] == split).any() for run in runs)]
    metrics = pd.concat([run.named(run.metrics) for run in runs], ignore_index=True)
    elsewhere = (*MAIN_METRICS, "ceiling", GAIN, GAIN_ERROR)  # gains of steps have a figure
    others = [str(name) for name in metrics["metric"].unique() if name not in elsewhere]
    splits = [judged, *(split for split in present if split != judged)]
    better, repeat = directions(runs), repeat_of(runs)
    scores = {split: score_rows(runs, split) for split in splits}
    first = first_columns(scores[judged], MAIN_METRICS)
    shown = {name for part in first for name in part}
    there = {name for row in scores[judged] for name in row.means}
    left = [name for name in (*MAIN_METRICS, *others) if name in there - shown]
    more = [(judged, part) for part in in_parts(left)]
    for split in splits[1:]:
        more += [(split, part) for part in (*first_columns(scores[split], MAIN_METRICS), *in_parts(others))]
    diagnostics, genes, worst = diagnostics_of(runs), genes_of(runs, judged), worst_profiles(runs, judged)
    pictures = pictures_of(*_called_model(runs, metrics), judged)
    headings = {
        "differences": "Differences" if paired is not None else "",
        "results": "Results",
        "diagnostics": "Diagnostics" if diagnostics else "",
        "figures": "Figures" if pictures else "",
        "profiles": "Worst profiles" if worst else "",
        "genes": "Genes" if genes else "",
        "making": "How it was made",
    }
    return environment.from_string(source).render(
        policy=_policy(source),
        title=title_of_report(runs),
        sections=[(name, heading) for name, heading in headings.items() if heading],
        answer=_in_two(answer),
        scale=scale_of(runs, judged),
        warnings=_warnings(runs, diagnostics[0]) if diagnostics else [],
        facts=facts_of(runs),
        heard=heard_of(runs),
        results=[score_table(scores[judged], judged, part, better, repeat) for part in first],
        more=[
            table
            for split, names in more
            for table in [score_table(scores[split], split, names, better, repeat)]
            if table.rows
        ],
        notes=notes_of(runs),
        compared="programs" if repeat == "division" else "configurations",
        paired=[] if paired is None else paired_tables(paired, repeat),
        paired_pictures=[] if paired is None else paired_pictures(paired, metrics, repeat),
        diagnostics=diagnostics,
        nulls=nulls_of(runs, judged),
        pictures=pictures,
        missing=missing_from(runs),
        worst=worst,
        genes=genes,
        of_genes=OF_GENES,
        making=making_of(runs),
        runs_table=runs_table(runs),
        settings=settings_table(runs),
    )


def _called_model(runs: list[Run], metrics: pd.DataFrame) -> tuple[list[Run], pd.DataFrame]:
    """Runs of a single configuration under the name that it has in the tables, and their metrics likewise."""
    if len(by_configuration(runs)) > 1:
        return runs, metrics
    name = name_alone(runs[0])
    return [replace(run, configuration=name) for run in runs], metrics.assign(arm=name)


def _warnings(runs: list[Run], fired: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What fires, each with its configurations; without them where there is only one run."""
    return [(message, arms if len(runs) > 1 else "") for message, arms in fired]


def _safe(shown: Any) -> Any:
    """Text of the page without control characters; what the template has made itself as it is."""
    return escaped(shown) if type(shown) is str else shown


def _in_two(answer: str) -> list[str]:
    """The first sentences of an answer, to be read at a glance, and the others, if there are any."""
    sentences = sentences_of(answer) if answer else []
    parts = sentences[:AT_A_GLANCE], sentences[AT_A_GLANCE:]
    return [" ".join(part) for part in parts if part]


def _policy(source: str) -> str:
    """Content security policy that allows no requests and no scripts except our own."""

    def digest(tag: str) -> str:
        found = re.search(f"<{tag}>(.*?)</{tag}>", source, re.DOTALL)
        assert found is not None
        return "sha256-" + base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()

    return (
        f"default-src 'none'; img-src data:; style-src '{digest('style')}'; script-src '{digest('script')}'; "
        "base-uri 'none'; form-action 'none'"
    )
