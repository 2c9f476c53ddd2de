"""`geneae inspect`."""

from pathlib import Path

from commands import geneae


def test_the_answer_about_a_cosine_is_the_last_line(counts_path: Path) -> None:
    result = geneae("inspect", counts_path, "--cosine", "0.4")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-1].startswith("A cosine of 0.4 here: ")
    assert [line for line in lines if line.startswith("The mean profile alone reaches a cosine of ")]
