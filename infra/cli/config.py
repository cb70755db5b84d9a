"""`vamoh config`: what can be set, what a preset says, and whether a file is right."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli.options import JsonFlag, Settings, examples

app = typer.Typer(help="Look at presets and check config files.")

ConfigSource = Annotated[str, typer.Argument(metavar="PRESET|FILE.yaml", help="A preset, or a file of your own.")]


@app.command(epilog=examples("vamoh config show", "vamoh config show downscale --set context.every=2 > mine.yaml"))
def show(
    source: Annotated[
        str | None, typer.Argument(metavar="[PRESET|FILE.yaml]", help="Without it, the presets are listed.")
    ] = None,
    settings: Settings = None,
    as_json: JsonFlag = False,
) -> None:
    """Print a config with every default filled in, as YAML; or list the presets."""
    import yaml

    from infra.cli.console import print_facts, print_json
    from pipelines.config import load_config, presets

    if source is None:
        if settings:
            raise ValueError("--set changes a config: say which, e.g. vamoh config show downscale --set seed=1")
        described = {name: load_config(name).description for name in presets()}
        print_json(described) if as_json else print_facts(list(described.items()))
        return
    tree = load_config(source, settings or ()).model_dump(mode="json")
    print_json(tree) if as_json else typer.echo(yaml.safe_dump(tree, sort_keys=False, width=100), nl=False)


@app.command(epilog=examples("vamoh config schema > vamoh.schema.json"))
def schema() -> None:
    """Print the JSON schema of a config, for an editor to check with."""
    from infra.cli.console import print_json
    from pipelines.config import Config

    print_json(Config.model_json_schema())


@app.command(epilog=examples("vamoh config validate mine.yaml"))
def validate(source: ConfigSource, settings: Settings = None, as_json: JsonFlag = False) -> None:
    """Check a config; an unknown key is answered with the nearest valid one."""
    from infra.cli.console import print_json
    from pipelines.config import load_config

    config = load_config(source, settings or ())
    if as_json:
        print_json({"source": source, "valid": True, "fingerprint": config.fingerprint})
    else:
        typer.echo(f"{source} is valid (config {config.fingerprint})")
