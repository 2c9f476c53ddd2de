"""Pack the files of a model into one zip with checksums, and read such a zip without trusting its contents."""

import contextlib
import errno
import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from geneae.folders.contents import Contents, FolderContents
from geneae.folders.manifest import PIECE, SHAREABLE, SUMS, archive_lines
from geneae.settings.errors import InputError, listed

MOST_BYTES = 2**33  # total of all files: a hundred times the largest model of 60,000 genes with its tables
MOST_EXPANSION = 100  # unpacked bytes per byte of the zip; 3 to 10 for tables, hardly above 1 for weights
FREE_BYTES = 2**26  # total up to which any expansion is allowed, as in small zips
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can store; fixed, so that equal files give equal bytes


def pack(folder: Path, path: Path, replaced: Mapping[str, bytes]) -> list[str]:
    """Write the files of a model folder that may be shared into a zip, and return the names of all files in it.

    Parameters
    ----------
    folder
        A model folder.
    path
        The zip to write.
    replaced
        Contents by file name, used instead of the files in the folder.
    """
    names = [name for name in SHAREABLE if name in replaced or (folder / name).is_file()]
    sums = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            digest = hashlib.sha256()
            source = contextlib.nullcontext(iter([replaced[name]])) if name in replaced else _pieces(folder / name)
            with source as pieces, archive.open(_entry(name), "w", force_zip64=True) as file:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
            sums[name] = digest.hexdigest()
        archive.writestr(_entry(SUMS), archive_lines(sums))
    return [*names, SUMS]


@contextlib.contextmanager
def _pieces(path: Path) -> Iterator[Iterator[bytes]]:
    with path.open("rb") as file:
        yield iter(lambda: file.read(PIECE), b"")


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Contents]:
    """Files of a model folder, or of a zip, which are read from it as they are needed and never unpacked to a disk.

    Everything in a zip is checked before it is used: names, file types, sizes, and checksums as files are read.
    """
    if path.is_dir() or not path.is_file():
        yield FolderContents(path)
        return
    with contextlib.ExitStack() as stack:
        with _reading(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            contents = ZipContents(path, archive)
        yield contents


class ZipContents(Contents):
    """Files of a zip that `pack` wrote; any other zip, or a changed one, is refused."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self._archive = path, archive
        self._entries = {entry.filename: entry for entry in archive.infolist()}
        _check_entries(path, archive.infolist())
        self._sums = _read_sums(path, archive.read(SUMS), set(self._entries) - {SUMS})
        self._unread = dict.fromkeys(self._sums)

    def __iter__(self) -> Iterator[str]:
        """Names of all files but the list of checksums."""
        return iter(self._sums)

    def read(self, name: str) -> bytes:
        """Content of a file with the listed checksum, of at most as many bytes as declared."""
        return b"".join(self._checked(name))

    def check_all(self) -> None:
        """Refuse the zip if a file that was not read has another checksum than the listed one."""
        for name in list(self._unread):
            for _ in self._checked(name):
                pass

    def _checked(self, name: str) -> Iterator[bytes]:
        entry, digest = self._entries[name], hashlib.sha256()
        left = entry.file_size
        with _reading(self.path), self._archive.open(entry) as source:
            while piece := source.read(PIECE):
                left -= len(piece)
                if left < 0:
                    raise _refused(self.path, f"{name} is longer than declared")
                digest.update(piece)
                yield piece
            if digest.hexdigest() != self._sums[name]:
                raise _refused(self.path, f"{name} does not have the checksum that {SUMS} lists for it")
        self._unread.pop(name, None)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged zip into one that says so."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        # EINVAL: a damaged zip seeks before its start; other errors, such as a full disk, are not its fault
        if error.errno != errno.EINVAL:
            raise
        raise _refused(path, "its directory points outside the file") from error
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError) as error:
        raise _refused(
            path, f"it is not a complete zip file ({str(error).splitlines()[0] if str(error) else 'cut short'})"
        ) from error


def _refused(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} should be a model packed by geneae share, but {reason}. Get it again from a source that you trust."
    )


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse unknown, repeated, special, encrypted or oddly compressed files, and more bytes than a model can have."""
    names = [entry.filename for entry in entries]
    odd = [name for name in names if name not in (*SHAREABLE, SUMS)]
    if odd:
        raise _refused(path, f"it holds {listed(repr(name) for name in odd)}, which cannot be part of a model")
    if len(set(names)) != len(names):
        raise _refused(path, "it holds the same file twice")
    if SUMS not in names:
        raise _refused(path, f"it lacks {SUMS}")
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise _refused(path, f"{entry.filename} is a link or a special file")
        if entry.flag_bits & 1:
            raise _refused(path, f"{entry.filename} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(path, f"{entry.filename} is not compressed by deflate")
    size, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if size > min(MOST_BYTES, max(FREE_BYTES, MOST_EXPANSION * packed)):
        raise _refused(path, f"its {packed:,} bytes would unpack to {size:,}")


def _read_sums(path: Path, content: bytes, names: set[str]) -> dict[str, str]:
    """Checksum of each file, by file name."""
    lines = [line.split("  ", 1) for line in content.decode("utf-8", "replace").splitlines()]
    sums = {line[1]: line[0] for line in lines if len(line) == 2}
    if set(sums) != names or len(sums) != len(lines):
        raise _refused(path, f"{SUMS} does not list each of its files exactly once")
    return sums
