"""Transferred labels in files."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import thinned

from geneae import Autoencoder, read_profiles
from geneae.evaluation.rehearsal import labelled_reference
from geneae.evaluation.transfer import Transferred, transfer
from geneae.folders.embedding import Embedded, describe, embed
from geneae.folders.labels import LABEL_FORMATS, write_labels


def found_of(fitted: Autoencoder, counts: anndata.AnnData, data: Path, stream: str) -> tuple[Embedded, Transferred]:
    model, known, profiles = fitted.fitted(), read_profiles(counts), read_profiles(data, stream=stream)
    embedded = embed(model, profiles, model.preprocess.match(profiles)[0])
    reference = labelled_reference(model, known, model.preprocess.match(known)[0], "kind")
    is_empty = profiles.scan.lengths == 0
    return embedded, transfer(reference, profiles.names, embedded.latent, embedded.depths, is_empty)


@pytest.mark.parametrize("stream", ["no", "yes"])
@pytest.mark.parametrize("ending", LABEL_FORMATS)
def test_what_is_read_back_are_the_labels(
    fitted: Autoencoder, counts: anndata.AnnData, ending: str, stream: str, tmp_path: Path
) -> None:
    data, path = tmp_path / "data.h5ad", tmp_path / f"out{ending}"
    adata = thinned(counts, 0.2)
    adata.obs_names = [f"other{number}" for number in range(adata.n_obs)]
    adata.obs["geneae_label"] = "of an earlier time"
    adata.write_h5ad(data)
    embedded, transferred = found_of(fitted, counts, data, stream)
    assert transferred.is_refused.any()
    write_labels(path, str(data), embedded, transferred, "X_mine")
    expected = transferred.table(embedded.profiles.names)
    if ending == ".h5ad":
        found = anndata.read_h5ad(path)
        np.testing.assert_array_equal(found.obsm["X_mine"], embedded.latent)
        np.testing.assert_array_equal(found.X.toarray(), adata.X.toarray())
        assert list(found.obs["donor"]) == list(adata.obs["donor"])
        read = found.obs[expected.columns]
        uns = found.uns["geneae"]
        assert {name: uns[name] for name in ("loss", "version", "key_added")} == {
            name: describe(fitted.fitted(), "X_mine")[name] for name in ("loss", "version", "key_added")
        }
        assert list(uns["transfer"]["labels"]) == ["k0", "k1", "k2", "k3"]
        assert uns["transfer"]["distance_limit"] == pytest.approx([transferred.rehearsals[0].limit])
    else:
        read = pd.read_csv(path) if ending == ".csv" else pd.read_parquet(path)
        assert list(read.pop("profile")) == list(adata.obs_names)
    assert list(read.columns) == list(expected.columns)
    for name in expected.columns:
        if name in ("geneae_label", "geneae_closest_label"):
            assert list(read[name].astype(object).fillna("")) == list(expected[name].astype(object).fillna(""))
        else:
            np.testing.assert_allclose(read[name].to_numpy(float), expected[name])
