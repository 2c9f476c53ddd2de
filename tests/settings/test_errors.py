import pytest

from geneae.settings.errors import InputError, did_you_mean, listed, reason_of, unknown


@pytest.mark.parametrize("name", ["cosin", "COSINE", "cosines"])
def test_a_near_name_is_suggested_in_any_case(name: str) -> None:
    assert did_you_mean(name, ["mse", "cosine"]) == "; did you mean 'cosine'?"


def test_a_far_name_suggests_nothing() -> None:
    assert did_you_mean("wasserstein", ["mse", "cosine"]) == ""


def test_unknown_says_what_was_given_what_is_near_and_what_there_is() -> None:
    assert str(unknown("loss", "cosin", ["mse", "cosine"])) == (
        "unknown loss 'cosin'; did you mean 'cosine'? Available: mse, cosine"
    )
    assert str(unknown("loss", "xyz", ["mse", "cosine"])) == "unknown loss 'xyz'. Available: mse, cosine"


def test_long_lists_are_cut_and_empty_ones_said() -> None:
    assert listed(range(23)) == ", ".join(map(str, range(20))) + " and 3 more"
    assert listed([]) == "none"


def test_input_errors_are_value_errors() -> None:
    assert issubclass(InputError, ValueError)


def test_a_reason_is_the_first_line_of_an_error_or_its_class() -> None:
    assert reason_of(ValueError("no such thing\nand more")) == "no such thing"
    assert reason_of(OSError()) == "OSError"
    assert reason_of(KeyError("")) == "''"
