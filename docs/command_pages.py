"""The page of the command line, made from the commands themselves."""

import typer

from lrc_tl.cli.main import app


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def command_page() -> str:
    """Every command of `lrc-tl` with its arguments and options, as Markdown."""
    group = typer.main.get_command(app)
    parts = ["# Command line", "", f"{group.help or ''}".strip(), ""]
    for name, command in group.commands.items():
        parts += [f"## `lrc-tl {name}`", "", (command.help or "").strip(), ""]
        parts += ["| option | what it is | default |", "|---|---|---|"]
        for parameter in command.params:
            names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
            default = parameter.default
            shown = "" if default is None or callable(default) or default is False else f"`{default}`"
            text = _cell(getattr(parameter, "help", None) or "")
            needed = "required" if parameter.required else shown
            parts.append(f"| {names} | {text} | {needed} |")
        parts.append("")
    return "\n".join(parts)
