"""`lesionlocator models`: those that can be used by name."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from lesionlocator.cli.answer import Answer, checked
from lesionlocator.weights import DEFAULT_MODEL

app = App(name="models", help="The models that can be used: list them, add one, check one.")


@app.default
@app.command(name="list")
def list_models() -> Answer:
    """List the models that can be used by name."""
    from lesionlocator.weights import list_models as known

    cards = [{"name": name, **card.to_json(), "default": name == DEFAULT_MODEL} for name, card in known().items()]
    lines = [f"{'*' if it['default'] else ' '} {it['name']:14} {it['licence']:12} {it['title']}" for it in cards]
    return Answer(cards, "\n".join([*lines, "", "* is used when no --model is given"]))


@app.command(name="import")
def import_(folder: Path, name: str, /) -> Answer:
    """Copy a model folder, or convert the published checkpoint, into the user's models, to be used by name.

    Parameters
    ----------
    folder
        A folder with a `model.json`, or the published `LesionLocatorCheckpoint` folder.
    name
        The name to give it.
    """
    from lesionlocator.weights import import_model, is_published, models_folder

    if is_published(folder):
        from lesionlocator.published.importing import import_published

        into = import_published(folder, name)
    else:
        import_model(folder, name)
        into = models_folder() / name
    return Answer({"name": name, "folder": str(into)}, f"{name} is now a model of yours: {into}")


@app.command
def verify(names: list[str] | None = None, /) -> Answer:
    """Check models against their cards: files present, checksums equal, and one outline of a phantom right.

    Parameters
    ----------
    names
        Names or folders. Default: all that are known.
    """
    from lesionlocator.doctor import verify_models

    checks = verify_models(names or None)
    return checked(checks)
