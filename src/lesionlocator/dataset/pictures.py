"""Pictures of a few items, to be looked at before a data set is used."""

from __future__ import annotations

from pathlib import Path

from lesionlocator.dataset.reading import read_item
from lesionlocator.dataset.recipe import Item, RecipeSource


def draw_item(out: Path, item: Item, source: RecipeSource, path: Path) -> Path:
    """Every lesion of an item at every visit, with its outline, its volume and how it changed."""
    from lesionlocator.picture import draw_case

    path.parent.mkdir(parents=True, exist_ok=True)
    case = read_item(out, item.name, source.scan(out).modality)
    return draw_case(case, path, title=f"{item.name}: {source.id}", most=3)
