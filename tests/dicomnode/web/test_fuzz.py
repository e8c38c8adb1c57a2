"""Whatever is asked of whatever the service describes, the answer is never a 5xx (hypothesis over the schema)."""

import http.client
import string
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode.roles import Role
from dicomnode.web import server
from dicomnode.web.app import make
from tests.dicomnode.web.place import Place

WORDS = st.sampled_from(
    [
        *(
            "",
            "0",
            "-1",
            "1",
            "1,2",
            "999999999999",
            "1e9",
            "nan",
            "%",
            "*",
            "?",
            "\\",
            "'",
            '"',
            "<",
            "\0",
            "\n",
            "\r\n",
        ),
        *(
            "..",
            "../../etc/passwd",
            "1.2.840",
            "2.25.1",
            "7FE00010",
            "00100010",
            "all",
            "20260101-",
            "-",
            "æøå",
            "患者",
        ),
        *("application/dicom+json", 'multipart/related; type="application/dicom"; boundary=b', "image/png;q=x", "*/*"),
    ]
)
TEXTS = st.one_of(WORDS, st.text(max_size=40), st.text(string.digits + ".", max_size=70))
HEADER = st.one_of(WORDS, st.text(string.printable, max_size=60)).map(
    lambda text: "".join(c for c in text if c.isprintable()).encode("latin-1", "replace").decode("latin-1")
)
NAMES = st.sampled_from(
    [
        *("limit", "offset", "includefield", "PatientName", "StudyDate", "00100020", "ModalitiesInStudy", "accept"),
        "window",
    ]
)
BODIES = st.one_of(
    st.just(b""),
    st.binary(max_size=300),
    st.binary(max_size=300).map(
        lambda part: b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n--b--\r\n"
    ),
    st.dictionaries(TEXTS, TEXTS, max_size=4).map(
        lambda d: "&".join(f"{quote(k)}={quote(v)}" for k, v in d.items()).encode()
    ),
)


@pytest.fixture(scope="module")
def operations(place: Place) -> list[tuple[str, str]]:
    paths = make(server.site(place.settings, place.books)).openapi()["paths"]
    return sorted((method.upper(), path) for path, methods in paths.items() for method in methods)


def ask(place: Place, method: str, path: str, headers: dict[str, str], body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", place.settings.web.port, timeout=60)
    try:
        connection.request(method, path, body or None, headers)
        return connection.getresponse().status
    finally:
        connection.close()


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_nothing_that_is_asked_is_an_error_of_ours(place: Place, operations, slices, data):
    method, path = data.draw(st.sampled_from(operations))
    known = {"{study}": slices[0].StudyInstanceUID, "{series}": slices[0].SeriesInstanceUID}
    known["{instance}"] = slices[0].SOPInstanceUID
    for name in {part for part in path.split("/") if part.startswith("{")}:
        text = data.draw(st.one_of(st.just(str(known.get(name, "1"))), TEXTS))
        path = path.replace(name, quote(text, safe=""))
    query = data.draw(st.lists(st.tuples(st.one_of(NAMES, TEXTS), TEXTS), max_size=3))
    if query:
        path += "?" + "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)
    headers = data.draw(
        st.dictionaries(st.sampled_from(["Accept", "Content-Type", "Cookie", "Origin"]), HEADER, max_size=3)
    )
    role = data.draw(st.sampled_from(Role))
    headers["Authorization"] = f"Bearer {place.tokens[role]}"
    status = ask(place, method, path, headers, data.draw(BODIES) if method == "POST" else b"")
    assert status < 500, (method, path, headers)
