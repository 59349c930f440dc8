"""``genrec serve``: registered as a command by the package's entry points, since genrec may not import serving."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from index.errors import require

app = typer.Typer()


@app.command(epilog="Example: genrec serve runs/movies --port 8000")
def serve(
    bundle: Annotated[Path, typer.Argument(help="A bundle that genrec train wrote.", metavar="BUNDLE")],
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; by default this machine only.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (8000); 0 takes a free one.")] = None,
    api_keys_file: Annotated[
        Path | None, typer.Option(help="File with one API key a line.", metavar="FILE")
    ] = None,
    admin_keys_file: Annotated[
        Path | None, typer.Option(help="File with one key a line that may also reload.", metavar="FILE")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve (1), for as many cores.")] = None,
    prompt_cache_mb: Annotated[
        int | None, typer.Option(help="MiB of remembered prompts (256); 0 remembers none.")
    ] = None,
    playground: Annotated[
        bool | None,
        typer.Option("--playground/--no-playground", help="Serve a page to try it out at / (on by default)."),
    ] = None,
    verify: Annotated[
        bool | None, typer.Option("--verify", help="Compare all file hashes before use.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Answer recommendations over HTTP. More settings are environment variables: GENREC_MAX_BATCH and so on."""
    require("fastapi", extra="serve", purpose="Serving over HTTP")
    require("prometheus_client", extra="serve", purpose="Serving over HTTP")
    require("uvicorn", extra="serve", purpose="Serving over HTTP")
    from serving.process import run
    from serving.settings import Settings

    run(
        Settings.read(
            os.environ,
            bundle=bundle,
            host=host,
            port=port,
            api_keys_file=api_keys_file,
            admin_keys_file=admin_keys_file,
            workers=workers,
            prompt_cache_mb=prompt_cache_mb,
            playground=playground,
            verify=verify,
            log_level=log_level,
        )
    )
