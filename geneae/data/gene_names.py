"""Names of genes: which names are of genes, which are repeated, and how those of a model and of data match."""

import re
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique

from geneae.data.texts import texts
from geneae.settings.errors import InputError, listed, unknown

INDEX = "index"  # name of the index of var among its columns
LOOKED_AT = 2000  # names that say whether they are of genes
KNOWN = 0.05  # share of known names that tells genes from profiles; among all genes of an organism it is about 0.1
ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{6,})\.\d+")
"""An Ensembl name with a version: `ENSG00000141510.18`."""
OF_GENES = re.compile(
    r"ENS[A-Z]*[GT]\d{6,}(\.\d+)?|ENSG\d+.*|RP[LS][AP]?\d+\w*|MRP[LS]\d+\w*|MT-\w+|HLA-\w+|HIST\d\w+|EEF\d\w+|EIF\d\w*|"
    r"NDUF[A-Z]+\d*|COX\d\w*|ATP\d\w+|UQCR\w+|PSM[A-G]\d+|SLC\d+[A-Z]\d+|ZNF\d+|ZFP\d+|TMEM\d+\w?|CCDC\d+\w?|CXC[LR]\d+|"
    r"CC[LR]\d+|CD\d+\w?|IL\d+\w*|KRT\d+|COL\d+A\d+|HSP[A-Z0-9]+|LINC\d+|FAM\d+[A-Z]\d?|OR\d+[A-Z]\d+|IG[HKL][VCJ]\w*|"
    r"ACTB|GAPDH|B2M|MALAT1|NEAT1|XIST|FTL|FTH1|TMSB4X|TMSB10|VIM|LYZ|NKG7|MS4A1|GNLY|ALB|APOE|TP53|A1BG|A2M|"
    r"AT[1-5MC]G\d{5}|Y[A-P][LR]\d{3}[WC](-[A-Z])?|FBGN\d{7}|WBGENE\d{8}|GENE[ _.-]?\d+|\w+_AT",
    re.IGNORECASE,
)
"""Identifiers of genes, probes, and symbols of families that every annotation of human or mouse holds."""
OF_PROFILES = re.compile(
    r".*[ACGTN]{8,}([-_.].*|\d*)?|(cell|sample|barcode|profile|spot|patient|donor|well)[ _.-]?\w*|GSM\d+.*|"
    r"[SED]RR\d+.*|TCGA-.*",
    re.IGNORECASE,
)
"""Barcodes, accessions of samples, and what cells and samples are usually called."""


class NoSuchColumn(InputError):
    """A column of var that some data do not have."""


def share_of_genes(names: pd.Index) -> float:
    """Share of names that are known to be of genes, 0 to 1, among the first 2,000."""
    return _share(OF_GENES, names)


def share_of_profiles(names: pd.Index) -> float:
    """Share of names that are known to be of cells or samples, 0 to 1, among the first 2,000."""
    return _share(OF_PROFILES, names)


def _share(pattern: re.Pattern[str], names: pd.Index) -> float:
    known = [pattern.fullmatch(str(name)) is not None for name in names[:LOOKED_AT]]
    return sum(known) / max(1, len(known))


def are_genes_in_rows(rows: pd.Index, columns: pd.Index, corner: str) -> bool | None:
    """Whether the rows of a table are genes; None where neither its names nor its corner tell.

    Parameters
    ----------
    rows, columns
        Names of rows and columns.
    corner
        Title of the column of names, such as `gene`; may be empty.
    """
    word = corner.strip().lower()
    is_of_genes = re.search(r"gene|symbol|ensembl|feature|probe|transcript", word) is not None
    is_of_profiles = re.search(r"cell|sample|barcode|profile|spot|patient|donor", word) is not None
    if is_of_genes != is_of_profiles:  # a title of both, such as `gene/cell`, tells nothing
        return is_of_genes
    in_rows, in_columns = share_of_genes(rows), share_of_genes(columns)
    if max(in_rows, in_columns) > KNOWN and in_rows != in_columns:
        return in_rows > in_columns
    in_rows, in_columns = share_of_profiles(rows), share_of_profiles(columns)
    return None if in_rows == in_columns else in_columns > in_rows


def named_by(var: pd.DataFrame, column: str | None, where: str) -> pd.DataFrame:
    """The table of genes under the names that one of its columns holds; None, or `index`: those of its index.

    The names of the index stay as the column `index`, if there is none of that name.
    """
    if column is None or (column == INDEX and INDEX not in var.columns):
        return var
    if column not in var.columns:
        raise NoSuchColumn(str(unknown("var column", column, var.columns)))
    names = var[column]
    missing = names.isna().to_numpy()
    if missing.any():
        raise InputError(
            f"{where}: var column '{column}' must name every gene; {missing.sum():,} of {len(var):,} have no name, "
            f"first '{var.index[missing][0]}'. Choose another column, or fill it in."
        )
    kept = var if INDEX in var.columns else var.assign(**{INDEX: var.index.astype(str)})
    return kept.set_index(pd.Index(names.astype(str), dtype=object))


def made_unique(genes: pd.Index) -> tuple[pd.Index, str | None]:
    """Names in which repeated ones have -1, -2, ... appended, as scanpy does, and a sentence if there are any."""
    repeated = genes.duplicated()
    if not repeated.any():
        return genes, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a suffix resembles one that a name has already
        unique = pd.Index(make_index_unique(genes), dtype=object, name=genes.name)
    first = int(np.argmax(repeated))
    how = "repeats an earlier one and was" if repeated.sum() == 1 else "repeat an earlier one and were"
    return unique, (
        f"{repeated.sum():,} of {len(genes):,} gene names {how} made unique as scanpy does, "
        f"first '{genes[first]}' as '{unique[first]}'."
    )


@dataclass(frozen=True, eq=False)
class GeneMatch:
    """Genes of a model found in data."""

    columns: np.ndarray
    """(n_genes,) column of the data for each gene of the model, -1 where there is none."""
    is_cut: bool
    """Whether versions of Ensembl names were cut on both sides."""

    @property
    def n_matched(self) -> int:
        """Number of genes that were found."""
        return int((self.columns >= 0).sum())

    def sentence(self) -> str:
        """How many genes were found, and how."""
        n_genes = len(self.columns)
        line = f"{self.n_matched:,} of the model's {n_genes:,} genes are in the data"
        line = f"{line} ({100 * self.n_matched / n_genes:.1f} %)"
        return line + (", by Ensembl names without their versions." if self.is_cut else ".")


def match_genes(wanted: pd.Index, found: pd.Index) -> GeneMatch:
    """Match genes by name; versions of Ensembl names (`.18`) are cut where more genes match then."""
    exact = found.get_indexer(wanted)
    is_cut = any(ENSEMBL.fullmatch(str(name)) for names in (wanted, found) for name in names[:LOOKED_AT])
    if not is_cut or (exact >= 0).all():
        return GeneMatch(exact, False)
    cut_found = pd.Index([_without_version(name) for name in found], dtype=object)
    columns = np.arange(len(found))[~cut_found.duplicated(keep=False)]  # two versions of a gene tell nothing
    at = cut_found[columns].get_indexer(pd.Index([_without_version(name) for name in wanted], dtype=object))
    cut = np.where(exact >= 0, exact, np.append(columns, -1)[at])  # the last is for genes that are not there
    taken, counts = np.unique(cut[cut >= 0], return_counts=True)
    cut[np.isin(cut, taken[counts > 1]) & (exact < 0)] = -1  # the model has two versions of the gene
    return GeneMatch(cut, True) if (cut >= 0).sum() > (exact >= 0).sum() else GeneMatch(exact, False)


def renamed(found: pd.Index, wanted: pd.Index) -> pd.Index:
    """Names of the genes of data; those that match only without a version are replaced by the names that they match."""
    match = match_genes(wanted, found)
    if not match.is_cut:
        return found
    names = found.to_numpy(dtype=object, copy=True)
    names[match.columns[match.columns >= 0]] = wanted[match.columns >= 0]
    alike: pd.Index = pd.Index(names, dtype=object)
    return alike


def _without_version(name: object) -> str:
    found = ENSEMBL.fullmatch(str(name))
    return found[1] if found else str(name)


def best_column(wanted: pd.Index, var: pd.DataFrame | None) -> str:
    """Sentence on how many of the model's genes each column of `var` names; the best one is recommended.

    Empty where `var` has no column of text, so that there is nothing to choose.
    """
    if var is None:
        return ""
    matches = {}
    for column in var.columns:
        if not pd.api.types.is_numeric_dtype(var[column].dtype):
            names = pd.Index(texts(var[column]).unique(), dtype=object)
            matches[str(column)] = match_genes(wanted, names).n_matched
    if not matches:
        return ""
    counted = listed(f"{column} {number:,}" for column, number in matches.items())
    best = max(matches, key=lambda column: matches[column])
    said = f" In columns of var there are: {counted}."
    return f"{said} Name genes by the best of them: --gene-names {best}." if matches[best] else said
