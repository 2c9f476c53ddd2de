"""What all values have in common does not depend on how they come."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from geneae.data.matrix_check import Fingerprint, Scan, Values
from geneae.data.states import find_state
from geneae.settings.errors import InputError

COUNTS = np.random.default_rng(0).poisson(0.7, (11, 6)).astype(np.float32)
NAMES, GENES = (pd.Index([f"{letter}{i}" for i in range(n)]) for letter, n in zip("pg", COUNTS.shape, strict=True))
CUTS = [(), (4,), (1, 2, 3, 9), tuple(range(1, 11))]


def blocks(cuts: tuple[int, ...]) -> list[sparse.csr_matrix]:
    return [sparse.csr_matrix(part) for part in np.split(COUNTS, cuts)]


def scanned(dense: np.ndarray) -> Scan:
    values = Values()
    values.add(sparse.csr_matrix(dense))
    return values.scan(None, find_state(values.evidence(), "here"))


@pytest.mark.parametrize("cuts", CUTS)
def test_blocks_do_not_matter(cuts: tuple[int, ...]) -> None:
    values, digest, whole = Values(), Fingerprint(NAMES, GENES), Fingerprint(NAMES, GENES)
    for block in blocks(cuts):
        values.add(block)
        digest.add(block)
    whole.add(sparse.csr_matrix(COUNTS))
    found = values.scan(digest, find_state(values.evidence(), "here"))
    assert (found.state, found.highest, found.fingerprint) == ("counts", COUNTS.max(), whole.finish())
    np.testing.assert_array_equal(found.totals, COUNTS.sum(1))
    np.testing.assert_array_equal(found.lengths, (COUNTS > 0).sum(1))


def test_the_fingerprint_sees_the_order_of_profiles() -> None:
    here, there = Fingerprint(NAMES, GENES), Fingerprint(NAMES, GENES)
    here.add(sparse.csr_matrix(COUNTS))
    there.add(sparse.csr_matrix(COUNTS[::-1]))
    assert here.finish() != there.finish()


@pytest.mark.parametrize(("added", "state"), [(1.0, "counts"), (0.5, "normalised"), (1.00001, "counts")])
def test_one_value_decides_the_state(added: float, state: str) -> None:
    dense = COUNTS.copy()
    dense[7, 3] = added
    assert scanned(dense).state == state


def test_values_beyond_float32_are_refused() -> None:
    values = Values()
    values.add(sparse.csr_matrix(np.array([[2.0**24 + 1, 0.0]])))
    with pytest.raises(InputError, match=r"counts must be at most 16,777,216 to be exact in float32"):
        values.check_counts("here")
