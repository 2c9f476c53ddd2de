"""The documentation site: `sphinx-build -W docs docs/_build/html` (extra `docs`); open docs/_build/html/index.html.

Tutorials are notebooks as text. They are executed while the site is built; `-D nb_execution_mode=off` leaves that out.
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # `!geneae` of tutorials
from flags import flags_page

from geneae import __version__

project, author, release = "geneae", "geneae developers", __version__
project_copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "README.md"]
html_theme = "sphinx_book_theme"  # that of scanpy and most of scverse
html_title = "geneae"
html_theme_options = {"show_toc_level": 2, "use_download_button": False, "use_fullscreen_button": False}
html_show_sphinx = False
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = -1
nb_merge_streams = True
autodoc_typehints = "none"  # docstrings state types where they say more than the signature
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False


def _fill_in(_: Any, name: str, source: list[str]) -> None:
    if name == "reference/flags":
        source[0] = flags_page(source[0])


def _of_sklearn(_: Any, __: str, name: str, *___: Any) -> bool | None:
    """Leave out what scikit-learn adds to every estimator."""
    return True if name.startswith("set_") and name.endswith(("_request", "_output")) else None


def setup(app: Any) -> None:
    """Fill the page of flags from the commands, and keep to our own methods."""
    app.connect("autodoc-skip-member", _of_sklearn)
    app.connect("source-read", _fill_in)
