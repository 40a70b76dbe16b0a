"""Parts of self-contained HTML pages, with a light and a dark theme, readable on a phone.

Pages load nothing from the network, and all text is escaped.
"""

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from matplotlib.figure import Figure

from ldl_jax import escape
from ldl_jax.report import plots
from ldl_jax.report.tables import Table

_STYLE = """
:root { color-scheme: light dark; --page: #fdfdfc; --ink: #222222; --grey: #71716e; --line: #dddddb;
  --shade: #00000040;
  --blue: #0072b2; --sky: #3d9bd1; --orange: #e69f00; --red: #d55e00; --green: #009e73; --purple: #b25f92;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --page: #16171a; --ink: #e6e6e3; --grey: #9a9a96; --line: #34363b;
  --shade: #ffffff40;
  --blue: #58aee8; --sky: #8fd0f5; --orange: #f0b53c; --red: #f07f3c; --green: #35c79b; --purple: #dd93c0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 66rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 var(--font); -webkit-text-size-adjust: 100%; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; font-weight: 650; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 3rem 0 .4rem; padding-top: 1rem; border-top: 1px solid var(--line); font-weight: 650; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; font-weight: 600; }
p, ul { max-width: 46rem; margin: .4rem 0 1rem; } li { margin: .2rem 0; }
.quiet { color: var(--grey); font-size: .9rem; }
.found { font-size: 1.1rem; }
.warn { border-left: 3px solid var(--orange); padding-left: .8rem; }
/* A shadow at an edge says that a box scrolls there: the covers move with the content, the shadows do not. */
.wide { overflow-x: auto; margin: .8rem 0 1.2rem; background-color: var(--page);
  background: linear-gradient(to right, var(--page) 40%, transparent) left / 2.5rem 100% no-repeat local,
    linear-gradient(to left, var(--page) 40%, transparent) right / 2.5rem 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) left / .9rem 100% no-repeat scroll,
    linear-gradient(to left, var(--shade), transparent) right / .9rem 100% no-repeat scroll; }
.wide:focus-visible { outline: 2px solid var(--blue); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .55rem; text-align: right; white-space: nowrap; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid var(--ink); vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0;
  background: var(--page); }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; max-width: 26rem; }
th:last-child, td:last-child { padding-right: 0; }
tr.head td { font-weight: 600; border-bottom-color: var(--grey); padding-top: 1rem; }
small { color: var(--grey); font-size: .85em; }
.few { --least: 23rem; } .lots { --least: 13rem; }
.many { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--least)), 1fr)); gap: 2rem;
  align-items: start; }
figure { margin: 0; max-width: 30rem; } figure.full { max-width: 50rem; min-width: 34rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: var(--font); } figcaption { color: var(--grey); font-size: .85rem; margin-top: .3rem; }
code { font: .88em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: 1.5rem 1rem 3rem; } table { font-size: .78rem; }
  th, td { padding: .28rem .25rem; } td:first-child { min-width: 6.5rem; max-width: 8rem; }
  .headline td:first-child { min-width: 5.1rem; }
  th, small { white-space: normal; } }
@media print { body { max-width: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def document(title: str, parts: list[str]) -> str:
    """A page of parts that are HTML already."""
    whole = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape.html(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape.html(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
    # Names of files may hold characters that UTF-8 cannot encode: these become a ?.
    return whole.encode(errors="replace").decode()


def section(title: str, *parts: str) -> str:
    """A section: a heading, and parts that are HTML already."""
    return "\n".join([f"<section>\n<h2>{escape.html(title)}</h2>", *parts, "</section>"])


def heading(title: str) -> str:
    """A heading within a section."""
    return f"<h3>{escape.html(title)}</h3>"


def text(sentence: str, kind: str = "", strong: str = "") -> str:
    """A paragraph; kind: '', 'found', 'quiet' or 'warn'. strong: words in bold before it."""
    # Keep a number and its percent sign on the same line.
    whole = escape.html(sentence).replace(" %", "&nbsp;%")
    if strong:
        whole = f"<strong>{escape.html(strong)}</strong> {whole}"
    return f'<p class="{kind}">{whole}</p>' if kind else f"<p>{whole}</p>"


def table(table: Table, kind: str = "") -> str:
    """A table in a box that scrolls, without its notes; lines of a cell after the first are small.

    kind: 'headline' for a table of few columns, which fits a phone.
    """
    columns = len(table.head)
    # What stands in parentheses goes onto a line of its own, so that columns stay narrow.
    lines = [_row("th", (escape.html(cell).replace(" (", "<br>(") for cell in table.head))]
    for group in table.groups:
        if group.heading:
            heading = f'<td colspan="{columns}">{escape.html(group.heading)}</td>'
            lines.append(f'<tr class="head">{heading}</tr>')
        for row in group.rows:
            lines.append(_row("td", map(_cell, row)))
    box = f"wide {kind}".strip()
    return f'<div class="{box}" tabindex="0"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _row(tag: str, cells: Iterable[str]) -> str:
    """A row of cells that are HTML already."""
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def _cell(cell: str) -> str:
    first, *rest = cell.split("\n")
    parts = []
    for word in re.split(r"(\s+)", first):
        parts.append(_breakable(word) if len(word) > 20 else escape.html(word))
    for line in rest:
        # An interval that must wrap does so before its end.
        parts.append(f"<br><small>{escape.html(line).replace(' to ', '&nbsp;to ')}</small>")
    return "".join(parts)


def _breakable(word: str) -> str:
    """A long word, such as a path, that may be broken after / and _."""
    return re.sub(r"(?<=[/_])(?=\w)", "<wbr>", escape.html(word))


def plot(name: str, figure: Figure, label: str, kind: str = "") -> str:
    """A figure as inline SVG in the colours of the page.

    name: prefix of the ids, unique on the page. label: for screen readers. kind: '' for one of
    several plots, 'full' for one as wide as the page, in a box that scrolls on a phone.
    """
    root = ElementTree.fromstring(plots.svg(figure))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("}metadata"):
                parent.remove(child)
    # Ids must be unique on a page with several plots: prefix those in use, drop the others.
    used = set()
    for element in root.iter():
        used.update(_references(element))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = dict(element.attrib)
        element.attrib.clear()
        for qualified, value in attributes.items():
            key = qualified.rpartition("}")[2]
            if key != "id" or value in used:
                element.set(key, _on_page(key, value, name))
    box = root.get("viewBox")
    root.attrib.clear()
    root.attrib.update({"role": "img", "aria-label": escape.line(label), "viewBox": box})
    drawing = ElementTree.tostring(root, encoding="unicode").strip()
    if kind == "full":
        return f'<div class="wide" tabindex="0"><figure class="full">{drawing}</figure></div>'
    return f"<figure>{drawing}</figure>"


def _references(element) -> list[str]:
    """The ids that an element's attributes refer to; its text is not searched."""
    links = []
    for key, value in element.attrib.items():
        # An image is written into its href.
        if key.endswith("href") and value.startswith("#"):
            links.append(value[1:])
    return links + re.findall(r"url\(#([^)]+)\)", " ".join(element.attrib.values()))


def _on_page(key: str, value: str, name: str) -> str:
    """An attribute's value on a page: with prefixed ids, and the page's colours and font."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    if key == "style":
        for colour, code in plots.COLOURS.items():
            value = re.sub(
                rf"((?:fill|stroke): ?){code}", rf"\1var(--{colour})", value, flags=re.IGNORECASE
            )
        value = re.sub(r"(font(?:-family)?: [^';]*)'[^;]*sans-serif", r"\1var(--font)", value)
    return value.replace("url(#", f"url(#{name}-")


def many(plots: list[str], size: str = "few") -> str:
    """Plots side by side if there is room; size: 'few' for large ones, 'lots' for small ones."""
    return f'<div class="many {size}">\n' + "\n".join(plots) + "\n</div>"
