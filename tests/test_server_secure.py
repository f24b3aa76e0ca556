"""Who may listen in, and what a name may do: TLS, starts that are refused, markup in names of patients and scans."""

from __future__ import annotations

import ssl
import subprocess
import urllib.error
import urllib.request

import pytest

pytest.importorskip("fastapi", reason="needs the extra `server`")

from dicom_page import HOT, SCRIPT, write_ct, zipped  # noqa: E402
from lesionlocator.errors import Refused  # noqa: E402
from lesionlocator.server.run import run_server  # noqa: E402
from lesionlocator.server.settings import ServeSettings  # noqa: E402
from page_work import TOKEN, Server  # noqa: E402
from room_work import Reader, outline_body  # noqa: E402


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "0.0.0.0"}, "no token"),
        ({"host": "0.0.0.0", "token": "short"}, "less than 8"),
        ({"certificate": "cert.pem"}, "without its key"),
        ({"key": "key.pem"}, "without its certificate"),
    ],
)
def test_a_server_that_others_could_use_or_overhear_does_not_start(tmp_path, settings, said):
    paths = {name: tmp_path / value for name, value in settings.items() if name in ("certificate", "key")}
    with pytest.raises(Refused, match=said):
        run_server(tmp_path, ServeSettings(**{**settings, **paths}))


@pytest.mark.slow
def test_with_a_certificate_nothing_goes_in_the_clear(tmp_path, debian_program):
    openssl = debian_program("openssl", "openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    asked = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = [openssl, *asked, *names, "-keyout", key, "-out", certificate]
    subprocess.run(made, check=True, capture_output=True)
    (tmp_path / "cases").mkdir()
    with Server(tmp_path / "cases", "--certificate", str(certificate), "--key", str(key)) as server:
        server.wait()
        trusted = ssl.create_default_context(cafile=certificate)
        address = f"https://127.0.0.1:{server.port}"
        with urllib.request.urlopen(f"{address}/?token={TOKEN}", context=trusted, timeout=120) as page:
            assert "; Secure" in page.headers["set-cookie"]
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{address}/api/health", context=ssl.create_default_context(), timeout=120)
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/api/health", timeout=120)
        server.log.flush()
        assert f"open {address}/?token=" in (tmp_path / "server.log").read_text()


def test_markup_in_a_patient_s_name_is_text_in_the_report_and_nowhere_a_header(tmp_path):
    (tmp_path / "cases").mkdir()
    reader = Reader(tmp_path / "cases", tmp_path / "state", modality=None)
    series = write_ct(tmp_path / "ct", SeriesDescription=SCRIPT[5:], StudyDescription=SCRIPT[5:])
    name = f"a{SCRIPT}\r\nSet-Cookie: x=1.zip"
    sent = reader.client.post("/api/uploads", files=[("files", (name, zipped(series)))])
    assert sent.status_code == 200, sent.text
    path = f"/api/cases/{sent.json()['id']}"
    view = reader.done(f"{path}/outline", outline_body(reader.get(path), HOT))
    body = {"revision": view["revision"], "scan": 0, "lesion_id": "1", "note": SCRIPT}
    view = reader.post(f"{path}/note", body)
    reader.done(f"{path}/export", {"revision": view["revision"], "to": ["dicom-seg", "dicom-sr"]})
    report = reader.client.get(f"{path}/report.html")
    assert "<svg onload" not in report.text.lower()
    assert "script" not in report.headers["content-security-policy"].replace("default-src 'none'", "")
    for answer in (sent, report, reader.client.get(f"{path}/result.zip"), reader.client.get(path)):
        assert "x=1" not in str(answer.headers)
        assert answer.headers["x-content-type-options"] == "nosniff"
    # The list is JSON, and never a page.
    assert reader.client.get(path).headers["content-type"] == "application/json"
