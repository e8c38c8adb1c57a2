"""Screenshots of tests become pictures of the documents, where PERFUSION_PICTURES names a folder."""

import io
import os
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

QUALITY = 80  # of JPEG: letters stay sharp, and a page stays below 200 kB


def keep(page: Page, name: str) -> None:
    """A screenshot for the documents, where they want one."""
    if folder := os.environ.get("PERFUSION_PICTURES"):
        with Image.open(io.BytesIO(page.screenshot())) as picture:
            picture.convert("RGB").save(Path(folder) / f"{name}.jpg", quality=QUALITY, optimize=True)
