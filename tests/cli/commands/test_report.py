"""`geneae report`."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest
from commands import Run, assert_refused, geneae, there

from geneae.folders.manifest import read_list


@pytest.fixture
def own(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, whose reports are not drawn."""

    def drawn(folder: Path, color: str | None) -> str:
        if color is None:
            return "plain"
        from geneae.folders.latents import read_column

        return ",".join(sorted(set(read_column(folder, color))))

    monkeypatch.setattr("geneae.report.redraw.redraw_report", drawn)
    shutil.copytree(run.folder, tmp_path / "run")
    return tmp_path / "run"


def test_the_report_of_the_folder_is_replaced_and_listed(own: Path) -> None:
    files = there(own)
    before = read_list(own)
    result = geneae("report", own, "--color", "kind")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Written to {own}/report.html.\n"
    assert (own / "report.html").read_text() == "k0,k1,k2,k3"
    assert there(own) == files
    digest = hashlib.sha256(b"k0,k1,k2,k3").hexdigest()
    assert before is not None
    assert read_list(own) == before | {"report.html": digest}
    assert geneae("embed", own, "nothing.h5ad", "-o", own.parent / "out.csv").exit_code == 2  # not because of the list


def test_another_file_leaves_the_folder_as_it_is(own: Path, tmp_path: Path) -> None:
    before = (own / "report.html").read_bytes(), read_list(own)
    out = tmp_path / "new" / "coloured.html"
    out.parent.mkdir()
    assert geneae("report", own, "-o", out, "--quiet").stdout == ""
    assert out.read_text() == "plain"
    assert ((own / "report.html").read_bytes(), read_list(own)) == before
    assert_refused(geneae("report", own, "-o", out), f"the output {out} already exists.")
    assert geneae("report", own, "-o", out, "--color", "donor", "--overwrite").exit_code == 0
    assert out.read_text().startswith("d0,d1")


def test_what_cannot_be_drawn_or_written_is_refused(own: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in own.iterdir()}
    assert_refused(geneae("report", own, "--color", "kid"), "unknown obs column 'kid'; did you mean 'kind'?")
    assert_refused(geneae("report", own, "-o", tmp_path / "a.pdf"), "the output must end in .html; found 'a.pdf'.")
    assert_refused(geneae("report", own, "-o", own / "README.md"), "the output must end in .html; found 'README.md'.")
    assert {path.name: path.read_bytes() for path in own.iterdir()} == files


def test_a_report_that_somebody_has_changed_stays(own: Path) -> None:
    (own / "report.html").write_text("my notes")
    assert_refused(geneae("report", own), f"{own} holds report.html, which somebody has changed since geneae wrote it")
    assert (own / "report.html").read_text() == "my notes"


def test_a_folder_without_a_list_stays_without_one(own: Path) -> None:
    (own / "SHA256SUMS").unlink()  # as older versions have written it
    assert geneae("report", own).exit_code == 0
    assert (own / "report.html").read_text() == "plain"
    assert "SHA256SUMS" not in there(own)


@pytest.mark.parametrize("where", ["not there", "no run"])
def test_a_folder_that_is_no_run_is_refused(where: str, tmp_path: Path) -> None:
    if where == "no run":
        (tmp_path / where).mkdir()
    result = geneae("report", tmp_path / where)
    assert_refused(result, "Give the folder that geneae fit has written.")
    assert there(tmp_path) == ({where} if where == "no run" else set())


def test_the_target_of_a_link_in_the_folder_is_a_file_of_its_own(own: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("mine")
    (own / "report.html").unlink()
    (own / "report.html").symlink_to(tmp_path / "mine.html")
    assert_refused(geneae("report", own, "-o", tmp_path / "mine.html"), "mine.html already exists.")
    assert geneae("report", own, "-o", tmp_path / "mine.html", "--overwrite").exit_code == 0
    assert (tmp_path / "mine.html").read_text() == "plain"
    assert (own / "report.html").is_symlink()


@pytest.mark.usefixtures("no_pictures")
def test_a_folder_unpacked_from_a_zip_keeps_true_checksums(run: Run, tmp_path: Path) -> None:
    """As when another version draws other figures: what was in the zip is not what is drawn."""
    assert geneae("share", run.folder, "--licence", "MIT", "-o", tmp_path / "run.zip").exit_code == 0
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        archive.extractall(tmp_path / "run")
    before = (tmp_path / "run" / "report.html").read_bytes()
    assert geneae("report", tmp_path / "run").exit_code == 0
    assert (tmp_path / "run" / "report.html").read_bytes() != before
    listed = (tmp_path / "run" / "SHA256SUMS").read_text().splitlines()
    digests = {name: digest for digest, name in (line.split("  ") for line in listed)}
    files = {path.name: path for path in (tmp_path / "run").iterdir() if path.name != "SHA256SUMS"}
    assert digests == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert geneae("share", tmp_path / "run", "-o", tmp_path / "again.zip").exit_code == 0


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("table", ["split.csv", "profiles.csv", "config.json"])
def test_a_folder_without_a_list_whose_files_somebody_has_changed_is_refused(
    table: str, run: Run, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    (folder / "SHA256SUMS").unlink()
    content = (folder / table).read_text()
    changed = {
        "split.csv": lambda: f"{content}one,cell,too,many\n",
        "profiles.csv": lambda: content.splitlines()[0] + "\n",
        "config.json": lambda: content.replace('"is_kept"', '"is_gone"'),
    }
    (folder / table).write_text(changed[table]())
    assert (folder / table).read_text() != content
    text = f"{folder}/split.csv cannot be read as a table" if table == "split.csv" else "no report can be drawn of"
    assert_refused(geneae("report", folder), text)
    assert (folder / "report.html").read_bytes() == (run.folder / "report.html").read_bytes()
