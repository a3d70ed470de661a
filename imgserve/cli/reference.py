"""``imgserve reference``: the tables of URL options and of settings, as the README has them."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from imgserve.core.options import markdown_table
from imgserve.settings.sample import settings_table

TABLES: Final[dict[str, Callable[[], str]]] = {"options": markdown_table, "settings": settings_table}


@click.command("reference")
@click.argument("subject", type=click.Choice(sorted(TABLES)), required=False)
@click.option(
    "--update",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write both tables anew between their markers in this Markdown file.",
)
def command(subject: str | None, path: Path | None) -> None:
    """Print the table of URL options or of settings, in Markdown."""
    if (subject is None) == (path is None):
        raise click.UsageError("give either options or settings, or --update FILE")
    if path is not None:
        before = path.read_text(encoding="utf-8")
        after = updated(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
    elif subject is not None:
        click.echo(TABLES[subject](), nl=False)


def updated(text: str) -> str:
    """The text with each table made anew that stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""
    for name, table in TABLES.items():
        opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = text.partition(opening)
        if found and closing in rest:
            text = before + opening + table() + closing + rest.partition(closing)[2]
    return text
