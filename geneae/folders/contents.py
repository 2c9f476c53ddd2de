"""Files of a model folder or zip, each checked against its checksum as it is read."""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from geneae.folders.manifest import SUMS, archive_sums, checksum, read_list
from geneae.settings.errors import InputError


class ChangedFile(InputError):
    """A file is not what it was when geneae wrote it."""


class Contents(ABC):
    """Files of a folder or zip by name; what `read` returns has the checksum that is recorded for it."""

    path: Path
    """Path of the folder or zip, for messages."""

    @abstractmethod
    def __iter__(self) -> Iterator[str]:
        """Names of all files."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Content of a file; a file that has changed since it was written is refused."""

    def __contains__(self, name: object) -> bool:
        return name in set(self)

    def json(self, name: str) -> Any:
        """Content of a JSON file; anything that is not JSON, repeated keys, and numbers that are not finite are
        refused."""
        try:
            return json.loads(
                self.read(name).decode("utf-8"),
                object_pairs_hook=_unique,
                parse_float=_finite,
                parse_constant=_no_constant,
            )
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.path / name} is not JSON ({error}). Copy the complete folder again.") from error


class FolderContents(Contents):
    """Files of a folder; those of folders without a list of checksums, as before there was one, are not checked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_marked, self._sums = True, read_list(path)
        if self._sums is None:
            self._is_marked, self._sums = False, archive_sums(path)

    def __iter__(self) -> Iterator[str]:
        """Names of all files."""
        return (file.name for file in self.path.iterdir() if file.is_file()) if self.path.is_dir() else iter(())

    def read(self, name: str) -> bytes:
        """Content of a file; one that has changed, or is not listed beside others, is refused."""
        content = (self.path / name).read_bytes()
        self._check(name, hashlib.sha256(content).hexdigest())
        return content

    def _check(self, name: str, found: str) -> None:
        """Refuse a file with another checksum than the listed one."""
        assert self._sums is not None
        expected = self._sums.get(name)
        if expected is None and self._is_marked:
            raise self._changed(name, f"is not listed in {SUMS}")
        if expected is not None and found != expected:
            raise self._changed(name, f"does not have the checksum that {SUMS} lists for it")

    def checked(self, name: str) -> Path:
        """Path of a file that may be too large for `read`; the same ones are refused."""
        self._check(name, checksum(self.path / name))
        return self.path / name

    def check(self, names: Iterable[str]) -> None:
        """Refuse files that have changed since they were written; names that do not exist are left out."""
        for name in names:
            if (self.path / name).is_file():
                self.read(name)

    def _changed(self, name: str, how: str) -> ChangedFile:
        return ChangedFile(
            f"{self.path / name} {how}: it was changed or damaged after geneae wrote it. Copy the complete folder "
            "again, or fit again."
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' occurs twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text} is too large")
    return number


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")
