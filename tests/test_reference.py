"""What tests share keeps its own promises."""

import ast
import itertools
from pathlib import Path

from reference import pairwise


def test_pairwise_has_every_pair_of_values_in_few_rows_and_always_the_same() -> None:
    parameters = ("abcdefg", [1, 2, 3], [None, {"x": 1}, ""], [False, True], [0.5, 1.5])
    rows = pairwise(*parameters)
    for first, second in itertools.combinations(range(5), 2):
        wanted = list(itertools.product(parameters[first], parameters[second]))
        found = [(row[first], row[second]) for row in rows]
        assert [pair for pair in wanted if pair not in found] == []
    assert 7 * 3 <= len(rows) <= 7 * 3 + 3 < 7 * 3 * 3 * 2 * 2
    assert rows == pairwise(*parameters)


def test_pairwise_has_every_pair_that_is_allowed_and_no_row_that_is_not() -> None:
    def is_allowed(letter: str, number: int, flag: bool) -> bool:
        return letter != "a" or (number == 1 and flag)

    rows = pairwise("abc", [1, 2, 3], [False, True], is_allowed=is_allowed)
    assert all(is_allowed(*row) for row in rows)
    assert {(row[0], row[1]) for row in rows} == {("a", 1), *itertools.product("bc", [1, 2, 3])}
    assert {(row[0], row[2]) for row in rows} == {("a", True), *itertools.product("bc", [False, True])}
    assert {(row[1], row[2]) for row in rows} == set(itertools.product([1, 2, 3], [False, True]))


def test_pairwise_of_two_parameters_is_their_product() -> None:
    assert sorted(pairwise("ab", "xyz")) == sorted(itertools.product("ab", "xyz"))


def test_no_test_module_imports_another() -> None:
    imports = [
        (path.name, node.module)
        for path in Path(__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]
    assert ("test_reference.py", "reference") in imports  # they are seen
    assert [(name, module) for name, module in imports if "test_" in (module or "")] == []
