import math
from dataclasses import dataclass

import numpy as np
import pytest

from geneae.settings.declaration import COUNT, Limits, declared, described, setting
from geneae.settings.errors import InputError


@dataclass(frozen=True)
class Choices:
    """A record of one setting of each kind."""

    n_steps: int = setting(3, "Steps. Of the optimizer.", limits=COUNT, flag="steps")
    start: str = setting("pca", "Where to start.", choices=("pca", "random"), metavar="WORD")
    share: float | None = setting(None, "Share of it.", limits=Limits(least=0, most=1, note="1 is all"), none="none")
    is_fast: bool = setting(True, "Be quick.")


FOUND = declared(Choices)


@pytest.mark.parametrize(
    ("limits", "words", "sound", "wrong"),
    [
        (Limits(least=1), "at least 1", [1, 7.5], [0.99, -1]),
        (Limits(most=0.5), "at most 0.5", [-3, 0.5], [0.51]),
        (Limits(above=0), "above 0", [1e-9], [0, -1]),
        (Limits(least=0, below=1), "at least 0 and below 1", [0, 0.99], [1, -0.1]),
        (Limits(above=0, below=1), "above 0 and below 1", [0.5], [0, 1]),
        (Limits(least=-1, most=1), "between -1 and 1", [-1, 0, 1], [-1.1, 1.1]),
        (Limits(), "", [-1e300, 1e300], []),
    ],
)
def test_limits_hold_and_say_what_they_allow(
    limits: Limits, words: str, sound: list[float], wrong: list[float]
) -> None:
    assert str(limits) == words
    assert [limits.hold(value) for value in sound] == [True] * len(sound)
    assert not any(map(limits.hold, [*wrong, math.nan, math.inf, -math.inf]))


def test_a_declaration_knows_its_field() -> None:
    assert Choices() == Choices(3, "pca", None, True)
    assert list(FOUND) == ["n_steps", "start", "share", "is_fast"]
    assert [one.kind for one in FOUND.values()] == [int, str, float, bool]
    assert [one.flag for one in FOUND.values()] == ["steps", "start", "share", "is-fast"]
    assert [one.default for one in FOUND.values()] == [3, "pca", None, True]
    assert FOUND["start"].metavar == "WORD"


def test_a_sentence_gives_limits_but_not_that_a_count_is_one_at_least() -> None:
    assert FOUND["n_steps"].sentence == "Steps"
    assert FOUND["share"].sentence == "Share of it (between 0 and 1; 1 is all)"
    assert FOUND["n_steps"].description == "Steps. Of the optimizer."
    assert FOUND["share"].description == "Share of it (between 0 and 1; 1 is all). None: none."


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_steps", 0, "steps must be at least 1; found 0."),
        ("share", math.inf, "share must be finite and between 0 and 1 (1 is all); found inf."),
        ("n_steps", "5", "steps must be a whole number; found '5' (str). Give for example 3."),
        ("n_steps", 2.5, "steps must be a whole number; found 2.5 (float). Give for example 3."),
        ("n_steps", True, "steps must be a whole number; found True (bool). Give for example 3."),
        ("n_steps", None, "steps must be a whole number; found None. Give for example 3."),
        ("n_steps", np.array([1]), "steps must be a whole number; found array([1]) (ndarray). Give for example 3."),
        ("start", ["pca"], "unknown start '['pca']'; did you mean 'pca'? Available: pca, random"),
        ("share", "all", "share must be a number or None; found 'all' (str). Give for example 0.5."),
        ("is_fast", "no", "is-fast must be True or False; found 'no' (str). Give for example True."),
        ("is_fast", 1, "is-fast must be True or False; found 1 (int). Give for example True."),
        ("start", "pcs", "unknown start 'pcs'; did you mean 'pca'? Available: pca, random"),
        ("start", None, "unknown start 'None'. Available: pca, random"),
        ("share", 2, "share must be between 0 and 1 (1 is all); found 2."),
    ],
)
def test_a_value_that_is_none_of_its_values_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(InputError) as error:
        FOUND[name].check(value)
    assert str(error.value) == message


def test_values_within_the_limits_and_none_where_it_is_the_default_are_accepted() -> None:
    for name, values in {"n_steps": [1, 100], "start": ["random"], "share": [None, 0, 1], "is_fast": [False]}.items():
        for value in values:
            assert FOUND[name].check(value) == value
    assert FOUND["share"].default is None


def test_numbers_of_numpy_become_plain_ones_which_json_knows() -> None:
    for name, value, kind in (("n_steps", np.int64(4), int), ("share", np.float32(0.5), float), ("share", 1, float)):
        assert type(FOUND[name].check(value)) is kind
        assert FOUND[name].check(value) == value
    assert FOUND["is_fast"].check(np.bool_(False)) is False


def test_the_description_is_a_section_of_numpydoc() -> None:
    assert described(FOUND).splitlines() == [
        "Attributes",
        "----------",
        "n_steps : int, default 3",
        "    Steps. Of the optimizer.",
        "start : {'pca', 'random'}, default 'pca'",
        "    Where to start.",
        "share : float or None, default None",
        "    Share of it (between 0 and 1; 1 is all). None: none.",
        "is_fast : bool, default True",
        "    Be quick.",
    ]
