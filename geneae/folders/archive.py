"""Files of a model in one zip with checksums, and such a zip opened with nothing in it trusted."""

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
"""What a zip may hold, besides its checksums; anything else is refused."""
MOST_BYTES = 2**33  # of all files together: a hundred times the largest model of 60,000 genes with its tables
MOST_EXPANSION = 100  # bytes out of each byte of the zip; tables become 3 to 10, weights hardly any
FREE_BYTES = 2**26  # that small zips may hold whatever their expansion
PIECE = 2**20  # bytes read at a time
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can tell: the same files are the same bytes


def pack(folder: Path, path: Path, replaced: Mapping[str, bytes]) -> list[str]:
    """Write the files of a model folder that may be shared into a zip; the names of what it holds.

    Parameters
    ----------
    folder
        A model folder.
    path
        Of the zip.
    replaced
        Contents by name, in place of what the folder holds.
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
    """A folder with the files of a model: `path` itself, or a temporary one with what a zip holds.

    Of a zip everything is checked before it is used: names, kinds, sizes, checksums. No file takes its name or place
    from the zip. An `InputError` raised inside names the zip in place of the temporary folder.
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
    """Write the files of a zip that `pack` has made into a folder; any other zip, or a changed one, is refused."""
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
        if error.errno != errno.EINVAL:  # what seeking before the start of the file gives; a full disk is no damage
            raise
        raise _refused(path, "its directory points outside of it") from error
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError) as error:
        raise _refused(
            path, f"it is no whole zip ({str(error).splitlines()[0] if str(error) else 'cut short'})"
        ) from error


def _refused(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} should be a model that geneae share has packed, but {reason}. Fetch it again from whom you trust."
    )


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse files that nobody has asked for, links, what would unpack to a multiple of what a model can be."""
    names = [entry.filename for entry in entries]
    odd = [name for name in names if name not in (*SHAREABLE, SUMS)]
    if odd:
        raise _refused(path, f"it holds {listed(repr(name) for name in odd)}, which no model has")
    if len(set(names)) != len(names):
        raise _refused(path, "it holds a file twice")
    if SUMS not in names:
        raise _refused(path, f"it lacks {SUMS}")
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise _refused(path, f"{entry.filename} is a link or a special file")
        if entry.flag_bits & 1:
            raise _refused(path, f"{entry.filename} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(path, f"{entry.filename} is compressed in another way than deflate")
    size, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if size > min(MOST_BYTES, max(FREE_BYTES, MOST_EXPANSION * packed)):
        raise _refused(path, f"its {packed:,} bytes would unpack to {size:,}")


def _read_sums(path: Path, content: bytes, names: set[str]) -> dict[str, str]:
    """Checksums by name, one for each file."""
    lines = [line.split("  ", 1) for line in content.decode("utf-8", "replace").splitlines()]
    sums = {line[1]: line[0] for line in lines if len(line) == 2}
    if set(sums) != names or len(sums) != len(lines):
        raise _refused(path, f"{SUMS} does not list its files one by one")
    return sums


def _extract(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, to: Path) -> str:
    """Write one file; its checksum. Never more than was declared."""
    digest, left = hashlib.sha256(), entry.file_size
    with archive.open(entry) as source, to.open("xb") as file:
        while piece := source.read(PIECE):
            left -= len(piece)
            if left < 0:
                raise _refused(path, f"{entry.filename} is longer than declared")
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()
