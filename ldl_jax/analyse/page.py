"""The page of the analyses, with its numbers."""

from collections.abc import Sequence

from ldl_jax import config as settings
from ldl_jax.analyse import memory_section, sections
from ldl_jax.analyse.networks import Network, Passed
from ldl_jax.analyse.runs import Run
from ldl_jax.report import html
from ldl_jax.report.tables import simple

# Fields by which runs are told apart at the top of the page.
TELLING = ("labels.name", "mixing.name", "losses.name", "auxiliary.names", "model.name")
TELLING += ("train.epochs", "seed")


def page(
    runs: Sequence[Run],
    teachers: Sequence[tuple[Network, Passed]],
    *,
    three: tuple[int, int, int] | None,
    pairs: int,
    seed: int,
    fields: dict,
) -> tuple[str, dict]:
    """(the page as HTML, its numbers as JSON values) of runs with the same test images.

    three: the classes of the planes; None: those that are confused most. pairs: number of pairs of
    images to mix; seed: of their choice. fields: what was set in the configs, to be shown.
    """
    found = {
        "networks": sections.now(runs),
        "epochs": sections.against_epochs(runs),
        "memory": memory_section.label_memory(runs),
        "penultimate": sections.penultimate_layer(runs, three),
        "agreement": sections.networks_agree(runs, teachers),
        "mixes": sections.mixes(runs, count=pairs, seed=seed),
    }
    numbers = {name: sections.plain(values) for name, (_, values) in found.items()}
    parts = [_runs(runs), *(text for text, _ in found.values() if text)]
    if fields:
        rows = [[name, str(value)] for name, value in fields.items()]
        parts.append(html.section("Fields set", html.table(simple(["", ""], rows))))
    names = ", ".join(run.name for run in runs)
    return html.document(f"Analysis of {names}", parts), numbers


def _runs(runs: Sequence[Run]) -> str:
    """What the runs are."""
    rows = []
    for run in runs:
        c = run.network.config
        used = {} if c is None else settings.flatten(c)
        cells = []
        for field in TELLING:
            value = used.get(field, sections.MISSING)
            value = "+".join(value) or "none" if isinstance(value, list) else value
            cells.append(f"{value:g}" if isinstance(value, float) else str(value))
        rows.append([run.name, *cells])
    head = ["", *(field.removesuffix(".name").removesuffix(".names") for field in TELLING)]
    return html.table(simple(head, rows))
