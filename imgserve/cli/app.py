"""The ``imgserve`` command: the group of all others, and what a failure looks like."""

from typing import Any

import click

import imgserve
from imgserve.cli import cache, check, config, demo, invalidate, privacy, reference, serve, url
from imgserve.core.errors import ImgserveError


class _Group(click.Group):
    """Shows an expected failure as one line on standard error, with exit 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ImgserveError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(imgserve.__version__, prog_name="imgserve")
def group() -> None:
    """Self-hosted image delivery that keeps its privacy promises.

    Start with "imgserve demo", or with "imgserve config init" and "imgserve serve". Every command takes
    --config FILE; without it $IMGSERVE_CONFIG counts, else imgserve.toml in this folder.
    """


for _command in (
    serve.command,
    check.command,
    demo.command,
    config.command,
    invalidate.command,
    url.command,
    cache.command,
    privacy.command,
    reference.command,
):
    group.add_command(_command)
