"""Programs by name: what each has made of every division of the molecules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from geneae.data.halves import Halves
from geneae.data.programs import SPACES, Made, Table, read_made
from geneae.folders.halves import RECORD, read_halves
from geneae.settings.errors import InputError, unknown


@dataclass(frozen=True, eq=False)
class Programs:
    """What programs have made of one division, by their names."""

    reconstructions: Mapping[str, Table] = field(default_factory=dict)
    """Reconstructions of the given half."""
    latents: Mapping[str, Table] = field(default_factory=dict)
    """Latents of the given half."""
    of_held_out: Mapping[str, Table] = field(default_factory=dict)
    """Latents of the held-out half, for the neighbours that both halves share."""

    @property
    def names(self) -> list[str]:
        """All programs."""
        return list(dict.fromkeys((*self.reconstructions, *self.latents)))


def read_repeats(
    folder: Path, made: Sequence[Made], of_held_out: Sequence[Made] = ()
) -> tuple[list[Halves], list[Programs]]:
    """All divisions in a folder, and what programs have made of each; `{repeat}` in the name of a file is its number.

    A folder of one division is read as it is.
    """
    several = [] if (folder / RECORD).is_file() else sorted(folder.glob("repeat_*/" + RECORD))
    folders = [path.parent for path in several] or [folder]
    fixed = [one.where for one in (*made, *of_held_out) if "{repeat}" not in str(one.path)]
    if len(folders) > 1 and fixed:
        raise InputError(
            f"{folder} holds {len(folders)} divisions, so that a file must be named for each: write {{repeat}} where "
            f"its number stands; found {fixed[0]}."
        )
    halves = [read_halves(one) for one in folders]

    def read(one: Made, of: Halves) -> Table:
        path = Path(str(one.path).replace("{repeat}", str(of.repeat)))
        return read_made(replace(one, path=path), of.given.genes)

    programs = []
    for of in halves:
        tables = [(one.name, read(one, of)) for one in made]
        others = [(one.name, read(one, of)) for one in of_held_out]
        programs.append(programs_of(tables, others))
    return halves, programs


def programs_of(tables: Sequence[tuple[str, Table]], of_held_out: Sequence[tuple[str, Table]] = ()) -> Programs:
    """Programs by name; one may have a reconstruction and latents, but not two of either."""
    kinds: dict[bool, dict[str, Table]] = {False: {}, True: {}}
    for name, table in tables:
        if name in kinds[table.is_latent]:
            raise InputError(f"the name '{name}' is given more than once. Give every program its own.")
        kinds[table.is_latent][name] = table
    others = dict(of_held_out)
    for name, table in others.items():
        if name not in kinds[True] or not table.is_latent:
            raise InputError(
                f"latents of the held-out half are compared with those of the given half; '{name}' has none of these. "
                "Give both, from obsm or from columns that are no genes."
            )
    return Programs(kinds[False], kinds[True], others)


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
