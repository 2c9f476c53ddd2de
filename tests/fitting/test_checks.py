"""Choices that do not go together are refused before anything is computed, with what to do instead."""

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import simulate

from geneae.data.reading import read_profiles
from geneae.fitting import checks
from geneae.fitting.checks import (
    check_batch,
    check_choices,
    check_loss,
    check_objective,
    check_profiles,
    check_used,
    is_split_target,
    latents_of,
)
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings


@pytest.mark.parametrize(
    ("loss", "center", "found"),
    [
        ("mse", "none", "none"),
        ("cosine", "gene", "gene"),
        ("pearson", "none", "profile"),
        ("pearson", "profile", "profile"),
    ],
)
def test_a_loss_may_have_a_centring_of_its_own(loss: str, center: str, found: str) -> None:
    assert check_loss(Settings(loss=loss, center=center)) == found


def test_a_centring_against_that_of_the_loss_is_refused() -> None:
    with pytest.raises(InputError) as error:
        check_loss(Settings(loss="pearson", center="gene"))
    assert str(error.value) == "loss pearson always centres by profile; found --center gene. Leave out --center."


def test_an_unknown_loss_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"^unknown loss 'cosin'; did you mean 'cosine'\? Available: mse, "):
        check_loss(Settings(loss="cosin"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"views": "mask"}, "objective reconstruction does not use --views mask. Leave it out, or choose another"),
        ({"agreement": 0.3, "views": "mask"}, "does not use --views mask and --agreement 0.3. Leave them out, or"),
        ({"objective": "simclr", "loss": "cosine"}, "objective simclr does not use --loss cosine. Leave it out, or"),
        ({"objective": "byol", "agreement": 0.2}, "objective byol does not use --agreement 0.2. Leave it out, or"),
    ],
)
def test_a_choice_that_an_objective_does_not_use_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        check_used(Settings(**options))


def test_a_choice_that_one_of_several_fits_uses_is_kept() -> None:
    alone = Settings(loss="cosine", objective="simclr"), Settings(views="mask")
    for useless in alone:
        with pytest.raises(InputError):
            check_used(useless)
    for fits in (
        (Settings(loss="cosine"), alone[0]),
        (Settings(objective="simclr+reconstruction", loss="cosine", views="mask", agreement=0.2),),
        (Settings(objective="simclr", views="mask"), alone[1]),
        (Settings(),),
    ):
        assert check_used(*fits) is None  # type: ignore[func-returns-value]


def test_an_unknown_view_is_refused_whatever_the_objective() -> None:
    with pytest.raises(InputError, match=r"^unknown view 'masc'; did you mean 'mask'"):
        check_choices(Settings(views="masc"))


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (Settings(), (None, True)),
        (Settings(objective="simclr"), ("simclr", False)),
        (Settings(objective="byol+reconstruction"), ("byol", True)),
    ],
)
def test_an_objective_says_what_is_trained(settings: Settings, found: tuple[str | None, bool]) -> None:
    assert check_objective(settings) == found


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            Settings(objective="simclr", batch_size=1),
            "needs mini-batches of at least 2 profiles; found --batch-size 1.",
        ),
        (Settings(objective="simclr", devices=2), "trains on one device; found --devices 2 --nodes 1."),
        (Settings(objective="simclr", target="split"), "use --objective simclr+reconstruction."),
        (
            Settings(positives="neighbours"),
            "--positives neighbours needs an objective that learns from views; found --objective reconstruction. Leave "
            "it out, or use --objective simclr, say.",
        ),
        (Settings(objective="simclr", metric="m"), "--metric needs a reconstruction loss"),
        (
            Settings(objective="simclr", target_norm=1.0),
            "--target-norm needs --objective reconstruction; found --objective simclr.",
        ),
        (
            Settings(objective="simclr+reconstruction", loss="softmax"),
            "loss softmax compares the profiles of a mini-batch",
        ),
    ],
)
def test_an_objective_refuses_what_is_not_its_own(settings: Settings, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        check_objective(settings)


def test_batches_need_scib_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    check_batch(Settings(batch_key="donor"))
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    check_batch(Settings())
    with pytest.raises(InputError) as error:
        check_batch(Settings(batch_key="donor"))
    assert str(error.value) == (
        "--batch needs scib-metrics, which is not installed. Install it with: pip install scib-metrics, or leave "
        "out --batch."
    )


def test_profiles_refuse_an_unknown_null_and_one_without_reconstruction() -> None:
    profiles = read_profiles(simulate(20, 30))
    check_profiles(profiles, Settings(), None, True, None)
    with pytest.raises(InputError, match="unknown null 'gene'"):
        check_profiles(profiles, Settings(), None, True, "gene")
    with pytest.raises(InputError, match="--null needs a reconstruction, but objective byol trains no decoder"):
        check_profiles(profiles, Settings(objective="byol"), "byol", False, "gene_permuted")


def test_groups_to_mix_are_a_column_of_profiles_in_memory(counts_path: Path) -> None:
    check_profiles(read_profiles(counts_path), Settings(balance="donor"), None, True, None)
    with pytest.raises(InputError, match="unknown obs column 'dnor'; did you mean 'donor'"):
        check_profiles(read_profiles(counts_path), Settings(balance="dnor"), None, True, None)
    streamed = read_profiles(counts_path, stream="yes")
    with pytest.raises(InputError, match="--balance mixes profiles in memory, but these stay in their file"):
        check_profiles(streamed, Settings(balance="donor"), None, True, None)


def test_only_counts_are_split_and_by_themselves() -> None:
    adata = simulate(20, 30)
    counts = read_profiles(adata)
    adata.X = adata.X.log1p()
    logs = read_profiles(adata)
    assert [is_split_target(counts, target) for target in ("auto", "split", "self")] == [True, True, False]
    assert [is_split_target(logs, target) for target in ("auto", "self")] == [False, False]
    with pytest.raises(InputError, match="--target split divides molecules and needs counts"):
        is_split_target(logs, "split")


def test_a_latent_has_at_most_as_many_numbers_as_there_are_directions() -> None:
    assert latents_of(23, 24, 40) == 23
    with pytest.raises(InputError, match="--latent must be at most 23"):
        latents_of(24, 24, 40)


@pytest.mark.parametrize(("n_train", "n_genes", "n_latent"), [(500, 2000, 32), (24, 40, 23), (500, 5, 5), (1, 9, 1)])
def test_without_a_number_the_latent_is_as_long_as_the_data_allow_up_to_32(
    n_train: int, n_genes: int, n_latent: int
) -> None:
    assert latents_of(None, n_train, n_genes) == n_latent
