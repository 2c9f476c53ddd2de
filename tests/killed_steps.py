"""A folder that is written by processes which end before every step: `python tests/killed_steps.py USE FOLDER`.

A step is a file that is opened for writing, renamed or removed. Prints how many there are.
"""

import os
import sys
from pathlib import Path
from typing import Any

from geneae.folders import outputs
from geneae.folders.contents import FolderContents
from geneae.folders.manifest import SHAREABLE


def end_before(step: int) -> None:
    """Let this process end before that step, after which nothing is tidied up."""
    left = [step]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        is_opened = event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wa"
        if is_opened or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            left[0] -= 1
            if left[0] == -1:
                os._exit(9)

    sys.addaudithook(hook)


def write(use: str, folder: Path, text: str) -> None:
    """Write a text into files of a folder by one of the three ways to do so."""
    arguments: dict[str, tuple[Any, ...]] = {"replaced_file": ("report.html",), "new_files": (), "new_folder": (True,)}
    with getattr(outputs, use)(folder, *arguments[use]) as partial:
        if use == "replaced_file":
            partial.write_text(text)
        else:
            for name in ("report.html", "seeds.csv"):
                (partial / name).write_text(text)


def main(use: str, folder: Path) -> None:
    """End before every step in turn, and write again each time."""
    write(use, folder, "old")
    code, step = 9, 0
    while code == 9:
        process = os.fork()
        if process == 0:
            end_before(step)
            write(use, folder, "new")
            os._exit(0)
        code, step = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), step + 1
        outputs.finish_swap(folder)
        if use != "new_files":  # which are whole when they are written again
            FolderContents(folder).check(SHAREABLE)
        write(use, folder, "again")
        FolderContents(folder).check(SHAREABLE)
        assert (folder / "report.html").read_text() == "again"
        assert {path.name for path in folder.parent.iterdir()} == {"run"}
    assert code == 0
    print(step)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
