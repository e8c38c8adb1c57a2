"""OHIF as a reader uses it: a study is opened, a series double-clicked, a slice chosen; and what it then holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from playwright.sync_api import BrowserContext, ConsoleMessage, Page

from tests.viewers.pictures import Box

NO_TOUR = 'localStorage.setItem("shownTours", JSON.stringify(["basicViewerTour"]))'
PANE = "cornerstone.getRenderingEngines().flatMap(e => e.getViewports()).find(v => v.id === 'default')"
STACK_IS_SHOWN = f"""(uids) => {{
    const pane = window.cornerstone && {PANE};
    return pane?.type === 'stack' && pane.getCurrentImageId() && pane.viewportStatus === 'rendered'
        && uids.some(uid => pane.getCurrentImageId().includes(uid)) && pane.getActors().length > 0;
}}"""
MAP_IS_SHOWN = f"""() => {{
    const pane = {PANE};
    const volumes = [...cornerstone.cache._volumeCache.values()].map(entry => entry.volume).filter(v => v);
    return pane?.type === 'orthographic' && pane.viewportStatus === 'rendered' && pane.getActors().length === 2
        && volumes.some(v => v.volumeId.startsWith('pmap.'))
        && volumes.filter(v => v.loadStatus).some(v => v.loadStatus.loaded);
}}"""
SEGMENTS_ARE_SHOWN = f"""() => {PANE}?.getActors().length > 1
    && cornerstoneTools.segmentation.state.getSegmentations().length > 0"""
GO_TO_IMAGE = f"""async (uids) => {{
    const pane = {PANE};
    await pane.setImageIdIndex(pane.getImageIds().findIndex(id => uids.some(uid => id.includes(uid))));
    pane.render();
}}"""
GO_TO_SLICE = f"""(uid) => {{
    const held = [...cornerstone.cache._volumeCache.values()].map(entry => entry.volume);
    const ct = held.find(v => v?.imageIds?.some(id => id.includes(uid)));
    const place = ct.imageData.indexToWorld([0, 0, ct.imageIds.findIndex(id => id.includes(uid))]);
    const pane = {PANE}, camera = pane.getCamera(), normal = camera.viewPlaneNormal;
    const along = normal.reduce((sum, n, i) => sum + n * (place[i] - camera.focalPoint[i]), 0);
    const moved = point => point.map((x, i) => x + along * normal[i]);
    pane.setCamera({{focalPoint: moved(camera.focalPoint), position: moved(camera.position)}});
    pane.render();
}}"""
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
VALUES = """(points) => {
    const held = [...cornerstone.cache._volumeCache.values()].map(entry => entry.volume);
    const map = held.find(v => v?.volumeId.startsWith('pmap.'));
    const ct = held.find(v => v?.imageIds?.some(id => id.includes(points[0][0])));
    const slice = uid => ct.imageIds.findIndex(id => id.includes(uid));
    return points.map(([uid, row, column]) => map.voxelManager.getAtIJK(column, row, slice(uid)));
}"""
MAP_STATE = f"""() => {{
    const held = [...cornerstone.cache._volumeCache.values()].map(entry => entry.volume);
    const map = held.find(v => v?.volumeId.startsWith('pmap.'));
    const [, overlay] = {PANE}.getActors();
    return {{
        dimensions: [...map.dimensions],
        type: map.voxelManager.getConstructor().name,
        colours: [...overlay.actor.getProperty().getRGBTransferFunction(0).getMappingRange()],
    }};
}}"""


@dataclass
class Ohif:
    """One fresh page; what was written to its console as an error is kept."""

    page: Page
    errors: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, browser: BrowserContext, address: str, study_instance_uid: str, first: Sequence[str]) -> "Ohif":
        """The Basic Viewer with a study, when it shows an image of these SOP Instance UIDs."""
        page = browser.new_page()
        page.add_init_script(NO_TOUR)
        opened = cls(page)
        page.on("console", opened._heard)
        page.on("pageerror", lambda error: opened.errors.append(str(error)))
        page.goto(f"{address}/viewer?StudyInstanceUIDs={study_instance_uid}")
        opened.wait(STACK_IS_SHOWN, list(first))
        return opened

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def close(self) -> None:
        self.page.close()

    def wait(self, condition: str, argument: object = None) -> None:
        """Until a condition of the page holds and is drawn."""
        self.page.wait_for_function(condition, arg=argument)
        self.page.evaluate(DRAWN)

    def choose(self, series_description: str) -> None:
        """Double-click a series in the list."""
        self.page.get_by_text(series_description, exact=True).first.dblclick()

    def show_stack(self, series_description: str, uids: Sequence[str]) -> None:
        self.choose(series_description)
        self.wait(STACK_IS_SHOWN, list(uids))

    def show_map(self, series_description: str) -> None:
        self.choose(series_description)
        self.wait(MAP_IS_SHOWN)

    def show_segments(self, series_description: str) -> list[str]:
        """Labels of the segments, once the question is answered with Yes."""
        self.choose(series_description)
        self.page.get_by_role("button", name="Yes", exact=True).click()
        self.wait(SEGMENTS_ARE_SHOWN)
        found = "cornerstoneTools.segmentation.state.getSegmentations()"
        return list(self.page.evaluate(f"{found}.flatMap(s => Object.values(s.segments).map(x => x.label))"))

    def go_to_image(self, uids: Sequence[str]) -> None:
        """The slice of a stack, by its SOP Instance UID, or the first of several."""
        self.page.evaluate(GO_TO_IMAGE, list(uids))
        self.wait(STACK_IS_SHOWN, list(uids))

    def go_to_slice(self, uid: str) -> None:
        """The slice of a volume that was made of a CT image."""
        self.page.evaluate(GO_TO_SLICE, uid)
        self.page.evaluate(DRAWN)

    def values(self, points: Sequence[tuple[str, int, int]]) -> list[float]:
        """What the map's volume holds at (SOP Instance UID of the CT slice, row, column)."""
        return list(self.page.evaluate(VALUES, [list(point) for point in points]))

    def map_state(self) -> dict[str, object]:
        """The map's volume: its size, its type, and the range that its colours span."""
        return dict(self.page.evaluate(MAP_STATE))

    @property
    def pane(self) -> Box:
        """Where the image is drawn."""
        found = self.page.evaluate(
            f"(() => {{ const b = {PANE}.canvas.getBoundingClientRect(); return b.toJSON(); }})()"
        )
        return Box(found["x"], found["y"], found["width"], found["height"])
