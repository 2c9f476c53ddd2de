"""Pack the files of a model into one zip with checksums, and open such a zip without trusting its contents."""

import contextlib
import errno
import hashlib
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from geneae.settings.errors import InputError, listed

SUMS = "SHA256SUMS"
SHAREABLE = (
    "README.md",
    "config.json",
    "model.safetensors",
    "genes.csv",
    "settings.toml",
    "metrics.csv",
    "history.csv",
    "profiles.csv",
    "split.csv",
    "genewise.csv",
    "diagnostics.csv",
    "umap.csv",
    "report.html",
)
"""Files that a zip may hold in addition to its checksums; anything else is refused."""
MOST_BYTES = 2**33  # total of all files: a hundred times the largest model of 60,000 genes with its tables
MOST_EXPANSION = 100  # unpacked bytes per byte of the zip; 3 to 10 for tables, hardly above 1 for weights
FREE_BYTES = 2**26  # total up to which any expansion is allowed, as in small zips
PIECE = 2**20  # bytes read at a time
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
    sums = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            digest = hashlib.sha256()
            source = contextlib.nullcontext(iter([replaced[name]])) if name in replaced else _pieces(folder / name)
            with source as pieces, archive.open(_entry(name), "w", force_zip64=True) as file:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
            sums.append(f"{digest.hexdigest()}  {name}\n")
        archive.writestr(_entry(SUMS), "".join(sums))
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
def opened(path: Path) -> Iterator[Path]:
    """A folder with the files of a model: `path` itself, or a temporary folder with the contents of a zip.

    Everything in a zip is checked before it is used: names, file types, sizes, checksums. A zip cannot choose
    where its files are written. An `InputError` raised inside names the zip instead of the temporary folder.
    """
    if path.is_dir() or not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="geneae.") as name:
        try:
            unpack(path, Path(name))
            yield Path(name)
        except InputError as error:
            raise InputError(str(error).replace(name, str(path))) from error


def unpack(path: Path, folder: Path) -> None:
    """Extract a zip that `pack` wrote into a folder; any other zip, or a changed one, is refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            _check_entries(path, archive.infolist())
            sums = _read_sums(path, archive.read(SUMS), set(entries) - {SUMS})
            for name, expected in sums.items():
                if _extract(path, archive, entries[name], folder / name) != expected:
                    raise _refused(path, f"{name} does not have the checksum that {SUMS} lists for it")
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


def _extract(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, to: Path) -> str:
    """Write one file, never more bytes than declared, and return its checksum."""
    digest, left = hashlib.sha256(), entry.file_size
    with archive.open(entry) as source, to.open("xb") as file:
        while piece := source.read(PIECE):
            left -= len(piece)
            if left < 0:
                raise _refused(path, f"{entry.filename} is longer than declared")
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()
