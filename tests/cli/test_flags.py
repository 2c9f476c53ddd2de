"""What `--help` says of each flag, and what the shell offers to complete."""

import os
import re
import subprocess
import sys

import click
import pytest

from geneae.cli.main import main
from geneae.settings.families import LOSS_NAMES

UNITS = (
    r"profiles?|genes|epochs?|factor|fraction|share|components|units|numbers per profile|whole number|cosine|runs|"
    r"splits|power|bits|devices?|machines|nodes|seconds|minutes|GB|MB|bytes|threads|processes|steps|sizes?|per "
)
FLAGS = [
    (name, one)
    for name, command in main.commands.items()
    for one in command.params
    if isinstance(one, click.Option) and one.name != "help"
]


@pytest.mark.parametrize(("command", "flag"), FLAGS, ids=[f"{name} {flag.opts[-1]}" for name, flag in FLAGS])
def test_every_flag_says_its_default_and_its_unit(command: str, flag: click.Option) -> None:
    text = flag.help or ""
    assert text, f"{command} {flag.opts} says nothing"
    has_default = (
        flag.required or flag.show_default or "[default: " in text or (flag.is_flag and not flag.secondary_opts)
    )
    assert has_default, f"{command} {flag.opts}: {text}"
    if isinstance(flag.type, click.types.IntParamType | click.types.FloatParamType):
        assert re.search(UNITS, text, re.IGNORECASE), f"{command} {flag.opts} has no unit: {text}"


def offered(shell: str, *, words: str, position: int) -> list[str]:
    """What a shell is offered for the last word of a line."""
    asked = {"_GENEAE_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    if shell == "fish":
        asked["COMP_CWORD"] = words.split()[position] if len(words.split()) > position else ""
    code = "from geneae.cli.main import main; main(prog_name='geneae')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=False, timeout=60
    )
    assert "Traceback" not in done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_flags_and_losses_are_completed(shell: str) -> None:
    assert [text for text in offered(shell, words="geneae insp", position=1) if "inspect" in text]
    assert any("--cut-where" in text for text in offered(shell, words="geneae fit --cut-w", position=2))
    found = " ".join(offered(shell, words="geneae fit d.h5ad --loss ", position=4))
    assert [name for name in LOSS_NAMES if name not in found] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_given_its_script(shell: str) -> None:
    code = "from geneae.cli.main import main; main(prog_name='geneae')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"_GENEAE_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"_GENEAE_COMPLETE={shell}_complete" in done.stdout
