"""Other programs judged on held-out halves, beside the same controls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from geneae import __version__
from geneae.data.halves import Halves, as_expression
from geneae.data.preprocess import Expression, Preprocess, fit_preprocess, normalize
from geneae.data.profiles import Profiles
from geneae.data.programs import Table
from geneae.evaluation.controls import untrained_controls
from geneae.evaluation.diagnostics import to_table
from geneae.evaluation.judge import JudgingData
from geneae.evaluation.latents import Representation
from geneae.evaluation.predictors import WHITENED
from geneae.evaluation.program_latents import judge_representations
from geneae.evaluation.programs import JudgedHalves, OfHalf, long_table, of_halves, score
from geneae.evaluation.records import COLUMNS, judged_split
from geneae.evaluation.spaces import check_source, in_log1p, see
from geneae.evaluation.table import MODEL_FACTS
from geneae.fitting.controls import REFERENCE, Control, fit_control
from geneae.fitting.judged import Judged, conclude
from geneae.fitting.programs import Programs
from geneae.folders.run import Run, sizes_of
from geneae.models.baselines import BASELINES
from geneae.models.ceiling import has_molecules
from geneae.settings.errors import InputError, unknown
from geneae.settings.settings import Settings
from geneae.settings.text import counted

RECONSTRUCTING = (REFERENCE, WHITENED, *(name for name in reversed(BASELINES) if name != REFERENCE))
"""Controls that reconstruct, the reference first."""
EMBEDDING = (REFERENCE, WHITENED, "pca", "raw_input", "random_encoder")
"""Controls that have latents."""
MIN_OVERLAP = 0.5  # share of the genes; with fewer, the judged profiles would be others

Value = TypeVar("Value")


@dataclass(frozen=True)
class JudgeSettings:
    """Choices about judging."""

    n_latent: int | None = None
    """Number of components of PCA, shrunken PCA and the whitened control; None: 32, or the most that the training
    profiles and genes allow."""
    label: str | None = None
    """Column of `obs` by which latents are judged."""
    batch_key: str | None = None
    """Column of `obs` whose mixing in latents is judged."""
    min_overlap: float = MIN_OVERLAP
    """Least share of the genes that a reconstruction must have."""
    skip_refused: bool = False
    """Leave out programs that would be refused, and say why; if not, the first one ends the judging."""


DEFAULTS = JudgeSettings()


def judge(
    halves: Sequence[Halves],
    made: Sequence[Programs],
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
        What the same programs have made of the given half of each division.
    settings
        Choices.
    spaces
        Spaces of reconstructions that the user names, by program.
    command
        Command line, for the report.
    """
    spaces = dict(spaces or {})
    for name in spaces:
        if name not in made[0].reconstructions:
            raise unknown("program", name, made[0].reconstructions)
    check_names(made[0])
    runs: list[Run] = []
    controls: list[Run] = []
    said: list[str] = []
    for one, programs in zip(halves, made, strict=True):
        found = _Judging(one, programs, settings, spaces, command)
        runs += found.programs()
        controls += found.controls()
        said += [text for text in found.said if text not in said]
    if not runs:
        raise InputError(f"no program is left to be judged. {' '.join(said)}")
    return conclude(runs, controls, said)


def check_names(programs: Programs) -> None:
    """Refuse no programs at all, and names that controls have."""
    if not programs.names:
        raise InputError("at least one program must be judged. Give what it has made as NAME=FILE.")
    controls = {*RECONSTRUCTING, *EMBEDDING}
    taken = (controls | {title_of(name) for name in controls}) & set(programs.names)
    if taken:
        raise InputError(f"the name '{sorted(taken)[0]}' is that of a control. Give the program another name.")


def title_of(control: str) -> str:
    """Name of a control as a configuration."""
    return MODEL_FACTS[control].title


class _Judging:
    """Programs and controls on one division."""

    def __init__(
        self, halves: Halves, programs: Programs, settings: JudgeSettings, spaces: Mapping[str, str], command: str
    ) -> None:
        self._halves, self._programs, self._settings, self._spaces = halves, programs, settings, spaces
        self._rows = np.flatnonzero(halves.split.isin(["validation", "test"]))
        self._names = halves.given.names[self._rows]
        whole = halves.whole()
        if whole.fingerprint != halves.fingerprint:
            raise InputError("the halves do not add up to the profiles that were divided. Split the data again.")
        self.said: list[str] = []
        preprocess = self._in_common(fit_preprocess(whole, np.flatnonzero(halves.split == "train")))
        self._control = fit_control(halves, whole, preprocess, settings.n_latent)
        self._judged = self._judged_halves(preprocess)
        self._config = _config(halves, whole, preprocess, settings, command)
        self._scores: dict[str, OfHalf] = {}
        self._diagnostics: dict[str, pd.DataFrame] = {}
        self._beside = pd.DataFrame(columns=COLUMNS)
        self._between = of_halves(self._judged)
        if programs.reconstructions:
            self._score_all()
        self._by_profile, self._of_latents = pd.DataFrame(columns=["model", "profile", "split"]), self._beside.iloc[:0]
        if programs.latents:
            self._judge_latents(preprocess)

    def programs(self) -> list[Run]:
        """Runs of the programs that were judged."""
        known = {*self._scores, *self._of_latents["model"]}
        return [self._run(name, name) for name in self._programs.names if name in known]

    def controls(self) -> list[Run]:
        """Runs of the controls, the reference first."""
        known = {*self._scores, *self._of_latents["model"]}
        names = [name for name in dict.fromkeys((*RECONSTRUCTING, *EMBEDDING)) if name in known]
        return [self._run(title_of(name), name) for name in names]

    def _judged_halves(self, preprocess: Preprocess) -> JudgedHalves:
        given, held_out = (
            as_expression(half, preprocess.genes, self._rows) for half in (self._halves.given, self._halves.held_out)
        )
        return JudgedHalves(
            given,
            held_out,
            self._names,
            self._halves.split.to_numpy()[self._rows],
            preprocess.genes,
            self._control.mean_of_held_out,
            self._halves.settings.fraction,
            self._halves.settings.seed,
        )

    def _unless_refused(self, name: str, do: Callable[[], Value]) -> Value | None:
        """The result; None for a program that is refused and shall be left out, which is said."""
        try:
            return do()
        except InputError as error:
            if not self._settings.skip_refused:
                raise
            self.said.append(f"{name} is left out: {error}")
            return None

    def _in_common(self, preprocess: Preprocess) -> Preprocess:
        """The genes that all reconstructions have; too few of them are refused."""
        genes, least = preprocess.genes, self._settings.min_overlap
        kept, refused = np.ones(len(genes), bool), []
        for name, table in self._programs.reconstructions.items():
            own = genes.isin(table.columns)

            def check(table: Table = table, own: np.ndarray = own, name: str = name) -> bool:
                if own.mean() < least:
                    raise InputError(
                        f"{table.where} must have at least {100 * least:.0f} % of the {len(genes):,} genes that are "
                        f"judged (those in 3 training profiles or more); it has {own.sum():,}. Have '{name}' "
                        "reconstruct all genes of input.h5ad, or lower --min-overlap."
                    )
                return True

            if self._unless_refused(name, check):
                kept &= own
            else:
                refused.append(name)
        if refused:
            left = {name: t for name, t in self._programs.reconstructions.items() if name not in refused}
            self._programs = replace(self._programs, reconstructions=left)
        if not kept.all():
            self.said.append(
                f"Everything is judged on the {kept.sum():,} of {len(genes):,} genes that all reconstructions have."
            )
        return replace(preprocess, genes=genes[kept], scale=np.ones(int(kept.sum())))

    def _score_all(self) -> None:
        """Numbers of all reconstructions, of controls and programs."""
        judged = self._judged
        controls = {name: score(of, judged) for name, of in self._control.predictions(judged).items()}
        self._beside = long_table(controls, judged, self._between, self._halves.repeat)
        self._scores |= controls
        for name, table in self._programs.reconstructions.items():
            found = self._unless_refused(name, lambda name=name, table=table: self._score(name, table))  # type: ignore[misc]
            if found is not None:
                self._scores[name] = found

    def _score(self, name: str, table: Table) -> OfHalf:
        table = table.of(self._names).in_genes(self._judged.genes)
        seen = see(table, self._judged, self._spaces.get(name))
        found = score(in_log1p(table, seen.space, self._judged.given.totals), self._judged)
        check_source(table.where, found, self._between)
        self._diagnostics[name] = to_table(seen.diagnostics())
        how = "as you say" if seen.is_told else "by its gene means"
        exact = "" if seen.space == "log1p_cp10k" else "; converted to expected log1p_cp10k for Poisson counts"
        self.said.append(f"{name}: {table.where} is in {seen.space}, {how}{exact}.")
        if seen.n_nan:
            self.said.append(
                f"{name}: {seen.n_nan:,} of {seen.n_values:,} values of {table.where} "
                f"{'is NaN or infinite; it was' if seen.n_nan == 1 else 'are NaN or infinite; they were'} judged as 0."
            )
        return found

    def _judge_latents(self, preprocess: Preprocess) -> None:
        """Numbers of all latents, of controls and programs."""
        halves, every = self._halves, np.arange(self._halves.given.n_profiles)
        parts = [as_expression(half, preprocess.genes, every) for half in (halves.given, halves.held_out)]
        settings = Settings(
            n_latent=self._control.n_latent,
            seed=halves.settings.seed,
            label=self._settings.label,
            batch_key=self._settings.batch_key,
        )
        data = JudgingData(settings, halves.given.obs, halves.split, parts[0], preprocess, has_decoder=True)
        first, second = (self._control.representations(part) for part in parts)
        given: dict[str, Representation] = {**first, **_untrained(parts[0], self._control, settings)}
        held_out = dict(second)
        used = np.flatnonzero(halves.split != "excluded")
        for name, table in self._programs.latents.items():
            found = self._unless_refused(name, lambda table=table: _placed(table, halves.given.names, used))  # type: ignore[misc]
            if found is None:
                continue
            given[name] = found
            if name in self._programs.of_held_out:
                held_out[name] = _placed(self._programs.of_held_out[name], halves.given.names, self._rows)
        if not self._programs.of_held_out:
            held_out = {}
        known = has_molecules(*parts)
        self._by_profile, self._of_latents = judge_representations(data, given, held_out, known)
        self._of_latents = self._of_latents.assign(seed=halves.repeat)

    def _run(self, title: str, key: str) -> Run:
        """The run of a program or a control."""
        judged, repeat = self._judged, self._halves.repeat
        molecules = judged.given.totals + judged.held_out.totals
        profiles = pd.DataFrame({"profile": self._names, "split": judged.split, "molecules": molecules})
        tables = []
        if key in self._scores:
            of = self._scores[key]
            profiles = pd.concat([profiles, of.profiles], axis=1)
            own = {"model": of, "mean_profile": self._scores["mean_profile"]}
            long = long_table(own, judged, self._between, repeat)
            tables.append(long[long["model"] == "model"])
        own_latents = self._of_latents[self._of_latents["model"] == key]
        if len(own_latents):
            columns = self._by_profile[self._by_profile["model"] == key].drop(columns=["model", "split"])
            if len(columns):  # none without a label and without the other half
                profiles = profiles.merge(columns.dropna(axis=1, how="all"), "left", "profile")
            tables.append(own_latents.assign(model="model"))
        for beside in (self._beside, self._of_latents):
            is_control = ~beside["model"].isin([*self._programs.names, key]) & (beside["metric"] != "ceiling")
            tables.append(beside[is_control])
        has_reconstruction = key in self._scores
        return Run(
            name=title if repeat == 1 else f"{title}, repeat {repeat}",
            configuration=title,
            config=self._config | {"network": self._config["network"] | {"has_decoder": has_reconstruction}},
            metrics=pd.concat([table for table in tables if len(table)], ignore_index=True),
            profiles=profiles,
            history=pd.DataFrame(),
            genewise=self._scores[key].genes[judged_split(pd.Series(judged.split))] if has_reconstruction else None,
            diagnostics=self._diagnostics.get(key),
            split_sizes=sizes_of(self._halves.split),
            split=self._halves.split,
        )


def _untrained(given: Expression, control: Control, settings: Settings) -> dict[str, Representation]:
    """The input itself and a random encoder."""
    matrix = normalize(given.rows, given.totals)
    found = untrained_controls(matrix, control.bases.baselines, settings)
    return {name: found[name] for name in ("raw_input", "random_encoder")}


def _placed(table: Table, names: pd.Index, rows: np.ndarray) -> np.ndarray:
    """(n_profiles, n) latents at the places of their profiles, 0 elsewhere; all of `rows` must be there and finite."""
    values = table.of(names[rows]).block(slice(0, len(rows)))
    if not np.isfinite(values).all():
        bad = names[rows][~np.isfinite(values).all(1)]
        raise InputError(
            f"{table.where} must hold finite numbers; {counted(len(bad), 'profile has', 'profiles have')} NaN or "
            f"infinite latents, first '{bad[0]}'. Compute them again."
        )
    found = np.zeros((len(names), values.shape[1]))
    found[rows] = values
    return found


def _config(
    halves: Halves, whole: Profiles, preprocess: Preprocess, settings: JudgeSettings, command: str
) -> dict[str, Any]:
    """What is known of a judged program, with the keys of a `config.json`."""
    return {
        "judged": True,
        "center": "none",
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
