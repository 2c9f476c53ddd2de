"""Model folders of JSON, CSV and safetensors files. Nothing is pickled."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from geneae.data.identity import FitProfiles, Recognised, profile_keys, recognise
from geneae.data.preprocess import Preprocess
from geneae.data.profiles import Profiles
from geneae.data.states import FORMER, STATES
from geneae.data.universe import Universe
from geneae.folders.archive import ZipContents, opened
from geneae.folders.contents import Contents, FolderContents
from geneae.folders.manifest import CONFIG, GENES, SPLIT, UNIVERSE, WEIGHTS
from geneae.folders.outputs import write_json
from geneae.folders.tables import read_table, write_table
from geneae.models.baselines import Baselines
from geneae.models.cores import SKIP_CORES, PlainCore, SkipCore
from geneae.models.estimator import Estimator, estimator_facts, estimator_of, estimator_tensors
from geneae.models.model import FORMATS, Model
from geneae.models.network import Network, whitened_input
from geneae.models.pca import Basis
from geneae.settings.errors import InputError
from geneae.settings.settings import CENTERS

LARGEST = 2.0**127  # of the numbers of a model, half of the largest float32: no mean or deviation of data is larger


def save_model(model: Model, folder: Path) -> None:
    """Write `config.json`, `model.safetensors`, `genes.csv` and `universe.csv` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(model)
    config = model.config | {"scales": model.scales, "tensors": sorted(tensors)}
    if model.estimator is not None:
        config["estimator"] = estimator_facts(model.estimator)
    universe = model.preprocess.universe
    config["n_genes_of_file"] = None if universe is None else len(universe.genes)
    write_json(folder / CONFIG, config)
    save_file(tensors, folder / WEIGHTS)
    genes = pd.DataFrame(
        {
            "gene": model.preprocess.genes,
            "mean": model.baselines.whole.mean.numpy().astype(float),
            "scale": model.preprocess.scale,
        }
    )
    write_table(genes, folder / GENES)
    if universe is not None:
        write_table(pd.DataFrame({"gene": universe.genes, "share": universe.shares}), folder / UNIVERSE)


def _tensors(model: Model) -> dict[str, Tensor]:
    """Every tensor once, although a network and a baseline may share a fixed basis."""
    tensors = {f"network.{name}": tensor for name, tensor in model.network.state_dict().items()}
    known = {tensor.data_ptr() for tensor in tensors.values()}
    bases = {"whole": model.baselines.whole, "half": model.baselines.half}
    for name, basis in bases.items():
        for field in ("components", "mean", "deviation"):
            if basis is not None and (tensor := getattr(basis, field)).data_ptr() not in known:
                tensors[f"{name}.{field}"] = tensor
    if model.baselines.factors is not None:
        tensors["half.factors"] = model.baselines.factors
    if model.estimator is not None:
        tensors |= {f"estimator.{name}": tensor for name, tensor in estimator_tensors(model.estimator).items()}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def load_model(path: Path) -> Model:
    """Read a model folder, or a zip written by `geneae share`.

    Damaged folders, folders of other programs and other formats raise an `InputError`. No code in a folder is run.
    """
    with opened(path) as files:
        model = _read_model(files)
        if isinstance(files, ZipContents):
            files.check_all()
        return model


def _read_model(files: Contents) -> Model:
    config = _read_config(files)
    try:
        # sums of MKL depend on where in memory a tensor begins: a copy begins where that of the fit did
        tensors = {name: tensor.clone() for name, tensor in load(files.read(WEIGHTS)).items()}
        table = read_table(files.read(GENES))
        settings, shape = config["settings"], config["network"]
        config["state"] = FORMER.get(config["state"], config["state"])
        _check_config(config)
        _check_numbers(config)
        _check_tensors(tensors, config["tensors"])
        preprocess = Preprocess(
            config["state"],
            pd.Index(table["gene"], dtype=object),
            table["scale"].astype(float).to_numpy(),
            float(config["target_sum"]),
            _read_universe(files, config.get("n_genes_of_file")),
        )
        estimator = _build_estimator(tensors, config)
        network = _build_network(tensors, settings, shape, estimator)
        baselines = _build_baselines(tensors, int(settings["n_latent"]))
        scales = {str(name): float(scale) for name, scale in config["scales"].items()}
        _check_genes(preprocess, network, baselines)
    except InputError:
        raise
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
            f"{files.path} should be a model folder, but its files do not fit together ({reason}). "
            "Copy the complete folder again, or fit again."
        ) from error
    return Model(network, preprocess, baselines, scales, config, estimator)


def _read_universe(files: Contents, n_genes: int | None) -> Universe | None:
    """All genes of the training file; None in folders of older versions."""
    if n_genes is None:
        return None
    table = read_table(files.read(UNIVERSE))
    if len(table) != n_genes:
        raise ValueError(f"{UNIVERSE} must hold {n_genes:,} genes; found {len(table):,}")
    return Universe(pd.Index(table["gene"], dtype=object), table["share"].astype(float).to_numpy())


def read_split(folder: Path, model: Model, profiles: Profiles) -> Recognised | None:
    """Profiles of the fit among these, by values and names; None where the folder or zip does not tell."""
    with opened(folder) as files:
        table = read_table(files.read(SPLIT)) if SPLIT in files else pd.DataFrame()
    if not {"profile", "split"} <= set(table.columns) or table["profile"].duplicated().any():
        return None
    universe = model.preprocess.universe
    keys = _keys_of(table["digest"]) if "digest" in table and universe is not None else None
    known = FitProfiles(pd.Index(table["profile"], dtype=object), table["split"].to_numpy(), keys)
    if keys is None or universe is None:
        return recognise(known, profiles.names, None, False)
    is_complete = bool(universe.genes.isin(profiles.genes).all())
    return recognise(known, profiles.names, profile_keys(profiles, universe.genes), is_complete)


def _keys_of(digests: pd.Series) -> np.ndarray | None:
    """Keys as they are written in `split.csv`; None if one of them is none."""
    if not digests.str.fullmatch("[0-9a-f]{16}").all():
        return None
    return np.array([int(digest, 16) for digest in digests], np.uint64)


def trained_on(folder: Path) -> pd.Index | None:
    """Names of the profiles that a model was trained on; None where its folder or zip does not tell."""
    with opened(folder) as files:
        table = read_table(files.read(SPLIT)) if SPLIT in files else pd.DataFrame()
    if not {"profile", "split"} <= set(table.columns):
        return None
    names: pd.Index = pd.Index(table.loc[table["split"] == "train", "profile"])
    return names


def read_config(folder: Path) -> dict[str, Any]:
    """Contents of `config.json` of a model folder; any other folder, or another format, is refused."""
    return _read_config(FolderContents(folder))


def _read_config(files: Contents) -> dict[str, Any]:
    folder = files.path
    if not folder.exists() or (not folder.is_dir() and not isinstance(files, ZipContents)):
        raise InputError(f"{folder} is not a folder. Give the folder that geneae fit has written.")
    missing = [name for name in (CONFIG, WEIGHTS, GENES) if name not in files]
    if missing:
        raise InputError(
            f"{folder} is not a model folder of geneae: it lacks {', '.join(missing)}. "
            "Give the folder that geneae fit has written."
        )
    config = files.json(CONFIG)
    if not isinstance(config, dict) or config.get("format") not in FORMATS:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise InputError(
            f"{folder} has format {found}, but this version of geneae reads format {' and '.join(map(str, FORMATS))}. "
            "Install the version that wrote it, or fit again."
        )
    return config


def _check_config(config: dict[str, Any]) -> None:
    """Refuse values that would fail later, when the model is used."""
    for name, options in (("state", STATES), ("center", CENTERS)):
        if config[name] not in options:
            raise ValueError(f"{name} must be one of {', '.join(options)}; found {config[name]}")
    for section, name in (("data", "fingerprint"), ("data", "n_genes"), ("versions", "geneae"), ("settings", "loss")):
        if config[section][name] is None:
            raise KeyError(name)
    for name in ("seed", "split_seed"):
        int(config[name])


def _check_numbers(content: Any) -> None:
    """Refuse numbers near the end of float32, which no fit gives: everything computed with them overflows."""
    if isinstance(content, dict | list):
        for item in content.values() if isinstance(content, dict) else content:
            _check_numbers(item)
    elif isinstance(content, float) and abs(content) > LARGEST:
        raise ValueError(f"{CONFIG} holds the number {content:g}")


def _check_tensors(tensors: dict[str, Tensor], expected: list[str]) -> None:
    if sorted(tensors) != expected:
        raise ValueError(f"{WEIGHTS} does not hold the {len(expected)} tensors of {CONFIG}")
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not bool((tensor.abs() <= LARGEST).all()):  # false for NaN, too
            raise ValueError(f"tensor {name} must hold finite float32 values up to {LARGEST:g}; found {tensor.dtype}")


def _build_estimator(tensors: dict[str, Tensor], config: dict[str, Any]) -> Estimator | None:
    """The estimator of a model; None for one that has none."""
    facts = config.get("estimator")
    if facts is None:
        return None
    prefix = "estimator."
    parts = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return estimator_of(parts | {"mean": tensors["network.mean"]}, facts)


def _build_network(
    tensors: dict[str, Tensor], settings: dict[str, Any], shape: dict[str, Any], estimator: Estimator | None
) -> Network:
    state = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
    n_scores, n_latent = int(shape["n_scores"]), int(settings["n_latent"])
    with torch.device("meta"):  # needs no memory, so that false sizes in the config cost none
        core: SkipCore | PlainCore
        if shape["core"] in SKIP_CORES:
            sizes = int(settings["hidden"]), float(settings["dropout"])
            core = SKIP_CORES[shape["core"]](torch.zeros(n_scores), n_latent, *sizes)
        else:
            core = PlainCore(n_scores, n_latent, float(settings["dropout"]), bool(settings.get("latent_norm", False)))
    has_decoder = bool(shape.get("has_decoder", True))  # folders without this entry hold an autoencoder
    first = "encoder_weight" if shape["is_free"] else "components"
    last = "decoder_weight" if shape["is_free"] and has_decoder else first
    n_genes = int(shape["n_genes"])
    if estimator is not None:
        state["components"] = estimator.whitening.decoder_weight
    for name, expected in ((first, (n_genes, n_scores)), ("mean", (n_genes,)), ("deviation", (n_scores,))):
        if state[name].shape != expected:
            raise ValueError(f"tensor {name} must have shape {expected}; found {tuple(state[name].shape)}")
    whitened = None if estimator is None else whitened_input(estimator)
    is_free, parts = bool(shape["is_free"]), (state[first], state[last], state["mean"], state["deviation"])
    network = Network(core, *parts, is_free, whitened=whitened)
    if not has_decoder:
        network.drop_decoder()
    network.load_state_dict({name: t for name, t in state.items() if name in network.state_dict()}, assign=True)
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
    if not ((preprocess.scale > 0) & (preprocess.scale <= LARGEST)).all():
        raise ValueError(f"every scale in {GENES} must be a number above 0, up to {LARGEST:g}")
    if preprocess.universe is not None:
        _check_universe(preprocess.universe, preprocess.genes)
    if not 0 < preprocess.target_sum <= LARGEST:
        raise ValueError(f"target_sum must be a number above 0; found {preprocess.target_sum:g}")


def _check_universe(universe: Universe, genes: pd.Index) -> None:
    shares = universe.shares
    if universe.genes.has_duplicates or not genes.isin(universe.genes).all():
        raise ValueError(f"{UNIVERSE} must name every gene of {GENES}, and none twice")
    if not ((shares >= 0) & (shares <= 1)).all() or not shares.sum() > 0:
        raise ValueError(f"every share in {UNIVERSE} must be a number from 0 to 1, and one above 0")
