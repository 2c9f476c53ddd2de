"""`Autoencoder`: the whole of geneae in the manners of scikit-learn."""

import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from torch import Tensor

from geneae.baselines import PCA_SIZES, Baselines
from geneae.basis import Basis, fit_basis, fit_wiener, largest_rank
from geneae.errors import InputError, unknown
from geneae.evaluation import COLUMNS, Evaluation, evaluate
from geneae.losses import LossSettings, find_loss
from geneae.model import Model
from geneae.network import CUT_PLACES, Network, network_in_basis, random_network
from geneae.objectives import Reconstruction
from geneae.pairs import TRAINING_STREAM, VALIDATION_STREAM, Pairs, PairSource, draw_blocks, loss_constants
from geneae.preprocess import MIN_OVERLAP, Expression, Preprocess, fit_preprocess
from geneae.products import CENTERS
from geneae.profiles import Profiles, read_profiles
from geneae.saving import FORMAT, load_model, new_folder, save_model
from geneae.splits import EXCLUDED, split_profiles
from geneae.training import Fit, TrainingSettings, train

BASES, STARTS, TARGETS = ("pca", "free"), ("pca", "random"), ("auto", "split", "self")
VALIDATION_SPLITS = 2  # count splits of the validation profiles that choose the epoch


class Autoencoder(TransformerMixin, BaseEstimator):
    """Autoencoder of gene-expression profiles, judged against PCA, shrunken PCA and the mean profile.

    Parameters
    ----------
    loss
        Name in `geneae.losses.LOSSES`.
    n_latent
        Length of the latent.
    hidden
        Width of the hidden layers.
    basis
        `pca`: a fixed PCA basis of the training profiles around a small network that starts at (shrunken) PCA. `free`:
        the gene-sized matrices are learned.
    rank
        Components of the PCA basis, at least `n_latent`.
    init
        Start of a free basis: `pca` or `random`.
    target
        `split`: a random half of each profile's molecules predicts the other half. `self`: a profile reconstructs
        itself. `auto`: split for counts, else self.
    center
        What the loss subtracts from target and prediction: `none`; `gene`, the gene means; `profile`, each profile's
        own mean.
    alpha, beta, gamma
        Weights of the losses `combined`, `magnitude` and `scaled-cosine`.
    cut, cut_where
        Cut-initialisation: initial weights divided by `cut`, in `encoder`, `decoder` or `all`.
    n_top_genes
        Keep the genes of largest variance; None keeps all that are seen in at least three training profiles.
    scale
        Divide every gene by its deviation.
    dropout
        In the hidden layers, 0 to below 1.
    n_splits
        Count splits that training takes in turn.
    epochs, patience, batch_size, learning_rate, weight_decay, device, precision
        See `geneae.training.TrainingSettings`.
    validation, test, group, stratify
        See `geneae.splits.split_profiles`.
    seed
        Of everything random.
    """

    def __init__(
        self,
        loss: str = "mse",
        *,
        n_latent: int = 32,
        hidden: int = 128,
        basis: str = "pca",
        rank: int = 128,
        init: str = "pca",
        target: str = "auto",
        center: str = "none",
        alpha: float = 0.5,
        beta: float = 1.0,
        gamma: float = 2.0,
        cut: float = 1.0,
        cut_where: str = "all",
        n_top_genes: int | None = None,
        scale: bool = False,
        dropout: float = 0.25,
        n_splits: int = 8,
        epochs: int = 60,
        patience: int = 20,
        batch_size: int = 512,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.05,
        validation: float = 0.1,
        test: float = 0.1,
        group: str | None = None,
        stratify: str | None = None,
        seed: int = 0,
        device: str = "auto",
        precision: str = "32",
    ) -> None:
        self.loss = loss
        self.n_latent = n_latent
        self.hidden = hidden
        self.basis = basis
        self.rank = rank
        self.init = init
        self.target = target
        self.center = center
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.cut = cut
        self.cut_where = cut_where
        self.n_top_genes = n_top_genes
        self.scale = scale
        self.dropout = dropout
        self.n_splits = n_splits
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation = validation
        self.test = test
        self.group = group
        self.stratify = stratify
        self.seed = seed
        self.device = device
        self.precision = precision

    def fit(
        self,
        data: Any,
        y: Any = None,
        *,
        layer: str | None = None,
        use_raw: bool = False,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
    ) -> "Autoencoder":
        """Train on profiles, and judge the model and its baselines on validation and test profiles.

        Everything that is fitted (genes, means, bases, weights) sees training profiles only; validation profiles
        choose the epoch; test profiles choose nothing.

        Parameters
        ----------
        data
            Profiles, or whatever `geneae.profiles.read_profiles` takes.
        y
            Not used.
        layer, use_raw
            Which matrix of AnnData to read.
        on_epoch
            Called with each row of the history.
        """
        begin = time.perf_counter()
        settings = self._check()
        profiles = data if isinstance(data, Profiles) else read_profiles(data, layer, use_raw)
        is_split = self._is_split(profiles)
        is_empty = np.diff(profiles.matrix.indptr) == 0
        self.split_ = split_profiles(
            profiles.obs, self.validation, self.test, self.group, self.stratify, self.seed, exclude=is_empty
        )
        where = {name: np.flatnonzero(self.split_ == name) for name in pd.unique(self.split_)}
        preprocess = fit_preprocess(profiles, where["train"], self.n_top_genes, self.scale)
        expression, _ = preprocess.match(profiles)
        self._check_sizes(len(where["train"]), len(preprocess.genes))
        known = expression.take(where["train"]), expression.take(where["validation"])
        blocks, baselines = self._fit_baselines(known[0], preprocess, is_split)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
            torch.manual_seed(self.seed)
            network = self._start(baselines, is_split)
            fitted, constants = self._train(network, known, blocks, preprocess, is_split, settings, on_epoch)
        config = self._describe(profiles, preprocess, network, is_split, constants, fitted)
        model = Model(network, preprocess, baselines, {}, config)
        judged = np.flatnonzero(self.split_.isin(["validation", "test"]))
        result = evaluate(
            model, expression.take(judged), profiles.names[judged], self.split_.iloc[judged], fit_scales=True
        )
        config |= {"seconds": time.perf_counter() - begin, "peak_memory_mb": _peak_memory()}
        self.model_ = Model(network, preprocess, baselines, result.scales, config)
        self.history_, self.evaluation_, self.best_epoch_ = fitted.history, result, fitted.best_epoch
        self.excluded_ = profiles.names[is_empty]
        self.n_features_in_ = profiles.n_genes
        return self

    def transform(self, data: Any, *, layer: str | None = None, use_raw: bool = False) -> np.ndarray:
        """(n_profiles, n_latent) float32 latents; genes are matched by name."""
        return self._fitted().latent(self._match(data, layer, use_raw)[1])

    def inverse_transform(self, latent: np.ndarray) -> np.ndarray:
        """(n_profiles, n_genes) float32 reconstruction in the genes and space of the model (`model_.preprocess`)."""
        model = self._fitted()
        latent = np.asarray(latent)
        if latent.ndim != 2 or latent.shape[1] != model.n_latent:
            raise InputError(f"latents must have shape (n_profiles, {model.n_latent}); found {latent.shape}.")
        return model.reconstruction(latent)

    def score_profiles(self, data: Any, *, layer: str | None = None, use_raw: bool = False) -> pd.DataFrame:
        """One row per profile: cosine, centred_cosine, mse, ... as in `profiles.csv`."""
        profiles, expression = self._match(data, layer, use_raw)
        split = pd.Series("all", index=profiles.names)
        table = evaluate(self._fitted(), expression, profiles.names, split, fit_scales=False).profiles
        return table[table["model"] == "model"].set_index("profile")[list(COLUMNS)]

    def score(self, data: Any, y: Any = None) -> float:
        """Mean cosine of profiles and their reconstructions: held-out for counts, else on their own input."""
        table = self.score_profiles(data)
        has_held_out = table["heldout_cosine"].notna().any()
        return float(table["heldout_cosine" if has_held_out else "cosine"].mean())

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the model folder; whole, or not at all."""
        model = self._fitted()
        with new_folder(Path(folder), overwrite) as partial:
            save_model(model, partial)
            if hasattr(self, "history_"):
                table = pd.DataFrame({"profile": self.split_.index, "split": self.split_.to_numpy()})
                table.to_csv(partial / "split.csv", index=False)
                self.history_.to_csv(partial / "history.csv", index=False)
                write_evaluation(self.evaluation_, partial)

    @classmethod
    def load(cls, folder: str | Path) -> "Autoencoder":
        """The model of a folder that `save` or `geneae fit` has written. No code of it is run."""
        model = load_model(Path(folder))
        known = {name: value for name, value in model.config["settings"].items() if name in cls().get_params()}
        loaded = cls(**known)
        loaded.model_ = model
        loaded.n_features_in_ = int(model.config["data"]["n_genes"])
        return loaded

    def _fitted(self) -> Model:
        if not hasattr(self, "model_"):
            raise NotFittedError("this Autoencoder has no model yet: call fit, or Autoencoder.load(folder)")
        model: Model = self.model_
        return model

    def _match(self, data: Any, layer: str | None, use_raw: bool) -> tuple[Profiles, Expression]:
        profiles = data if isinstance(data, Profiles) else read_profiles(data, layer, use_raw)
        return profiles, self._fitted().preprocess.match(profiles, MIN_OVERLAP)[0]

    def _check(self) -> TrainingSettings:
        """Refuse settings that cannot be used, before any data are read."""
        self._weights()
        for name, options in (
            ("basis", BASES),
            ("init", STARTS),
            ("target", TARGETS),
            ("center", CENTERS),
            ("cut_where", CUT_PLACES),
        ):
            if getattr(self, name) not in options:
                raise unknown(name, getattr(self, name), options)
        for name in ("n_latent", "hidden", "rank", "n_splits"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; found {getattr(self, name)}.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be at least 0 and below 1; found {self.dropout:g}.")
        if not self.cut > 0:
            raise InputError(f"the cut must be a number above 0; found {self.cut:g}. 1 means no cut.")
        if self.basis == "pca" and self.init == "random":
            raise InputError("a random start needs a basis that is learned. Use --basis free with --init random.")
        if find_loss(self.loss).center not in (None, self.center) and self.center != "none":
            raise InputError(f"loss {self.loss} has its own centring; leave out --center {self.center}.")
        return TrainingSettings(
            self.epochs,
            self.patience,
            self.batch_size,
            self.learning_rate,
            self.weight_decay,
            self.device,
            self.precision,
            self.seed,
        )

    def _weights(self) -> LossSettings:
        find_loss(self.loss)
        return LossSettings(alpha=self.alpha, beta=self.beta, gamma=self.gamma)

    def _center(self) -> str:
        return find_loss(self.loss).center or self.center

    def _is_split(self, profiles: Profiles) -> bool:
        if self.target == "split" and profiles.state != "counts":
            raise InputError(
                f"--target split divides molecules and needs counts; {profiles.source}, {profiles.location} holds "
                f"{profiles.state.replace('_', '-')} values. Name the counts with --layer, or use --target self."
            )
        return self.target == "split" or (self.target == "auto" and profiles.state == "counts")

    def _check_sizes(self, n_train: int, n_genes: int) -> None:
        largest = largest_rank(n_train, n_genes)
        if self.n_latent > largest:
            raise InputError(
                f"the latent must be at most {largest}, as there are {n_train} training profiles and {n_genes} genes; "
                f"found {self.n_latent}. Ask for a smaller latent."
            )

    def _fit_baselines(
        self, expression: Expression, preprocess: Preprocess, is_split: bool
    ) -> tuple[list[Any], Baselines]:
        """What the network is trained on, first draw, and the bases of the training profiles."""
        whole = preprocess.apply(expression)
        small, large = max(self.n_latent, *PCA_SIZES), max(self.rank, self.n_latent)
        basis = fit_basis([whole], small if is_split else large, self.seed)
        if preprocess.state != "counts":
            return [whole], Baselines(basis, None, None, self.n_latent)
        halves = draw_blocks(expression, preprocess, True, (self.seed, TRAINING_STREAM, 0))
        half = fit_basis(halves, large if is_split else small, self.seed)
        factors = fit_wiener(halves[0], halves[1], half.rank, self.seed)
        return halves if is_split else [whole], Baselines(basis, half, factors, self.n_latent)

    def _start(self, baselines: Baselines, is_split: bool) -> Network:
        basis: Basis = baselines.half if is_split and baselines.half is not None else baselines.whole
        if self.basis == "free" and self.init == "random":
            return random_network(basis.mean, self.n_latent, self.hidden, self.dropout)
        factors: Tensor = torch.ones(basis.rank)
        if is_split and baselines.factors is not None:
            factors = baselines.factors
        return network_in_basis(basis, factors, self.n_latent, self.hidden, self.dropout, self.basis == "free")

    def _train(
        self,
        network: Network,
        known: tuple[Expression, Expression],
        blocks: list[Any],
        preprocess: Preprocess,
        is_split: bool,
        settings: TrainingSettings,
        on_epoch: Callable[[dict[str, float]], None] | None,
    ) -> tuple[Fit, LossSettings]:
        constants = loss_constants(blocks, network.mean, self._center(), self._weights())
        objective = Reconstruction(find_loss(self.loss), self._center(), constants)
        source = PairSource(network, known[0], preprocess, is_split, self.n_splits, self.seed)
        validation = [
            Pairs(network, draw_blocks(known[1], preprocess, is_split, (self.seed, VALIDATION_STREAM, number)))
            for number in range(VALIDATION_SPLITS if is_split else 1)
        ]
        fitted = train(network, source, validation, objective, settings, self.cut, self.cut_where, on_epoch)
        network.to("cpu")
        return fitted, constants

    def _describe(
        self,
        profiles: Profiles,
        preprocess: Preprocess,
        network: Network,
        is_split: bool,
        constants: LossSettings,
        fitted: Fit,
    ) -> dict[str, Any]:
        """What `config.json` holds."""
        best = fitted.history[fitted.history["epoch"] <= fitted.best_epoch]
        train_seconds = float(fitted.history["train_seconds"].sum())
        n_pairs = int((self.split_ == "train").sum()) * (2 if is_split else 1)
        return {
            "format": FORMAT,
            "settings": self.get_params(),
            "seed": self.seed,
            "center": self._center(),
            "target": "split" if is_split else "self",
            "state": preprocess.state,
            "space": preprocess.space,
            "target_sum": preprocess.target_sum,
            "loss_constants": asdict(constants),
            "network": {
                "core": type(network.core).__name__.removesuffix("Core").lower(),
                "is_free": network.is_free,
                "n_scores": len(network.deviation),
                "n_genes": network.n_genes,
            },
            "best_epoch": fitted.best_epoch,
            "epochs_run": int(fitted.history["epoch"].iloc[-1]),
            "seconds_to_best_epoch": float(best["seconds"].iloc[-1]),
            "pairs_per_second": n_pairs * (len(fitted.history) - 1) / train_seconds if train_seconds else None,
            "data": {
                "source": profiles.source,
                "location": profiles.location,
                "state": profiles.state,
                "n_profiles": profiles.n_profiles,
                "n_genes": profiles.n_genes,
                "n_excluded": int((self.split_ == EXCLUDED).sum()),
                "fingerprint": profiles.fingerprint,
            },
            "versions": {name: version(name) for name in ("geneae", "torch", "anndata", "scipy", "numpy")}
            | {"python": platform.python_version()},
        }


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `profiles.csv` (the model alone) and `metrics.csv` (model and baselines)."""
    table = evaluation.profiles
    table[table["model"] == "model"].drop(columns="model").to_csv(folder / "profiles.csv", index=False)
    evaluation.metrics.to_csv(folder / "metrics.csv", index=False)


def _peak_memory() -> float:
    """Largest memory of this process so far, in 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
