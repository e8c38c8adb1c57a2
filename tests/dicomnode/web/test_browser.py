"""The pages in a real browser: a study is followed while it runs, by keyboard, on a phone, and axe finds nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from dicomnode import bookkeeping
from dicomnode.bookkeeping import ACTOR, Job
from dicomnode.jobs import State
from dicomnode.roles import Role
from tests.dicomnode.web.browser import PHONE, SCREEN, clean, find, logged_in, opened, same_document, watched
from tests.dicomnode.web.place import Place, computed, head_ct, serving


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Job]]:
    with serving(tmp_path_factory.mktemp("browser")) as place:
        yield place, computed(place, head_ct(SeriesDescription="Head 9 mm"), ("sc",))


@pytest.fixture(scope="module")
def context(house: tuple[Place, Job], browser: Browser) -> Iterator[BrowserContext]:
    with logged_in(browser, house[0].url, Role.ADMINISTRATOR) as administrator:
        yield administrator


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    with watched(context) as page:
        yield page


def to_state(place: Place, job: Job, state: State, **values: object) -> None:
    with bookkeeping.store.writing(place.books) as session:
        found = session.get_one(Job, job.id)
        found.state, found.lease_owner, found.lease_until = state, None, None
        for key, value in values.items():
            setattr(found, key, value)


def test_the_page_for_strangers_is_clean(house: tuple[Place, Job], browser: Browser):
    with opened(browser, house[0].url) as context, watched(context) as page:
        page.goto("/study/1")
        assert page.url.endswith("/login")
        assert clean(page) == []


def test_a_study_is_found_and_followed_while_it_runs(house: tuple[Place, Job], page: Page):
    place, job = house
    now = datetime.now(UTC)
    to_state(place, job, State.QUEUED, created_at=now - timedelta(hours=3))
    page.goto("/")
    expect(page.locator(".tiles")).to_contain_text("3 h")
    expect(page.get_by_role("cell", name="QUEUED")).to_be_visible()
    find(page, "A1")
    story = page.locator(".story")
    expect(story).to_contain_text("Accession number A1")
    assert not same_document(page)
    assert bookkeeping.claim(place.books, job.id, ACTOR, now) is not None
    expect(story).to_contain_text("QUEUED -> PROCESSING: attempt")
    bookkeeping.advance(place.books, job.id, ACTOR, State.FAILED, "the world ended", now)
    expect(story).to_contain_text("FAILED: the world ended")
    assert same_document(page)


def test_a_failed_job_is_dismissed_by_keyboard_alone(house: tuple[Place, Job], page: Page):
    place, job = house
    to_state(place, job, State.FAILED, reason="the world ended", dismissed_at=None)
    page.goto("/?show=failed")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    link = page.get_by_role("cell", name="A1").get_by_role("link")
    for _ in range(60):
        if link.evaluate("link => link === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/study/*")
    note = page.get_by_label("Note")
    for _ in range(60):
        if note.evaluate("note => note === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.type("patient went elsewhere")
    page.keyboard.press("Enter")
    page.wait_for_url("**said=dismissed")
    expect(page.get_by_role("status")).to_contain_text("Dismissed")
    expect(page.locator(".story")).to_contain_text("DISMISSED: patient went elsewhere (by administrator)")


def test_what_is_being_typed_is_not_taken_away(house: tuple[Place, Job], page: Page):
    place, job = house
    to_state(place, job, State.DONE, done_at=datetime.now(UTC))
    page.goto("/?show=done")
    page.get_by_label("Reason").fill("gap")
    to_state(place, job, State.QUEUED)
    expect(page.locator(".tiles")).to_contain_text("stroke, QUEUED")  # it has refreshed itself
    expect(page.get_by_label("Reason")).to_have_value("gap")
    expect(page).to_have_url(f"{place.url}/?show=done")


@pytest.mark.parametrize("size", [SCREEN, PHONE], ids=["screen", "phone"])
def test_every_page_is_clean_and_fits(house: tuple[Place, Job], page: Page, size):
    place, job = house
    to_state(place, job, State.FAILED, reason="x" * 200, reason_code="world", dismissed_at=None)
    study = bookkeeping.study_of(place.books, job.study)
    page.set_viewport_size(size)
    for path in ("/", "/?show=failed", "/?show=refused", "/?show=all", f"/study/{study.id}", "/accounts"):
        page.goto(path)
        assert clean(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert max(brightness) < 64  # dark by default


def test_control_axe_sees_what_is_wrong(page: Page):
    page.goto("/")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=\"/static/icon.svg\"><input>')")
    assert {"image-alt", "label"} <= set(clean(page))


def test_a_script_in_a_name_does_not_run(house: tuple[Place, Job], page: Page):
    place, job = house
    evil = "<img src=x onerror=\"document.title='owned'\">"
    to_state(place, job, State.FAILED, reason=evil, dismissed_at=None)
    page.goto("/?show=failed")
    expect(page.get_by_role("cell", name="onerror")).to_be_visible()
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<b id=late></b>')")
    assert page.title() == "Studies, perfusion node"
