"""`CosineMetric`: a cosine learned from labels, as a scikit-learn estimator, and the folder that stores it."""

import hashlib
import io
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load, save_file
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from geneae.data.preprocess import MIN_OVERLAP, Preprocess, first_names, fit_preprocess
from geneae.data.profiles import Profiles, complete_column
from geneae.data.reading import are_paths, read_profiles
from geneae.data.states import FORMER, STATES
from geneae.fitting.keywords import set_keywords, signature_of
from geneae.folders.contents import ChangedFile, Contents, FolderContents
from geneae.folders.manifest import CONFIG, GENES, METRIC_WEIGHTS
from geneae.folders.outputs import new_folder, write_json
from geneae.folders.tables import read_table, write_table
from geneae.settings.errors import InputError
from geneae.settings.settings import MetricSettings
from geneae.settings.text import counted
from geneae.training.metric_learning import Rows, learn_map
from geneae.training.similarity import cosines, learned_within, normalize_trace, vote

DEFAULTS = MetricSettings()
DTYPES = (np.float64, np.float32)  # accepted types of arrays; others are converted to the first

LARGEST = 1e100  # of the numbers of a map: sums of their squares have to stay within float64
KIND, FORMAT = "cosine-metric", 1  # recorded in config.json


class CosineMetric(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A cosine under A = M'M + epsilon I, with a low-rank M learned so that profiles of the same label agree.

    cos_A(x, y) = x'Ay / sqrt(x'Ax y'Ay). A is positive semi-definite by construction, and normalised to have the trace
    of the identity, because its scale does not matter.

    M is learned from mini-batches, within the leading principal components of the profiles, so that fewer labels are
    needed; see `geneae.training.metric_learning.neighbor_loss`. It starts at PCA, and ignores the mean profile, which
    all profiles share.

    The parameters are the fields of `geneae.settings.settings.MetricSettings`, described there.

    Attributes
    ----------
    map_
        M, (n_components, n_features).
    history_
        Columns epoch, loss and validation_accuracy (NaN without validation profiles); epoch 0 is the start.
    best_epoch_
        Epoch whose M was kept: the first with the highest validation accuracy, or the last without validation
        profiles.
    classes_
        The labels, sorted.
    preprocess_
        Preprocessing of AnnData; None if the metric was learned on an array.
    n_features_in_
        Number of columns of the array, or of genes kept from AnnData.
    """

    def __init__(self, n_components: int = DEFAULTS.n_components, **settings: Any) -> None:
        set_keywords(self, DEFAULTS, {"n_components": n_components} | settings)

    __init__.__signature__ = signature_of(MetricSettings)  # type: ignore[attr-defined]

    def fit(self, X: Any, y: Any, *, validation: tuple[Any, Any] | None = None) -> "CosineMetric":
        """Learn the metric.

        Parameters
        ----------
        X
            AnnData, a path or `Profiles`: counts are normalised and log1p-transformed as everywhere in geneae, and
            genes are matched by name. Or an array or table of latents or expression, dense or sparse, used unchanged.
        y
            (n_profiles,) labels; for AnnData also the name of a column of obs.
        validation
            Validation profiles and their labels, which choose the epoch.
        """
        settings = MetricSettings(**self.get_params())  # refuses impossible values
        rows, labels = self._rows_to_fit(_opened(X), y)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        _check_classes(self.classes_, codes)
        columns = learned_within(rows, self.rank, self.seed)
        scores = rows @ columns
        size = float(np.sqrt(np.mean(scores**2))) or 1.0
        start = np.eye(min(self.n_components, columns.shape[1]), columns.shape[1])
        others, truth = self._known(validation)
        history: list[dict[str, float]] = []
        for epoch, (loss, map_) in enumerate(learn_map(scores / size, codes, start, settings)):
            accuracy = np.nan
            if others is not None:
                near = cosines(others @ columns @ map_.T, scores @ map_.T)
                accuracy = float((vote(near, codes, self.n_neighbors) == truth).mean())
            if not history or others is None or accuracy > max(row["validation_accuracy"] for row in history):
                best, self.best_epoch_ = map_, epoch
            history.append({"epoch": epoch, "loss": loss, "validation_accuracy": accuracy})
        self.history_ = pd.DataFrame(history)
        self.map_ = normalize_trace(best @ columns.T, self.epsilon)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """(n_profiles, n_components) M x; its plain cosine is the cosine under A without the share epsilon."""
        check_is_fitted(self)
        return np.asarray(self._rows(_opened(X)) @ self.map_.T)

    def similarity(self, X: Any, Y: Any) -> np.ndarray:
        """(n_profiles of X, n_profiles of Y) exact cosines under A, in [-1, 1]; 0 for a profile of length zero."""
        check_is_fitted(self)
        return cosines(self._rows(_opened(X)), self._rows(_opened(Y)), self.map_, self.epsilon)

    def score(self, X: Any, y: Any) -> float:
        """Share of profiles whose `n_neighbors` nearest neighbours vote for their label, 0 to 1, higher is better.

        The neighbours are taken from X itself, not from the profiles of `fit`, which are not kept.
        """
        check_is_fitted(self)
        profiles = _opened(X)
        rows, labels = self._rows(profiles), self._labels(profiles, y)
        if rows.shape[0] < 2:
            raise InputError(
                "a score needs at least two profiles, because they are compared with each other; found 1 sample. "
                "Give more profiles."
            )
        similarity = cosines(rows, rows, self.map_, self.epsilon)
        np.fill_diagonal(similarity, -np.inf)
        _, codes = np.unique(labels, return_inverse=True)
        return float((vote(similarity, codes, min(self.n_neighbors, len(codes) - 1)) == codes).mean())

    def columns_of(self, preprocess: Preprocess, min_overlap: float = MIN_OVERLAP) -> tuple[np.ndarray, int]:
        """(n_genes, n_components) M' for the genes of other preprocessed profiles, and the number of genes it knows.

        Genes are matched by name. Genes that the metric lacks are zero in M, so that only epsilon applies to them. If
        less than the share `min_overlap` of the genes is known, or if the space is not that of the metric, an
        `InputError` is raised.
        """
        check_is_fitted(self)
        own = self.preprocess_
        assert own is not None
        if (own.space, own.target_sum) != (preprocess.space, preprocess.target_sum):
            raise InputError(
                f"--metric needs a metric learned in the space of the fit, {preprocess.space}; it was learned in "
                f"{own.space}. Learn it on the same matrix (--layer, --raw), and fit without --scale."
            )
        place = own.genes.get_indexer(preprocess.genes)
        is_known = place >= 0
        n_matched = int(is_known.sum())
        if n_matched < max(1, min_overlap * len(place)):
            raise InputError(
                f"at least {100 * min_overlap:.0f} % of the {len(place):,} genes of the fit must be in the metric; "
                f"found {n_matched:,} of them among its {len(own.genes):,} (fit: {first_names(preprocess.genes)}; "
                f"metric: {first_names(own.genes)}). Learn the metric on data with the same gene names."
            )
        columns = np.zeros((len(place), self.map_.shape[0]))
        columns[is_known] = self.map_.T[place[is_known]]
        return columns, n_matched

    @property
    def fingerprint(self) -> str:
        """SHA-256 of M, epsilon and gene names."""
        check_is_fitted(self)
        genes = [] if self.preprocess_ is None else list(map(str, self.preprocess_.genes))
        found = hashlib.sha256(json.dumps([self.map_.shape, self.epsilon, genes]).encode())
        found.update(np.ascontiguousarray(self.map_, "<f8").tobytes())
        return found.hexdigest()

    @property
    def metric_(self) -> np.ndarray:
        """A, (n_features, n_features): a dense matrix whose memory grows with the square of the number of genes."""
        check_is_fitted(self)
        return np.asarray(self.map_.T @ self.map_ + self.epsilon * np.eye(self.map_.shape[1]))

    @property
    def _n_features_out(self) -> int:
        return int(self.map_.shape[0])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        return tags

    def save(
        self, folder: str | Path, *, overwrite: bool = False, tables: dict[str, pd.DataFrame] | None = None
    ) -> None:
        """Write `config.json`, `metric.safetensors`, `history.csv` and, for AnnData, `genes.csv`; all of them or none.

        `tables` are further CSV files, by file name.
        """
        check_is_fitted(self)
        written = dict(tables or {}) | {"history.csv": self.history_}
        config: dict[str, Any] = {
            "format": FORMAT,
            "kind": KIND,
            "settings": self.get_params(),
            "n_features": self.n_features_in_,
            "classes": [str(name) for name in self.classes_],
            "best_epoch": self.best_epoch_,
            "state": None,
            "versions": {name: version(name) for name in ("geneae", "numpy", "scipy", "scikit-learn")},
        }
        if self.preprocess_ is not None:
            config |= {"state": self.preprocess_.state, "target_sum": self.preprocess_.target_sum}
            written[GENES] = pd.DataFrame({"gene": self.preprocess_.genes, "scale": self.preprocess_.scale})
        with new_folder(Path(folder), overwrite) as partial:
            write_json(partial / CONFIG, config)
            save_file({"map": np.ascontiguousarray(self.map_)}, partial / METRIC_WEIGHTS)
            for name, table in written.items():
                write_table(table, partial / name)

    @classmethod
    def load(cls, folder: str | Path) -> "CosineMetric":
        """Load a folder written by `save` or `geneae metric`. No code from the folder is run."""
        folder = Path(folder)
        files = FolderContents(folder)
        config = _read_config(files)
        try:
            loaded = cls(**vars(MetricSettings(**config["settings"])))
            loaded.map_ = load(files.read(METRIC_WEIGHTS))["map"]
            loaded.n_features_in_ = int(config["n_features"])
            loaded.classes_ = np.array(config["classes"])
            loaded.best_epoch_ = int(config["best_epoch"])
            loaded.history_ = pd.read_csv(io.BytesIO(files.read("history.csv")), engine="python")
            loaded.preprocess_ = None if config["state"] is None else _read_preprocess(files, config)
            if loaded.map_.shape[1:] != (loaded.n_features_in_,) or not (np.abs(loaded.map_) <= LARGEST).all():
                raise ValueError(f"the map must be finite, up to {LARGEST:g}, and have {loaded.n_features_in_} columns")
        except ChangedFile:
            raise
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
            raise InputError(
                f"{folder} should be the folder of a metric, but its files do not fit together ({reason}). "
                "Copy the complete folder again, or learn the metric again."
            ) from error
        return loaded

    def _rows_to_fit(self, X: Any, y: Any) -> tuple[Rows, np.ndarray]:
        """Preprocessed profiles and their labels; sets `preprocess_` and `n_features_in_`."""
        if isinstance(X, Profiles):
            self.preprocess_: Preprocess | None = fit_preprocess(X, np.arange(X.n_profiles))
            self.n_features_in_ = len(self.preprocess_.genes)
            return self._rows(X), self._labels(X, y)
        self.preprocess_ = None
        rows, labels = validate_data(self, X, self._labels(X, y), accept_sparse="csr", dtype=DTYPES)
        check_classification_targets(labels)
        return rows, labels

    def _rows(self, X: Any) -> Rows:
        """Preprocessed profiles, in the columns of M."""
        if self.preprocess_ is not None:
            profiles = X if isinstance(X, Profiles) else read_profiles(X)
            return self.preprocess_.apply(self.preprocess_.match(profiles)[0])
        if isinstance(X, Profiles):
            raise InputError(
                "the metric was learned on an array, so it has no gene names to match. Give an array with the same "
                "columns, or learn the metric on AnnData."
            )
        rows: Rows = validate_data(self, X, reset=False, accept_sparse="csr", dtype=DTYPES)
        return rows

    def _labels(self, X: Any, y: Any) -> Any:
        """Labels as given, or read from the column of obs that `y` names; missing labels are refused."""
        if not isinstance(y, str):
            _check_complete(y)
            return y
        if not isinstance(X, Profiles):
            raise InputError(
                f"'{y}' can only name a column of AnnData; found {type(X).__name__}. Give the labels themselves."
            )
        return complete_column(X.obs, y).astype(str).to_numpy()

    def _known(self, validation: tuple[Any, Any] | None) -> tuple[Rows | None, np.ndarray]:
        """Validation profiles and the codes of their labels; -1, which no neighbour has, for labels new to the fit."""
        if validation is None:
            return None, np.empty(0, int)
        profiles = _opened(validation[0])
        labels = np.asarray(self._labels(profiles, validation[1]))
        return self._rows(profiles), pd.Index(self.classes_).get_indexer(pd.Index(labels))


def _check_classes(classes: np.ndarray, codes: np.ndarray) -> None:
    counts = np.bincount(codes)
    if len(classes) < 2:
        raise InputError(f"a metric is learned from at least two labels; found one class, '{classes[0]}'. Give others.")
    if np.count_nonzero(counts > 1) < 2:
        raise InputError(
            f"at least two labels must occur in two or more profiles; found {counted(len(counts), 'label')} "
            f"for {counted(len(codes), 'profile')}. Give labels that profiles share."
        )


def _check_complete(y: Any) -> None:
    """Refuse labels of which some are missing: None, NaN or NA."""
    labels = np.asarray(y, dtype=object)
    if labels.ndim == 0:  # refused by scikit-learn
        return
    missing = np.flatnonzero(pd.isna(labels).ravel())
    if len(missing):
        raise InputError(
            f"every profile must have a label; {len(missing):,} of {len(labels):,} have none, first profile "
            f"{missing[0]} (counted from 0). Leave these profiles out, or label them."
        )


def _opened(X: Any) -> Any:
    """Profiles read from a path or AnnData; anything else unchanged."""
    return read_profiles(X) if are_paths(X) or isinstance(X, anndata.AnnData) else X


def _read_config(files: Contents) -> dict[str, Any]:
    missing = [name for name in (CONFIG, METRIC_WEIGHTS) if name not in files]
    if missing:
        raise InputError(
            f"{files.path} is not the folder of a metric: it lacks {', '.join(missing)}. "
            "Give a folder written by geneae metric."
        )
    config = files.json(CONFIG)
    if not isinstance(config, dict) or config.get("kind") != KIND or config.get("format") != FORMAT:
        found = f"{config.get('kind')} {config.get('format')}" if isinstance(config, dict) else type(config).__name__
        raise InputError(
            f"{files.path} holds {found}, but this version of geneae reads {KIND} {FORMAT}. "
            "Install the version that wrote it, or learn the metric again."
        )
    return config


def _read_preprocess(files: Contents, config: dict[str, Any]) -> Preprocess:
    table = read_table(files.read(GENES))
    state = FORMER.get(config["state"], config["state"])
    if state not in STATES or table["gene"].duplicated().any() or len(table) != config["n_features"]:
        raise ValueError(f"{GENES} must hold {config['n_features']} different genes, in a known space")
    genes = pd.Index(table["gene"], dtype=object)
    return Preprocess(state, genes, table["scale"].astype(float).to_numpy(), float(config["target_sum"]))
