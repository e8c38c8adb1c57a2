"""The pages in a real browser: a study is followed while it runs, by keyboard, on a phone, and axe finds nothing."""

import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from dicomnode import bookkeeping
from dicomnode.bookkeeping import ACTOR, Job
from dicomnode.jobs import State
from dicomnode.roles import Role
from tests.dicomnode.web.place import NAMES, PASSWORD, Place, computed, head_ct, serving
from tests.tools import program

CHROMIUM = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
PATIENCE = 120_000  # milliseconds, for a machine with busy neighbours
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Job]]:
    with serving(tmp_path_factory.mktemp("browser")) as place:
        yield place, computed(place, head_ct(SeriesDescription="Head 9 mm"), ("sc",))


@pytest.fixture(scope="module")
def context(house: tuple[Place, Job]) -> Iterator[BrowserContext]:
    """A browser, logged in as the administrator."""
    place, _ = house
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program("chromium"), args=CHROMIUM)
        made = chromium.new_context(viewport={"width": 1280, "height": 800}, base_url=place.url)
        made.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        page = made.new_page()
        page.goto("/")
        assert page.url.endswith("/login")
        assert clean(page) == []
        keep(page, "web-login")
        page.keyboard.type(NAMES[Role.ADMINISTRATOR])  # the name has the focus
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/")
        page.close()
        yield made
        chromium.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page on which nothing goes wrong unseen."""
    opened = context.new_page()
    errors: list[str] = []
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert errors == []


def clean(page: Page) -> list[str]:
    """What axe finds wrong."""
    return [violation["id"] for violation in Axe().run(page).response["violations"]]


def keep(page: Page, name: str) -> None:
    """A screenshot for the documents, where PERFUSION_PICTURES names a folder."""
    if folder := os.environ.get("PERFUSION_PICTURES"):
        with Image.open(io.BytesIO(page.screenshot())) as picture:
            picture.convert("RGB").save(Path(folder) / f"{name}.jpg", quality=80, optimize=True)


def to_state(place: Place, job: Job, state: State, **values: object) -> None:
    with bookkeeping.store.writing(place.books) as session:
        found = session.get_one(Job, job.id)
        found.state, found.lease_owner, found.lease_until = state, None, None
        for key, value in values.items():
            setattr(found, key, value)


def test_a_study_is_found_and_followed_while_it_runs(house: tuple[Place, Job], page: Page):
    place, job = house
    now = datetime.now(UTC)
    to_state(place, job, State.QUEUED, created_at=now - timedelta(hours=3))
    page.goto("/")
    expect(page.locator(".tiles")).to_contain_text("3 h")
    expect(page.get_by_role("cell", name="QUEUED")).to_be_visible()
    keep(page, "web-studies")
    page.get_by_label("Find").fill("A1")
    page.keyboard.press("Enter")
    page.wait_for_url("**/study/*")
    story = page.locator(".story")
    expect(story).to_contain_text("Accession number A1")
    page.evaluate("document.body.dataset.same = 'yes'")  # gone if the page were loaded anew
    assert bookkeeping.claim(place.books, job.id, ACTOR, now) is not None
    expect(story).to_contain_text("QUEUED -> PROCESSING: attempt")
    bookkeeping.advance(place.books, job.id, ACTOR, State.FAILED, "the world ended", now)
    expect(story).to_contain_text("FAILED: the world ended")
    assert page.evaluate("document.body.dataset.same") == "yes"
    keep(page, "web-study")


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


@pytest.mark.parametrize("size", [{"width": 1280, "height": 800}, PHONE], ids=["screen", "phone"])
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
    if size == PHONE:
        page.goto("/?show=failed")
        keep(page, "web-phone")


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
