"""A figure as an SVG element of the page: in the page's colours, and with names under the pointer.

The policy of the page allows no styles but its own, so that those of matplotlib become attributes; black, white and the
faintest grey become colours of the page, which are others in the dark.
"""

import base64
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup
from PIL import Image  # matplotlib writes PNGs with it, too

from geneae.pl.style import FAINT, INK
from geneae.report.areas import Area
from geneae.settings.text import escaped

COLORS = {"#000000": "currentColor", INK: "currentColor", "#ffffff": "var(--page)", FAINT: "var(--line)"}
LEFT_TO_THE_PAGE = ("font-family",)
"""Properties that the style sheet of the page sets for all figures."""
POINTS = ("use", "path")
HREF = "{http://www.w3.org/1999/xlink}href"
PNG = "data:image/png;base64,"


def to_element(svg: bytes, label: str, names: Mapping[str, Sequence[str]], areas: Sequence[Area] = ()) -> Markup:
    """An SVG of matplotlib as an element of a page.

    Parameters
    ----------
    svg
        The file.
    label
        Text alternative.
    names
        Names by the `id` of what they are of: one, or one for each point.
    areas
        Squares with names, for dots that are an image.
    """
    root = ElementTree.fromstring(svg)
    found = {str(one.get("id")): one for one in root.iter() if one.get("id") in names}
    for key, one in found.items():
        _add_titles(one, names[key])
    _short_ids(root, f"f{hashlib.sha256(svg).hexdigest()[:8]}-")
    for one in root.iter():
        _use_attributes(one)
    for above in root.iter():
        for style in [one for one in above if one.tag == "style"]:
            above.remove(style)
    root.attrib |= {"role": "img", "aria-label": escaped(label), "fill": "currentColor"}
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}  # of the style sheet that is left out
    root.attrib.pop("version", None)
    if areas:
        _put_below(root, areas)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _add_titles(group: Element, names: Sequence[str]) -> None:
    """Name a group, or each of its points."""
    points = [group] if len(names) == 1 else list(_points(group))
    for point, name in zip(points, names, strict=len(names) == 1):  # points beyond the edge of the figure are not drawn
        title = Element("title")
        title.text = escaped(name)
        point.insert(0, title)


def _put_below(root: Element, areas: Sequence[Area]) -> None:
    """Put squares that nobody sees and the pointer finds below everything that has a name of its own."""
    layer = Element("g", {"fill": "none", "pointer-events": "all"})
    for area in areas:
        square = Element("path", {"d": f"M{area.x:.4g} {area.y:.4g}h{area.side:.4g}v{area.side:.4g}h-{area.side:.4g}z"})
        title = Element("title")
        title.text = escaped(area.name)
        square.append(title)
        layer.append(square)
    root.insert(0, layer)
    for one in root.iter("image"):
        one.set("pointer-events", "none")


def _points(group: Element) -> Iterator[Element]:
    """Points of a group in their order, without the shapes that they are copies of."""
    for one in group:
        tag = _plain(one.tag)
        if tag in POINTS:
            yield one
        elif tag == "g":
            yield from _points(one)


def _plain(tag: str) -> str:
    return tag.rpartition("}")[2]


def _short_ids(root: Element, prefix: str) -> None:
    """Keep those ids alone that something refers to, and make them unique on the page."""
    used = {str(one.get(HREF)) for one in root.iter() if str(one.get(HREF)).startswith("#")}
    used |= {f"#{found}" for one in root.iter() for found in re.findall(r"url\(#([^)]+)\)", one.get("clip-path", ""))}
    short = {name: f"{prefix}{number}" for number, name in enumerate(sorted(used))}
    for one in root.iter():
        name = f"#{one.attrib.pop('id', '')}"
        if name in short:
            one.set("id", short[name])
        if one.get(HREF) in short:
            one.set(HREF, f"#{short[str(one.get(HREF))]}")
        if "clip-path" in one.attrib:
            one.set("clip-path", re.sub(r"#([^)]+)", lambda found: f"#{short[found[0]]}", one.attrib["clip-path"]))


def _use_attributes(one: Element) -> None:
    """Turn names with namespaces into those of a page, and the style of an element into attributes."""
    one.tag = _plain(one.tag)
    if HREF in one.attrib:
        link = one.attrib.pop(HREF)
        one.set("href", _few_colors(link) if link.startswith(PNG) else link)
    for part in one.attrib.pop("style", "").split(";"):
        name, _, value = (word.strip() for word in part.partition(":"))
        if value and name not in LEFT_TO_THE_PAGE:
            one.set(name, COLORS.get(value, value))
    one.text, one.tail = (text if text and text.strip() else None for text in (one.text, one.tail))


def _few_colors(link: str) -> str:
    """PNG with 255 colours, a third of the size: 20 configurations with 5,000 dots each stay below 3 MB."""
    smaller = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(link.removeprefix(PNG)))) as image:
        image.convert("RGBA").quantize(255, Image.Quantize.FASTOCTREE).save(smaller, "png", optimize=True)
    return PNG + base64.b64encode(smaller.getvalue()).decode()
