"""The API reference as HTML, made of the docstrings: `python docs/reference.py`; open docs/reference/index.html."""

import argparse
import pkgutil
import warnings
from pathlib import Path

import pdoc
import pdoc.extract

import geneae


def names_of_files() -> list[str]:
    """Every file once: pdoc takes a package together with what its `__all__` names, and wants no name twice."""
    names, found = ["geneae"], set(pdoc.extract.walk_specs(["geneae"]))
    for file in pkgutil.walk_packages(geneae.__path__, "geneae."):
        if file.name not in found:
            names.append(file.name)
            found |= set(pdoc.extract.walk_specs([file.name]))
    return names


def write_reference(folder: Path) -> None:
    """Write a page for every file of the package. A warning (a name that is not there, say) is an error."""
    for name in geneae.__all__:  # pdoc looks into the module's dict, where names loaded when first used are not yet
        setattr(geneae, name, getattr(geneae, name))
    pdoc.render.configure(docformat="numpy", search=True, footer_text=f"geneae {geneae.__version__}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*names_of_files(), output_directory=folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(__file__).parent / "reference", help="Folder to write. [%(default)s]"
    )
    arguments = parser.parse_args()
    write_reference(arguments.output)
    print(f"Written to {arguments.output}")
