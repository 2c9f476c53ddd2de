from pathlib import Path

import pandas as pd
import pytest
from conftest import QUICK, simulate

from geneae import Autoencoder
from geneae.settings.errors import InputError
from geneae.training import logs
from geneae.training.logs import LOGS, check_log, open_log
from geneae.training.progress import both

ROWS = [{"epoch": e, "train_loss": 1.0, "validation_loss": 1 / (e + 1), "seconds": 0.5} for e in range(3)]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A fit with both logs, and its history."""
    folder = tmp_path_factory.mktemp("logs") / "run_log"
    with open_log("csv", folder) as first, open_log("tensorboard", folder) as second:
        model = Autoencoder(**QUICK).fit(simulate(60, 30), on_epoch=both(first, None, second))
    return folder, model.history_


def test_the_csv_is_the_history(history: tuple[Path, pd.DataFrame]) -> None:
    folder, expected = history
    pd.testing.assert_frame_equal(pd.read_csv(folder / "history.csv"), expected, check_dtype=False, rtol=1e-12)


def test_tensorboard_reads_a_curve_of_each_column(history: tuple[Path, pd.DataFrame]) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    folder, expected = history
    (path,) = folder.glob("events.out.tfevents.*")
    found: dict[str, list[tuple[int, float]]] = {}
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    assert set(found) == set(expected.columns) - {"epoch"}
    assert [step for step, _ in found["validation_cosine"]] == [0, 1, 2, 3]
    assert [value for _, value in found["validation_cosine"]] == pytest.approx(list(expected["validation_cosine"]))


def test_a_row_is_in_the_csv_when_its_epoch_is_over(tmp_path: Path) -> None:
    with open_log("csv", tmp_path / "log") as note:
        assert note is not None
        assert not (tmp_path / "log").exists()
        for number, row in enumerate(ROWS, start=1):
            note(row)
            assert list(pd.read_csv(tmp_path / "log" / "history.csv")["epoch"]) == list(range(number))


def test_of_a_fit_with_nulls_the_fit_alone_is_logged(tmp_path: Path) -> None:
    with open_log("csv", tmp_path / "log") as note:
        assert note is not None
        for row in [*ROWS, *ROWS, *ROWS]:
            note(row)
    assert len(pd.read_csv(tmp_path / "log" / "history.csv")) == len(ROWS)


def test_a_resumed_fit_goes_on_with_its_log(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    for rows in (ROWS[:2], [*ROWS, *ROWS]):  # a resumed fit gives all rows again; then a null, which begins at epoch 0
        check_log("csv", folder, overwrite=False, resume=True)
        with open_log("csv", folder) as note:
            assert note is not None
            for row in rows:
                note(row)
    assert list(pd.read_csv(folder / "history.csv")["epoch"]) == [0, 1, 2]


def test_without_a_log_nothing_is_written(tmp_path: Path) -> None:
    with open_log(None, tmp_path / "log") as note:
        assert note is None
    check_log(None, tmp_path, overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LOGS)
def test_an_earlier_log_is_refused_or_replaced(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run_log"
    with open_log(name, folder) as note:
        assert note is not None
        note(ROWS[0])
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError) as error:
        check_log(name, folder, overwrite=False)
    message = f"the log {folder} already exists. Choose another output, or add --overwrite to replace it."
    assert str(error.value) == message
    check_log(name, folder, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("flags", [{"overwrite": True}, {"overwrite": False, "resume": True}, {"overwrite": False}])
def test_a_table_of_somebody_else_is_never_replaced_by_a_log(flags: dict[str, bool], tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("year,event\n1066,Hastings\n")
    (tmp_path / "events.out.tfevents.1.other").write_text("curves of another program")
    for name in LOGS:
        with pytest.raises(InputError, match=r"history\.csv was not written by geneae, and the log would replace it\."):
            check_log(name, tmp_path, **flags)
    (tmp_path / "history.csv").write_text("")  # the beginning of a log whose fit was killed
    check_log("tensorboard", tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["events.out.tfevents.1.other"]


def test_tensorboard_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        check_log("tensorboard", tmp_path / "log", overwrite=False)
    assert str(error.value) == (
        "--log tensorboard needs the package tensorboard, which is not installed. "
        "Install it with: pip install tensorboard, or use --log csv."
    )
    check_log("csv", tmp_path / "log", overwrite=False)
