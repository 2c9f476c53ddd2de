"""Errors and notes in Python name keywords."""

import inspect

import pytest

from geneae import Autoencoder, tl
from geneae.settings.errors import InputChanged, InputError
from geneae.settings.python_words import in_python, speaks_python


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Name the matrix with --layer or --raw, or", "Name the matrix with layer or use_raw=True, or"),
        ("raw holds counts: --raw, from", "raw holds counts: use_raw=True, from"),
        ("layers['counts'] holds counts: --layer counts, from", "layers['counts'] holds counts: layer='counts', from"),
        ("by the best of them: --gene-names gene_ids.", "by the best of them: gene_names='gene_ids'."),
        ("rna; --modality NAME reads another", "rna; modality=NAME reads another"),
        ("--latent must be at most 23", "n_latent must be at most 23"),
        ("--target split needs; use --target self.", "target='split' needs; use target='self'."),
        ("Use --stream no if they fit", "Use stream='no' if they fit"),
        ("use --objective simclr+reconstruction.", "use objective='simclr+reconstruction'."),
        ("found --batch-size 1. Use a larger one.", "found batch_size=1. Use a larger one."),
        ("give --label KEY; lower --min-overlap.", "give label=KEY; lower min_overlap."),
        ("can be recovered: --state counts. If", "can be recovered: state='counts'. If"),
        ("--null permutes all; --batch evaluates", "null=True permutes all; batch_key evaluates"),
        ("values -- not flags -- stay", "values -- not flags -- stay"),
    ],
)
def test_flags_become_keywords(message: str, expected: str) -> None:
    assert in_python(message) == expected


def test_an_error_keeps_its_kind_and_other_errors_are_left_alone() -> None:
    @speaks_python
    def fails(error: Exception) -> None:
        raise error

    with pytest.raises(InputChanged, match=r"^change use_raw=True$"):
        fails(InputChanged("change --raw"))
    with pytest.raises(ValueError, match=r"^--raw$"):
        fails(ValueError("--raw"))
    with pytest.raises(InputError, match=r"^n_latent$"):
        fails(InputError("--latent"))


@pytest.mark.parametrize("function", [Autoencoder.fit, Autoencoder.transform, tl.fit, tl.embed, tl.score, tl.transfer])
def test_functions_for_python_speak_it_and_keep_their_signature(function: object) -> None:
    assert callable(function)
    assert hasattr(function, "__wrapped__")
    assert next(iter(inspect.signature(function).parameters)) in ("self", "adata")
