"""Peers: each ends as a record that says how, and as arguments of `geneae judge`."""

import importlib.util
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from commands import geneae
from conftest import simulate

FOLDER = Path(__file__).parents[1] / "workflows" / "peers"


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    """The script, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("peers", FOLDER / "peers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def given(tmp_path: Path, peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    """A peer in this Python, in place of an environment of its own."""
    monkeypatch.setattr(peers, "environment", lambda *_: Path(sys.executable))
    simulate(60, 30).write_h5ad(tmp_path / "input.h5ad")
    places: dict[str, Any] = {"input": tmp_path / "input.h5ad", "train": tmp_path / "input.h5ad"}
    places |= {"output": tmp_path / "raw.h5ad", "environments": tmp_path, "record": tmp_path / "raw.json"}
    return Namespace(name="raw", seconds=300.0, threads=1, seed=0, batch=None, **places)


def test_every_peer_has_its_script_and_says_its_licence(peers: ModuleType) -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} - {"made", "peers"} == {
        Path(peer.script).stem for peer in peers.PEERS.values()
    }
    for peer in peers.PEERS.values():
        text = (FOLDER / peer.script).read_text(encoding="utf-8")
        assert peer.script == "raw.py" or peer.licence in text.partition('"""\n\n')[0].replace("\n", " ")
        assert "import geneae" not in text or peer.script == "geneae_fit.py"
    names = {path.stem for path in (FOLDER / "requirements").glob("*.txt")}
    assert names == {Path(peer.script).stem for peer in peers.PEERS.values()} - {"geneae_fit"}


def test_a_peer_that_ends_well_is_judged(peers: ModuleType, given: Namespace) -> None:
    record = peers.run(given)
    assert record["status"] == "ok"
    assert record["seconds"] > 0
    assert anndata.read_h5ad(given.output).layers["reconstruction"].shape == (60, 30)
    given.record.write_text(json.dumps(record))
    assert peers.arguments_of([given.record], "made/{peer}.h5ad") == ["raw=made/raw.h5ad:layer=reconstruction"]


def test_a_fit_of_geneae_learns_from_whole_training_profiles(peers: ModuleType, given: Namespace) -> None:
    folder = given.record.with_name("halves")
    assert geneae("split", given.input, "-o", folder).exit_code == 0
    given.name, given.input, given.train = "geneae", folder / "input.h5ad", folder / "train.h5ad"
    record = peers.run(given)
    assert record["status"] == "ok"
    made = anndata.read_h5ad(given.output)
    assert made.layers["reconstruction"].shape == (60, 30)
    assert made.obsm["latent"].shape[0] == 60


def test_a_peer_that_fails_or_takes_too_long_says_so_and_is_left_out(
    peers: ModuleType, given: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    given.seconds = 0.01
    assert peers.run(given)["status"] == "did not end in 0.01 s"
    given.seconds, given.input = 300.0, given.input.with_name("none.h5ad")
    record = peers.run(given)
    assert record["status"].startswith("failed: FileNotFoundError")
    given.record.write_text(json.dumps(record))
    assert peers.arguments_of([given.record], "{peer}.h5ad") == []


def test_a_peer_that_does_not_install_says_so(
    peers: ModuleType, given: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Path:
        raise peers.subprocess.CalledProcessError(1, "pip", stderr="ERROR: No matching distribution found for x\n")

    monkeypatch.setattr(peers, "environment", refuse)
    assert peers.run(given)["status"] == "did not install: ERROR: No matching distribution found for x"


def test_the_picture_has_every_program_best_first_and_says_what_did_not_end(peers: ModuleType, tmp_path: Path) -> None:
    rows = [
        ("whitened linear", "control", 0.7),
        ("worst", "ok", -3.04),
        ("slow", "did not end in 600 s", None),
        ("geneae", "ok", 0.8),
    ]
    table = pd.DataFrame(rows, columns=["peer", "status", "skill"]).assign(data="one_set", repeat="0")
    once = table[table["peer"] != "slow"].assign(data="other_set")
    slow = table[table["peer"] == "slow"].assign(data="other_set", status="ok", skill=0.1)
    with plt.rc_context({"svg.fonttype": "none"}):
        peers.picture(pd.concat([table, once, slow]), tmp_path / "peers.svg")
    text = (tmp_path / "peers.svg").read_text(encoding="utf-8")
    assert "did not end in 600 s" in text
    assert "−3.0" in text or "-3.0" in text
    places = [text.index(f">{name}<") for name in ("worst", "slow", "whitened linear", "geneae")]
    assert places == sorted(places)  # rows are drawn from below
    assert [text.count(f">{name}<") for name in ("one set", "other set")] == [1, 1]
