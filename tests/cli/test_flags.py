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
    r"profiles?|genes|epochs?|factor|fraction|share|components|units|numbers per profile|integer|cosine|runs|"
    r"splits|power|bits|devices?|machines|nodes|seconds|minutes|GB|MB|bytes|threads|processes|steps|sizes?|per "
)
COMMANDS = {
    name: command
    for name in main.list_commands(click.Context(main))
    if (command := main.get_command(click.Context(main), name)) is not None
}


def lacks(flag: click.Option) -> list[str]:
    """What the help of a flag does not say."""
    text = flag.help or ""
    says_default = flag.required or flag.show_default or "[default: " in text
    is_number = isinstance(flag.type, click.types.IntParamType | click.types.FloatParamType)
    said = {
        "anything": bool(text),
        "its default": says_default or (flag.is_flag and not flag.secondary_opts),
        "its unit": not is_number or re.search(UNITS, text, re.IGNORECASE),
    }
    return [part for part, is_said in said.items() if not is_said]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_says_its_default_and_its_unit(command: str) -> None:
    flags = [one for one in COMMANDS[command].params if isinstance(one, click.Option) and one.name != "help"]
    assert len(flags) >= 3
    assert {one.opts[-1]: lacks(one) for one in flags if lacks(one)} == {}


def test_a_flag_that_says_too_little_is_found() -> None:
    assert lacks(click.Option(["--size"], type=int)) == ["anything", "its default", "its unit"]
    assert lacks(click.Option(["--size"], type=int, help="Genes.  [default: 3]")) == []
    assert lacks(click.Option(["--on/--off"], help="Whether.")) == ["its default"]


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
