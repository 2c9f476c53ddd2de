"""What is known of every metric and every model: read by terminal, report, figures, model card and comparison."""

from geneae.evaluation.judge import MetricFacts, ModelFacts
from geneae.evaluation.judges import JUDGES
from geneae.evaluation.records import HELD_OUT
from geneae.models.baselines import BASELINES

METRIC_FACTS: dict[str, MetricFacts] = {name: facts for judge in JUDGES for name, facts in judge.metrics.items()}
"""By name, in the order of the judges."""
MODEL_FACTS: dict[str, ModelFacts] = {name: facts for judge in JUDGES for name, facts in judge.models.items()}
"""By name, in the order of the judges: the model, its baselines, controls of latents."""
CEILING = ModelFacts("noise ceiling", line="-")
"""The noise ceiling, which stands among the baselines where it is drawn or listed."""
DRAWN: dict[str, ModelFacts] = {name: MODEL_FACTS[name] for name in BASELINES}
"""Baselines that are lines of figures, the weakest first."""
SHOWN = ("cosine", "centred_cosine", "mse", HELD_OUT)
"""Metrics of the short table, in the terminal and on the model card."""
MAIN_METRICS = (HELD_OUT, "skill", *(name for name, facts in METRIC_FACTS.items() if facts.is_main))
"""Metrics of the first table of a report."""
ARROWS = {"higher": "↑", "lower": "↓"}


def metric_facts(name: str) -> MetricFacts:
    """Facts about a metric; of one from another version of geneae, its name in words."""
    return METRIC_FACTS.get(name) or MetricFacts(name.replace("_", " "))


def title_of(name: str) -> str:
    """A metric in words."""
    return metric_facts(name).title


def with_arrow(title: str, better: str, space: str = " ") -> str:
    """A title with an arrow that tells which way is better, if either is."""
    return f"{title}{space}{ARROWS[better]}" if better in ARROWS else title


def header_of(name: str) -> str:
    """Short title of a metric with its arrow, for a table in the terminal."""
    facts = metric_facts(name)
    return with_arrow(facts.short or facts.title, facts.better)
