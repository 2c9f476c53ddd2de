"""Model folders: JSON, CSV and safetensors, written whole or not at all. Nothing is pickled."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from geneae.archives import opened
from geneae.baselines import Baselines
from geneae.basis import Basis
from geneae.checkpoints import is_partial, is_unfinished, sync
from geneae.errors import InputError
from geneae.locks import check_no_writer, has_other_writer, only_writer
from geneae.model import FORMAT, Model
from geneae.network import Network, PlainCore, SkipCore
from geneae.preprocess import Preprocess
from geneae.profiles import STATES, Profiles
from geneae.settings import CENTERS

CONFIG, WEIGHTS, GENES, SPLIT = "config.json", "model.safetensors", "genes.csv", "split.csv"
METRIC_WEIGHTS = "metric.safetensors"
OURS = (
    {CONFIG, WEIGHTS, GENES},
    {CONFIG, METRIC_WEIGHTS},
    {"profiles.csv", "metrics.csv"},
    {"paired.csv", "metrics.csv"},
)


@contextlib.contextmanager
def new_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name at the end, or vanishes if anything fails before.

    A folder that is there already is refused; with `overwrite` it is replaced, if it is one of ours. One that holds
    nothing but checkpoints is replaced always. One that another process is writing is refused, too. Where the process
    is killed, `finish_swap` makes good.
    """
    check_parent(path)
    with only_writer(path):
        finish_swap(path)
        check_writable(path, overwrite, resume=is_unfinished(path) and not (path / CONFIG).exists())
        path = path.resolve()  # a link to a folder elsewhere stays one
        partial, old = _beside(path)
        partial.mkdir(parents=True)
        try:
            yield partial
            for file in partial.iterdir():
                file.chmod(0o666 & ~_umask())  # safetensors makes its files private
                sync(file)
            sync(partial)
            if path.exists():
                os.replace(path, old)
                os.replace(partial, path)
                shutil.rmtree(old)
            else:
                os.replace(partial, path)
            sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def finish_swap(path: Path) -> None:
    """End what was killed while a folder was written or replaced: there is one whole folder, and nothing beside it.

    The old folder gives its name away only when the new one is whole, so that a name without a folder means that the
    new one was about to take it. What another process is writing now was not killed, and is left alone.
    """
    if has_other_writer(path):
        return
    path = path.resolve()
    partial, old = _beside(path)
    if old.is_dir() and not path.exists():
        with contextlib.suppress(FileNotFoundError):  # another process of the same run may do it, too
            os.replace(partial if partial.is_dir() else old, path)
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)


def _beside(path: Path) -> tuple[Path, Path]:
    """Names of a folder that is being written and of the one that it replaces; fixed, so that a next run finds them."""
    return path.with_name(f".{path.name}.geneae-partial"), path.with_name(f".{path.name}.geneae-old")


def check_writable(path: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse an output folder that is there, is no folder of ours, cannot be made, or is being written.

    With `resume` it may be there: with a checkpoint, or finished.
    """
    check_no_writer(path)
    if path.exists():
        if not _is_ours(path):
            raise InputError(f"{path} is there and was not written by geneae. Choose another name for the output.")
        if is_unfinished(path) and not overwrite and not resume:
            raise InputError(
                f"{path} holds the checkpoint of a run that has not ended. Add --resume to go on with it, --overwrite "
                "to start anew, or choose another output."
            )
        if _names(path) and not overwrite and not resume:
            raise InputError(
                f"the output folder {path} is there. Choose another one, or add --overwrite to replace it."
            )
    check_parent(path)


def _is_ours(path: Path) -> bool:
    """Whether a folder is empty, or holds a checkpoint, a model, a metric or the tables of an evaluation or comparison:
    others write a `config.json` or a `metrics.csv` too."""
    return path.is_dir() and (not _names(path) or is_unfinished(path) or any(known <= _names(path) for known in OURS))


def _names(path: Path) -> set[str]:
    """What is in a folder, but for a checkpoint that was killed while it was written."""
    return {file.name for file in path.iterdir() if not is_partial(file)}


@contextlib.contextmanager
def new_file(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary name with the same ending that becomes `path` at the end, or vanishes if anything fails before."""
    check_parent(path)
    with only_writer(path):
        check_new_file(path, overwrite)
        partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        try:
            yield partial
            sync(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def check_new_file(path: Path, overwrite: bool = False) -> None:
    """Refuse an output file that is there, cannot be made, or is being written."""
    check_no_writer(path)
    if path.is_dir() or (path.exists() and not overwrite):
        raise InputError(f"the output {path} is there. Choose another name, or add --overwrite to replace a file.")
    check_parent(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_parent(path: Path) -> None:
    """Refuse an output whose folder cannot be made or written to."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"the output {path} cannot be made: {above} is not a folder that can be written to.")


def save_model(model: Model, folder: Path) -> None:
    """Write `config.json`, `model.safetensors` and `genes.csv` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(model)
    write_json(folder / CONFIG, model.config | {"scales": model.scales, "tensors": sorted(tensors)})
    save_file(tensors, folder / WEIGHTS)
    genes = pd.DataFrame(
        {
            "gene": model.preprocess.genes,
            "mean": model.baselines.whole.mean.numpy().astype(float),
            "scale": model.preprocess.scale,
        }
    )
    genes.to_csv(folder / GENES, index=False)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A file of `to_json`."""
    path.write_text(to_json(content) + "\n", encoding="utf-8")


def to_json(content: dict[str, Any]) -> str:
    """Indented JSON; NaN becomes null."""
    return json.dumps(_plain(content), indent=2, allow_nan=False)


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _plain(item) for key, item in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(item) for item in content]
    if isinstance(content, np.generic):
        content = content.item()
    return None if isinstance(content, float) and not np.isfinite(content) else content


def _tensors(model: Model) -> dict[str, Tensor]:
    """Every tensor once: a fixed basis is the network's and a baseline's."""
    tensors = {f"network.{name}": tensor for name, tensor in model.network.state_dict().items()}
    known = {tensor.data_ptr() for tensor in tensors.values()}
    bases = {"whole": model.baselines.whole, "half": model.baselines.half}
    for name, basis in bases.items():
        for field in ("components", "mean", "deviation"):
            if basis is not None and (tensor := getattr(basis, field)).data_ptr() not in known:
                tensors[f"{name}.{field}"] = tensor
    if model.baselines.factors is not None:
        tensors["half.factors"] = model.baselines.factors
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def load_model(path: Path) -> Model:
    """Read a model folder, or a zip that `geneae share` has made of one.

    What is damaged, foreign or of another format is refused. Runs no code from it.
    """
    with opened(path) as folder:
        return _read_model(folder)


def _read_model(folder: Path) -> Model:
    config = read_config(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
        table = pd.read_csv(folder / GENES, keep_default_na=False, float_precision="round_trip", dtype={"gene": str})
        settings, shape = config["settings"], config["network"]
        _check_config(config)
        _check_tensors(tensors, config["tensors"])
        preprocess = Preprocess(
            config["state"],
            pd.Index(table["gene"], dtype=object),
            table["scale"].to_numpy(float),
            float(config["target_sum"]),
        )
        network = _build_network(tensors, settings, shape)
        baselines = _build_baselines(tensors, int(settings["n_latent"]))
        scales = {str(name): float(scale) for name, scale in config["scales"].items()}
        _check_genes(preprocess, network, baselines)
    except (
        OSError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        OverflowError,
        SafetensorError,
    ) as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
        raise InputError(
            f"{folder} should be a model folder, but its files do not fit together ({reason}). "
            "Copy the whole folder again, or fit again."
        ) from error
    return Model(network, preprocess, baselines, scales, config)


def read_split(folder: Path, model: Model, profiles: Profiles) -> pd.Series:
    """Split by profile where these are the very profiles that the model was fitted on, else `all` for each."""
    if profiles.fingerprint == model.config["data"]["fingerprint"]:
        with opened(folder) as known:
            path = known / SPLIT
            table = pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else pd.DataFrame()
        if list(table.get("profile", [])) == list(profiles.names) and "split" in table:
            return pd.Series(table["split"].to_numpy(), index=profiles.names, name="split")
    return pd.Series("all", index=profiles.names, name="split")


def read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` of a model folder holds; a folder that is none, or of another format, is refused."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Give the folder that geneae fit has written.")
    missing = [name for name in (CONFIG, WEIGHTS, GENES) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} is not a model folder of geneae: it lacks {', '.join(missing)}. "
            "Give the folder that geneae fit has written."
        )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{folder / CONFIG} is not JSON ({error}). Copy the whole folder again.") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise InputError(
            f"{folder} has format {found}, but this version of geneae reads format {FORMAT}. "
            "Install the version that wrote it, or fit again."
        )
    return config


def _check_config(config: dict[str, Any]) -> None:
    """Refuse what using the model would stumble over later."""
    for name, options in (("state", STATES), ("center", CENTERS)):
        if config[name] not in options:
            raise ValueError(f"{name} must be one of {', '.join(options)}; found {config[name]}")
    for section, name in (("data", "fingerprint"), ("data", "n_genes"), ("versions", "geneae"), ("settings", "loss")):
        if config[section][name] is None:
            raise KeyError(name)
    for name in ("seed", "split_seed"):
        int(config[name])


def _check_tensors(tensors: dict[str, Tensor], expected: list[str]) -> None:
    if sorted(tensors) != expected:
        raise ValueError(f"{WEIGHTS} does not hold the {len(expected)} tensors of {CONFIG}")
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
            raise ValueError(f"tensor {name} must hold finite float32 values; found {tensor.dtype}")


def _build_network(tensors: dict[str, Tensor], settings: dict[str, Any], shape: dict[str, Any]) -> Network:
    state = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
    n_scores, n_latent = int(shape["n_scores"]), int(settings["n_latent"])
    with torch.device("meta"):  # without memory, so that sizes that are not those of the weights cost none
        core = (
            SkipCore(torch.zeros(n_scores), n_latent, int(settings["hidden"]), float(settings["dropout"]))
            if shape["core"] == "skip"
            else PlainCore(n_scores, n_latent, float(settings["dropout"]), bool(settings.get("latent_norm", False)))
        )
    has_decoder = bool(shape.get("has_decoder", True))  # folders that do not say so hold an autoencoder
    first = "encoder_weight" if shape["is_free"] else "components"
    last = "decoder_weight" if shape["is_free"] and has_decoder else first
    n_genes = int(shape["n_genes"])
    for name, expected in ((first, (n_genes, n_scores)), ("mean", (n_genes,)), ("deviation", (n_scores,))):
        if state[name].shape != expected:
            raise ValueError(f"tensor {name} must have shape {expected}; found {tuple(state[name].shape)}")
    network = Network(core, state[first], state[last], state["mean"], state["deviation"], bool(shape["is_free"]))
    if not has_decoder:
        network.drop_decoder()
    network.load_state_dict(state, assign=True)
    return network.eval()


def _build_baselines(tensors: dict[str, Tensor], size: int) -> Baselines:
    def basis(name: str) -> Basis:
        components = tensors.get(f"{name}.components", tensors.get("network.components"))
        mean = tensors.get(f"{name}.mean", tensors["network.mean"])
        if components is None:
            raise KeyError(f"{name}.components")
        return Basis(components, mean, tensors.get(f"{name}.deviation", tensors["network.deviation"]))

    factors = tensors.get("half.factors")
    return Baselines(basis("whole"), None if factors is None else basis("half"), factors, size)


def _check_genes(preprocess: Preprocess, network: Network, baselines: Baselines) -> None:
    sizes = {len(preprocess.genes), network.n_genes, len(baselines.whole.mean), baselines.whole.components.shape[0]}
    if baselines.half is not None and baselines.factors is not None:
        sizes |= {len(baselines.half.mean), baselines.half.components.shape[0]}
        if len(baselines.factors) != baselines.half.rank:
            raise ValueError(f"{len(baselines.factors)} Wiener factors for {baselines.half.rank} components")
    if len(sizes) != 1 or preprocess.genes.has_duplicates:
        raise ValueError(f"numbers of genes differ or names repeat: {sorted(sizes)}")
    if not (np.isfinite(preprocess.scale) & (preprocess.scale > 0)).all():
        raise ValueError(f"every scale in {GENES} must be a number above 0")
