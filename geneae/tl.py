"""Fits, latents, reconstructions and scores written into an AnnData, with the conventions of scanpy."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from geneae.data.halves import Halves, draw
from geneae.data.profiles import Profiles
from geneae.data.programs import table_in_memory
from geneae.data.reading import read_profiles
from geneae.data.source import read_like
from geneae.evaluation.reconstruction import evaluate
from geneae.evaluation.rehearsal import DEFAULTS, labelled_reference
from geneae.evaluation.transfer import transfer as transfer_labels
from geneae.fitting.autoencoder import Autoencoder
from geneae.fitting.given_model import AnyModel, loaded_model, trained_names
from geneae.fitting.judged import Judged
from geneae.fitting.judging import JudgeSettings
from geneae.fitting.judging import judge as judge_programs
from geneae.fitting.programs import programs_of
from geneae.folders.copies import as_anndata, genes_of, target_of
from geneae.folders.embedding import (
    LATENTS,
    RECONSTRUCTED,
    Embedded,
    check_key,
    depth_groups,
    describe,
    reconstructions,
)
from geneae.folders.embedding import embed as embed_profiles
from geneae.folders.halves import read_halves
from geneae.folders.labels import annotation_of
from geneae.folders.run import own_profiles
from geneae.models.loadings import loadings
from geneae.models.model import Model, reading_of
from geneae.models.query_depth import QueryDepth, ratios_of
from geneae.settings.errors import InputError
from geneae.settings.halves import HalvesSettings
from geneae.settings.python_words import in_python, speaks_python
from geneae.settings.settings import Settings, TransferSettings
from geneae.training.progress import both, progress_bar
from geneae.training.time_left import time_left_of

SCORES = ("cosine", "mse", "norm_ratio", "heldout_cosine")


@speaks_python
def read(
    data: Any,
    *,
    layer: str | None = None,
    use_raw: bool = False,
    state: str = "auto",
    features: str = "genes",
    gene_names: str | None = None,
    modality: str | None = None,
) -> anndata.AnnData:
    """Read a file of any format, or several files as one, into AnnData for the functions here and those of scanpy.

    `X` is the matrix that was read, float32 CSR; `obs` and `var` are what the files say. What was understood and could
    be meant otherwise is given as warnings. Parameters are those of `geneae.read_profiles`.
    """
    profiles = read_profiles(data, layer, use_raw, "no", state, features, gene_names, modality)
    for sentence in profiles.said:
        warnings.warn(in_python(sentence), UserWarning, stacklevel=3)
    return as_anndata(profiles)


@speaks_python
def fit(
    adata: anndata.AnnData,
    loss: str = "mse",
    *,
    layer: str | None = None,
    use_raw: bool = False,
    key_added: str = LATENTS,
    copy: bool = False,
    progress: bool = True,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    **settings: Any,
) -> Any:
    """Train an autoencoder on the profiles of an AnnData, and write latents, split and loadings into it.

    Writes (n_profiles, n_latent) latents into `obsm[key_added]` and, for counts, how uncertain they are into
    `obsm[key_added + "_sd"]`, see `embed`; `train`, `validation`, `test` or `excluded` into
    `obs["geneae_split"]`; (n_genes, n_latent) loadings into `varm["geneae_loadings"]`, NaN for genes outside the model
    (not with `use_raw`, because raw has genes of its own); and version, loss, settings, space and units into
    `uns["geneae"]`. A fit that fails writes nothing.

    Parameters
    ----------
    adata
        In memory or backed.
    loss
        Name in `geneae.losses.reconstruction.LOSSES`.
    layer, use_raw
        Matrix to read in place of `X`.
    key_added
        Key in `obsm`.
    copy
        Leave `adata` unchanged and write into a copy.
    progress
        Show a progress bar, in a terminal or a notebook.
    on_epoch
        Called with each row of the history.
    settings
        Further settings by name, see `geneae.settings.settings.Settings`.

    Returns
    -------
    The fitted `Autoencoder`; with `copy`, a tuple of it and the copy.
    """
    check_key(key_added)
    model = Autoencoder(loss, **settings)
    chosen = Settings(**model.get_params())
    profiles = read_profiles(_checked(adata), layer, use_raw, "no", chosen.state, chosen.features)
    with progress_bar(chosen.epochs, not progress, time_left_of(profiles, chosen)) as show:
        model.fit(profiles, on_epoch=both(show, on_epoch))
    loaded = model.model_
    expression = loaded.preprocess.match(profiles)[0]
    embedded = embed_profiles(loaded, profiles, expression, None if loaded.estimator is None else 1.0)
    target = target_of(adata, copy)
    target.obsm.update(embedded.in_obsm(key_added))
    _describe(target, loaded, key_added)
    target.obs["geneae_split"] = pd.Categorical(model.split_.to_numpy())
    if not use_raw:
        table = loadings(model.model_).reindex(genes_of(profiles, target.var))
        target.varm["geneae_loadings"] = table.to_numpy(np.float32)
    return (model, target) if copy else model


@speaks_python
def embed(
    adata: anndata.AnnData,
    model: AnyModel,
    *,
    layer: str | None = None,
    use_raw: bool = False,
    key_added: str = LATENTS,
    depth_ratio: float | None = None,
    depth_by: str | None = None,
    copy: bool = False,
) -> anndata.AnnData | None:
    """Write the latents of a fitted model into `obsm[key_added]`, and its description into `uns["geneae"]`.

    The latents are (n_profiles, n_latent). Use them with `sc.pp.neighbors(adata, use_rep="X_geneae")`. A model of
    counts reads the profiles at their own depth, recorded in `uns["geneae"]["depth"]`, and writes how uncertain each
    latent is into `obsm[key_added + "_sd"]`: the posterior standard deviation, in units of the latent.

    Parameters
    ----------
    adata
        In memory or backed. Genes are matched by name.
    model
        Fitted `Autoencoder` or `Model`, or the path of a model folder or of a zip written by `geneae share`.
    layer, use_raw
        Matrix to read in place of the one that the model was fitted on; `layer="X"` names X.
    key_added
        Key in `obsm`.
    depth_ratio
        Molecules of the training profiles divided by those of these, such as 10 for a tenth; None: estimated from the
        molecules that training profiles like them have.
    depth_by
        Column of `obs`; the depth is estimated for the profiles of each of its values.
    copy
        Leave `adata` unchanged, and return a copy with the results.
    """
    check_key(key_added)
    embedded = _embedded(adata, model, layer, use_raw, depth_ratio, depth_by)
    target = target_of(adata, copy)
    target.obsm.update(embedded.in_obsm(key_added))
    target.uns["geneae"] = embedded.describe(key_added)
    return target if copy else None


@speaks_python
def reconstruct(
    adata: anndata.AnnData,
    model: AnyModel,
    *,
    layer: str | None = None,
    use_raw: bool = False,
    key_added: str = RECONSTRUCTED,
    depth_ratio: float | None = None,
    depth_by: str | None = None,
    own_depth: bool = False,
    copy: bool = False,
) -> anndata.AnnData | None:
    """Write the dense reconstruction into `layers[key_added]`, float32, in the space that `uns["geneae"]` names.

    Genes that the model does not know are NaN. A model of counts also writes `layers["geneae_latent_only"]`, the
    reconstruction without a profile's own counts. Both are expected values at the depth of training profiles, with
    `own_depth` at that of each profile. Other parameters are those of `embed`; `key_added` is a key in `layers`.
    """
    check_key(key_added)
    chosen = replace(loaded_model(model), own_depth=own_depth)
    embedded = _embedded(adata, chosen, layer, use_raw, depth_ratio, depth_by)
    target = target_of(adata, copy)
    for name, values in reconstructions(embedded, genes_of(embedded.profiles, target.var)).items():
        target.layers[key_added if name == RECONSTRUCTED else name] = values
    _describe(target, embedded.model, depths=embedded.depths)
    return target if copy else None


@speaks_python
def score(
    adata: anndata.AnnData,
    model: AnyModel,
    *,
    layer: str | None = None,
    use_raw: bool = False,
    key_added: str = "geneae",
    depth_ratio: float | None = None,
    depth_by: str | None = None,
    copy: bool = False,
) -> anndata.AnnData | None:
    """Write how well each profile is reconstructed into `obs`: `geneae_cosine`, `geneae_mse`, `geneae_norm_ratio`.

    For counts also `geneae_heldout_cosine`: the reconstruction from one half of the molecules against the other half,
    which copying noise cannot raise; NaN for profiles with fewer than 20 molecules in a half. A profile without
    molecules has NaN everywhere. Parameters are those of `embed`; `key_added` is the prefix of the column names.
    """
    check_key(key_added)
    loaded = loaded_model(model)
    profiles = _read_for(loaded, adata, layer, use_raw)
    expression = loaded.preprocess.match(profiles)[0]
    depths = loaded.depths_of(expression, depth_ratio, depth_groups(profiles, depth_by, depth_ratio))
    ratios, split = ratios_of(depths, profiles.n_profiles) if depths else None, pd.Series("all", index=profiles.names)
    table = own_profiles(evaluate(loaded, expression, profiles.names, split, fit_scales=False, ratios=ratios))
    target = target_of(adata, copy)
    for name in SCORES if loaded.can_hold_out else SCORES[:-1]:
        target.obs[f"{key_added}_{name}"] = table[name].to_numpy()
    _describe(target, loaded, depths=depths)
    return target if copy else None


@speaks_python
def transfer(
    adata: anndata.AnnData,
    reference: anndata.AnnData,
    model: AnyModel,
    *,
    label: str,
    n_neighbors: int = DEFAULTS.n_neighbors,
    refuse: float = DEFAULTS.refuse,
    seed: int = DEFAULTS.seed,
    layer: str | None = None,
    use_raw: bool = False,
    key_added: str = "X_geneae",
    depth_ratio: float | None = None,
    depth_by: str | None = None,
    copy: bool = False,
) -> anndata.AnnData | None:
    """Label profiles by their nearest profiles in a labelled reference, by cosine in the latents of a model.

    Writes `obs["geneae_label"]`, missing for profiles that are unlike the reference; `obs["geneae_probability"]`, the
    probability of the label; `obs["geneae_distance"]`, the distance from the neighbours relative to that of reference
    profiles; `obs["geneae_closest_label"]`, which the refused have, too; the latents into `obsm[key_added]`; and how it
    was done into `uns["geneae"]["transfer"]`. Probability and limit of the distance are learned from reference profiles
    thinned to the depth of `adata`, see `geneae.evaluation.rehearsal`. What the reference lacks is found best by a
    model that was fitted on `adata`, too, which takes no labels.

    Parameters
    ----------
    adata
        Profiles to label, in memory or backed.
    reference
        Profiles with labels; left unchanged. Those without a label are left out.
    model
        Fitted `Autoencoder` or `Model`, or the path of a model folder or of a zip written by `geneae share`.
    label
        Column of `reference.obs`; labels are compared and written as text.
    n_neighbors
        Nearest reference profiles that vote.
    refuse
        Fraction of profiles like the reference that may be refused as unlike it; 0 refuses none.
    seed
        Seed of the thinning.
    layer, use_raw
        Matrix to read of both, in place of the one that the model was fitted on; `layer="X"` names X.
    key_added, depth_ratio, depth_by, copy
        See `embed`; the depth is that of `adata`.
    """
    check_key(key_added)
    settings = TransferSettings(n_neighbors, refuse, seed)
    loaded = loaded_model(model)
    known = _read_for(loaded, reference, layer, use_raw)
    expression = loaded.preprocess.match(known)[0]
    labelled = labelled_reference(loaded, known, expression, label, trained_names(model))
    embedded = _embedded(adata, loaded, layer, use_raw, depth_ratio, depth_by, expression.missing)
    labelled = labelled.without(embedded.expression.missing)
    names, is_blank = embedded.profiles.names, embedded.is_blank
    found = transfer_labels(labelled, names, embedded.latent, embedded.depths, is_blank, settings)
    target = target_of(adata, copy)
    annotation = annotation_of(found, target.obs_names)
    target.obsm.update(embedded.in_obsm(key_added))
    target.uns["geneae"] = embedded.describe(key_added) | annotation.uns
    annotation.add_to(target.obs)
    return target if copy else None


def split(
    adata: anndata.AnnData, *, layer: str | None = None, use_raw: bool = False, repeat: int = 1, **settings: Any
) -> Halves:
    """One random half of the molecules of every profile for other programs, the other half to judge them.

    Parameters
    ----------
    adata
        Counts, in memory or backed; left unchanged.
    layer, use_raw
        Matrix to read in place of `X`.
    repeat
        Number of the division, from 1; others divide the same molecules anew.
    settings
        See `geneae.settings.halves.HalvesSettings`.

    Returns
    -------
    The halves: `input` is the AnnData that other programs may see, `training` one with both halves of the training
    profiles, for those that are trained.
    """
    return draw(read_profiles(_checked(adata), layer, use_raw), HalvesSettings(**settings), repeat)


def judge(
    halves: Halves | str | Path,
    made: Mapping[str, Any],
    *,
    latents: Mapping[str, Any] | None = None,
    spaces: Mapping[str, str] | None = None,
    **settings: Any,
) -> Judged:
    """Judge reconstructions and latents of any program on held-out halves, beside the same controls.

    Parameters
    ----------
    halves
        Result of `split`, or a folder of `geneae split`.
    made
        Reconstruction of `halves.input` by each program, by its name: AnnData or a DataFrame with profiles as rows, or
        a pair of AnnData and `layer=KEY` or `obsm=KEY`. Profiles and genes are matched by name.
    latents
        Latents of `halves.input` likewise; a program may have both.
    spaces
        Spaces of reconstructions, names in `geneae.data.programs.SPACES`, by program; found out by default.
    settings
        See `geneae.fitting.judging.JudgeSettings`.

    Returns
    -------
    `metrics`, `paired` and other tables, and `answer`, the verdict in words.
    """
    known = halves if isinstance(halves, Halves) else read_halves(Path(halves))
    tables = []
    for name, data in (*made.items(), *(latents or {}).items()):
        of, key = data if isinstance(data, tuple) else (data, "")
        tables.append((name, table_in_memory(of, f"what '{name}' has made", known.given.genes, key)))
    return judge_programs([known], [programs_of(tables)], JudgeSettings(**settings), spaces)


def _embedded(
    adata: anndata.AnnData,
    model: AnyModel,
    layer: str | None,
    use_raw: bool,
    depth_ratio: float | None,
    depth_by: str | None,
    missing: np.ndarray | None = None,
) -> Embedded:
    """Profiles embedded; `missing` are genes that shall not be read, see `Expression.without`."""
    loaded = loaded_model(model)
    profiles = _read_for(loaded, adata, layer, use_raw)
    expression = loaded.preprocess.match(profiles)[0].without(missing)
    return embed_profiles(loaded, profiles, expression, depth_ratio, depth_groups(profiles, depth_by, depth_ratio))


def _read_for(model: Model, adata: Any, layer: str | None, use_raw: bool) -> Profiles:
    """Profiles as a model reads them: the matrix, the kind of values and the features of its fit."""
    how = ("no", *reading_of(model))
    return read_like(model.location, _checked(adata), layer, use_raw, *how, names_of_fit=model.gene_names)


def _checked(adata: Any) -> anndata.AnnData:
    if not isinstance(adata, anndata.AnnData):
        raise InputError(f"AnnData was expected; found {type(adata).__name__}. Read one with geneae.tl.read(path).")
    return adata


def _describe(adata: anndata.AnnData, model: Model, key: str | None = None, depths: Sequence[QueryDepth] = ()) -> None:
    """Record in `uns` which model made the numbers; without a new key, the recorded key of the latents stays."""
    known: Mapping[str, Any] = adata.uns.get("geneae", {})
    adata.uns["geneae"] = describe(model, key or str(known.get("key_added", "")), depths)
