"""What `--help` shows first."""

import re

import click
import pytest
from click.testing import CliRunner

from geneae.cli.help import FEW, FIRST, HEADINGS, OTHERS
from geneae.cli.main import main

CONTEXT = click.Context(main)
COMMANDS = {name: main.get_command(CONTEXT, name) for name in main.list_commands(CONTEXT)}
LONG = [name for name, one in COMMANDS.items() if one is not None and len(one.params) > 2 * FEW]


def help_of(name: str) -> str:
    """What the command says of itself."""
    return CliRunner().invoke(main, [name, "--help"]).output


@pytest.mark.parametrize("name", LONG)
def test_every_flag_of_a_long_command_stands_once_under_a_heading(name: str) -> None:
    command, text = COMMANDS[name], help_of(name)
    assert command is not None
    flags = [one.opts[-1] for one in command.params if isinstance(one, click.Option)]
    shown = re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE)
    assert sorted(shown) == sorted([*flags, "--help"])
    assert f"\n{OTHERS}:" not in text
    assert text.index(f"\n{FIRST}:") < text.index("\nData:") < text.index("\nRun:")


def test_headings_name_flags_that_there_are_and_none_twice() -> None:
    there = {one.name for command in COMMANDS.values() if command is not None for one in command.params} | {"help"}
    named = [name for names in HEADINGS.values() for name in names]
    assert set(named) <= there
    assert len(named) == len(set(named))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_begins_with_an_example_that_can_be_parsed(name: str) -> None:
    text = help_of(name)
    assert max(map(len, text.splitlines())) <= 80  # of a terminal
    found = re.search(rf"Example:  geneae ({name} .*)", text.replace("\\\n", ""))  # as a shell joins lines
    assert found is not None
    words, command = found[1].split(), COMMANDS[name]
    assert command is not None
    assert command.make_context(name, words[1:]).command is command


@pytest.mark.parametrize("name", COMMANDS)
def test_what_must_be_given_stands_first(name: str) -> None:
    text = help_of(name)
    if f"\n{FIRST}:" in text:
        text = text.split(f"\n{FIRST}:\n")[0] + text.split(f"\n{FIRST}:\n")[1].split("\n\n")[0]
    command = COMMANDS[name]
    assert command is not None
    assert all(f"{one.opts[-1]} " in text for one in command.params if isinstance(one, click.Option) and one.required)


def test_the_flags_that_matter_first_are_at_most_ten() -> None:
    for name in LONG:
        section = help_of(name).split(f"\n{FIRST}:\n")[1].split("\n\n")[0]
        assert len(re.findall(r"^  (?:-\w, )?--", section, re.MULTILINE)) <= 11  # and --help
