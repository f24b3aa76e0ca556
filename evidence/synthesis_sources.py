"""Writes docs/sources.md: where the scans of the released recipe come from, and public collections to add."""

from __future__ import annotations

from provenance import ROOT

from lesionlocator.dataset.layouts import LAYOUTS
from lesionlocator.dataset.listed import additions, collections
from lesionlocator.dataset.recipe import RELEASED, find_recipe, read_recipe

PAGE = ROOT / "docs" / "sources.md"


def main():
    PAGE.write_text(page())
    print(PAGE.read_text())


def page():
    recipe = read_recipe(find_recipe(RELEASED))
    text = """# Sources of synthetic follow-ups

Written by `python evidence/synthesis_sources.py` from `src/lesionlocator/dataset/sources.toml` (the same for machines)
and the released recipe, which has the SHA-256 of every file. No scan is in this repository.

## What the released recipe uses

| Collection | Licence | Scans | Pairs | Chains | Files |
|---|---|---|---|---|---|
"""
    for one in collections().values():
        scans = {source.id for source in recipe.sources.values() if source.collection == one.id}
        items = [item for item in recipe.items if item.source in scans]
        pairs = sum(item.visits == 2 for item in items)
        text += f"| {one.id} | {one.licence} | {len(scans)} | {pairs} | {len(items) - pairs} | {one.files} |\n"
    text += "\n"
    for one in collections().values():
        text += f"**{one.id}.** {one.title}. {one.citation} doi:{one.doi}, {one.licence}.\n"
        text += f"Where: {one.where} Registration: {one.registration}. Converter: layout `{one.reader}`.\n"
        text += f"Prepared: {one.prepared}\n\n" if one.prepared else "The files are those that anybody gets.\n\n"
    text += """*as-published* files are the bytes that anybody gets, so anybody can remake their part of the recipe:
`lesionlocator synthesize archive OUT --recipe released`. *prepared* files were converted and some were cropped, as said
above. Whoever prepares the originals anew gets other bytes, which the recipe refuses, rather than a data set that is
almost the same under the same name; `lesionlocator synthesize FOLDER OUT --pairs N --seed S` draws a new one from them.

Two patients with multiple sclerosis (open_ms_data, CC BY) are among the development scans and are not used: their
lesions are no tumours and are outlined only where they changed.

## Public collections that you can add

Put one in a folder of its own and name that folder as SOURCE. Licences marked "see its page" were not verified here.

| Collection | DOI | Licence | Where | Registration | Layout |
|---|---|---|---|---|---|
"""
    for one in additions():
        text += (
            f"| {one.title} | {one.doi or '-'} | {one.licence} | {one.where} | {one.registration} | {one.reader} |\n"
        )
    text += "\n## Layouts\n\n| Layout | What it looks like | Tried on a folder of its publisher |\n|---|---|---|\n"
    for layout in LAYOUTS.values():
        text += f"| {layout.name} | {layout.about} | {'yes' if layout.seen else 'no, on made-up folders only'} |\n"
    return text


if __name__ == "__main__":
    main()
