import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, simulate, write_checkpoint
from safetensors.torch import load_file, save_file

from geneae import Autoencoder, read_profiles
from geneae.data.profiles import Profiles
from geneae.evaluation.reconstruction import evaluate
from geneae.evaluation.records import Evaluation
from geneae.folders.manifest import write_list
from geneae.folders.model import load_model, read_split, save_model, trained_on
from geneae.folders.outputs import check_writable, finish_swap, new_file, new_folder, write_json
from geneae.models.model import Model
from geneae.settings.errors import InputError

FILES = {
    "README.md",
    "SHA256SUMS",
    "config.json",
    "diagnostics.csv",
    "genes.csv",
    "genewise.csv",
    "history.csv",
    "metrics.csv",
    "model.safetensors",
    "profiles.csv",
    "settings.toml",
    "split.csv",
    "universe.csv",
}
KINDS: dict[str, dict[str, Any]] = {
    "split": {},
    "self": {"target": "self"},
    "free": {"basis": "free", "scale": True},
    "random": {"basis": "free", "init": "random", "loss": "pearson"},
    "unit": {"basis": "free", "init": "random", "latent_norm": True},
    "logs": {"n_top_genes": 30},
}


def judge(model: Model, data: Any) -> Evaluation:
    profiles = read_profiles(data)
    split = pd.Series("all", index=profiles.names)
    return evaluate(model, model.preprocess.match(profiles)[0], profiles.names, split, fit_scales=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_read_back_is_the_same_bit_for_bit(kind: str, tmp_path: Path) -> None:
    adata = simulate(80, 40)
    if kind == "logs":
        adata.X = adata.X.log1p()
    before = Autoencoder(**QUICK | KINDS[kind]).fit(adata)
    before.save(tmp_path / "run")
    after = load_model(tmp_path / "run")
    other = simulate(30, 40, seed=1)
    if kind == "logs":
        other.X = other.X.log1p()
    np.testing.assert_array_equal(
        after.latent(after.preprocess.match(read_profiles(other))[0]), before.transform(other)
    )
    first, second = judge(before.model_, other), judge(after, other)
    pd.testing.assert_frame_equal(first.profiles, second.profiles, check_exact=True)
    pd.testing.assert_frame_equal(first.metrics, second.metrics, check_exact=True)
    assert after.scales == before.model_.scales
    state, again = before.model_.network.state_dict(), after.network.state_dict()
    assert state.keys() == again.keys()
    assert [name for name in state if not torch.equal(state[name], again[name])] == []
    np.testing.assert_array_equal(after.preprocess.scale, before.model_.preprocess.scale)


def test_a_model_saved_again_is_the_same_file(model_folder: Path, tmp_path: Path) -> None:
    save_model(load_model(model_folder), tmp_path / "again")
    for name in ("model.safetensors", "genes.csv", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (model_folder / name).read_bytes()


def test_a_folder_holds_the_promised_files_and_no_other(model_folder: Path) -> None:
    assert {path.name for path in model_folder.iterdir()} == FILES
    assert sorted(path.name for path in model_folder.parent.iterdir()) == ["run"]
    assert list(pd.read_csv(model_folder / "genes.csv").columns) == ["gene", "mean", "scale"]
    assert list(pd.read_csv(model_folder / "split.csv").columns) == ["profile", "split", "digest"]
    history = pd.read_csv(model_folder / "history.csv")
    assert set(history.columns) >= {"epoch", "train_loss", "validation_loss", "validation_cosine", "validation_mse"}
    assert list(history.columns[-2:]) == ["train_seconds", "seconds"]


def test_the_tables_say_what_the_model_knows(model_folder: Path, fitted: Autoencoder) -> None:
    genes = pd.read_csv(model_folder / "genes.csv")
    assert list(genes["gene"]) == list(fitted.model_.preprocess.genes)
    np.testing.assert_allclose(genes["mean"], fitted.model_.baselines.whole.mean, rtol=1e-6)
    split = pd.read_csv(model_folder / "split.csv", index_col="profile")["split"]
    assert split.to_dict() == fitted.split_.to_dict()
    config = json.loads((model_folder / "config.json").read_text())
    assert config["settings"] == fitted.get_params()
    assert config["scales"] == fitted.model_.scales


def test_nothing_is_pickled(model_folder: Path) -> None:
    for path in model_folder.iterdir():
        content = path.read_bytes()
        assert path.suffix in (".json", ".csv", ".safetensors", ".md", ".toml", "")
        assert content[:2] not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
        assert b"torch._utils" not in content
        if path.suffix != ".safetensors":
            assert content.decode("utf-8").isprintable() or "\n" in content.decode("utf-8")
    length = int.from_bytes((model_folder / "model.safetensors").read_bytes()[:8], "little")
    header = json.loads((model_folder / "model.safetensors").read_bytes()[8 : 8 + length])
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F32"}


def test_no_tensor_of_genes_is_stored_twice(model_folder: Path) -> None:
    tensors = load_file(model_folder / "model.safetensors")
    large = {name: tensor.numpy().tobytes() for name, tensor in tensors.items() if tensor.shape[0] > 100}
    # the network has the mean of the estimator, and reads and predicts with its components
    of_estimator = {f"estimator.{name}" for name in ("components", "deviation", "reference", "calibration")}
    bases = {"whole.mean", "whole.components", "half.components"}  # halves have the mean of the network
    assert set(large) == {"network.mean"} | of_estimator | bases
    assert len(set(large.values())) == len(large)


def test_odd_gene_names_survive(tmp_path: Path) -> None:
    adata = simulate(60, 30)
    odd = ["NA", "nan", "", "None", "a,b", 'say "x"', "новый", "two\nlines", "1e5", "007", " space ", "TRUE", "'"]
    adata.var_names = odd + [f"gene{i}" for i in range(30 - len(odd))]
    before = Autoencoder(**QUICK).fit(adata)
    before.save(tmp_path / "run")
    after = load_model(tmp_path / "run")
    assert list(after.preprocess.genes) == list(before.model_.preprocess.genes)
    assert set(odd) <= set(after.preprocess.genes)
    assert after.preprocess.match(read_profiles(adata))[1] == len(before.model_.preprocess.genes)


def test_odd_profile_names_survive(tmp_path: Path) -> None:
    adata = simulate(60, 30)
    adata.obs_names = ["NA", "a,b", 'say "x"', "новый", "two\nlines", "007"] + [f"cell{i}" for i in range(54)]
    before = Autoencoder(**QUICK).fit(adata)
    before.save(tmp_path / "run")
    split = split_of(tmp_path / "run", load_model(tmp_path / "run"), read_profiles(adata))
    assert split.to_dict() == before.split_.to_dict()
    assert set(split) == {"train", "validation", "test"}


def test_other_profiles_have_no_split(model_folder: Path, fitted: Autoencoder, counts_path: Path) -> None:
    profiles = read_profiles(counts_path)
    model = load_model(model_folder)
    assert list(split_of(model_folder, model, profiles)) == list(fitted.split_)
    assert list(split_of(model_folder, model, profiles.take(np.arange(50)))) == list(fitted.split_[:50])
    others = read_profiles(simulate(50, seed=8))  # under the same names
    assert list(split_of(model_folder, model, others)) == ["all"] * 50
    assert read_split(model_folder / "nowhere", model, profiles) is None


def split_of(folder: Path, model: Model, profiles: Profiles) -> pd.Series:
    found = read_split(folder, model, profiles)
    assert found is not None
    return found.split


def test_folders_without_digests_know_profiles_by_name(
    damaged: Path, fitted: Autoencoder, counts: anndata.AnnData
) -> None:
    table = pd.read_csv(damaged / "split.csv")
    table.drop(columns="digest").to_csv(damaged / "split.csv", index=False)
    found = read_split(damaged, load_model(damaged), read_profiles(counts[:50].copy()))
    assert found is not None
    assert list(found.split) == list(fitted.split_[:50])
    assert found.n_by_name == 50
    table.assign(digest="x").to_csv(damaged / "split.csv", index=False)
    again = read_split(damaged, load_model(damaged), read_profiles(counts[:50].copy()))
    assert again is not None
    assert again.n_by_name == 50


def test_the_profiles_that_a_model_was_trained_on_are_known_by_name(
    fitted: Autoencoder, model_folder: Path, tmp_path: Path
) -> None:
    found = trained_on(model_folder)
    assert found is not None
    assert list(found) == list(fitted.split_.index[fitted.split_ == "train"])
    assert 0 < len(found) < len(fitted.split_)
    shutil.copytree(model_folder, tmp_path / "model", ignore=shutil.ignore_patterns("SHA256SUMS"))
    (tmp_path / "model" / "split.csv").write_text("profile,other\ncell0,train\n")
    assert trained_on(tmp_path / "model") is None
    (tmp_path / "model" / "split.csv").unlink()
    assert trained_on(tmp_path / "model") is None


@pytest.fixture
def damaged(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of a model folder, to be damaged; without checksums, as earlier versions wrote it."""
    ignored = shutil.ignore_patterns("SHA256SUMS")
    return Path(shutil.copytree(model_folder, tmp_path / "damaged", ignore=ignored))


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def assert_refused(folder: Path, *texts: str) -> None:
    """Refused, with the folder's name, the reason and what to do."""
    with pytest.raises(InputError) as error:
        load_model(folder)
    for text in (str(folder), *texts):
        assert text in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "genes.csv"])
def test_a_folder_without_one_of_its_files_is_refused(damaged: Path, name: str) -> None:
    (damaged / name).unlink()
    assert_refused(damaged, f"it lacks {name}. Give the folder that geneae fit has written.")


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    assert_refused(tmp_path / "nothing", "is not a folder. Give the folder that geneae fit has written.")
    assert_refused(tmp_path / "file", "should be a model packed by geneae share, but it is not a complete zip file (")


@pytest.mark.parametrize("length", [0, 4, 100, 5000, -1])
def test_a_truncated_weights_file_is_refused(damaged: Path, length: int) -> None:
    content = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(content[:length])
    assert_refused(damaged, "its files do not fit together", "Copy the complete folder again, or fit again.")


@pytest.mark.parametrize("content", [b"", b'{"format": 1', b"\xff\xfe\x00"])
def test_a_config_that_is_no_json_is_refused(damaged: Path, content: bytes) -> None:
    (damaged / "config.json").write_bytes(content)
    assert_refused(damaged, "config.json is not JSON (", "Copy the complete folder again.")


@pytest.mark.parametrize(("content", "found"), [("[1, 2]", "list"), ("{}", "None"), ('{"format": 3}', "3")])
def test_another_format_is_refused(damaged: Path, content: str, found: str) -> None:
    (damaged / "config.json").write_text(content)
    assert_refused(
        damaged,
        f"has format {found}, but this version of geneae reads format 1 and 2. Install the version that wrote it",
    )


KEYS = [
    "settings",
    "network",
    "state",
    "target_sum",
    "scales",
    "tensors",
    "center",
    "data",
    "seed",
    "split_seed",
    "versions",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_config_that_lacks_something_is_refused(damaged: Path, key: str) -> None:
    edit_config(damaged, **{key: None})
    assert_refused(damaged, "its files do not fit together")
    config = json.loads((damaged / "config.json").read_text())
    del config[key]
    (damaged / "config.json").write_text(json.dumps(config))
    assert_refused(damaged, "its files do not fit together")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("settings", "n_latent", 5),
        ("settings", "n_latent", -1),
        ("settings", "n_latent", 10**12),
        ("settings", "n_latent", "many"),
        ("settings", "hidden", 17),
        ("network", "n_scores", 11),
        ("network", "n_scores", 10**15),
        ("network", "core", "plain"),
        ("network", "is_free", True),
    ],
)
def test_sizes_that_are_not_those_of_the_weights_are_refused(damaged: Path, section: str, key: str, value: Any) -> None:
    config = json.loads((damaged / "config.json").read_text())
    edit_config(damaged, **{section: config[section] | {key: value}})
    assert_refused(damaged, "its files do not fit together")


@pytest.mark.parametrize("state", ["molecules", 3])
def test_an_unknown_state_is_refused(damaged: Path, state: Any) -> None:
    edit_config(damaged, state=state)
    assert_refused(damaged, "its files do not fit together")


def edit_genes(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_csv(folder / "genes.csv")).to_csv(folder / "genes.csv", index=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.iloc[:-1],
        lambda table: pd.concat([table, table.assign(gene="x" + table["gene"])]),
        lambda table: table.drop(columns="gene"),
        lambda table: table.drop(columns="scale"),
        lambda table: table.assign(gene="same"),
        lambda table: table.assign(scale="wide"),
        lambda table: table.assign(scale=np.nan),
        lambda table: table.assign(scale=0.0),
        lambda table: table.assign(scale=-1.0),
    ],
    ids=["fewer", "more", "no_gene", "no_scale", "repeated", "text", "nan", "zero", "negative"],
)
def test_genes_that_do_not_fit_the_weights_are_refused(
    damaged: Path, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    edit_genes(damaged, change)
    assert_refused(damaged, "its files do not fit together")


@pytest.mark.parametrize("content", [b"", b"gene,mean,scale\n", b"\xff\xfe\x00\x01"])
def test_a_gene_table_that_is_none_is_refused(damaged: Path, content: bytes) -> None:
    (damaged / "genes.csv").write_bytes(content)
    assert_refused(damaged, "its files do not fit together")


TENSORS = [
    "network.mean",
    "network.deviation",
    "estimator.components",
    "estimator.noises",
    "estimator.reference",
    "estimator.weight",
    "estimator.head.layers.2.weight",
    "network.core.encoder_linear.weight",
    "network.core.decoder_mlp.3.bias",
    "whole.components",
    "whole.mean",
    "half.factors",
]


DAMAGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "nan": lambda tensor: tensor.flatten().index_fill(0, torch.tensor([0]), torch.nan).reshape(tensor.shape),
    "infinite": lambda tensor: tensor * torch.inf,
    "shorter": lambda tensor: tensor[:-1],
    "deeper": lambda tensor: tensor[None],
    "float64": lambda tensor: tensor.double(),
    "float16": lambda tensor: tensor.half(),
    "int32": lambda tensor: tensor.to(torch.int32),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_damaged_or_missing_tensor_is_refused(damaged: Path, name: str) -> None:
    tensors = load_file(damaged / "model.safetensors")
    whole = tensors.pop(name)
    changed = [change(whole).contiguous() for change in DAMAGES.values()]
    for others in ({}, *({name: tensor} for tensor in changed)):
        save_file(tensors | others, damaged / "model.safetensors")
        assert_refused(damaged, "its files do not fit together")
    save_file(tensors | {name: whole}, damaged / "model.safetensors")
    assert load_model(damaged).n_latent == 4  # so that it was the damage that was refused


def test_the_weights_of_another_model_are_refused(damaged: Path, tmp_path: Path) -> None:
    Autoencoder(**QUICK | {"n_latent": 3}).fit(simulate(60, 40)).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", damaged / "model.safetensors")
    assert_refused(damaged, "its files do not fit together")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_existing_folder_is_refused_without_overwrite(fitted: Autoencoder, damaged: Path) -> None:
    before = content(damaged)
    with pytest.raises(InputError) as error:
        fitted.save(damaged)
    assert str(error.value) == (
        f"the output folder {damaged} already exists. Choose another one, or add overwrite=True to replace it."
    )
    assert content(damaged) == before
    assert [path.name for path in damaged.parent.iterdir()] == ["damaged"]


def test_an_existing_folder_is_replaced_with_overwrite(fitted: Autoencoder, damaged: Path) -> None:
    (damaged / "history.csv").write_text("old")
    (damaged / "model.safetensors").write_text("old")
    fitted.save(damaged, overwrite=True)
    assert {path.name for path in damaged.iterdir()} == FILES
    assert load_model(damaged).n_latent == 4
    assert "old" not in (damaged / "history.csv").read_text()
    assert [path.name for path in damaged.parent.iterdir()] == ["damaged"]


def test_an_empty_folder_is_filled(fitted: Autoencoder, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    fitted.save(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES


def test_a_link_to_a_folder_stays_one(fitted: Autoencoder, damaged: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(damaged)
    (damaged / "history.csv").write_text("old")
    fitted.save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").readlink() == damaged
    assert (damaged / "history.csv").read_text() != "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "link"]


FOREIGN = {
    "notes": {"thesis.txt": "years of work"},
    "of_another_tool": {"config.json": '{"model_type": "bert"}', "model.safetensors": "x", "vocab.txt": "x"},
    "of_results": {"metrics.csv": "a,b\n1,2\n", "plot.png": "x"},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_folder_is_never_deleted(fitted: Autoencoder, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / kind
    folder.mkdir()
    for name, text in FOREIGN[kind].items():
        (folder / name).write_text(text)
    for overwrite in (False, True):
        with pytest.raises(InputError) as error:
            fitted.save(folder, overwrite=overwrite)
        assert str(error.value) == (
            f"{folder} already exists and was not written by geneae. Choose another name for the output."
        )
    assert content(folder) == {name: text.encode() for name, text in FOREIGN[kind].items()}
    assert [path.name for path in tmp_path.iterdir()] == [kind]


def test_a_file_is_never_replaced_by_a_folder(fitted: Autoencoder, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("years of work")
    with pytest.raises(InputError, match="already exists and was not written by geneae"):
        fitted.save(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run").read_text() == "years of work"


def failing(*_: Any, **__: Any) -> None:
    raise OSError("No space left on device")


@pytest.mark.parametrize(
    "step",
    ["geneae.folders.model.save_file", "geneae.folders.run.save_model", "geneae.folders.run.write_tables"],
)
def test_a_failure_while_writing_leaves_nothing(
    fitted: Autoencoder, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, failing)
    with pytest.raises(OSError, match="No space left"):
        fitted.save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_keeps_what_was_there(
    fitted: Autoencoder, damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(damaged)
    monkeypatch.setattr("geneae.folders.model.save_file", failing)
    with pytest.raises(OSError, match="No space left"):
        fitted.save(damaged, overwrite=True)
    assert content(damaged) == before
    assert [path.name for path in damaged.parent.iterdir()] == ["damaged"]


def interrupt(opened: contextlib.AbstractContextManager[Path], text: str) -> None:
    """Write a part of an output, and stop."""
    with opened as partial:
        (partial / "config.json" if partial.is_dir() else partial).write_text(text)
        assert partial.name in {path.name for path in partial.parent.iterdir()}
        raise KeyboardInterrupt


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    for opened in (new_folder(tmp_path / "run"), new_file(tmp_path / "out.csv")):
        with pytest.raises(KeyboardInterrupt):
            interrupt(opened, "half")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_old", [True, False])
@pytest.mark.parametrize("has_partial", [True, False])
@pytest.mark.parametrize("has_name", [True, False])
def test_a_killed_swap_is_finished(has_name: bool, has_partial: bool, has_old: bool, tmp_path: Path) -> None:
    path = tmp_path / "run"
    there = {"run": has_name, ".run.geneae-partial": has_partial, ".run.geneae-old": has_old}
    for name, is_there in there.items():
        if is_there:
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").write_text(name)
            write_list(tmp_path / name, ["config.json"])
    finish_swap(path)
    left = "run" if has_name else ".run.geneae-partial" if has_partial and has_old else ".run.geneae-old"
    # without the old folder nobody knows whether the new one is whole: it was about to be written
    expected = {"run": left} if has_name or has_old else {}
    assert {found.name: (found / "config.json").read_text() for found in tmp_path.iterdir()} == expected


def test_a_folder_of_checkpoints_alone_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    checkpoint = write_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    (tmp_path / "run" / ".checkpoint.safetensors.partial").write_text("half")
    text = r"run holds the checkpoint of an unfinished run. Add --resume to resume it, --overwrite to start"
    with pytest.raises(InputError, match=text):
        check_writable(tmp_path / "run")
    check_writable(tmp_path / "run", resume=True)
    with new_folder(tmp_path / "run") as partial:
        (partial / "metrics.csv").write_text("x")
    assert content(tmp_path / "run").keys() == {"metrics.csv", "SHA256SUMS"}
    write_checkpoint(checkpoint)
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds the checkpoint of an unfinished run"):
        new_folder(tmp_path / "run").__enter__()


def test_folders_above_are_made(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a" / "b" / "run") as partial:
        (partial / "metrics.csv").write_text("x")
    assert content(tmp_path / "a" / "b" / "run").keys() == {"metrics.csv", "SHA256SUMS"}


def test_an_output_below_a_file_is_refused(fitted: Autoencoder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError) as error:
        fitted.save(tmp_path / "file" / "run")
    assert str(error.value) == (
        f"the output {tmp_path / 'file' / 'run'} cannot be created: {tmp_path / 'file'} is not a writable folder. "
        "Choose another output."
    )


def test_what_is_written_can_be_read_by_whom_the_umask_allows(fitted: Autoencoder, tmp_path: Path) -> None:
    plain, folder = tmp_path / "plain.txt", tmp_path / "plain"
    plain.write_text("x")
    folder.mkdir()
    fitted.save(tmp_path / "run")
    with new_file(tmp_path / "new.csv") as partial:
        partial.write_text("x")
    assert (tmp_path / "run").stat().st_mode == folder.stat().st_mode
    modes = {path.stat().st_mode for path in [*(tmp_path / "run").iterdir(), tmp_path / "new.csv"]}
    assert modes == {plain.stat().st_mode}


def test_a_file_is_replaced_with_overwrite_alone_and_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with new_file(path) as partial:
        assert partial.suffix == ".csv"
        partial.write_text("whole")
    with pytest.raises(InputError) as error:
        new_file(path).__enter__()
    assert str(error.value) == (
        f"the output {path} already exists. Choose another name, or add --overwrite to replace a file."
    )
    with pytest.raises(KeyboardInterrupt):
        interrupt(new_file(path, overwrite=True), "half")
    assert path.read_text() == "whole"
    with new_file(path, overwrite=True) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert [found.name for found in tmp_path.iterdir()] == ["out.csv"]


def test_a_folder_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(InputError, match="already exists"):
        new_file(tmp_path / "out.csv", overwrite=True).__enter__()
    assert (tmp_path / "out.csv").is_dir()


def test_json_holds_plain_numbers_and_null_for_nan(tmp_path: Path) -> None:
    write_json(
        tmp_path / "x.json",
        {"a": np.float32(0.5), "b": float("nan"), "c": (np.int64(3), np.bool_(True)), "d": {"e": np.inf}, "f": "é"},
    )
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": 0.5, "b": None, "c": [3, True], "d": {"e": None}, "f": "é"}
    assert text.endswith("}\n")


@pytest.mark.parametrize("kind", [{"basis": "free", "init": "random"}, {"basis": "free"}, {}])
def test_an_encoder_read_back_gives_the_same_latents_and_reconstructs_nothing(
    kind: dict[str, Any], tmp_path: Path
) -> None:
    adata = simulate(80, 40)
    before = Autoencoder(**QUICK | kind, objective="byol").fit(adata)
    before.save(tmp_path / "run")
    after = Autoencoder.load(tmp_path / "run")
    np.testing.assert_array_equal(after.transform(adata), before.transform(adata))
    if kind == {}:
        shallow = [
            each.model_.at(10.0).latent(each.model_.preprocess.match(read_profiles(adata))[0])
            for each in (before, after)
        ]
        np.testing.assert_array_equal(*shallow)
        assert not np.allclose(shallow[0], before.transform(adata))
    assert not any("decoder" in name for name in load_file(tmp_path / "run" / "model.safetensors"))
    assert after.get_params() == before.get_params()
    message = "a model of objective byol has latents only: no decoder was trained"
    for use in (after.inverse_transform, before.inverse_transform):
        with pytest.raises(InputError, match=message):
            use(before.transform(adata))
    with pytest.raises(InputError, match=message):
        after.score_profiles(adata)
