"""Parts of self-contained HTML pages: no network, everything escaped, light and dark, readable on a phone."""

import re
from html import escape

from matplotlib.figure import Figure

from ldl_jax.report import pictures

_STYLE = """
:root { color-scheme: light dark; --page: #fdfdfc; --ink: #222222; --grey: #71716e; --line: #dddddb;
  --blue: #0072b2; --sky: #3d9bd1; --orange: #e69f00; --red: #d55e00; --green: #009e73; --purple: #b25f92;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --page: #16171a; --ink: #e6e6e3; --grey: #9a9a96; --line: #34363b;
  --blue: #58aee8; --sky: #8fd0f5; --orange: #f0b53c; --red: #f07f3c; --green: #35c79b; --purple: #dd93c0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 66rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 var(--font); -webkit-text-size-adjust: 100%; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; font-weight: 650; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 3rem 0 .4rem; padding-top: 1rem; border-top: 1px solid var(--line); font-weight: 650; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; font-weight: 600; }
p, ul { max-width: 46rem; margin: .4rem 0 1rem; } li { margin: .2rem 0; }
.quiet { color: var(--grey); font-size: .9rem; }
.warn { border-left: 3px solid var(--orange); padding-left: .8rem; }
.wide { overflow-x: auto; margin: .8rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .65rem; text-align: right; white-space: nowrap; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid var(--ink); vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td:first-child { white-space: normal; min-width: 9rem; max-width: 26rem; }
tr.head td { font-weight: 600; border-bottom-color: var(--grey); padding-top: 1rem; }
small { color: var(--grey); font-size: .85em; }
.many { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 2rem;
  align-items: start; }
figure { margin: 0; max-width: 30rem; } figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: var(--font); } figcaption { color: var(--grey); font-size: .85rem; margin-top: .3rem; }
code { font: .88em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
@media print { body { max-width: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def document(title: str, parts: list[str]) -> str:
    """A whole page of parts that are HTML already."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and parts that are HTML already."""
    return "\n".join([f"<section>\n<h2>{escape(title)}</h2>", *parts, "</section>"])


def text(sentence: str, kind: str = "") -> str:
    """A paragraph; kind: '', 'quiet' or 'warn'."""
    return f'<p class="{kind}">{escape(sentence)}</p>' if kind else f"<p>{escape(sentence)}</p>"


def table(head: list[str], rows: list[list[str] | str]) -> str:
    """A table in a box that scrolls. A row that is a string is a heading; a cell's lines after its first are small."""
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for row in rows:
        if isinstance(row, str):
            lines.append(f'<tr class="head"><td colspan="{len(head)}">{escape(row)}</td></tr>')
        else:
            lines.append("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>")
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _cell(cell: str) -> str:
    first, *rest = cell.split("\n")
    return escape(first) + "".join(f"<br><small>{escape(line)}</small>" for line in rest)


def drawing(name: str, figure: Figure, label: str) -> str:
    """A figure as inline SVG in the page's own colours; `name` keeps its ids apart, `label` is read aloud."""
    source = pictures.svg(figure)
    source = source[source.index("<svg") :]
    source = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", source, flags=re.DOTALL)
    source = re.sub(r'\s(?:xmlns(?::\w+)?|width|height|version)="[^"]*"(?=[^>]*viewBox)', "", source)
    source = re.sub(r'\sxmlns(?::\w+)?="[^"]*"', "", source).replace("xlink:href", "href")
    for colour, drawn in pictures.COLOURS.items():
        source = re.sub(rf"((?:fill|stroke): ?){drawn}", rf"\1var(--{colour})", source, flags=re.IGNORECASE)
    source = re.sub(r"(font(?:-family)?: [^'\";]*)'[^\";]*sans-serif", r"\1var(--font)", source)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', source))
    source = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", source)
    source = re.sub(r'(url\(#|href="#)([\w-]+)', rf"\1{name}-\2", source)
    source = source.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    return f"<figure>{source.strip()}</figure>"


def many(drawings: list[str]) -> str:
    """Drawings side by side where there is room."""
    return '<div class="many">\n' + "\n".join(drawings) + "\n</div>"
