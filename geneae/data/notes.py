"""What somebody should know about profiles before any number about them: sentences for a terminal, a report, Python."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from geneae.data.states import STATES, Finding, recoverable
from geneae.data.texts import texts
from geneae.settings.errors import listed

GENES_ONLY = ("gene expression", "gex", "rna", "gene")
"""Values of `var["feature_types"]`, in lower case, of the features that are genes."""
OF_READS = re.compile(
    r"__(no_feature|ambiguous|too_low_aQual|not_aligned|alignment_not_unique)|N_(unmapped|multimapping|noFeature|ambiguous)"
)
"""Rows that HTSeq and STAR write beside those of genes, for reads that belong to none."""
MAJORITY = 0.5  # share of all counts that one gene should not hold
LIKE_GENES = 0.5  # share of names with the form of an Ensembl identifier, above which they are genes
KNOWN = 5  # known symbols among names that make them names of genes
SPECIES_SHARE = 0.05  # share of genes of a second species, among those that tell one, above which species are mixed
ENSEMBL = re.compile(r"^ENS([A-Z]*)G\d{6,}")
OFTEN_SEEN = """
ACTB ACTG1 AIF1 ALB B2M CCL5 CD14 CD19 CD2 CD247 CD27 CD3D CD3E CD3G CD4 CD52 CD68 CD74 CD79A CD79B CD8A COL1A1
COL3A1 EEF1A1 EPCAM FCER1G FOS FTH1 FTL GAPDH GNLY HMGB1 HSP90AA1 HSPA8 IL7R JUN KIT KLF6 KRT18 KRT19 KRT8 LTB
LYZ MALAT1 MKI67 NEAT1 NKG7 PECAM1 PPBP PTPRC RPL10 RPL13 RPLP0 RPLP1 RPS18 RPS27 RPS6 S100A4 S100A8 S100A9
TMSB10 TMSB4X TPT1 TUBA1B TYROBP VIM VWF XIST
"""
SYMBOLS = frozenset(OFTEN_SEEN.split())
"""Human symbols of genes that most data sets contain; those of the mouse are the same with small letters."""
MOUSE = frozenset(symbol.capitalize() for symbol in SYMBOLS)


@dataclass(frozen=True, eq=False)
class Facts:
    """What notes are made from."""

    finding: Finding
    """What the matrix holds."""
    names: pd.Index
    """Names of the profiles."""
    genes: pd.Index
    """Names of the genes."""
    by_gene: np.ndarray
    """(n_genes,) sums over all profiles."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Number of features that were left out, by type."""
    other_types: tuple[str, ...] = ()
    """Types of features, where none of them is of genes, so that all were kept."""
    elsewhere: tuple[str, ...] = ()
    """Places of other matrices that hold counts, with the flags that read them."""


def _of_left_out(facts: Facts) -> str:
    if not facts.left_out:
        return ""
    named = " and ".join(
        f"{number:,} of {f'type {kind}' if kind else 'no type'}" for kind, number in facts.left_out.items()
    )
    return (
        f"{named} in var['feature_types'] were left out, because their counts would decide totals and cosines. "
        "--features all keeps them."
    )


def _of_logarithm(facts: Facts) -> str:
    if facts.finding.state != "normalised":
        return ""
    return (
        f"These values are not logged ({facts.finding.said}): the largest genes decide every cosine and error. Take "
        f"log1p first, or read counts, which are normalised and logged here{_offer(facts)}. If they are logarithms, "
        "--state log says so."
    )


def _of_doubt(facts: Facts) -> str:
    return facts.finding.doubt


def _of_counts(facts: Facts) -> str:
    if facts.finding.state == "counts" or not (facts.elsewhere or facts.finding.has_counts):
        return ""
    if facts.elsewhere:
        return f"{facts.elsewhere[0]}, from which a fit has held-out cosines and a noise ceiling."
    if facts.finding.state == "normalised":  # said with the logarithm
        return ""
    return (
        "Counts can be recovered exactly from these values, for held-out cosines and a noise ceiling: --state counts."
    )


def _offer(facts: Facts) -> str:
    return "; they can be recovered: --state counts" if recoverable(facts.finding) and not facts.elsewhere else ""


def _of_one_gene(facts: Facts) -> str:
    total = float(facts.by_gene.sum())
    if facts.finding.state not in ("counts", "normalised") or len(facts.by_gene) < 3 or not total > 0:
        return ""
    largest = int(np.argmax(facts.by_gene))
    share = float(facts.by_gene[largest] / total)
    if share <= MAJORITY:
        return ""
    return (
        f"Gene {facts.genes[largest]} holds {100 * share:.0f} % of all counts, as a spike-in or a label does: it "
        "decides totals and cosines. Leave it out unless it is meant."
    )


def _of_reads(facts: Facts) -> str:
    found = [str(gene) for gene in facts.genes if OF_READS.fullmatch(str(gene))]
    if not found:
        return ""
    return f"{listed(found)} count reads that belong to no gene, and are taken for genes here: leave them out."


def _of_types(facts: Facts) -> str:
    if not facts.other_types:
        return ""
    return (
        f"No feature has a type of genes in var['feature_types'] ({listed(facts.other_types)}): all are kept, and "
        "taken for genes."
    )


def _of_species(facts: Facts) -> str:
    kinds = pd.Series([_species(str(gene)) for gene in facts.genes]).value_counts()
    kinds = kinds[kinds.index != ""]
    kinds = kinds[kinds >= max(KNOWN, SPECIES_SHARE * kinds.sum())]
    if len(kinds) < 2:
        return ""
    named = " and ".join(f"{kind} ({number:,})" for kind, number in kinds.items())
    return (
        f"Names of genes tell of {len(kinds)} species, {named}: species are what profiles differ in most, unless "
        "each is fitted alone."
    )


def _species(gene: str) -> str:
    """Species of a gene, by the prefix of its name, its identifier or its symbol; empty if it does not tell."""
    prefix = re.match(r"^(GRCh\d+|hg\d+|GRCm\d+|mm\d+)_+", gene, re.IGNORECASE)
    if prefix:
        return "human" if prefix[1].lower().startswith(("grch", "hg")) else "mouse"
    found = ENSEMBL.match(gene)
    if found:
        return {"": "human", "MUS": "mouse"}.get(found[1], f"ENS{found[1]}")
    return "human" if gene in SYMBOLS else "mouse" if gene in MOUSE else ""


def _of_axes(facts: Facts) -> str:
    if not are_genes(facts.names) or are_genes(facts.genes):
        return ""
    first = ", ".join(name for name in map(str, facts.names) if _is_gene(name))[:60].rsplit(",", 1)[0]
    return (
        f"The names of profiles look like genes ({first}): rows should be profiles, columns genes. If the matrix is "
        "the other way round, transpose it (adata.T)."
    )


def are_genes(names: pd.Index) -> bool:
    """Whether names look like those of genes: Ensembl identifiers, or several known symbols."""
    n_known = sum(str(name) in SYMBOLS or str(name) in MOUSE for name in names)
    n_ensembl = sum(bool(ENSEMBL.match(str(name))) for name in names)
    return n_known >= KNOWN or n_ensembl > LIKE_GENES * len(names)


def _is_gene(name: str) -> bool:
    return name in SYMBOLS or name in MOUSE or bool(ENSEMBL.match(name))


NOTES: dict[str, Callable[[Facts], str]] = {
    "not_logged": _of_logarithm,
    "doubted_counts": _of_doubt,
    "counts_at_hand": _of_counts,
    "left_out_features": _of_left_out,
    "kept_features": _of_types,
    "dominant_gene": _of_one_gene,
    "reads_of_no_gene": _of_reads,
    "mixed_species": _of_species,
    "transposed": _of_axes,
}
"""Notes by name: a sentence, or an empty text where there is nothing to say."""
WARNED = ("not_logged", "doubted_counts")
"""Notes that are warnings in Python, where nobody sees what a command prints."""


def notes_of(facts: Facts) -> dict[str, str]:
    """Sentences by name, of `NOTES`, about these profiles."""
    found = {name: note(facts) for name, note in NOTES.items()}
    return {name: said for name, said in found.items() if said}


def kept_features(types: pd.Series | None) -> tuple[np.ndarray | None, dict[str, int]]:
    """(n_kept,) columns of genes, and the number of the others by type; None where all are kept.

    Parameters
    ----------
    types
        `var["feature_types"]`, as 10x Genomics names it; None without such a column.
    """
    if types is None:
        return None, {}
    text = texts(types)
    is_gene = text.str.strip().str.lower().isin(GENES_ONLY).to_numpy()
    if is_gene.all() or not is_gene.any():
        return None, {}
    return np.flatnonzero(is_gene), {str(kind): int(number) for kind, number in text[~is_gene].value_counts().items()}


def types_of_none(types: pd.Series | None) -> tuple[str, ...]:
    """Types of features by `var["feature_types"]`, where none of them is of genes; else empty."""
    if types is None or types.isna().all():
        return ()
    text = types.dropna().astype(str)
    is_gene = text.str.strip().str.lower().isin(GENES_ONLY)
    return () if is_gene.any() else tuple(dict.fromkeys(text))


def in_words(finding: Finding) -> str:
    """State of a matrix and the evidence for it, in words."""
    noun = STATES[finding.state].noun
    return f"{noun} ({finding.said})" if finding.said else noun
