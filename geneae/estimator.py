"""`Autoencoder`: the whole of geneae in the manners of scikit-learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError

from geneae.devices import is_first
from geneae.diagnostics import against_null, to_table
from geneae.errors import InputError
from geneae.evaluation import COLUMNS, HELD_OUT, evaluate, write_evaluation
from geneae.fitting import fit
from geneae.model import Model
from geneae.nulls import NULLS
from geneae.preprocess import Expression
from geneae.profiles import Profiles, read_profiles
from geneae.saving import load_model, new_folder, save_model
from geneae.settings import Settings

DEFAULTS = Settings()


class Autoencoder(TransformerMixin, BaseEstimator):
    """Autoencoder of gene-expression profiles, judged against PCA, shrunken PCA and the mean profile.

    The parameters are the fields of `geneae.settings.Settings`, described there.

    Attributes
    ----------
    model_
        The `geneae.model.Model`.
    split_
        `train`, `validation`, `test` or `excluded` (no molecules) by profile.
    history_
        One row per epoch.
    evaluation_
        The `geneae.evaluation.Evaluation` of validation and test profiles.
    genewise_
        gene, mean and correlation over the test profiles.
    diagnostics_
        name, value, limit, fires, message.
    """

    def __init__(
        self,
        loss: str = DEFAULTS.loss,
        *,
        n_latent: int = DEFAULTS.n_latent,
        hidden: int = DEFAULTS.hidden,
        basis: str = DEFAULTS.basis,
        rank: int = DEFAULTS.rank,
        init: str = DEFAULTS.init,
        target: str = DEFAULTS.target,
        center: str = DEFAULTS.center,
        alpha: float = DEFAULTS.alpha,
        beta: float = DEFAULTS.beta,
        gamma: float = DEFAULTS.gamma,
        margin: float | None = DEFAULTS.margin,
        negatives: str = DEFAULTS.negatives,
        temperature: float = DEFAULTS.temperature,
        label: str | None = DEFAULTS.label,
        latent_norm: bool = DEFAULTS.latent_norm,
        cut: float = DEFAULTS.cut,
        cut_where: str = DEFAULTS.cut_where,
        cut_bias: str = DEFAULTS.cut_bias,
        target_norm: float | None = DEFAULTS.target_norm,
        grad_scale: float = DEFAULTS.grad_scale,
        optimizer: str = DEFAULTS.optimizer,
        n_top_genes: int | None = DEFAULTS.n_top_genes,
        scale: bool = DEFAULTS.scale,
        dropout: float = DEFAULTS.dropout,
        n_splits: int | None = DEFAULTS.n_splits,
        epochs: int = DEFAULTS.epochs,
        patience: int = DEFAULTS.patience,
        batch_size: int = DEFAULTS.batch_size,
        learning_rate: float = DEFAULTS.learning_rate,
        weight_decay: float = DEFAULTS.weight_decay,
        validation: float = DEFAULTS.validation,
        test: float = DEFAULTS.test,
        group: str | None = DEFAULTS.group,
        stratify: str | None = DEFAULTS.stratify,
        seed: int = DEFAULTS.seed,
        split_seed: int | None = DEFAULTS.split_seed,
        device: str = DEFAULTS.device,
        precision: str = DEFAULTS.precision,
        devices: int = DEFAULTS.devices,
        nodes: int = DEFAULTS.nodes,
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
        self.margin = margin
        self.negatives = negatives
        self.temperature = temperature
        self.label = label
        self.latent_norm = latent_norm
        self.cut = cut
        self.cut_where = cut_where
        self.cut_bias = cut_bias
        self.target_norm = target_norm
        self.grad_scale = grad_scale
        self.optimizer = optimizer
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
        self.split_seed = split_seed
        self.device = device
        self.precision = precision
        self.devices = devices
        self.nodes = nodes

    def fit(
        self,
        data: Any,
        y: Any = None,
        *,
        layer: str | None = None,
        use_raw: bool = False,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        null: bool = False,
        stream: str = "auto",
        checkpoint: str | Path | None = None,
        resume: bool = True,
    ) -> "Autoencoder":
        """Train on profiles, and judge the model and its baselines on validation and test profiles.

        Parameters
        ----------
        data
            `Profiles`, or whatever `geneae.profiles.read_profiles` takes.
        y
            Not used.
        layer, use_raw
            Which matrix of AnnData to read.
        on_epoch
            Called with each row of the history; those of the nulls, too, each from epoch 0 on.
        null
            Fit the nulls of `geneae.nulls` too, and say in `diagnostics_` whether there was anything to learn. Takes
            three times as long.
        stream
            Whether a file is read into memory, see `geneae.profiles.read_profiles`.
        checkpoint
            Folder for checkpoints, from which the same call goes on after the process was killed, to the same bits.
        resume
            Whether to go on from what is there; else it is replaced.
        """
        settings = Settings(**self.get_params())
        profiles = data if isinstance(data, Profiles) else read_profiles(data, layer, use_raw, stream)
        folder = None if checkpoint is None else Path(checkpoint)
        fitted = fit(profiles, settings, on_epoch, None, folder, resume)
        self.model_, self.split_ = fitted.model, fitted.split
        self.history_, self.evaluation_ = fitted.history, fitted.evaluation
        self.genewise_, self.diagnostics_ = fitted.genewise, fitted.diagnostics
        for name in NULLS if null else ():
            without = fit(profiles, settings, on_epoch, name, folder, resume)
            judged = against_null(
                fitted.evaluation, without.evaluation, name, "test" if settings.test else "validation"
            )
            self.diagnostics_ = pd.concat([self.diagnostics_, to_table(judged)], ignore_index=True)
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
        return float(table[HELD_OUT if table[HELD_OUT].notna().any() else "cosine"].mean())

    def save(
        self, folder: str | Path, *, overwrite: bool = False, and_then: Callable[[Path], None] | None = None
    ) -> None:
        """Write the model folder; whole, or not at all. `and_then` may add files before it takes its name.

        Of several processes that have trained it only the first writes.
        """
        model = self._fitted()
        if not is_first():
            return
        with new_folder(Path(folder), overwrite) as partial:
            save_model(model, partial)
            if hasattr(self, "history_"):
                table = pd.DataFrame({"profile": self.split_.index, "split": self.split_.to_numpy()})
                table.to_csv(partial / "split.csv", index=False)
                self.history_.to_csv(partial / "history.csv", index=False)
                self.genewise_.to_csv(partial / "genewise.csv", index=False)
                self.diagnostics_.to_csv(partial / "diagnostics.csv", index=False)
                write_evaluation(self.evaluation_, partial)
            if and_then is not None:
                and_then(partial)

    @classmethod
    def load(cls, folder: str | Path) -> "Autoencoder":
        """The model of a folder that `save` or `geneae fit` has written. No code of it is run."""
        model = load_model(Path(folder))
        known = {name: value for name, value in model.config["settings"].items() if name in DEFAULTS.__dict__}
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
        profiles = data if isinstance(data, Profiles) else read_profiles(data, layer, use_raw, "auto")
        return profiles, self._fitted().preprocess.match(profiles)[0]
