"""The estimator: from a profile of any depth to the expected profile of a half, in steps that are kept if they help.

Steps: `scores` (posterior scores, the latent), `neighbours`, `calibration`, `own counts`, `entries`. A network between
profiles may stand between the scores and the neighbours, see `geneae.models.network`.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.losses.sparse_rows import sparse_product, sparse_rows, to_tensor
from geneae.models.calibration import SLOPE_RANGE
from geneae.models.decoders import LinearDecoder
from geneae.models.depths import DELTAS, DepthCurves, DepthScale, depth_weights
from geneae.models.entry_head import TARGET_SUM, EntryHead, entry_features, gene_features
from geneae.models.molecules import TypicalMolecules
from geneae.models.neighbours import Neighbours
from geneae.models.own_counts import ZERO_TERMS, OwnCounts, predictions_at, rows_of
from geneae.models.posterior import CONSTANTS, Posterior, raw_from_some, raw_weight, shown_by
from geneae.models.whitening import Whitening

STEPS = ("neighbours", "calibration", "own_counts", "entries")
"""Steps after the scores, in their order; each may be left out."""
FROM_LATENT = ("neighbours", "calibration")
"""Those that use nothing but the latent."""

HEAD_ENTRIES = 2**15  # seen values that go through the head at a time
LEAST_OPEN = 0.1  # share of the variance of log molecules that scores never explain


@dataclass(frozen=True, eq=False)
class Estimator:
    """Everything that is fitted in closed form, and the entry head."""

    whitening: Whitening
    """Basis in units of noise, for halves."""
    curves: DepthCurves
    """Means and noise by depth."""
    scale: DepthScale
    """Unit of depth scores."""
    posterior: Posterior
    """Map from raw to posterior scores."""
    neighbours: Neighbours
    """Reference of training profiles."""
    calibration: Tensor
    """(n_genes,) slopes by which predictions from scores are multiplied."""
    own_counts: OwnCounts
    """Shares of own counts, and the residual where a gene is not seen."""
    head: EntryHead
    """Correction where it is seen."""
    molecules: TypicalMolecules
    """Molecules of training profiles with given scores."""
    kept: tuple[str, ...] = STEPS
    """Steps that are used."""

    def at(self, delta: float, output: float = 0.0) -> "AtDepth":
        """The estimator for profiles of depth `delta`, which predicts profiles of depth `output`."""
        return AtDepth(self, delta, output)

    def only(self, *steps: str) -> "Estimator":
        """The same with these of all steps."""
        return replace(self, kept=tuple(step for step in STEPS if step in steps))

    def within(self, *steps: str) -> "Estimator":
        """The same with those of its own steps that are among these."""
        return self.only(*(step for step in self.kept if step in steps))

    @property
    def unexplained_depth(self) -> float:
        """Deviation of the log molecules of training profiles around those of profiles with their scores."""
        positions = self.neighbours.reference * self.posterior.factors[0]
        explained = float(self.molecules.logs(positions).var())
        return float(np.sqrt(max(self.scale.deviation**2 - explained, LEAST_OPEN * self.scale.deviation**2)))

    @cached_property
    def latent_unit(self) -> Tensor:
        """(rank,) posterior scores per unit of the latent: between plain scores and scores of equal spread."""
        factor, spread = self.posterior.factors[1], self.neighbours.reference.square().mean(0)
        unit = (spread * factor.clamp(min=1e-9)).clamp(min=1e-12) ** 0.25
        return unit.clamp(min=float(unit.max()) / 20)


@dataclass(frozen=True, eq=False)
class AtDepth:
    """An estimator for profiles of one depth; constants of that depth are computed once."""

    estimator: Estimator
    """The estimator."""
    delta: float
    """log(molecules of a half of the training profiles / molecules of these profiles)."""
    output: float = 0.0
    """The same for the profiles that are predicted; 0: halves of training profiles."""

    @cached_property
    def output_mean(self) -> Tensor:
        """(n_genes,) mean of the profiles that are predicted."""
        return self._output[0]

    @cached_property
    def _output(self) -> tuple[Tensor, Tensor]:
        """(n_genes,) mean of the predicted profiles, and their change per change of a half."""
        mean, _, slope = self.estimator.curves.at(depth_weights(self.output))
        return (mean, slope) if self.output else (self.estimator.whitening.mean, torch.ones_like(slope))

    @cached_property
    def _weights(self) -> Tensor:
        return depth_weights(self.delta)

    @cached_property
    def _curves(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.estimator.curves.at(self._weights)

    @cached_property
    def _input(self) -> tuple[Tensor, Tensor]:
        mean, noise, _ = self._curves
        return raw_weight(self.estimator.whitening.components, mean, noise)

    def depth_scores(self, totals: np.ndarray) -> Tensor:
        """(n_profiles,) depth scores of profiles with these molecules."""
        return torch.from_numpy(self.estimator.scale.scores(totals, self.delta))

    def scores(self, matrix: sparse.csr_matrix, totals: np.ndarray, missing: np.ndarray | None = None) -> Tensor:
        """(n_profiles, rank) posterior scores of normalised profiles.

        `missing` are genes whose zeros were not measured, see `Expression`: raw scores are then estimated from the
        others, as `raw_from_some` says.
        """
        weight, offset = self._input
        raw = sparse_product(sparse_rows(matrix), weight) - offset
        if missing is not None:
            raw = raw_from_some(raw, self.estimator.whitening.components, self._curves[0], weight, missing)
        return self.estimator.posterior.expected(raw, self.depth_scores(totals), self.delta, self._weights)

    def uncertainty(self, totals: np.ndarray, missing: np.ndarray | None = None) -> Tensor:
        """(n_profiles, rank) standard deviations of the noise-free scores around the posterior scores of profiles with
        these molecules, of which those of `missing` genes were not measured."""
        scale = self.estimator.scale
        relative = (self.depth_scores(totals) * scale.deviation).exp()
        shown = None if missing is None else shown_by(self.estimator.whitening.components, missing)
        return self.estimator.posterior.uncertainty(relative, self._weights, shown)

    def drawn(self, scores: Tensor) -> Tensor:
        """(n_profiles, rank) scores after the step `neighbours`, if it is kept."""
        if "neighbours" not in self.estimator.kept:
            return scores
        return self.estimator.neighbours.drawn(scores, self._weights)

    @cached_property
    def _components(self) -> Tensor:
        """(n_genes, rank) change of each gene per unit of a score, in noise deviations."""
        estimator, components = self.estimator, self.estimator.whitening.components
        return components * estimator.calibration[:, None] if "calibration" in estimator.kept else components

    @cached_property
    def _dense(self) -> tuple[Tensor, Tensor]:
        """(n_genes, n_hidden) weight and (n_genes,) offset of the prediction where a gene is not seen, see `hidden`."""
        basis = self.estimator.whitening
        mean, _, slope = self._curves
        deviation = basis.deviation
        by_score = deviation[:, None] * self._components
        if "own_counts" not in self.estimator.kept:
            return by_score, basis.mean
        share = self._shares
        if "entries" not in self.estimator.kept:
            return by_score * (1 - share * slope)[:, None], basis.mean - share * mean
        constant, of_p, of_e, of_ep = self._at_zero
        parts = by_score * (1 - share * slope + of_p)[:, None], (deviation * of_e)[:, None], by_score * of_ep[:, None]
        weight = torch.cat(parts, 1)
        return weight, basis.mean - share * mean + deviation * constant

    def linear(self, dtype: torch.dtype = torch.float32) -> LinearDecoder:
        """Decoder of the prediction where a gene is not seen."""
        return self._decoder(*self._dense, dtype)

    def _decoder(self, weight: Tensor, offset: Tensor, dtype: torch.dtype) -> LinearDecoder:
        """Decoder of predictions weight h + offset of halves, in the depth of the output."""
        mean, slope = self._output
        moved = mean + slope * (offset - self.estimator.whitening.mean)
        return LinearDecoder((weight * slope[:, None]).to(dtype), moved.to(dtype), mean.to(dtype))

    def _corrections(self, values: Tensor, matrix: sparse.csr_matrix) -> sparse.csr_matrix:
        """Additions to predictions of halves, in the depth of the output."""
        if self.output:
            values = values * self._output[1][to_tensor(matrix.indices).long()]
        return sparse.csr_matrix((values.numpy(), matrix.indices, matrix.indptr), shape=matrix.shape)

    def hidden(self, scores: Tensor, totals: np.ndarray) -> Tensor:
        """(n_profiles, n_hidden) hidden values of that decoder: scores, with the step `entries` also depth score, and
        scores times depth score."""
        if "entries" not in self.estimator.kept:
            return scores
        e = self.depth_scores(totals).to(scores.dtype)[:, None]
        return torch.cat([scores, e, e * scores], 1)

    def corrections(self, scores: Tensor, matrix: sparse.csr_matrix, totals: np.ndarray) -> sparse.csr_matrix | None:
        """Prediction minus that of `linear`, at the non-zero values of profiles; None without own counts."""
        kept = self.estimator.kept
        if "own_counts" not in kept:
            return None
        share = self._shares
        if "entries" not in kept:
            values = to_tensor(matrix.data) * share[to_tensor(matrix.indices).long()]
        else:
            values = self._with_head(scores.float(), matrix, totals)
        return self._corrections(values, matrix)

    def _with_head(self, scores: Tensor, matrix: sparse.csr_matrix, totals: np.ndarray) -> Tensor:
        rows, genes, values = rows_of(matrix), to_tensor(matrix.indices).long(), to_tensor(matrix.data)
        parts = []
        for start in range(0, len(values), HEAD_ENTRIES):
            some = slice(start, start + HEAD_ENTRIES)
            parts.append(self._entry_corrections(scores, rows[some], genes[some], values[some], totals))
        return torch.cat(parts) if parts else values

    def _entry_corrections(
        self, scores: Tensor, rows: Tensor, genes: Tensor, values: Tensor, totals: np.ndarray
    ) -> Tensor:
        basis = self.estimator.whitening
        p = self.predictions(rows, genes, scores)
        share = self._shares[genes]
        constant, of_p, of_e, of_ep = (some[genes] for some in self._at_zero)
        e = self.depth_scores(totals)[rows]
        zero_formula = constant + of_p * p + of_e * e + of_ep * e * p
        if self.estimator.head.is_zero():
            return share * values - basis.deviation[genes] * zero_formula
        with torch.no_grad():
            corrections: Tensor = self.estimator.head(self.features(p, rows, genes, values, totals))
        return share * values + basis.deviation[genes] * (corrections - zero_formula)

    def predictions(self, rows: Tensor, genes: Tensor, scores: Tensor) -> Tensor:
        """(n_entries,) predictions of single genes from the scores, in noise deviations."""
        return predictions_at(rows, genes, scores, self._components)

    def seen_without_head(self, predictions: Tensor, genes: Tensor, values: Tensor) -> Tensor:
        """(n_entries,) predictions of seen values from scores and own counts, in the units of the values."""
        basis, (mean, _, slope) = self.estimator.whitening, self._curves
        share = self._shares[genes]
        unit = basis.deviation[genes]
        difference = (values - mean[genes]) / unit - slope[genes] * predictions
        return basis.mean[genes] + unit * (predictions + share * difference)

    @cached_property
    def _shares(self) -> Tensor:
        """(n_genes,) shares of own counts at this depth."""
        return self._weights @ self.estimator.own_counts.shares

    @cached_property
    def _at_zero(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.estimator.own_counts.at_zero(self.delta)

    @cached_property
    def _of_genes(self) -> tuple[Tensor, Tensor, Tensor]:
        basis, own = self.estimator.whitening, self.estimator.own_counts
        known = gene_features(basis.mean, basis.deviation)
        return known.level, known.noise, self._shares / (own.shares.std(correction=0) + 1e-6)

    def own_linear(self, dtype: torch.dtype) -> LinearDecoder:
        """Decoder of the control that knows the mean profile and a profile's own counts only, where they are zero."""
        basis, (mean, _, _) = self.estimator.whitening, self._curves
        offset = basis.mean - (self._weights @ self.estimator.own_counts.alone) * mean
        return self._decoder(torch.zeros(len(offset), 1), offset, dtype)

    def own_corrections(self, matrix: sparse.csr_matrix) -> sparse.csr_matrix:
        """Prediction of that control minus that of `own_linear`, at the non-zero values of profiles."""
        share = self._weights @ self.estimator.own_counts.alone
        return self._corrections(to_tensor(matrix.data) * share[to_tensor(matrix.indices).long()], matrix)

    def features(self, predictions: Tensor, rows: Tensor, genes: Tensor, values: Tensor, totals: np.ndarray) -> Tensor:
        """(n_entries, n_features) input of the head at single entries of profiles."""
        basis, (mean, _, _) = self.estimator.whitening, self._curves
        deviation = basis.deviation[genes]
        level, noise, share = self._of_genes
        single = torch.from_numpy(np.log1p(TARGET_SUM / np.maximum(totals, 1.0)).astype(np.float32))
        return entry_features(
            predictions,
            (values - mean[genes]) / deviation,
            values,
            basis.mean[genes] + deviation * predictions,
            (level[genes], noise[genes], share[genes]),
            float(np.clip(self.delta, 0.0, DELTAS[-1])),
            (single[rows], self.depth_scores(totals)[rows]),
        )


TENSORS = {
    "components": "whitening",
    "deviation": "whitening",
    "means": "curves",
    "noises": "curves",
    "slopes": "curves",
    "factors": "posterior",
    "weight": "posterior",
    "signal": "posterior",
    "unexplained": "posterior",
    "reference": "neighbours",
    "pull": "neighbours",
    "shares": "own_counts",
    "alone": "own_counts",
    "zeros": "own_counts",
}
"""Part of an estimator to which each of its tensors belongs; besides these, `score_deviation`, `calibration`, those of
`molecules` and those of the head."""


def estimator_tensors(estimator: Estimator) -> dict[str, Tensor]:
    """All tensors of an estimator but the mean of its genes, by name."""
    tensors = {name: getattr(getattr(estimator, part), name) for name, part in TENSORS.items()}
    tensors |= {"score_deviation": estimator.posterior.deviation, "calibration": estimator.calibration}
    tensors["by_score"], tensors["mean_score"] = estimator.molecules.weight, estimator.molecules.mean_score
    return tensors | {f"head.{name}": tensor for name, tensor in estimator.head.state_dict().items()}


def estimator_facts(estimator: Estimator) -> dict[str, Any]:
    """Everything else of an estimator, for a JSON file."""
    scale, molecules = estimator.scale, estimator.molecules
    smallest, largest = molecules.limits
    of_all = {"mean": scale.mean, "deviation": scale.deviation}
    return {
        "kept": list(estimator.kept),
        "power_of_molecules": estimator.posterior.power,
        "n_neighbours": estimator.neighbours.number,
        "n_reference": len(estimator.neighbours.reference),
        "log_molecules": of_all | {"mean_of_scores": molecules.mean, "smallest": smallest, "largest": largest},
    }


def estimator_of(tensors: dict[str, Tensor], facts: dict[str, Any]) -> Estimator:
    """The estimator with these tensors, `mean` among them, and facts. Sizes that do not fit raise ValueError."""
    n_genes, rank = tensors["components"].shape
    n_depths, kept = len(DELTAS), facts["kept"]
    if not (isinstance(kept, list) and set(kept) <= set(STEPS)):
        raise ValueError(f"steps must be a list of some of {', '.join(STEPS)}; found {kept}")
    if "calibration" not in kept:  # earlier models have none
        tensors = {"calibration": torch.ones(n_genes), **tensors}
    shapes = {
        **dict.fromkeys(("mean", "deviation", "calibration"), (n_genes,)),
        "factors": (n_depths, rank),
        "weight": (3 * rank + CONSTANTS, rank),
        **dict.fromkeys(("score_deviation", "signal", "by_score", "mean_score"), (rank,)),
        "unexplained": (n_depths, rank),
        "reference": (int(facts["n_reference"]), rank),
        "pull": (n_depths,),
        "zeros": (len(ZERO_TERMS), n_genes),
        **dict.fromkeys(("means", "noises", "slopes", "shares", "alone"), (n_depths, n_genes)),
    }
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"tensor estimator.{name} must have shape {shape}; found {tuple(tensors[name].shape)}")
    if bool((tensors["deviation"] <= 0).any()) or bool((tensors["noises"] <= 0).any()):
        raise ValueError("noise deviations of genes must be above 0")
    if bool((tensors["signal"] < 0).any() or (tensors["unexplained"] < 0).any() or (tensors["unexplained"] > 1).any()):
        raise ValueError("variances of scores must not be negative, and shares of them must be between 0 and 1")
    if not torch.equal(tensors["calibration"], tensors["calibration"].clamp(*SLOPE_RANGE)):
        raise ValueError(f"calibration slopes must be between {SLOPE_RANGE[0]:g} and {SLOPE_RANGE[1]:g}")
    if bool((tensors["score_deviation"] <= 0).any()):
        raise ValueError("deviations of scores must be above 0")
    scale, molecules = _molecules_of(tensors, facts["log_molecules"])
    n_reference, n_neighbours = len(tensors["reference"]), int(facts["n_neighbours"])
    if min(n_reference, n_neighbours) < 1:
        raise ValueError(f"there must be neighbours; found {n_neighbours} among {n_reference} profiles")
    power = float(facts["power_of_molecules"])
    if not 0 <= power <= 1:
        raise ValueError(f"power_of_molecules must be between 0 and 1; found {power}")
    head = EntryHead()
    head.load_state_dict({name.removeprefix("head."): t for name, t in tensors.items() if name.startswith("head.")})
    t = tensors
    return Estimator(
        Whitening(t["mean"], t["deviation"], t["components"]),
        DepthCurves(t["means"], t["noises"], t["slopes"]),
        scale,
        Posterior(
            t["factors"],
            t["weight"],
            t["score_deviation"],
            t["signal"],
            t["unexplained"],
            power,
        ),
        Neighbours(t["reference"], t["factors"][0], t["pull"], n_neighbours),
        t["calibration"],
        OwnCounts(t["shares"], t["alone"], t["zeros"]),
        head.eval(),
        molecules,
        tuple(step for step in STEPS if step in kept),
    )


def _molecules_of(tensors: dict[str, Tensor], facts: dict[str, Any]) -> tuple[DepthScale, TypicalMolecules]:
    scale = DepthScale(*(float(facts[name]) for name in ("mean", "deviation")))
    mean, smallest, largest = (float(facts[name]) for name in ("mean_of_scores", "smallest", "largest"))
    if not (np.isfinite([scale.mean, scale.deviation, mean, smallest, largest]).all() and scale.deviation > 0):
        raise ValueError(f"log_molecules must be finite, with a deviation above 0; found {facts}")
    return scale, TypicalMolecules(tensors["by_score"], tensors["mean_score"], mean, (smallest, largest))
