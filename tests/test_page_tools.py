"""The tools of the reading room's page that correct and annotate, each used with a mouse in a real browser."""

from __future__ import annotations

import pytest

from files import LEFT

pytest.importorskip("fastapi", reason="needs the extra `server`")

from page_work import Reader, Server, save_two_visits  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory, built_page):
    with Server(save_two_visits(tmp_path_factory.mktemp("page")), "--modality", "CT") as started:
        yield started


@pytest.fixture
def outlined(server, context):
    """A reader with the left lesion outlined by a box."""
    reader = Reader(context, server)
    reader.open()
    reader.go_to_slice(LEFT.z)
    reader.page.keyboard.press("l")
    reader.page.keyboard.press("b")
    with reader.step_made():
        reader.drag(0, LEFT, 2)
    return reader


def selected(reader) -> str:
    return reader.page.locator("tr.selected [data-lesion]").get_attribute("data-lesion")


def volume(reader) -> float:
    return float(reader.cells(selected(reader))[0])


def use(reader, key: str, x: float, y: float) -> float:
    """A tool used once in the first scan; gives the lesion's volume afterwards."""
    reader.page.keyboard.press(key)
    with reader.step_made():
        reader.click(0, x, y)
    return volume(reader)


def test_a_click_takes_away_fat_that_was_painted_and_leaves_the_other_stroke(outlined):
    ball = volume(outlined)
    painted = use(outlined, "p", LEFT.x, LEFT.y + 30)
    assert painted > ball + 0.1
    assert use(outlined, "e", LEFT.x, LEFT.y + 30) == pytest.approx(ball, abs=0.02)
    with outlined.step_made():
        outlined.page.keyboard.press("z")
    assert volume(outlined) == painted
    assert use(outlined, "p", LEFT.x, LEFT.y - 13) > painted
    assert use(outlined, "x", LEFT.x, LEFT.y - 14) == pytest.approx(painted, abs=0.1)
    assert outlined.errors == []


def test_a_diameter_set_by_hand_and_a_note_are_there_after_a_reload(outlined):
    page, lesion_id = outlined.page, selected(outlined)
    page.keyboard.press("d")
    with outlined.step_made():
        page.mouse.move(*outlined.place(0, LEFT.x - 10, LEFT.y))
        page.mouse.down()
        page.mouse.move(*outlined.place(0, LEFT.x, LEFT.y))
        page.mouse.move(*outlined.place(0, LEFT.x + 10, LEFT.y))
        page.mouse.up()
    diameter = outlined.cells(lesion_id)[1]
    assert diameter.endswith("✎")
    assert float(diameter.split()[0]) == pytest.approx(20, abs=1)
    page.fill("textarea", "<b>beside the vessel</b>")
    with outlined.step_made():
        page.locator("textarea").blur()
    page.reload()
    outlined.rest()
    assert page.input_value("textarea") == "<b>beside the vessel</b>"
    assert outlined.cells(lesion_id)[1] == diameter
    assert outlined.errors == []
