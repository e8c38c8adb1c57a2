"""The PILO page in a real browser: its numbers are Python's, left is left, and no unit stands where none is earned.

What is sent from it is followed into a PACS by tests/walks/test_orthanc.py.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pydicom import dcmread

from dicomnode import bookkeeping, data, files, pipeline
from dicomnode.bookkeeping import Job
from dicomnode.roles import Role
from inference import pilo, preprocess, volume
from inference.maps import KINDS
from inference.pilo import Loop
from inference.units import in_units
from tests import phantom
from tests.dicomnode.web.browser import PHONE, SCREEN, clean, logged_in, opened, to_ratio, watched
from tests.dicomnode.web.place import Place, looped, serving
from tests.documents import keep
from tests.walks.test_sides import Copier

LEVEL = 1 / 255  # of the range of a map
VALUES = """async ([path, ratio]) => {
  const blend = await import("/static/blend.js");
  const head = blend.read(await (await fetch(path)).arrayBuffer());
  const voxels = Int32Array.from({ length: head.n }, (_, v) => v);
  return Promise.all(head.about.maps.map((_, k) => new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.split(",")[1]);
    reader.readAsDataURL(new Blob([blend.blend(head, k, ratio, voxels)]));
  })));
}"""
# The middle of what is as bright as this with all its neighbours, in parts of the pane; the rim of the brain, where the
# skull shines in, is thinner.
BRIGHT = """([map, least]) => {
  const canvas = document.querySelector(`[data-map="${map}"] .view canvas`);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const lit = (x, y) => data[4 * (y * canvas.width + x)] >= least;
  let n = 0, atX = 0, atY = 0;
  for (let y = 1; y < canvas.height - 1; y++) {
    for (let x = 1; x < canvas.width - 1; x++) {
      if ([-1, 0, 1].every((dy) => [-1, 0, 1].every((dx) => lit(x + dx, y + dy)))) n += 1, atX += x, atY += y;
    }
  }
  return n < 12 ? null : [atX / n / canvas.width, atY / n / canvas.height];
}"""


@dataclass(frozen=True)
class House:
    """A virtual patient with all maps, and a phantom whose only map is its CT."""

    place: Place
    patient: Job
    marked: Job


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("pilo"), node={"accept_simulated": True}) as place:
        patient = looped(place, [dcmread(path) for path in data.ncct()])
        tilted = phantom.head(phantom.even(17, 8.0, -62.0), thickness=8.0, patient_position="FFP", tilt_degrees=6.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "engine", lambda settings: (Copier.manifest, Copier()))
            marked = looped(place, tilted, Copier.manifest)
        yield House(place, patient, marked)


@pytest.fixture(scope="module")
def operator(house: House, browser: Browser) -> Iterator[BrowserContext]:
    with logged_in(browser, house.place.url, Role.OPERATOR) as context:
        yield context


@pytest.fixture
def page(operator: BrowserContext) -> Iterator[Page]:
    with watched(operator) as page:
        yield page


def look_at(page: Page, job: Job) -> None:
    page.goto(f"/pilo/{job.id}")
    page.wait_for_selector("#pilo[data-ready=yes]")


def in_browser(page: Page, job: Job, loop: Loop, ratio: float) -> np.ndarray:
    """(K, slices, 256, 256) of what the page's own code makes of the data that the page is sent."""
    values = np.zeros((len(loop.mix), *loop.mask.shape), np.float32)
    for k, text in enumerate(page.evaluate(VALUES, [f"/pilo/{job.id}/data", ratio])):
        values[k, loop.mask] = np.frombuffer(base64.b64decode(text), np.float32)
    return values


@pytest.mark.parametrize("ratio", [0.3, 0.5, *(pytest.param(end, marks=pytest.mark.slow) for end in (0.0, 1.0))])
def test_the_numbers_are_those_of_the_generator(house: House, page: Page, ratio):
    """Against torch in single precision, smoothing included, in every voxel of every map."""
    place, job = house.place, house.patient
    manifest, engine = pipeline.engine(place.settings)
    loop = pilo.load(place.spool.pilo(job.id))
    prepared = preprocess.prepare(
        volume.from_slices(files.slices_of(bookkeeping.inputs(place.books, job.id), place.spool))
    )
    learnt_KSYX = np.full((5, *loop.mask.shape), -1.0, np.float32)
    for s in np.flatnonzero(loop.mask.any(axis=(1, 2))):
        learnt_KSYX[:, s] = engine.run(prepared.planes[s][None], ratio)[0]
    expected = in_units(learnt_KSYX, prepared.mask, prepared.grid.heights, manifest)
    page.goto("/")
    made = in_browser(page, job, loop, ratio)
    for kind, mine, theirs in zip(manifest.map_kinds, made, expected, strict=True):
        assert np.abs(mine - theirs).max() < kind.ceiling * LEVEL, kind.name
        assert np.ptp(theirs[prepared.mask]) > 0.3 * kind.ceiling  # or the test would say nothing


def test_at_one_half_they_are_those_of_the_written_maps(house: House, page: Page):
    place, job = house.place, house.patient
    loop, head = (
        pilo.load(place.spool.pilo(job.id)),
        volume.from_slices(files.slices_of(bookkeeping.inputs(place.books, job.id), place.spool)),
    )
    page.goto("/")
    made = in_browser(page, job, loop, 0.5)
    prepared = preprocess.Prepared(np.empty(0), loop.mask, loop.grid)
    for values, kind in zip(preprocess.to_source(made, prepared, head), loop.manifest.map_kinds, strict=True):
        (row,) = [r for r in bookkeeping.results(place.books, job.id) if (r.kind, r.map) == ("pm", kind.name)]
        ds = dcmread(place.spool.path(row.path))
        slope = float(ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0].RealWorldValueSlope)
        stored = np.frombuffer(ds.FloatPixelData, np.float32).reshape(values.shape) * slope
        inside = values > 0  # outside the head stands the word SYNTHETIC
        assert np.abs(stored - values)[inside].max() < kind.ceiling * LEVEL
        assert inside.sum() > 100_000


def test_the_ratio_takes_the_units_away_and_gives_them_back(house: House, page: Page):
    look_at(page, house.patient)
    tmax = page.locator("[data-map=Tmax]")
    expect(tmax.locator(".unit")).to_have_text("s")
    expect(tmax.locator("li")).to_have_text([">=12", "9", "6", "3", "0"])
    trained = tmax.locator(".view canvas").evaluate("canvas => canvas.toDataURL()")
    keep(page, "pilo")
    expect(page.get_by_role("button", name="Send to PACS")).to_be_disabled()
    to_ratio(page, 80)
    expect(page.get_by_role("button", name="Send to PACS")).to_be_enabled()
    keep(page, "pilo-exploratory")
    for name in KINDS:
        expect(page.locator(f"[data-map={name}] .unit")).to_have_text("exploratory, no unit")
        expect(page.locator(f"[data-map={name}] li")).to_have_text(["high", "low"])
    expect(page.locator("#shown")).to_have_text("0.80, exploratory, no unit")
    expect(page.locator(".volumes")).to_contain_text("from ratio 0.50")
    assert tmax.locator(".view canvas").evaluate("canvas => canvas.toDataURL()") != trained
    page.get_by_role("button", name="Back to 0.50").click()
    page.wait_for_selector("#pilo[data-percent='50']")
    expect(tmax.locator(".unit")).to_have_text("s")
    assert tmax.locator(".view canvas").evaluate("canvas => canvas.toDataURL()") == trained
    for words in ("SYNTHETIC, not acquired perfusion", "TRAINED ON SIMULATED DATA", "SIMULATED PATIENT"):
        expect(page.get_by_text(words, exact=True)).to_be_in_viewport()
    page.mouse.wheel(0, 2000)
    expect(page.get_by_text("TRAINED ON SIMULATED DATA", exact=True)).to_be_in_viewport()


def test_a_mark_is_where_it_is_in_the_patient_in_each_plane(house: House, page: Page):
    """Of a head prone and feet first, tilted: the mark at the patient's upper left is the brightest of its CT."""
    look_at(page, house.marked)
    marks = {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF"}
    seen: dict[str, list[tuple[int, list[float], str]]] = {}
    for plane, letters in marks.items():
        page.locator(f"[data-plane={plane}]").click()
        expect(page.locator("#where")).to_contain_text(plane)
        for side, letter in zip(("left", "right", "top", "bottom"), letters, strict=True):
            expect(page.locator(f"[data-map=ct] .side.{side}")).to_have_text(letter)
        count = int(page.locator("#slice").get_attribute("max")) + 1
        seen[plane] = []
        for at in range(count):
            page.locator("#slice").evaluate(
                "(slider, to) => (slider.value = to, slider.dispatchEvent(new Event('input')))", str(at)
            )
            page.evaluate("() => new Promise(requestAnimationFrame)")
            if found := page.evaluate(BRIGHT, ["ct", 215]):  # 72 HU of 80 is 230; the other marks are darker
                seen[plane].append((at, found, page.locator("#where").text_content()))
    places = {plane: np.array([place for _, place, _ in found]) for plane, found in seen.items()}
    assert all(len(found) >= 2 for found in places.values())
    left_of_middle, front_of_middle = places["axial"].mean(axis=0)
    assert 0.68 < left_of_middle < 0.8  # the patient's left is right in the image
    assert 0.4 < front_of_middle < 0.48
    assert np.abs(places["coronal"].mean(axis=0) - [left_of_middle, 0.3]).max() < 0.08  # the head is up
    assert np.abs(places["sagittal"].mean(axis=0) - [front_of_middle, 0.3]).max() < 0.08  # the face is left
    assert all("patient's left" in where for *_, where in seen["sagittal"])
    away = [int(where.split(",")[1].split()[0]) for *_, where in seen["sagittal"]]
    assert np.mean(away) == pytest.approx(phantom.MARKS[0].centre[0], abs=3.0)


def test_all_panes_go_through_the_slices_together_by_wheel_keys_and_finger(house: House, page: Page):
    look_at(page, house.patient)
    where, slider, panes = page.locator("#where"), page.locator("#slice"), page.locator("#panes")
    panes.focus()
    page.keyboard.press("Home")
    expect(where).to_contain_text("axial 1 of 29")
    page.keyboard.press("ArrowUp")
    expect(where).to_contain_text("axial 2 of 29")
    page.keyboard.press("PageUp")
    expect(where).to_contain_text("axial 7 of 29")
    before = [canvas.evaluate("c => c.toDataURL()") for canvas in page.locator(".view canvas").all()]
    page.locator("[data-map=MTT] .view").hover()
    page.mouse.wheel(0, -100)
    expect(slider).to_have_value("7")
    after = [canvas.evaluate("c => c.toDataURL()") for canvas in page.locator(".view canvas").all()]
    assert all(a != b for a, b in zip(before, after, strict=True))
    box = page.locator("[data-map=ct] .view").bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 50 + 12, box["y"] + 100 - 24, steps=6)
    page.mouse.up()
    expect(slider).to_have_value("10")
    narrow = page.locator("[data-map=ct] .view canvas")
    wide = narrow.evaluate("c => c.toDataURL()")
    page.get_by_label("width, HU").fill("30")
    page.evaluate("() => new Promise(requestAnimationFrame)")
    assert narrow.evaluate("c => c.toDataURL()") != wide


@pytest.mark.parametrize("size", [SCREEN, PHONE], ids=["screen", "phone"])
def test_the_page_is_clean_dark_and_fits(house: House, page: Page, size):
    page.set_viewport_size(size)
    look_at(page, house.patient)
    assert clean(page) == []
    to_ratio(page, 75)
    assert clean(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    brightness = page.evaluate("getComputedStyle(document.querySelector('figure')).backgroundColor.match(/\\d+/g)")
    assert max(map(int, brightness[:3])) < 16
    if size == PHONE:
        keep(page, "pilo-phone")


def test_whoever_comes_by_a_link_sees_the_maps_and_cannot_send(house: House, browser: Browser):
    place = house.place
    with place.authorised(Role.VIEWER) as session:
        url = session.post(f"{place.url}/pilo/link", data={"key": house.patient.id}, timeout=60).json()["url"]
    with opened(browser, place.url) as context, watched(context) as page:
        page.goto(url)
        page.wait_for_selector("#pilo[data-ready=yes]")
        to_ratio(page, 20)
        assert page.get_by_role("button", name="Send to PACS").count() == 0
        assert page.get_by_role("navigation").count() == 0
        assert page.evaluate("document.cookie") == ""
