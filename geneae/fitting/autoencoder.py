"""`Autoencoder`: geneae as a scikit-learn estimator."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.validation import check_array

from geneae.data.notes import WARNED
from geneae.data.preprocess import Expression
from geneae.data.profiles import Profiles
from geneae.data.reading import are_paths, read_profiles
from geneae.data.source import read_like
from geneae.evaluation.reconstruction import BY_PROFILE, evaluate, gene_correlation
from geneae.evaluation.records import HELD_OUT
from geneae.fitting.fitted import fit_with_nulls, run_of
from geneae.fitting.keywords import set_keywords, signature_of
from geneae.folders.model import load_model
from geneae.folders.outputs import new_folder
from geneae.folders.run import write_run
from geneae.models.loadings import genes_along, loadings
from geneae.models.model import Model, latent_names
from geneae.models.query_depth import ratios_of
from geneae.settings.errors import InputError
from geneae.settings.python_words import in_python, speaks_python
from geneae.settings.settings import Settings
from geneae.training.devices import is_first

DEFAULTS = Settings()
ARRAY = "array in memory"  # source of profiles whose genes have no names


class Autoencoder(TransformerMixin, BaseEstimator):
    """Autoencoder of gene-expression profiles, evaluated against PCA, shrunken PCA and the mean profile.

    The parameters are the fields of `geneae.settings.settings.Settings`, described there. It meets the contract of
    scikit-learn (`check_estimator`): it can be cloned, put into a `Pipeline`, and tuned by `GridSearchCV`, which
    maximises `score`. All of that takes AnnData, too.

    Attributes
    ----------
    n_features_in_
        Number of genes in the data that it was fitted on.
    feature_names_in_
        Names of these genes; missing if it was fitted on an array.
    model_
        The `geneae.models.model.Model`.
    split_
        `train`, `validation`, `test` or `excluded` (no molecules) for each profile.
    history_
        One row per epoch.
    evaluation_
        The `geneae.evaluation.records.Evaluation` of validation and test profiles.
    genewise_
        Columns gene, mean and correlation over the test profiles, or over the validation profiles if there is no test
        split; empty without a decoder.
    diagnostics_
        Columns name, value, limit, fires and message.
    conclusion_
        Conclusions about the fit, in sentences.
    """

    def __init__(self, loss: str = DEFAULTS.loss, **settings: Any) -> None:
        set_keywords(self, DEFAULTS, {"loss": loss} | settings)

    __init__.__signature__ = signature_of(Settings)  # type: ignore[attr-defined]

    @speaks_python
    def fit(
        self,
        data: Any,
        y: Any = None,
        *,
        layer: str | None = None,
        use_raw: bool = False,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        null: bool = False,
        checkpoint: str | Path | None = None,
        resume: bool = True,
    ) -> "Autoencoder":
        """Train on profiles, and evaluate the model and its baselines on validation and test profiles.

        Parameters
        ----------
        data
            `Profiles`, or anything that `geneae.data.reading.read_profiles` takes. A file of which reading would need
            more than half of the free memory is streamed; `read_profiles(path, stream=...)` decides otherwise, and
            takes `gene_names` and `modality`. What it says of them, `Profiles.said`, is given as a warning.
        y
            Not used.
        layer, use_raw
            Matrix of AnnData to read.
        on_epoch
            Function that is called with each row of the history, including those of the permuted controls, which also
            start at epoch 0.
        null
            Also fit the permuted controls of `geneae.data.permuted`, and report in `diagnostics_` whether there was
            anything to learn. Takes three times as long.
        checkpoint
            Folder for checkpoints. If the process is killed, the same call resumes from them; on the same CPU machine
            the results are then bit-identical, apart from timings.
        resume
            Whether to resume from existing checkpoints; otherwise they are replaced.
        """
        settings = Settings(**self.get_params())
        profiles = self._read(data, layer, use_raw, is_new=True)
        for name in WARNED:
            if name in profiles.notes:
                warnings.warn(in_python(profiles.notes[name]), UserWarning, stacklevel=3)
        folder = None if checkpoint is None else Path(checkpoint)
        fitted = fit_with_nulls(profiles, settings, null, on_epoch, folder, resume)
        self._fitted = fitted
        self.model_, self.split_ = fitted.model, fitted.split
        self.history_, self.evaluation_ = fitted.history, fitted.evaluation
        self.genewise_, self.diagnostics_ = fitted.genewise, fitted.diagnostics
        self.conclusion_ = fitted.conclusion
        self.n_features_in_ = profiles.n_genes
        self.__dict__.pop("feature_names_in_", None)  # from an earlier fit
        if profiles.source != ARRAY:
            self.feature_names_in_: np.ndarray = np.asarray(profiles.genes, dtype=object)
        return self

    @speaks_python
    def fit_transform(
        self, data: Any, y: Any = None, *, layer: str | None = None, use_raw: bool = False, **options: Any
    ) -> np.ndarray:
        """`fit`, then `transform` of the same matrix; further options are those of `fit`."""
        profiles = self._read(data, layer, use_raw, is_new=True)
        model = self.fit(profiles, **options).fitted()
        return self._latent(model.preprocess.match(profiles)[0])

    @speaks_python
    def transform(
        self, data: Any, *, layer: str | None = None, use_raw: bool = False, depth_ratio: float | None = 1.0
    ) -> np.ndarray:
        """(n_profiles, n_latent) float32 latents; genes are matched by name.

        Profiles without a value in the genes of the model have NaN, and so have those with fewer than 8 molecules there
        from a model that knows depths.

        Parameters
        ----------
        data
            Profiles, as for `fit`.
        layer, use_raw
            Matrix of AnnData to read in place of the one that the model was fitted on; `layer="X"` names X.
        depth_ratio
            Molecules of the training profiles divided by those of these, typically; None: estimated from all of these
            together. With a number, the latents of a profile do not depend on the others.
        """
        expression = self._match(data, layer, use_raw)[1]
        return self._latent(expression, self._ratios(expression, depth_ratio))

    def _latent(self, expression: Expression, ratios: np.ndarray | None = None) -> np.ndarray:
        """Latents of profiles, NaN where nothing can be said."""
        model = self.fitted()
        latent, is_blank = model.latent_and_blank(expression, ratios)
        latent[is_blank] = np.nan
        return latent

    def _ratios(self, expression: Expression, depth_ratio: float | None) -> np.ndarray | None:
        """(n_profiles,) depth ratios; None for a model that knows one depth only."""
        model = self.fitted()
        if depth_ratio == 1:
            return None
        depths = model.depths_of(expression, depth_ratio)
        return ratios_of(depths, expression.n_profiles) if depths else None

    def inverse_transform(self, latent: np.ndarray) -> np.ndarray:
        """(n_profiles, n_genes) float32 reconstruction in the genes and space of the model (`model_.preprocess`)."""
        model = self.fitted()
        latent = np.asarray(latent)
        if latent.ndim != 2 or latent.shape[1] != model.n_latent:
            raise InputError(f"latents must have shape (n_profiles, {model.n_latent}); found {latent.shape}.")
        return model.reconstruction(latent)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """`latent_0`, `latent_1`, ...: columns of the latents, as in the files of `geneae embed`."""
        return np.asarray(latent_names(self.fitted().n_latent), dtype=object)

    @speaks_python
    def score_profiles(
        self, data: Any, *, layer: str | None = None, use_raw: bool = False, depth_ratio: float | None = 1.0
    ) -> pd.DataFrame:
        """One row per profile with cosine, centred_cosine, mse and the other columns of `profiles.csv`.

        Parameters are those of `transform`.
        """
        profiles, expression = self._match(data, layer, use_raw)
        split, ratios = pd.Series("all", index=profiles.names), self._ratios(expression, depth_ratio)
        table = evaluate(self.fitted(), expression, profiles.names, split, fit_scales=False, ratios=ratios).profiles
        return table[table["model"] == "model"].set_index("profile")[list(BY_PROFILE)]

    def score(self, data: Any, y: Any = None) -> float:
        """Mean cosine of profiles and their reconstructions, -1 to 1, higher is better: what `GridSearchCV` maximises.

        For counts it is the held-out cosine (one random half of the molecules predicts the other half), which copying
        noise cannot raise. For other values it is the cosine of profiles and their own reconstruction, which more
        latent dimensions always raise; a search over `n_latent` therefore needs counts.
        """
        table = self.score_profiles(data)
        return float(table[HELD_OUT if table[HELD_OUT].notna().any() else "cosine"].mean())

    def loadings(self) -> pd.DataFrame:
        """(n_genes, n_latent) change of the reconstruction per unit of each latent; see `geneae.models.loadings`."""
        return loadings(self.fitted())

    @speaks_python
    def genes_along(
        self, latent: int, data: Any = None, *, layer: str | None = None, use_raw: bool = False
    ) -> pd.DataFrame:
        """Genes sorted by how far they move along a latent, the most first; see `geneae.models.loadings.genes_along`.

        Parameters
        ----------
        latent
            Number of the latent, from 0.
        data
            Profiles that give the mean and standard deviation of the latent; without them, the mean training profile is
            moved by one unit.
        layer, use_raw
            Matrix of AnnData to read.
        """
        model = self.fitted()
        return genes_along(model, latent, None if data is None else model.latent(self._match(data, layer, use_raw)[1]))

    @speaks_python
    def gene_correlation(self, data: Any, *, layer: str | None = None, use_raw: bool = False) -> pd.DataFrame:
        """Columns gene, mean and correlation over these profiles, as in `genewise_`."""
        return gene_correlation(self.fitted(), self._match(data, layer, use_raw)[1])

    @speaks_python
    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the run folder, complete or not at all; a loaded model is written without the tables of its fit.

        If several processes have trained it, only the first writes.
        """
        model = self.fitted()
        if not is_first():
            return
        with new_folder(Path(folder), overwrite) as partial:
            write_run(partial, model, run_of(self._fitted) if hasattr(self, "_fitted") else None)

    @classmethod
    def load(cls, folder: str | Path) -> "Autoencoder":
        """Load a folder written by `save` or `geneae fit`, or a zip file written by `geneae share`.

        No code from the file is run.
        """
        return cls.of(load_model(Path(folder)))

    @classmethod
    def of(cls, model: Model) -> "Autoencoder":
        """Estimator around a fitted model."""
        known = {name: value for name, value in model.config["settings"].items() if name in DEFAULTS.__dict__}
        loaded = cls(**known)
        loaded.model_ = model
        loaded.n_features_in_ = int(model.config["data"]["n_genes"])
        return loaded

    def fitted(self) -> Model:
        """The model; raises `NotFittedError` before `fit` or `load`."""
        if not hasattr(self, "model_"):
            raise NotFittedError("this Autoencoder has no model yet: call fit, or Autoencoder.load(folder)")
        model: Model = self.model_
        return model

    def _match(self, data: Any, layer: str | None, use_raw: bool) -> tuple[Profiles, Expression]:
        model = self.fitted()
        profiles = self._read(data, layer, use_raw, is_new=False)
        return profiles, model.preprocess.match(profiles)[0]

    def _read(self, data: Any, layer: str | None, use_raw: bool, is_new: bool) -> Profiles:
        """Profiles from any input of `read_profiles`, or from anything that scikit-learn accepts as an array."""
        if isinstance(data, Profiles):
            for sentence in data.said:
                warnings.warn(in_python(sentence), UserWarning, stacklevel=3)
            return data
        if are_paths(data) or isinstance(data, anndata.AnnData | pd.DataFrame | np.ma.MaskedArray):
            if is_new:
                profiles = read_profiles(data, layer, use_raw, "auto", self.state, self.features)
            else:
                model, how = self.fitted(), ("auto", self.state, self.features)
                profiles = read_like(model.location, data, layer, use_raw, *how, names_of_fit=model.gene_names)
            return self._read(profiles, layer, use_raw, is_new)
        return read_profiles(self._check_array(data, is_new), layer, use_raw, "no", self.state)

    def _check_array(self, data: Any, is_new: bool) -> Any:
        """Numeric array, checked by scikit-learn; its error messages are kept, without the values that they print.

        Columns without names can only be matched by position, so their number must be that of the fit.
        """
        n_least = 2 if is_new else 1
        try:
            array = check_array(
                data, accept_sparse=True, ensure_all_finite=False, ensure_min_samples=n_least, estimator=self
            )
        except ValueError as error:
            said = " ".join(line for line in str(error).splitlines() if not line.lstrip().startswith(("[", "array=")))
            raise InputError(f"{said.rstrip('. ')}. Give profiles x genes as numbers.") from error
        if not is_new and array.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {array.shape[1]} features, but Autoencoder is expecting {self.n_features_in_} features as "
                "input. Give the genes that it was fitted on, or AnnData or a DataFrame, matched by name."
            )
        return array

    def __sklearn_tags__(self) -> Tags:
        """Facts for scikit-learn: sparse input is accepted, latents are always float32."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
