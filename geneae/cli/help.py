"""Help of the commands: the flags that matter first, and the rest under headings."""

from collections.abc import Mapping
from typing import Any

import click

FIRST = "Flags that matter first"
OTHERS = "Other flags"
HEADINGS: Mapping[str, tuple[str, ...]] = {
    FIRST: (
        *(
            "output",
            "losses",
            "loss",
            "n_latent",
            "latents",
            "seeds",
            "label",
            "color",
            "group",
            "n_top_genes",
            "resume",
        ),
        *("overwrite", "help"),
    ),
    "Data": (
        "layer",
        "use_raw",
        "gene_names",
        "modality",
        "state",
        "features",
        "scale",
        "stream",
        "min_overlap",
        "depth_ratio",
        "depth_by",
    ),
    "Split": ("validation", "test", "stratify", "split_seed"),
    "Loss": ("target", "center", "metric", "alpha", "beta", "gamma", "margin", "negatives", "temperature"),
    "Encoders that learn from views": ("objectives", "objective", "views", "positives", "agreement", "latent_norm"),
    "Network": ("hidden", "basis", "rank", "init", "dropout"),
    "Cut-initialisation": ("cuts", "cut", "cut_where", "cut_bias", "target_norm", "grad_scale"),
    "Training": (
        *("epochs", "patience", "batch_size", "balance", "optimizer", "rates", "learning_rate"),
        *("decays", "weight_decay", "n_splits", "seed"),
    ),
    "Evaluation": ("batch_key", "attainable", "null"),
    "Devices": ("device", "precision", "devices", "nodes", "jobs"),
    "Run": ("config", "log", "verbose", "quiet"),
}
"""Names of arguments by heading; what has none is listed last, under `OTHERS`."""
INDENT = len("  Example:  geneae ")  # columns before the second line of an example
FEW = 16
"""Most flags that are shown without headings."""


class Grouped(click.Command):
    """A command with an example of its use, and its flags under headings.

    Parameters
    ----------
    example
        Command line without `geneae`, shown first.
    """

    def __init__(self, *args: Any, example: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.example = example

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example above the text."""
        formatter.write_paragraph()
        formatter.write(_to_paste(f"  Example:  geneae {self.example}", formatter.width))
        super().format_help_text(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags by heading, in the order of `HEADINGS`; without headings where there are few."""
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        names_of = {one: "help" if one is self.get_help_option(ctx) else str(one.name) for one in options}
        records = {name: record for one, name in names_of.items() if (record := one.get_help_record(ctx)) is not None}
        if len(records) <= FEW:
            super().format_options(ctx, formatter)
            return
        known = {name for names in HEADINGS.values() for name in names}
        needed = tuple(name for one, name in names_of.items() if one.required and name not in HEADINGS[FIRST])
        others = tuple(name for name in records if name not in (*known, *needed))
        headings = {**HEADINGS, FIRST: (*needed, *HEADINGS[FIRST]), OTHERS: others}
        for heading, names in headings.items():
            rows = [records[name] for name in names if name in records]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def _to_paste(line: str, width: int) -> str:
    """A command in lines of a terminal; a shell reads them as one, because each but the last ends with a backslash."""
    lines = [""]
    for number, word in enumerate(line.split(" ")):
        if number and len(f"{lines[-1]} {word}") > width - len(" \\") and word:
            lines[-1] += " \\"
            lines.append(" " * INDENT + word)
        else:
            lines[-1] += f" {word}" if number else word
    return "\n".join(lines) + "\n"
