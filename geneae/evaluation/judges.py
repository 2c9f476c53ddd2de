"""The judges of a fit. A new way to evaluate fits is a file with a `Judge`, a line here, and perhaps a setting."""

from geneae.evaluation.agreement import Agreement
from geneae.evaluation.attainable import Attainables
from geneae.evaluation.batches import Batches
from geneae.evaluation.depth import Depths
from geneae.evaluation.judge import Judge
from geneae.evaluation.labels import Labels
from geneae.evaluation.reconstruction import Reconstructions
from geneae.evaluation.views import Views

JUDGES: tuple[Judge, ...] = (Reconstructions(), Attainables(), Depths(), Views(), Agreement(), Labels(), Batches())
"""All judges, in the order of their rows in tables and of their sentences."""
