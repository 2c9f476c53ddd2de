"""The last lines of a fit: three numbers, one sentence, the report, and what to do next."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geneae.settings.text import sentences_of, shell_line

if TYPE_CHECKING:
    from geneae.fitting.fit import Fitted


def ending(fitted: "Fitted", folder: Path, data: Sequence[str]) -> list[str]:
    """At most four lines; everything else stands in the report.

    Parameters
    ----------
    fitted
        The fit.
    folder
        Where it was written.
    data
        Paths of the data it was given, as on the command line.
    """
    from geneae.evaluation.headline import main_numbers
    from geneae.evaluation.records import judged_split

    numbers = main_numbers(fitted.evaluation, judged_split(fitted.split))
    sentence = sentences_of(fitted.conclusion)[0]
    n_warnings = int(fitted.diagnostics["fires"].sum())
    warned = f", with {n_warnings} warning{'s' * (n_warnings > 1)} at its top" if n_warnings else ""
    following = shell_line(["geneae", "embed", str(folder), *data, "-o", "latent.h5ad"])
    return [
        line for line in (numbers, sentence, f"Report: {folder / 'report.html'}{warned}", f"Next: {following}") if line
    ]
