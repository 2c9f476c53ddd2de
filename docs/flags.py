"""The page of all flags, made from the commands themselves."""

from typing import Any

import click

from geneae.cli.main import main

MARK = "<!-- flags -->"


def flags_page(text: str) -> str:
    """The page with a section for each command in place of its mark."""
    ctx = click.Context(main)
    sections = []
    for name in main.list_commands(ctx):
        command = main.get_command(ctx, name)
        assert command is not None
        sections.append(_section(name, command, ctx))
    return text.replace(MARK, "\n\n".join(sections))


def _section(name: str, command: click.Command, parent: click.Context) -> str:
    ctx = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(command.collect_usage_pieces(ctx)).replace("[OPTIONS]", "").split()
    lines = [f"## geneae {name}", "", f"`geneae {name} {' '.join(usage)}`", "", str(command.help).split("\n\n")[0], ""]
    rows = [row for one in command.params if isinstance(one, click.Option) and (row := _row(one, ctx))]
    return "\n".join([*lines, "| flag | meaning |", "|---|---|", *rows])


def _row(one: click.Option, ctx: click.Context) -> str:
    record: Any = one.get_help_record(ctx)
    if record is None:
        return ""
    flag, meaning = (str(part).replace("|", "\\|").replace("\n", " ") for part in record)
    return f"| `{flag}` | {_plain(meaning)} |"


def _plain(text: str) -> str:
    """Text whose signs mean nothing to Markdown."""
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("[", "\\[")
