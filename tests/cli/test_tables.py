from typing import Any

from conftest import QUICK

from geneae import Autoencoder
from geneae.cli.tables import metrics_table
from geneae.evaluation.records import HELD_OUT, value


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_the_table_shows_model_and_baselines_on_both_splits(fitted: Autoencoder) -> None:
    lines = metrics_table(fitted.evaluation_).splitlines()
    assert lines[0] == "Means over 24 validation / 24 test profiles; ↑ higher is better, ↓ lower is better"
    assert cells(lines[1]) == ["cosine ↑", "centred cosine ↑", "MSE ↓", "held-out cosine ↑"]
    rows = {
        "model": "model",
        "model_latent_only": "from the latent alone",
        "whitened": "whitened linear",
        "own_count": "own counts and mean profile",
        "shrunken_pca": "shrunken PCA",
        "pca": "PCA",
        "mean_profile": "mean profile",
    }
    assert [cells(line)[0] for line in lines[2:]] == [*rows.values(), "noise ceiling"]
    metrics = fitted.evaluation_.metrics
    for line, model in zip(lines[2:9], rows, strict=True):
        expected = [
            " / ".join(f"{value(metrics, model, split, metric):.4f}" for split in ("validation", "test"))
            for metric in ("cosine", "centred_cosine", "mse", HELD_OUT)
        ]
        assert cells(line)[1:] == expected
    ceiling = " / ".join(f"{value(metrics, 'model', split, 'ceiling'):.4f}" for split in ("validation", "test"))
    assert cells(lines[9]) == ["noise ceiling", ceiling]
    assert {len(line) for line in lines[1:]} == {len(lines[1])}
    assert len(lines[1]) < 100


def test_a_table_of_one_split_has_one_number_a_cell(fitted: Autoencoder) -> None:
    lines = metrics_table(fitted.evaluation_, ("test",)).splitlines()
    assert lines[0].startswith("Means over 24 test profiles;")
    assert cells(lines[2])[1] == f"{value(fitted.evaluation_.metrics, 'model', 'test', 'cosine'):.4f}"


def test_without_counts_there_is_neither_a_held_out_column_nor_a_ceiling(counts: Any) -> None:
    counts.X = counts.X.log1p()
    lines = metrics_table(Autoencoder(**QUICK).fit(counts).evaluation_).splitlines()
    assert cells(lines[1]) == ["cosine ↑", "centred cosine ↑", "MSE ↓"]
    assert [cells(line)[0] for line in lines[2:]] == ["model", "PCA", "mean profile"]
