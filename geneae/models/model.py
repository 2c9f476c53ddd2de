"""A fitted model: network, preprocessing, genes and the baselines it is compared with."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from geneae.data.preprocess import Expression, Preprocess
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.baselines import Baselines
from geneae.models.decoders import Corrected, EntryDecoder
from geneae.models.depths import COMPLETE, MIN_MOLECULES
from geneae.models.estimator import FROM_LATENT, Estimator
from geneae.models.molecules import depth_of_set
from geneae.models.network import Network
from geneae.models.query_depth import QueryDepth, by_ratio, query_depths
from geneae.settings.errors import InputError

FORMATS = (1, 2)  # versions of the format of a model folder that can be read
FORMAT = FORMATS[-1]  # version that is written; 2 added the estimator
# stored values per chunk: large chunks, because each one reads the gene matrix, which exceeds the cache, once
CHUNK_VALUES = 2**23
CHUNK_PROFILES = 1024  # profiles of a file read at a time where only their sums are needed


@dataclass(frozen=True, eq=False)
class Model:
    """Everything needed to apply a fit to new profiles."""

    network: Network
    """Network on the CPU, with the weights of the best epoch."""
    preprocess: Preprocess
    """Genes, normalisation and scale."""
    baselines: Baselines
    """PCA of the same training profiles."""
    scales: dict[str, float]
    """Factor of least squared error on validation profiles, see `geneae.losses.metrics.best_scale`, by name of model or
    baseline."""
    config: dict[str, Any]
    """Contents of `config.json`: settings, space, seed, versions, data."""
    estimator: Estimator | None = None
    """Depth-aware estimator; None for models without counts, and for those that do not start from it."""
    delta: float = 0.0
    """log(molecules of the training profiles / molecules of the profiles that it is applied to)."""
    own_depth: bool = False
    """Whether reconstructions are as deep as the profiles that it is applied to, where these are shallower than
    training profiles; otherwise as deep as training profiles."""

    def at(self, depth_ratio: float) -> "Model":
        """The model for profiles with `1 / depth_ratio` of the molecules of its training profiles."""
        return replace(self, delta=math.log(depth_ratio))

    @property
    def center(self) -> str:
        """Centring of the loss."""
        return str(self.config["center"])

    @property
    def n_latent(self) -> int:
        """Number of latents."""
        return int(self.config["settings"]["n_latent"])

    @property
    def location(self) -> str:
        """Matrix that it was fitted on, see `Profiles.location`: the one that is read of other data, too."""
        return str(self.config["data"].get("location", "X"))

    @property
    def gene_names(self) -> str | None:
        """Column of `var` that named the genes at the fit, and names those of other data; None: the index."""
        column = self.config["data"].get("gene_names")
        return None if column is None else str(column)

    @property
    def can_hold_out(self) -> bool:
        """Whether profiles can be evaluated on held-out molecules, because training profiles were counts."""
        return self.baselines.half is not None

    def check_decoder(self) -> None:
        """Raise InputError if no decoder was trained, so that there is no reconstruction."""
        if not self.network.has_decoder:
            objective = self.config["settings"]["objective"]
            raise InputError(
                f"a model of objective {objective} has latents only: no decoder was trained, so nothing can be "
                f"reconstructed or compared with profiles. For both, fit with --objective {objective}+reconstruction."
            )

    @property
    def exports_start(self) -> bool:
        """Whether the latents are those from which training starts, because it did not clearly better them."""
        return bool((self.config.get("latent_choice") or {}).get("is_start", False))

    def encoded(self, scores: Tensor) -> Tensor:
        """(n_profiles, n_latent) latents that are exported, from the scores that the network reads."""
        if not self.exports_start:
            return self.network.encode(scores)
        return F.pad(scores, (0, self.n_latent - scores.shape[1]))

    def decoded(self, latent: Tensor) -> Tensor:
        """(n_profiles, n_scores) input of the last layer, from latents that are exported."""
        if self.exports_start:
            latent = self.network.encode(latent[:, : len(self.network.deviation)])
        return self.network.decode(latent)

    @property
    def _output(self) -> float:
        """Depth of reconstructions, as the depth of profiles is counted by the estimator."""
        return COMPLETE + (max(0.0, self.delta) if self.own_depth else 0.0)

    def shift(self, is_half: bool) -> Tensor | None:
        """(n_genes,) mean of halves or complete profiles, minus the mean of the network; None if they are equal.

        The logarithm makes the mean of halves differ from the mean of complete profiles, so a network trained on one
        and used on the other needs a shifted centre.
        """
        if is_half and self.estimator is not None:  # its network was trained on halves
            return None
        basis = self.baselines.half if is_half else self.baselines.whole
        assert basis is not None
        shift = basis.mean.to(self.network.mean.dtype) - self.network.mean
        return shift if bool(shift.any()) else None

    def share_read(self, is_half: bool) -> float:
        """Share of their molecules with which profiles, or halves of them, are read: below 1 for those that have more
        than training profiles, which are read as they are expected with as many."""
        return 1.0 if self.estimator is None else math.exp(min(0.0, self.delta - (COMPLETE if is_half else 0.0)))

    def depths_of(
        self, expression: Expression, ratio: float | None = None, groups: pd.Series | None = None
    ) -> list[QueryDepth]:
        """Depth of profiles in the genes of the model, see `query_depths`; empty for a model without an estimator, for
        which a given ratio or column is refused."""
        if self.estimator is not None:
            deviations = self.estimator.scale.deviation, self.estimator.unexplained_depth

            def estimate(rows: np.ndarray) -> np.ndarray:
                return self._ratios_of_each(expression.take(rows))

            return query_depths(estimate, expression.totals, deviations, ratio, groups)
        if ratio is not None or groups is not None:
            raise InputError(
                "this model knows one depth only, because it was not fitted on counts with the default basis and "
                "target. Leave out --depth-ratio and --depth-by."
            )
        return []

    def _ratios_of_each(self, expression: Expression) -> np.ndarray:
        """(n_profiles,) log of the molecules of training profiles like each of these, divided by its own."""
        assert self.estimator is not None
        part = expression.load()
        found = depth_of_set(self.estimator.molecules, part.totals, lambda delta: self._posterior(part, delta))
        own: np.ndarray = found.own - COMPLETE
        return own

    def _posterior(self, part: Expression, delta: float) -> Tensor:
        """(n_profiles, rank) posterior scores of profiles in memory of a depth; those deeper than training profiles are
        read as they are expected with as many molecules."""
        assert self.estimator is not None
        share = math.exp(min(0.0, delta - COMPLETE))
        at = self.estimator.at(max(delta, COMPLETE))
        return at.scores(self.preprocess.apply(part, share), share * part.totals, part.missing)

    def latent(self, expression: Expression, ratios: np.ndarray | None = None) -> np.ndarray:
        """(n_profiles, n_latent) float32 latents of complete profiles.

        Parameters
        ----------
        expression
            Profiles in the genes of the model.
        ratios
            (n_profiles,) depth ratio of each profile, see `QueryDepth`; None: that of the model.
        """
        return self.latent_and_blank(expression, ratios)[0]

    def latent_and_blank(
        self, expression: Expression, ratios: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `latent` and `is_blank` give, from a single pass over the profiles."""
        latent = np.empty((expression.n_profiles, self.n_latent), np.float32)
        blank = np.empty(expression.n_profiles, bool)
        if ratios is not None and self.estimator is not None:
            for ratio, chosen in by_ratio(ratios):
                latent[chosen], blank[chosen] = self.at(ratio).latent_and_blank(expression.take(chosen))
            return latent, blank
        size = max(1, CHUNK_VALUES * expression.n_profiles // max(1, expression.n_values))
        with torch.no_grad():
            for rows, part in expression.chunks(size):
                latent[rows], blank[rows] = self.encoded(self._scores(part)).numpy(), self._blank_in(part)
        return latent, blank

    def latent_deviation(self, expression: Expression, ratios: np.ndarray | None = None) -> np.ndarray | None:
        """(n_profiles, n_latent) float32 posterior standard deviations of the latents, in their units; None without an
        estimator. They are those of the start: what a network adds to it counts as known. Parameters as in `latent`."""
        if self.estimator is None:
            return None
        rank = min(self.estimator.whitening.rank, self.n_latent)
        result = np.zeros((expression.n_profiles, self.n_latent), np.float32)
        given = np.full(expression.n_profiles, math.exp(self.delta)) if ratios is None else ratios
        for ratio, chosen in by_ratio(given):
            at = self.estimator.at(math.log(ratio) + COMPLETE)
            found = at.uncertainty(expression.totals[chosen], expression.missing) / self.network.deviation
            result[chosen, :rank] = found[:, :rank].numpy()
        return result

    def _scores(self, part: Expression) -> Tensor:
        """(n_profiles, n_scores) input of the core, for complete profiles in memory."""
        if self.estimator is None:
            matrix = self.preprocess.apply(part)
            missing = None if part.missing is None else torch.from_numpy(np.flatnonzero(part.missing))
            return self.network.scores(sparse_rows(matrix), self.shift(is_half=False), missing)
        return self._posterior(part, self.delta + COMPLETE) / self.network.deviation

    def is_blank(self, expression: Expression) -> np.ndarray:
        """(n_profiles,) whether nothing can be said about a profile: it has no value in the genes of the model or, with
        an estimator, fewer than 8 molecules there, which took no part in its fit. Never for values that are scaled."""
        blank = np.zeros(expression.n_profiles, bool)
        size = CHUNK_PROFILES if expression.is_streamed else max(1, expression.n_profiles)
        for rows, part in expression.chunks(size) if self.preprocess.state != "scaled" else ():
            blank[rows] = self._blank_in(part)
        return blank

    def _blank_in(self, part: Expression) -> np.ndarray:
        """`is_blank` of profiles in memory."""
        if self.preprocess.state == "scaled":
            return np.zeros(part.n_profiles, bool)
        if self.estimator is None:
            return np.asarray(np.diff(part.rows.indptr) == 0)
        return np.asarray(part.rows.sum(1)).ravel() < MIN_MOLECULES

    def reconstruction(self, latent: np.ndarray) -> np.ndarray:
        """(n_profiles, n_genes) float32 reconstructions from latents, in `preprocess.space`; with an estimator they are
        expected values of complete training profiles, whatever the depth of the profiles, unless `own_depth`."""
        self.check_decoder()
        with torch.no_grad():
            hidden = self.decoded(torch.from_numpy(np.ascontiguousarray(latent, dtype=np.float32)))
            decoder = self.network.decoder(self.shift(is_half=False))
            if self.estimator is not None:
                at = self.estimator.within(*FROM_LATENT).at(self.delta + COMPLETE, self._output)
                hidden, decoder = at.drawn(hidden), at.linear()
            predicted: np.ndarray = decoder.expectation(hidden).numpy()
        return predicted

    def reconstructed(self, part: Expression) -> np.ndarray:
        """(n_profiles, n_genes) float32 reconstructions of complete profiles in memory, also from their own counts.

        Without an estimator it is what `reconstruction` gives for their latents.
        """
        with torch.no_grad():
            scores = self._scores(part)
            latent = self.network.encode(scores)
            if self.estimator is None:
                return self.reconstruction(self.encoded(scores).numpy())
            at, matrix = self.estimator.at(self.delta + COMPLETE, self._output), self.preprocess.apply(part)
            hidden = at.drawn(self.network.decode(latent))
            decoder = EntryDecoder(at.linear())
            found = Corrected(at.hidden(hidden, part.totals), at.corrections(hidden, matrix, part.totals))
            predicted: np.ndarray = decoder.expectation(found).numpy()
        return predicted


def reading_of(model: Model) -> tuple[str, str]:
    """What the values were said to be when the model was fitted, and which features were read: the settings `state`
    and `features`, for data that are read for the model."""
    settings = model.config["settings"]
    return str(settings.get("state", "auto")), str(settings.get("features", "genes"))


def latent_names(n_latent: int) -> list[str]:
    """Column names of latents in every table: `latent_0`, `latent_1`, ..."""
    return [f"latent_{index}" for index in range(n_latent)]
