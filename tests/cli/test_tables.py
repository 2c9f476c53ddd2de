import io
from typing import Any

import pytest
from conftest import QUICK
from rich.console import Console

from geneae import Autoencoder
from geneae.cli.tables import metrics_table
from geneae.evaluation.records import HELD_OUT, value
from geneae.training.progress import progress_bar

ROW = {"epoch": 1.0, "validation_loss": 0.5, "validation_cosine": 0.81234, "validation_mse": 0.012}


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


def test_there_is_no_bar_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    for is_quiet in (True, False):
        with progress_bar(10, is_quiet) as show:
            assert show is None
    assert capfd.readouterr() == ("", "")


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(
        "geneae.training.progress.Console", lambda **_: Console(file=written, force_terminal=True, width=150)
    )
    return written


def test_the_bar_shows_validation_cosine_and_mse(monkeypatch: pytest.MonkeyPatch) -> None:
    written = on_a_terminal(monkeypatch)
    with progress_bar(10, False) as show:
        assert show is not None
        show(ROW)
        show(ROW | {"epoch": 2.0, "validation_loss": 0.6, "validation_cosine": 0.79})
    assert "epoch 2/10" in written.getvalue()
    assert "validation cosine 0.7900" in written.getvalue()
    assert "MSE 0.012" in written.getvalue()
    assert "lowest loss in epoch 1" in written.getvalue()


def test_the_bar_starts_anew_with_the_next_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    written = on_a_terminal(monkeypatch)
    with progress_bar(10, False) as show:
        assert show is not None
        show(ROW)
        show(ROW | {"epoch": 0.0, "validation_loss": 0.9})
    assert "lowest loss in epoch 0" in written.getvalue()


def test_a_quiet_terminal_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    written = on_a_terminal(monkeypatch)
    with progress_bar(10, True) as show:
        assert show is None
    assert written.getvalue() == ""
