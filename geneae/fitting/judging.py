"""Other programs judged on held-out halves, beside the same controls, with one table of paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geneae import __version__
from geneae.data.halves import Halves, as_expression
from geneae.data.preprocess import Preprocess, fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.programs import SPACES, Made, Table, read_made
from geneae.evaluation.comparison import Configuration, answer, compare_configurations
from geneae.evaluation.diagnostics import to_table
from geneae.evaluation.programs import (
    JudgedHalves,
    OfHalf,
    long_table,
    of_halves,
    score,
)
from geneae.evaluation.records import judged_split
from geneae.evaluation.spaces import check_source, in_log1p, see
from geneae.evaluation.table import MODEL_FACTS
from geneae.fitting.controls import fit_control
from geneae.folders.halves import RECORD, read_halves
from geneae.folders.run import Run, sizes_of
from geneae.models.baselines import BASELINES
from geneae.settings.errors import InputError, unknown

REFERENCE = "shrunken_pca"
"""Control that all others are compared with."""
CONTROLS = ("whitened", *reversed(BASELINES))
"""Controls that are compared with the reference as programs are, the strongest first."""
DRAW = "division"
"""What runs of one program differ in."""
FORMAT = 1
MIN_OVERLAP = 0.5  # share of the genes; with fewer, the judged profiles would be others


@dataclass(frozen=True)
class JudgeSettings:
    """Choices about judging."""

    n_latent: int = 32
    """Number of components of PCA, shrunken PCA and the whitened control."""
    label: str | None = None
    """Column of `obs` by which latents are judged."""
    batch_key: str | None = None
    """Column of `obs` whose mixing in latents is judged."""
    min_overlap: float = MIN_OVERLAP
    """Least share of the genes that a reconstruction must have."""


DEFAULTS = JudgeSettings()


@dataclass(frozen=True, eq=False)
class Judged:
    """Programs and controls on the same held-out halves."""

    runs: list[Run]
    """Programs, one run for each division of the molecules; the configuration is the name of the program."""
    controls: list[Run]
    """Controls likewise, the reference first."""
    paired: pd.DataFrame
    """Differences of all others from the reference, see `compare_configurations`."""
    answer: str
    """Verdict in words."""
    said: list[str]
    """What was found about the files: spaces, genes."""

    @property
    def metrics(self) -> pd.DataFrame:
        """Long table of programs and controls, with the columns `run` and `arm`."""
        tables = [run.metrics.assign(run=run.name, arm=run.configuration) for run in (*self.runs, *self.controls)]
        table = pd.concat(tables, ignore_index=True)
        return table[["run", "arm", *(name for name in table if name not in ("run", "arm"))]]

    @property
    def split(self) -> str:
        """The split from which conclusions are drawn."""
        return judged_split(self.runs[0].profiles["split"])

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name, as they are written."""
        of_runs = {name: self.table(name) for name in ("profiles", "genewise", "diagnostics")}
        return {"metrics": self.metrics, "paired": self.paired, **of_runs}

    def record(self) -> dict[str, Any]:
        """What was judged, with which halves."""
        config = self.runs[0].config
        return {
            "format": FORMAT,
            "programs": list(dict.fromkeys(run.configuration for run in self.runs)),
            "repeats": sorted({int(run.config["seed"]) for run in self.runs}),
            "answer": self.answer,
            "said": self.said,
            **{key: value for key, value in config.items() if key not in ("judged", "seed")},
        }

    def table(self, name: str) -> pd.DataFrame:
        """`profiles`, `genewise` or `diagnostics` of programs and controls, with the columns `run` and `arm`."""
        found = [
            run.tables()[name].assign(run=run.name, arm=run.configuration)
            for run in (*self.runs, *self.controls)
            if name in run.tables()
        ]
        table = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
        return table[["run", "arm", *(key for key in table if key not in ("run", "arm"))]] if len(table) else table


def judge(
    halves: Sequence[Halves],
    made: Sequence[Mapping[str, Table]],
    settings: JudgeSettings,
    spaces: Mapping[str, str] | None = None,
    command: str = "",
) -> Judged:
    """Judge programs on held-out halves.

    Parameters
    ----------
    halves
        Divisions of the same profiles.
    made
        For each division, what every program has made of its given half; the same programs in each.
    settings
        Choices.
    spaces
        Spaces of reconstructions that the user names, by program.
    command
        Command line, for the report.
    """
    spaces = dict(spaces or {})
    for name in spaces:
        if name not in made[0]:
            raise unknown("program", name, made[0])
    check_names(made[0])
    runs: list[Run] = []
    controls: list[Run] = []
    said: list[str] = []
    for one, tables in zip(halves, made, strict=True):
        found = _judge_one(one, tables, settings, spaces, command)
        runs += found[0]
        controls += found[1]
        said += [text for text in found[2] if text not in said]
    return conclude(runs, controls, said)


def read_repeats(folder: Path, made: Sequence[Made]) -> tuple[list[Halves], list[dict[str, Table]]]:
    """All divisions in a folder, and what programs have made of each; `{repeat}` in the name of a file is its number.

    A folder of one division is read as it is.
    """
    several = [] if (folder / RECORD).is_file() else sorted(folder.glob("repeat_*/" + RECORD))
    folders = [path.parent for path in several] or [folder]
    if len(folders) > 1 and (fixed := [one.where for one in made if "{repeat}" not in str(one.path)]):
        raise InputError(
            f"{folder} holds {len(folders)} divisions, so that a file must be named for each: write {{repeat}} where "
            f"its number stands; found {fixed[0]}."
        )
    halves = [read_halves(one) for one in folders]
    tables = [
        {
            one.name: read_made(
                replace(one, path=Path(str(one.path).replace("{repeat}", str(of.repeat)))), of.given.genes
            )
            for one in made
        }
        for of in halves
    ]
    return halves, tables


def parse_spaces(given: Sequence[str]) -> dict[str, str]:
    """Spaces by program, from `NAME=SPACE`."""
    found = {}
    for text in given:
        name, equals, space = text.partition("=")
        if not equals or not name:
            raise InputError(f"a space is given as NAME=SPACE, such as magic=log1p_cp10k; found '{text}'.")
        if space not in SPACES:
            raise unknown("space", space, SPACES)
        found[name] = space
    return found


def check_names(names: Mapping[str, Table]) -> None:
    """Refuse no programs at all, and names that controls have."""
    if not names:
        raise InputError("at least one program must be judged. Give what it has made as NAME=FILE.")
    taken = {title_of(name) for name in CONTROLS} & set(names)
    if taken:
        raise InputError(f"the name '{sorted(taken)[0]}' is that of a control. Give the program another name.")


def title_of(control: str) -> str:
    """Name of a control as a configuration."""
    return MODEL_FACTS[control].title


def conclude(runs: list[Run], controls: list[Run], said: list[str]) -> Judged:
    """Compare programs and controls with the reference, paired by profile and division."""
    split = judged_split(runs[0].profiles["split"])
    configurations: dict[str, Configuration] = {}
    for run in (*controls, *runs):
        table = run.profiles[run.profiles["split"] == split].set_index("profile")
        configuration = configurations.setdefault(run.configuration, Configuration(run.configuration, "", {}))
        configuration.profiles[int(run.config["seed"])] = table
    paired = compare_configurations(list(configurations.values()), split)
    metrics = pd.concat([run.metrics.assign(arm=run.configuration) for run in (*controls, *runs)], ignore_index=True)
    return Judged(runs, controls, paired, answer(paired, metrics, DRAW), said)


def _judge_one(
    halves: Halves, tables: Mapping[str, Table], settings: JudgeSettings, spaces: Mapping[str, str], command: str
) -> tuple[list[Run], list[Run], list[str]]:
    """Runs of programs and of controls for one division, and what was found about the files."""
    split = halves.split
    rows = np.flatnonzero(split.isin(["validation", "test"]))
    names = halves.given.names[rows]
    whole = halves.whole()
    if whole.fingerprint != halves.fingerprint:
        raise InputError("the halves do not add up to the profiles that were divided. Split the data again.")
    preprocess, said = _in_common(fit_preprocess(whole, np.flatnonzero(split == "train")), tables, settings)
    reconstructions = {
        name: table.of(names).in_genes(preprocess.genes) for name, table in tables.items() if not table.is_latent
    }
    control = fit_control(halves, whole, preprocess, settings.n_latent)
    judged = JudgedHalves(
        as_expression(halves.given, preprocess.genes, rows),
        as_expression(halves.held_out, preprocess.genes, rows),
        names,
        split.to_numpy()[rows],
        preprocess.genes,
        control.mean_of_held_out,
        halves.settings.fraction,
        halves.settings.seed,
    )
    between = of_halves(judged)
    scores = {name: score(predict, judged) for name, predict in control.predictions(judged).items()}
    found, diagnostics = {}, {}
    for name, table in reconstructions.items():
        seen = see(table, judged, spaces.get(name))
        found[name] = score(in_log1p(table, seen.space, judged.given.totals), judged)
        check_source(table.where, found[name], between)
        diagnostics[name] = to_table(seen.diagnostics())
        how = "as you say" if seen.is_told else "by its gene means"
        exact = "" if seen.space == "log1p_cp10k" else "; converted to expected log1p_cp10k for Poisson counts"
        said.append(f"{name}: {table.where} is in {seen.space}, {how}{exact}.")
    config = _config(halves, whole, preprocess, settings, command)
    beside = long_table(scores, judged, between, halves.repeat)

    def run(name: str, of: OfHalf, table: pd.DataFrame | None) -> Run:
        own = long_table({"model": of, "mean_profile": scores["mean_profile"]}, judged, between, halves.repeat)
        is_other = ~beside["model"].isin([key for key in CONTROLS if title_of(key) == name])
        profiles = of.profiles.assign(profile=names, split=judged.split)
        return Run(
            name=name if halves.repeat == 1 else f"{name}, repeat {halves.repeat}",
            configuration=name,
            config=config,
            metrics=pd.concat(
                [own[own["model"] == "model"], beside[(beside["metric"] != "ceiling") & is_other]], ignore_index=True
            ),
            profiles=profiles[["profile", "split", *of.profiles]],
            history=pd.DataFrame(),
            genewise=of.genes[judged_split(pd.Series(judged.split))],
            diagnostics=table,
            split_sizes=sizes_of(split),
            split=split,
        )

    others = [name for name in CONTROLS if name != REFERENCE and name in scores]
    return (
        [run(name, of, diagnostics[name]) for name, of in found.items()],
        [run(title_of(name), scores[name], None) for name in (REFERENCE, *others)],
        said,
    )


def _in_common(
    preprocess: Preprocess, tables: Mapping[str, Table], settings: JudgeSettings
) -> tuple[Preprocess, list[str]]:
    """The genes that all reconstructions have; too few of them are refused."""
    genes = preprocess.genes
    kept = np.ones(len(genes), bool)
    for name, table in tables.items():
        if table.is_latent:
            continue
        own = genes.isin(table.columns)
        if own.mean() < settings.min_overlap:
            raise InputError(
                f"{table.where} must have at least {100 * settings.min_overlap:.0f} % of the {len(genes):,} genes that "
                f"are judged (those in 3 training profiles or more); it has {own.sum():,}. Have '{name}' reconstruct "
                "all genes of input.h5ad, split fewer genes, or lower --min-overlap."
            )
        kept &= own
    said = []
    if not kept.all():
        said.append(
            f"Everything is judged on the {kept.sum():,} of {len(genes):,} genes that all reconstructions have."
        )
    return replace(preprocess, genes=genes[kept], scale=np.ones(int(kept.sum()))), said


def _config(
    halves: Halves, whole: Profiles, preprocess: Preprocess, settings: JudgeSettings, command: str
) -> dict[str, Any]:
    """What is known of a judged program, with the keys of a `config.json`."""
    return {
        "judged": True,
        "settings": {"loss": "", "n_latent": settings.n_latent},
        "seed": halves.repeat,
        "split_seed": halves.settings.seed,
        "fraction": halves.settings.fraction,
        "space": preprocess.space,
        "network": {"n_genes": len(preprocess.genes)},
        "data": {
            "source": halves.source,
            "location": halves.location,
            "fingerprint": halves.fingerprint,
            "n_profiles": whole.n_profiles,
            "n_genes": whole.n_genes,
        },
        "command": command,
        "versions": {"geneae": __version__},
    }
