"""geneae compare says before it runs what it will not be able to say afterwards."""

from pathlib import Path

import pytest
from commands import FLAGS, geneae

NOTE = (
    "Note: cosine is the only configuration, so that only its seeds are shown. Another --loss, --objective, --cut or "
    "--latent would be compared with it."
)


@pytest.mark.parametrize(("losses", "is_alone"), [(["cosine"], True), (["cosine", "mse"], False)], ids=str)
def test_one_configuration_is_said_before_its_seeds_run(
    losses: list[str], is_alone: bool, counts_path: Path, tmp_path: Path
) -> None:
    given = [word for loss in losses for word in ("--loss", loss)]
    lines = geneae("compare", counts_path, "-o", tmp_path / "out", *given, *FLAGS, "--seeds", "1").stdout.splitlines()
    assert (lines[0] == NOTE) == is_alone
    assert any("There is only one configuration" in line for line in lines) == is_alone
