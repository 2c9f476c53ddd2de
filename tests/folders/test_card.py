import hashlib
import io
import json
import pickle
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from geneae import Autoencoder, read_profiles
from geneae.cli.main import main
from geneae.evaluation.records import value
from geneae.folders.archive import FREE_BYTES, opened
from geneae.folders.card import model_card, share_model
from geneae.folders.manifest import LATENTS_FILE, SHAREABLE, SUMS, read_list, write_list
from geneae.folders.model import load_model, read_split
from geneae.settings.errors import InputError


@pytest.fixture(scope="module")
def shared(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip of a model, not to be changed."""
    path = tmp_path_factory.mktemp("shared") / "model.zip"
    share_model(model_folder, path, "CC-BY-4.0")
    return path


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, files: dict[str, bytes], sums: bytes | None = None) -> Path:
    """A zip with true checksums, whatever it holds."""
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items() if name != SUMS]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            if name != SUMS:
                archive.writestr(name, content)
        archive.writestr(SUMS, sums if sums is not None else "".join(lines))
    return path


def assert_refused(path: Path, *texts: str) -> None:
    """One clear error that names the zip, and no temporary folder."""
    for use in (load_model, Autoencoder.load):
        with pytest.raises(InputError) as error:
            use(path)
        for text in (str(path), *texts):
            assert text in str(error.value)
        assert "\n" not in str(error.value)
        assert "geneae." not in str(error.value).replace("model.safetensors", "")


def test_a_shared_model_is_the_same_model(
    shared: Path, fitted: Autoencoder, counts_path: Path, model_folder: Path, tmp_path: Path
) -> None:
    np.testing.assert_array_equal(Autoencoder.load(shared).transform(counts_path), fitted.transform(counts_path))
    run = CliRunner().invoke
    assert run(main, ["embed", str(shared), str(counts_path), "-o", str(tmp_path / "out.npy")]).exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), fitted.transform(counts_path))
    for model, name in ((shared, "a"), (model_folder, "b")):
        result = run(main, ["evaluate", str(model), str(counts_path), "-o", str(tmp_path / name), "--verbose"])
        assert result.exit_code == 0, result.output
        assert "Means over 192 train / 24 validation / 24 test profiles;" in result.stdout
    assert (tmp_path / "a" / "metrics.csv").read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()


def test_what_obs_says_of_profiles_is_not_shared(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "run")
    (tmp_path / "run" / LATENTS_FILE).write_bytes(b"donors")
    write_list(tmp_path / "run", {*(read_list(model_folder) or {}), LATENTS_FILE})
    names = share_model(tmp_path / "run", tmp_path / "model.zip")
    assert set(names) == {path.name for path in model_folder.iterdir()}


def test_loading_leaves_the_random_numbers_as_they_were(shared: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load_model(shared)
    assert torch.equal(torch.rand(3), expected)


def test_the_card_says_how_values_come_from_counts(fitted: Autoencoder) -> None:
    model = fitted.fitted()
    assert "240 profiles x 120 genes, counts |" in model_card(model, None)
    data = model.config["data"] | {"evidence": "recovered from log(x + 1) | to base e"}
    card = model_card(replace(model, config=model.config | {"data": data}), None)
    assert "240 profiles x 120 genes, counts (recovered from log(x + 1) to base e) |" in card


def test_a_zip_holds_what_is_listed_and_others_can_check_it(shared: Path, model_folder: Path, tmp_path: Path) -> None:
    found = contents(shared)
    assert set(found) == {path.name for path in model_folder.iterdir()} | {SUMS}
    assert set(found) <= {*SHAREABLE, SUMS}
    for name in set(found) - {SUMS, "README.md"}:
        assert found[name] == (model_folder / name).read_bytes()
    with zipfile.ZipFile(shared) as archive:
        archive.extractall(tmp_path)  # made just now, by us
    if shutil.which("sha256sum"):
        done = subprocess.run(["sha256sum", "-c", SUMS], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.count(": OK\n") == len(found) - 1


def test_the_same_model_is_the_same_zip(shared: Path, model_folder: Path, tmp_path: Path) -> None:
    share_model(model_folder, tmp_path / "again.zip", "CC-BY-4.0")
    assert (tmp_path / "again.zip").read_bytes() == shared.read_bytes()


def test_the_command_packs_and_says_so(model_folder: Path, tmp_path: Path) -> None:
    arguments = ["share", str(model_folder), "-o", str(tmp_path / "model.zip")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Written to {tmp_path / 'model.zip'}: {len(list(model_folder.iterdir()))} files, ")
    again = CliRunner().invoke(main, arguments)
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    assert "already exists. Choose another name, or add --overwrite" in again.stderr
    assert CliRunner().invoke(main, [*arguments, "--overwrite", "--quiet"]).stdout == ""


@pytest.mark.parametrize(
    ("folder", "output", "text"),
    [
        ("model", "out.tar", "the output must end in .zip; found 'out.tar'."),
        ("nothing", "out.zip", "nothing is not a folder. Give the folder that geneae fit has written."),
        ("empty", "out.zip", "empty is not a model folder of geneae: it lacks config.json,"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    model_folder: Path, folder: str, output: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=text):
        share_model(model_folder if folder == "model" else tmp_path / folder, tmp_path / output)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_the_card_says_what_the_model_is_and_what_it_reaches(
    model_folder: Path, fitted: Autoencoder, shared: Path
) -> None:
    card = (model_folder / "README.md").read_text(encoding="utf-8")
    metrics, config = fitted.evaluation_.metrics, fitted.model_.config
    assert config["data"]["fingerprint"] in card
    assert "| Space | log1p_cp10k |" in card
    assert f"| Genes | {len(fitted.model_.preprocess.genes)}, matched by name: gene" in card
    assert "counts.h5ad, X: 240 profiles x 120 genes, counts |" in card
    assert str(Path(config["data"]["source"]).parent) not in card
    for name, title in (("model", "model"), ("pca", "PCA"), ("mean_profile", "mean profile")):
        cells = [
            f"{value(metrics, name, 'test', m):.4f}" for m in ("cosine", "centred_cosine", "mse", "heldout_cosine")
        ]
        assert f"| {title} | {' | '.join(cells)} |" in card
    assert f"| noise ceiling |  |  |  | {value(metrics, 'model', 'test', 'ceiling'):.4f} |" in card
    assert "Means over 24 test profiles, not used for any choice;" in card
    assert 'license: "unknown"' in card
    assert "| Licence | not stated: ask whoever gave it to you |" in card
    assert "Autoencoder.load(" in card
    given = contents(shared)["README.md"].decode()
    assert 'license: "CC-BY-4.0"' in given
    assert "| Licence | CC-BY-4.0 |" in given
    assert given.splitlines()[5:] == [
        line.replace("not stated: ask whoever gave it to you", "CC-BY-4.0") for line in card.splitlines()[5:]
    ]


def test_a_card_without_metrics_says_how_to_get_some(fitted: Autoencoder) -> None:
    card = model_card(fitted.model_, None, "a|b\n`c` <script>")
    assert "This folder holds no metrics. Evaluate the model: `geneae evaluate MODEL data.h5ad -o evaluation`." in card
    assert "| Licence | a b c script |" in card


def test_a_card_shows_no_control_characters(fitted: Autoencoder) -> None:
    model = fitted.model_
    data = model.config["data"] | {"source": "/data/run\udcff\x1b[2J.h5ad", "location": "layers['\u202e']"}
    genes = pd.Index(["\x1b[31mgene", *model.preprocess.genes[1:]], dtype=object)
    hostile = replace(model, config=model.config | {"data": data}, preprocess=replace(model.preprocess, genes=genes))
    card = model_card(hostile, None, "\x9b2J")
    assert not [sign for sign in card if sign in "\x1b\u202e\udcff\x9b"]
    for text in (r"| Data | run\udcff\x1b 2J.h5ad, layers '\u202e':", r"\x1b 31mgene", r"| Licence | \x9b2J |"):
        assert text in card, text
    card.encode("utf-8")


def test_the_card_says_what_own_counts_cannot_tell_and_what_the_folder_holds(fitted: Autoencoder) -> None:
    model = fitted.model_
    assert model.estimator is not None
    own_counts = "they cannot tell it from real variation of a single gene"
    with_own = replace(model, estimator=model.estimator.only("neighbours", "own_counts"))
    card = model_card(with_own, None)
    assert own_counts in card
    n_molecules = 2 * np.exp(model.estimator.scale.mean)
    assert f"profiles with about {n_molecules:,.0f} molecules (the geometric mean of its training profiles)" in card
    assert "down to 1/25 of that." in card
    assert "This folder holds scores of 192 training profiles, from which it finds neighbours." in card
    latent_only = model_card(replace(model, estimator=model.estimator.only("neighbours")), None)
    assert own_counts not in latent_only
    assert "This folder holds scores of 192 training profiles" in latent_only
    without = model_card(replace(model, estimator=model.estimator.only()), None)
    assert "This folder holds scores of 192 training profiles. They have no names" in without
    assert "can and cannot tell" not in model_card(replace(model, estimator=None), None)


class Bomb:
    """What would be run if it were unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (pytest.fail, ("code of the archive was run",))


def changed(shared: Path, path: Path, **files: bytes | None) -> Path:
    """The zip with files replaced, or left out, under true checksums; a dot is `__` in the arguments."""
    named = {name.replace("__", "."): content for name, content in files.items()}
    merged = {name: content for name, content in (contents(shared) | named).items() if content is not None}
    return write_zip(path, merged)


@pytest.mark.parametrize(
    "name",
    ["../evil.csv", "/etc/evil.csv", "..\\evil.csv", "run/config.json", "C:evil", "model.pkl", "config.json/"],
)
def test_names_that_no_model_has_are_refused(shared: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = write_zip(tmp_path / "in" / "bad.zip", contents(shared) | {name: b"x"})
    assert_refused(path, "it holds '", "which cannot be part of a model", "Get it again from a source that you trust.")
    assert sorted(str(found.relative_to(tmp_path)) for found in tmp_path.rglob("*")) == ["in", "in/bad.zip"]


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_special_files_are_refused(shared: Path, mode: int, tmp_path: Path) -> None:
    files = contents(shared)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            if name == "genes.csv":
                entry.external_attr = (mode | 0o777) << 16
                content = b"/etc/passwd"
            archive.writestr(entry, content)
    assert_refused(tmp_path / "bad.zip", "genes.csv is a link or a special file")


def test_a_bomb_is_refused_before_it_is_unpacked(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = changed(shared, tmp_path / "bomb.zip", report__html=bytes(FREE_BYTES + 1))
    assert path.stat().st_size < 1e6
    monkeypatch.setattr("geneae.folders.archive.ZipContents.read", lambda *_: pytest.fail("it was unpacked"))
    assert_refused(path, "bytes would unpack to 67,")


def test_a_file_longer_than_declared_is_refused(shared: Path, tmp_path: Path) -> None:
    content = (tmp_path / "bad.zip", shared.read_bytes())
    content[0].write_bytes(content[1])
    with zipfile.ZipFile(shared) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    size = sizes["genes.csv"].to_bytes(4, "little")
    found = content[1].rfind(b"genes.csv")  # in the directory at the end, 22 bytes after the size
    start = content[1].rfind(size, 0, found)
    content[0].write_bytes(content[1][:start] + (10).to_bytes(4, "little") + content[1][start + 4 :])
    assert_refused(content[0], "Get it again from a source that you trust.")


def test_a_pickle_is_never_read(shared: Path, tmp_path: Path) -> None:
    torch_file = io.BytesIO()
    torch.save({"network.mean": Bomb()}, torch_file)
    for content in (pickle.dumps(Bomb()), torch_file.getvalue()):
        path = changed(shared, tmp_path / "bad.zip", model__safetensors=content)
        assert_refused(path, "its files do not fit together (SafetensorError: ")
        for name in ("config__json", "genes__csv"):
            assert_refused(changed(shared, tmp_path / "bad.zip", **{name: content}), "bad.zip")


def with_header(header: bytes, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        with_header(b"{}", 2**63),
        with_header(b"{}", 200_000_000),
        with_header(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'),
        with_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}'),
        with_header(b"[" * 100_000),
        b"",
    ],
    ids=["endless", "oversized", "tensor beyond the file", "negative", "nested", "empty"],
)
def test_an_oversized_or_false_header_is_refused(shared: Path, content: bytes, tmp_path: Path) -> None:
    assert_refused(changed(shared, tmp_path / "bad.zip", model__safetensors=content), "its files do not fit together")


@pytest.mark.parametrize("change", ["missing", "float64", "int64", "shape"])
def test_a_missing_or_false_tensor_is_refused(shared: Path, change: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(contents(shared)["model.safetensors"])
    tensors = load_file(tmp_path / "old")
    name = "estimator.components"
    mean = tensors.pop(name)
    if change != "missing":
        tensors[name] = {"float64": mean.double(), "int64": mean.long(), "shape": mean[:-1].clone()}[change]
    save_file(tensors, tmp_path / "new")
    path = changed(shared, tmp_path / "bad.zip", model__safetensors=(tmp_path / "new").read_bytes())
    assert_refused(path, "its files do not fit together")


@pytest.mark.parametrize(
    ("section", "key", "found"),
    [
        ("network", "n_scores", 10**6),
        ("settings", "hidden", 10**9),
        ("network", "core", "__import__('os')"),
    ],
)
def test_sizes_that_would_fill_the_memory_cost_none(
    shared: Path, section: str, key: str, found: object, tmp_path: Path
) -> None:
    config = json.loads(contents(shared)["config.json"])
    config[section][key] = found
    path = changed(shared, tmp_path / "bad.zip", config__json=json.dumps(config).encode())
    assert_refused(path, "its files do not fit together")


def test_nested_json_is_refused(shared: Path, tmp_path: Path) -> None:
    path = changed(shared, tmp_path / "bad.zip", config__json=b'{"a":' * 100_000)
    assert_refused(path, "config.json is not JSON (")


def test_numbers_that_are_none_are_refused(shared: Path, tmp_path: Path) -> None:
    config = json.loads(contents(shared)["config.json"])
    config["settings"]["n_latent"] = float("inf")
    path = changed(shared, tmp_path / "bad.zip", config__json=json.dumps(config).encode())
    assert_refused(path, "config.json is not JSON (Infinity is no number)")


def test_a_zip_is_read_without_a_file_on_any_disk(
    shared: Path, counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_: Any, **__: Any) -> None:
        pytest.fail("a temporary file was made")

    for name in ("mkdtemp", "mkstemp", "TemporaryDirectory", "NamedTemporaryFile", "TemporaryFile"):
        monkeypatch.setattr(f"tempfile.{name}", made)
    model = load_model(shared)
    profiles = read_profiles(counts_path)
    known = read_split(shared, model, profiles)
    assert known is not None
    assert set(known.split) == {"train", "validation", "test"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "genes.csv"])
def test_a_zip_without_one_of_its_files_is_refused(shared: Path, name: str, tmp_path: Path) -> None:
    path = changed(shared, tmp_path / "bad.zip", **{name.replace(".", "__"): None})
    assert_refused(path, f"is not a model folder of geneae: it lacks {name}.")


def test_changed_or_unlisted_contents_are_refused(shared: Path, tmp_path: Path) -> None:
    files = contents(shared)
    path = write_zip(tmp_path / "bad.zip", files | {"genes.csv": files["genes.csv"] + b"x"}, files[SUMS])
    assert_refused(path, f"genes.csv does not have the checksum that {SUMS} lists for it")
    for sums in (b"", files[SUMS].replace(b"genes.csv", b"other.csv"), files[SUMS] * 2, b"\xff\xfe"):
        assert_refused(
            write_zip(tmp_path / "bad.zip", files, sums), f"{SUMS} does not list each of its files exactly once"
        )
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("config.json", files["config.json"])
    assert_refused(tmp_path / "bad.zip", f"it lacks {SUMS}")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "bad.zip", "a") as archive:
        archive.writestr("config.json", b"{}")
    assert_refused(tmp_path / "bad.zip", "it holds the same file twice")


@pytest.mark.parametrize("damage", ["no zip", "empty", "cut", "flipped", "encrypted"])
def test_a_damaged_zip_is_refused(shared: Path, damage: str, tmp_path: Path) -> None:
    content = bytearray(shared.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    if damage == "encrypted":
        content[content.rfind(b"PK\x01\x02") + 8] |= 1
    path = tmp_path / "bad.zip"
    path.write_bytes(
        {"no zip": b"years of work", "empty": b"", "cut": bytes(content[:-100])}.get(damage, bytes(content))
    )
    assert_refused(path, "should be a model packed by geneae share, but ", "Get it again from a source that you trust.")


def test_any_changed_byte_is_refused_or_does_not_matter(shared: Path, tmp_path: Path) -> None:
    rng, content = np.random.default_rng(0), shared.read_bytes()
    directory = content.find(b"PK\x01\x02")
    places = [*rng.integers(0, len(content), 40), *rng.integers(directory, len(content), 120)]
    expected, said = contents(shared), []
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= int(rng.integers(1, 256))
        (tmp_path / "bad.zip").write_bytes(bytes(flipped))
        try:
            with opened(tmp_path / "bad.zip") as files:  # a date, say, or a version that nobody reads
                assert {name: files.read(name) for name in files}.items() <= expected.items()
        except InputError as error:
            said.append(str(error))
    assert len(said) > len(places) / 2
    assert [text for text in said if "Get it again from a source that you trust." not in text] == []


def test_another_compression_is_refused(shared: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_LZMA) as archive:
        for name, content in contents(shared).items():
            archive.writestr(name, content)
    assert_refused(tmp_path / "bad.zip", "is not compressed by deflate")


def test_a_folder_is_opened_as_it_is(model_folder: Path) -> None:
    with opened(model_folder) as files:
        assert files.path == model_folder
        assert set(files) == {path.name for path in model_folder.iterdir()}
    assert len(pd.read_csv(model_folder / "genes.csv")) == load_model(model_folder).network.n_genes
