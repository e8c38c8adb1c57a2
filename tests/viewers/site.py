"""A web server for the tests: the prebuilt OHIF, and in front of Orthanc's DICOMweb, so that all is one origin."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

TO_ORTHANC = ("/dicom-web/", "/wado")
ISOLATED = {  # OHIF wants shared memory, which browsers give to isolated pages only
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SOURCE = {
    "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
    "sourceName": "orthanc",
    "configuration": {
        "friendlyName": "Orthanc",
        "name": "orthanc",
        "qidoRoot": "/dicom-web",
        "wadoRoot": "/dicom-web",
        "wadoUriRoot": "/wado",
        "qidoSupportsIncludeField": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "omitQuotationForMultipartRequest": True,
        "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
    },
}
SETTINGS = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 2,
    "showLoadingIndicator": True,
    "strictZSpacingForVolumeViewport": True,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "orthanc",
    "dataSources": [SOURCE],
}


class Handler(SimpleHTTPRequestHandler):
    """Files of the viewer; its own settings; what begins like DICOMweb goes to Orthanc."""

    protocol_version = "HTTP/1.1"
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".wasm": "application/wasm"}

    def __init__(self, *arguments, orthanc_port: int, **keywords) -> None:
        self.orthanc_port = orthanc_port
        super().__init__(*arguments, **keywords)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith(TO_ORTHANC):
            self._forward()
        elif path == "/app-config.js":
            self._answer(200, "text/javascript", f"window.config = {json.dumps(SETTINGS)};".encode())
        else:
            if not Path(self.translate_path(path)).is_file():
                self.path = "/index.html"  # a route within the application
            super().do_GET()

    def _forward(self) -> None:
        upstream = HTTPConnection("127.0.0.1", self.orthanc_port, timeout=60)
        headers = {name: value for name in ("Accept", "Host") if (value := self.headers.get(name))}
        upstream.request("GET", self.path, headers=headers)
        answer = upstream.getresponse()
        self._answer(answer.status, answer.getheader("Content-Type", "application/octet-stream"), answer.read())
        upstream.close()

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        kept = "no-store" if self.path.startswith(TO_ORTHANC) else "max-age=3600"
        for name, value in {**ISOLATED, "Cache-Control": kept}.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *arguments) -> None:
        """Silence; what goes wrong is seen by the browser."""


@contextmanager
def serving(folder: Path, orthanc_port: int) -> Iterator[str]:
    """The address of the viewer while the block runs."""
    handler = partial(Handler, directory=str(folder), orthanc_port=orthanc_port)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
