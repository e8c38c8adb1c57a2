"""What Orthanc's own Web Viewer shows of the captures and the derived CT."""

import json

import numpy as np
import pytest
from playwright.sync_api import BrowserContext

from tests.documents import keep
from tests.viewers.objects import Shown
from tests.viewers.pictures import ALIKE, Box, brightness, in_colours, pane, recognise, warmth
from tests.walks.node import Orthanc

INDEX = 14  # the slice that is looked at; all are counted from the foot, as the viewer does
SHOWN = """(index) => $('#slider').slider('option', 'value') === index
    && cornerstone.getImage(document.getElementById('dicomImage')) !== undefined && $.active === 0"""


def identifier(orthanc: Orthanc, series_description: str) -> str:
    """What Orthanc calls a series."""
    found = json.loads(orthanc.get("/series?expand"))
    return next(s["ID"] for s in found if s["MainDicomTags"]["SeriesDescription"] == series_description)


@pytest.mark.parametrize(
    ("prefix", "measure", "drawn"), [("sc-Tmax", warmth, in_colours), ("ct-Tmax", brightness, np.array)]
)
def test_the_series_is_shown_as_it_is(browser: BrowserContext, orthanc: Orthanc, shown: Shown, prefix, measure, drawn):
    page = browser.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    series = identifier(orthanc, shown.series[prefix])
    page.goto(f"http://127.0.0.1:{orthanc.http_port}/web-viewer/app/viewer.html?series={series}")
    page.wait_for_function(SHOWN, arg=0)
    page.mouse.move(640, 400)
    for turned in range(1, INDEX + 1):
        page.mouse.wheel(0, 100)
        page.wait_for_function(SHOWN, arg=turned)
    screenshot = page.screenshot()
    box = page.locator("#dicomImage canvas").bounding_box()
    assert box is not None
    picture = pane(screenshot, Box(**box), shown.tmax.shape[1])
    found, way, alike = recognise(measure(picture), drawn(shown.tmax))
    keep(page, f"orthanc-{prefix[:2]}")
    page.close()
    assert (found, way) == (INDEX, "as it is")
    assert alike > ALIKE
    assert errors == []
