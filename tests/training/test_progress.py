import builtins
import io
import sys
from types import ModuleType
from typing import Any

import pytest
from conftest import QUICK, simulate
from rich.console import Console

from geneae import Autoencoder
from geneae.settings.settings import Settings
from geneae.settings.stages import enter
from geneae.training.progress import BAR_WIDTH, progress_bar, reading_shown
from geneae.training.time_left import TimeLeft

ROW = {"epoch": 1.0, "validation_loss": 0.5, "validation_cosine": 0.81234, "validation_mse": 0.012}


class Shown:
    """A display of a notebook."""

    texts: list[str]

    def __init__(self, content: dict[str, str]) -> None:
        self.texts = [content["text/plain"]]

    def update(self, content: dict[str, str], raw: bool) -> None:
        self.texts.append(content["text/plain"])


def test_in_a_notebook_the_bar_lives_below_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Shown] = []

    def display(content: dict[str, str], raw: bool, display_id: bool) -> Shown:
        found.append(Shown(content))
        return found[0]

    kernel = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setattr(builtins, "get_ipython", lambda: kernel, raising=False)
    modules: dict[str, Any] = {name: ModuleType(name) for name in ("IPython", "IPython.display")}
    modules["IPython.display"].display = display
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    settings = Settings(**QUICK)
    with progress_bar(3, False, TimeLeft(settings, 0.01)) as show:
        Autoencoder(**QUICK).fit(simulate(60, 30), on_epoch=show)
    (shown,) = found
    assert [text.split("  ")[1] for text in shown.texts if "epoch" not in text] == [
        "fitting bases",
        "fitting bases",
        "training",
        "choosing steps",
        "judging",
    ]
    assert [text.split("  ")[1] for text in shown.texts if "epoch" in text] == [f"epoch {n}/3" for n in range(4)]
    full = [text.count("█") for text in shown.texts]
    assert full[0] == 0
    assert full[-1] > BAR_WIDTH / 2
    assert all(text.endswith(" s left") for text in shown.texts)
    with progress_bar(3, is_quiet=True) as show:
        assert show is None


def test_there_is_no_bar_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    for is_quiet in (True, False):
        with progress_bar(10, is_quiet) as show:
            assert show is None
    assert capfd.readouterr() == ("", "")


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int = 150) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(
        "geneae.training.progress.Console", lambda **_: Console(file=written, force_terminal=True, width=width)
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


def test_eighty_columns_show_the_epoch_and_its_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    written = on_a_terminal(monkeypatch, width=80)
    with progress_bar(60, False, TimeLeft(Settings(), 1000.0)) as show:
        assert show is not None
        enter("training")
        show(ROW | {"epoch": 12.0})
    assert "epoch 12/60  validation cosine 0.81" in written.getvalue()


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


def test_the_bar_names_the_stage_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    written = on_a_terminal(monkeypatch)
    with reading_shown(False):
        pass
    with progress_bar(10, False, TimeLeft(Settings(), 1000.0)):
        for stage in ("bases", "training", "steps", "judging", "report"):
            enter(stage)
    shown = written.getvalue()
    said = ["reading the profiles", "fitting bases", "training", "choosing steps", "judging", "writing the report"]
    places = [shown.index(stage) for stage in said]
    assert places == sorted(places)
    assert " min left" in shown
