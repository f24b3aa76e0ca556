"""The reading room's page, used as a reader uses it: a real browser, a real server, a mouse and keys."""

from __future__ import annotations

import pytest

from files import LEFT, RIGHT

pytest.importorskip("fastapi", reason="needs the extra `server`")

from page_work import MOVED, NAME, Reader, Server, save_two_visits  # noqa: E402

# The other scan's cursor is on its way for as long as that takes on a busy machine.
LATE = """() => {
    const fetch = window.fetch;
    window.fetch = async (path, ...rest) => {
        if (String(path.url ?? path).includes('/place')) await new Promise((later) => setTimeout(later, 400));
        return fetch(path, ...rest);
    };
}"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory, built_page):
    with Server(save_two_visits(tmp_path_factory.mktemp("page")), "--modality", "CT") as started:
        yield started


def outline_both(reader):
    """The first lesion by a box and a click, the second by a click alone."""
    page = reader.page
    reader.go_to_slice(LEFT.z)
    assert reader.colours(0, LEFT.x, LEFT.y, 11) == 0
    page.keyboard.press("b")
    with reader.step_made():
        reader.drag(0, LEFT, 2)
    assert reader.colours(0, LEFT.x, LEFT.y, 11) > 100
    volume, diameter, *_ = reader.cells("1")
    assert float(volume) == pytest.approx(3.05, rel=0.15)  # 4/3 pi 0.9^3
    assert float(diameter) == pytest.approx(18, rel=0.12)
    page.keyboard.press("c")
    with reader.step_made():
        reader.click(0, LEFT.x + 3, LEFT.y + 3)
    assert float(reader.cells("1")[0]) == pytest.approx(3.05, rel=0.15)
    page.keyboard.press("l")
    reader.go_to_slice(RIGHT.z)
    with reader.step_made():
        reader.click(0, RIGHT.x, RIGHT.y)
    assert float(reader.cells("2")[0]) == pytest.approx(2.14, rel=0.25)  # 4/3 pi 0.8^3


def check_followup(reader):
    """The second lesion is put where it is, the first accepted, the second rejected, undone and redone."""
    page = reader.page
    page.evaluate(LATE)
    assert "followup" in page.inner_text(".lesions h2")
    assert page.inner_text('[data-key="next"]') == "Next unsure (2)"
    page.click('[data-lesion="2"]')
    reader.rest()
    page.keyboard.press("m")
    with reader.step_made():
        reader.click(1, MOVED.x, MOVED.y)
    assert reader.cells("2")[-1].endswith("placed by you")
    assert float(reader.cells("2")[0]) == pytest.approx(2.14, rel=0.25)
    page.click('[data-lesion="1"]')
    with reader.step_made():
        page.keyboard.press("a")
    assert reader.cells("1")[2].startswith("+") and reader.cells("1")[-1].endswith("accepted")
    page.click('[data-lesion="2"]')
    with reader.step_made():
        page.keyboard.press("r")
    assert reader.cells("2")[2:] == ["−100 %", "", "vanished, said by you"]
    with reader.step_made():
        page.keyboard.press("z")
    assert reader.cells("2")[-1].endswith("placed by you")
    with reader.step_made():
        page.keyboard.press("y")
    assert reader.cells("2")[-1] == "vanished, said by you"


def test_a_case_is_read_from_the_first_box_to_the_report(server, context):
    reader = Reader(context, server)
    page = reader.page
    assert "token" not in page.url
    assert page.inner_text(".case strong") == NAME
    reader.open()
    outline_both(reader)
    with reader.step_made():
        page.keyboard.press("f")
    page.keyboard.press("n")
    reader.rest()
    check_followup(reader)
    before = [reader.cells("1"), reader.cells("2")]
    page.reload()
    reader.rest()
    assert [reader.cells("1"), reader.cells("2")] == before
    archive, report = reader.export()
    names = archive.namelist()
    assert any(name.endswith("lesions.csv") for name in names)
    assert any(name.endswith("baseline_lesion_1.nii.gz") for name in names)
    assert report.locator("table").count() > 0
    assert [page.title() == "stolen", report.title() == "stolen", reader.errors] == [False, False, []]


def test_two_windows_do_not_overwrite_each_other(server, context):
    first, second = Reader(context, server), Reader(context, server)
    for reader in (first, second):
        reader.open()
    first.go_to_slice(LEFT.z)
    first.page.keyboard.press("l")
    first.page.keyboard.press("p")
    with first.step_made():
        first.click(0, LEFT.x, LEFT.y)
    painted = first.page.locator("[data-lesion]").count()
    # The second window has not seen the stroke; its own is refused, and it shows the case as it is.
    second.page.keyboard.press("l")
    second.page.keyboard.press("p")
    second.click(0, 0, 0)
    second.page.wait_for_function("() => document.querySelector('.notice').textContent.includes('Conflict')")
    second.rest()
    assert second.page.locator("[data-lesion]").count() == painted
    assert second.step == first.step


def test_a_server_killed_in_the_middle_of_an_outline_loses_nothing_and_the_page_goes_on(server, context):
    reader = Reader(context, server)
    page = reader.page
    reader.open()
    page.wait_for_timeout(500)  # the alignment is on its way too, and must not keep the page from saying so
    before = reader.what_happened()
    reader.go_to_slice(RIGHT.z)
    page.keyboard.press("l")
    page.keyboard.press("c")
    with page.expect_response(lambda answer: answer.url.endswith("/outline") and answer.status == 202):
        reader.click(0, RIGHT.x, RIGHT.y)
    server.kill()
    page.wait_for_function("() => document.querySelector('.notice').textContent.includes('does not answer')")
    server.start()
    page.wait_for_function("() => document.querySelector('.notice').textContent.includes('is back')")
    reader.rest()
    # All that was there, and at most the outline that was on its way.
    after = reader.what_happened()
    assert after.items() >= before.items()
    assert len(after) - len(before) in (0, 1)
    # The same click works again.
    with reader.step_made():
        page.keyboard.press("l")
        page.keyboard.press("c")
        reader.click(0, RIGHT.x, RIGHT.y)
    assert len(reader.what_happened()) == len(after) + 1


def test_the_demo_case_is_opened_by_its_button(server, context):
    reader = Reader(context, server)
    page = reader.page
    page.click("text=Open the demo case")
    page.wait_for_function(
        "() => document.querySelector('.reading') || document.querySelector('.home .status.bad')", timeout=240_000
    )
    if page.locator(".home .status.bad").count():
        said = page.inner_text(".home .status")
        assert "index" in said or "fetched" in said or "pip" in said
        pytest.skip(f"needs a package index: {said[:100]}")
    reader.rest()
    assert page.inner_text("h1") == "demo"
    with reader.step_made():
        page.click('[data-key="asked"]')
    assert float(reader.cells("1")[0]) > 10
    assert reader.errors == []
