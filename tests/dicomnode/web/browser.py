"""Headless Chromium before our pages: logging in, pages on which nothing goes wrong unseen, what axe finds."""

from collections.abc import Iterator
from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from dicomnode.roles import Role
from tests.dicomnode.web.place import NAMES, PASSWORD
from tests.tools import program

FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
PATIENCE = 120_000  # milliseconds, for a machine with busy neighbours
SCREEN = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=360, height=740)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that waits for what it expects."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, address: str) -> Iterator[BrowserContext]:
    """A browser of somebody who is not logged in."""
    context = browser.new_context(viewport=SCREEN, base_url=address, has_touch=True)
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@contextmanager
def logged_in(browser: Browser, address: str, role: Role) -> Iterator[BrowserContext]:
    """The same, logged in by keyboard alone as the account of this role."""
    with opened(browser, address) as context:
        with watched(context) as page:
            page.goto("/")
            assert page.url.endswith("/login")
            page.keyboard.type(NAMES[role])  # the name has the focus
            page.keyboard.press("Tab")
            page.keyboard.type(PASSWORD)
            page.keyboard.press("Enter")
            page.wait_for_url("**/")
        yield context


@contextmanager
def watched(context: BrowserContext) -> Iterator[Page]:
    """A page on which nothing goes wrong unseen."""
    page, errors = context.new_page(), list[str]()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


def clean(page: Page) -> list[str]:
    """What axe finds wrong."""
    return [violation["id"] for violation in Axe().run(page).response["violations"]]


def find(page: Page, key: str) -> None:
    """Find a study by the form that stands on every page."""
    page.get_by_label("Find").fill(key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/study/*")


def same_document(page: Page) -> bool:
    """True where the page has not been loaded anew since this was first asked of it."""
    return bool(page.evaluate("[document.body.dataset.seen, document.body.dataset.seen = 'yes'][0]"))


def to_ratio(page: Page, percent: int) -> None:
    """Move the slider of the PILO page, from wherever it is."""
    slider = "(slider, to) => (slider.value = to, slider.dispatchEvent(new Event('input')))"
    page.locator("#ratio").evaluate(slider, str(percent))
    page.wait_for_selector(f"#pilo[data-percent='{percent}']")
