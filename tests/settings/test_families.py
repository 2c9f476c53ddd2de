import pytest

from geneae.data.augment import VIEWS
from geneae.losses.in_batch import IN_BATCH_LOSSES
from geneae.losses.reconstruction import LOSSES
from geneae.settings.families import IN_BATCH_NAMES, LOSS_NAMES, OBJECTIVE_NAMES, VIEW_NAMES, keys_of
from geneae.training.selfsupervised import OBJECTIVES, RECONSTRUCTION


def test_the_names_are_the_keys_of_the_dicts() -> None:
    assert tuple(LOSSES) == LOSS_NAMES
    assert tuple(IN_BATCH_LOSSES) == IN_BATCH_NAMES
    assert (RECONSTRUCTION, *OBJECTIVES) == OBJECTIVE_NAMES
    assert tuple(VIEWS) == VIEW_NAMES


def test_a_dict_that_was_moved_is_missed() -> None:
    with pytest.raises(LookupError) as error:
        keys_of("losses/reconstruction.py", "LOSES")
    assert str(error.value) == (
        "losses/reconstruction.py has no dict literal LOSES. Update its path in geneae/settings/families.py."
    )
