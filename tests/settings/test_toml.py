import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from made_up import place_on_a_line

from geneae.cli.commands.fit import command as fit
from geneae.cli.main import main
from geneae.fitting import runs
from geneae.settings.errors import InputError
from geneae.settings.settings import SETTINGS
from geneae.settings.toml import flags_of, read_flags, to_toml

FLAGS = ["--latent", "4", "--hidden", "16", "--rank", "12", "--epochs", "2", "--splits", "2", "--batch-size", "64"]


def geneae(*arguments: object) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither drawing nor UMAP, which take most of the time of so small a fit."""
    monkeypatch.setattr(runs, "write_report", lambda path, *_: path.write_text("<html></html>"))
    monkeypatch.setattr(runs, "umap_of", place_on_a_line)


def settings_of(folder: Path) -> dict[str, object]:
    found = json.loads((folder / "config.json").read_text())
    assert isinstance(found, dict)
    return dict(found["settings"])


def test_the_file_that_fit_writes_gives_the_same_fit(counts_path: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, "--loss", "combined", "--center", "gene", "--alpha", "0.3", "--scale", "--stratify", "kind"]
    assert geneae("fit", counts_path, "-o", tmp_path / "a", *flags, "--color", "donor").exit_code == 0
    given = tmp_path / "a" / "settings.toml"
    result = geneae("fit", counts_path, "-o", tmp_path / "b", "--config", given)
    assert result.exit_code == 0, result.output
    assert settings_of(tmp_path / "b") == settings_of(tmp_path / "a")
    assert (tmp_path / "b" / "settings.toml").read_bytes() == given.read_bytes()
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "b" / "config.json").read_text())["color"] == "donor"


def test_flags_given_win_over_the_file(counts_path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('loss = "cosine"\nepochs = 9\nbatch_size = 33\nscale = true\n')
    result = geneae("fit", counts_path, "-o", tmp_path / "a", *FLAGS[:8], "--config", tmp_path / "a.toml", "--no-scale")
    assert result.exit_code == 0, result.output
    found = settings_of(tmp_path / "a")
    assert (found["loss"], found["epochs"], found["batch_size"], found["scale"]) == ("cosine", 2, 33, False)


def test_compare_takes_lists(counts_path: Path, tmp_path: Path) -> None:
    text = 'loss = ["mse", "cosine"]\nseeds = 1\nlatent = 3\nhidden = 8\nrank = 8\nepochs = 1\nsplits = 1\n'
    (tmp_path / "a.toml").write_text(text)
    result = geneae("compare", counts_path, "-o", tmp_path / "cmp", "--config", tmp_path / "a.toml")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "cmp").iterdir() if path.is_dir()} == {"mse-seed0", "cosine-seed0"}


BAD = {
    "unknown": ("bach-size = 3", "unknown flag in {path}: 'bach-size'; did you mean 'batch-size'? Available: "),
    "field": ("n_latent = 3", "unknown flag in {path}: 'n_latent'; did you mean 'latent'? Available: "),
    "output": ('output = "run"', "unknown flag in {path}: 'output'"),
    "table": ("[loss]\nname = 3", "{path}: loss must be one value, or a list of values; found a table."),
    "no toml": ("loss = mse", "--config {path} is not TOML ("),
    "limits": ("dropout = 2", "dropout must be at least 0 and below 1; found 2."),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_be_used_is_one_clear_error(case: str, counts_path: Path, tmp_path: Path) -> None:
    content, text = BAD[case]
    path = tmp_path / "a.toml"
    path.write_text(content)
    result = geneae("fit", counts_path, "-o", tmp_path / "run", "--config", path)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: " + text.format(path=path))
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content", ["epochs = 2.5", 'epochs = "many"', 'basis = "pcs"', "epochs = true", "loss = [1, 2]"]
)
def test_values_are_checked_as_on_the_command_line(content: str, counts_path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(content)
    result = geneae("fit", counts_path, "-o", tmp_path / "run", "--config", tmp_path / "a.toml")
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_flags(tmp_path / "no.toml", ["loss"])
    assert str(error.value) == (
        f"--config {tmp_path / 'no.toml'} cannot be read: No such file or directory. Give a TOML file of flags."
    )


def test_every_field_has_its_flag() -> None:
    flags = {flag.removeprefix("--") for one in fit.params for flag in one.opts}
    assert {one.flag for one in SETTINGS.values()} <= flags
    assert (SETTINGS["n_latent"].flag, SETTINGS["batch_size"].flag) == ("latent", "batch-size")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    settings = {"loss": 'a "b" \\ \n é \x7f', "learning_rate": 1e-05, "n_latent": 3, "scale": True, "group": None}
    config = {"settings": settings, "data": {"location": "layers['it's']"}, "color": None}
    flags = flags_of(config)
    assert flags["layer"] == "it's"
    text = to_toml(flags)
    expected = {"loss": settings["loss"], "learning-rate": 1e-05, "latent": 3, "scale": True, "layer": "it's"}
    assert tomllib.loads(text) == expected
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    found = read_flags(tmp_path / "a.toml", expected)
    assert found == {flag: str(value) for flag, value in expected.items()}
    assert flags_of(config | {"data": {"location": "raw"}})["raw"] is True


@given(text=st.text(), number=st.floats(allow_nan=False), whole=st.integers(-(2**63), 2**63 - 1))
def test_every_value_stands_on_its_line_and_is_read_back(text: str, number: float, whole: int) -> None:
    flags = {"loss": text, "cut": number, "seed": whole, "scale": True, "group": None}
    written = to_toml(flags)
    assert written.startswith("# Flags of this fit; repeat it with: geneae fit DATA --config settings.toml\n")
    lines = written.removesuffix("\n").split("\n")
    assert [line.split(" = ")[0] for line in lines[1:]] == ["loss", "cut", "seed", "scale"]
    assert "\x7f" not in written
    assert tomllib.loads(written) == {flag: value for flag, value in flags.items() if value is not None}
