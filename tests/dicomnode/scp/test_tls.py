"""TLS of the listener as node.toml has it: DCMTK over loopback, with and without a certificate that we trust."""

import ssl
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomnode import config, tls
from dicomnode.config import ConfigError, Tls
from dicomnode.doctor import network
from tests.dicomnode.scp.peers import dcmtk
from tests.dicomnode.scp.test_paths import kept
from tests.tools import program
from tests.walks.node import dicomnode


@dataclass(frozen=True)
class Authority:
    """A hospital's own certificate authority."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def found(self) -> "Authority":
        self._openssl("req", "-x509", *KEY, "-days", "90", "-subj", "/CN=CA", "-keyout", "ca.key", "-out", "ca.pem")
        return self

    def sign(self, name: str, days: int = 60, purpose: str = "serverAuth,clientAuth") -> tuple[str, str]:
        """Paths of a certificate and its key."""
        extensions = f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={purpose}\n"
        (self.folder / f"{name}.ext").write_text(extensions)
        self._openssl("req", "-new", *KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = [
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            str(days),
            "-extfile",
            f"{name}.ext",
        ]
        self._openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run([program("openssl"), *arguments], cwd=self.folder, capture_output=True, check=True)


KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("hospital")).found()


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger")).found()


def files_of(head, folder: Path) -> list[Path]:
    for n, ds in enumerate(head):
        ds.save_as(folder / f"{n}.dcm", enforce_file_format=True)
    return sorted(folder.glob("*.dcm"))


def test_a_sender_with_a_certificate_of_the_hospital_is_received_and_no_other(
    start, hospital: Authority, stranger: Authority, head, tmp_path: Path
):
    certificate, key = hospital.sign("node")
    listener = start(tls=tls.server_context(Tls(certificate, key, str(hospital.certificate))))
    ours, theirs = hospital.sign("ct1"), stranger.sign("ct2")
    trusting = ("+cf", str(hospital.certificate))
    instances = files_of(head[:2], tmp_path)
    for options in (("+tls", theirs[1], theirs[0], *trusting), ("+tla", *trusting), ()):
        assert dcmtk(listener, "storescu", *options, files=instances).returncode != 0, options
        assert kept(listener) == {}
    sent = dcmtk(listener, "storescu", "+tls", ours[1], ours[0], *trusting, files=instances)
    assert sent.returncode == 0, sent.stderr
    assert len(kept(listener)) == 2


def test_without_client_ca_any_listed_sender_may_come_encrypted(start, hospital: Authority, head, tmp_path: Path):
    certificate, key = hospital.sign("node")
    listener = start(tls=tls.server_context(Tls(certificate, key)))
    instances = files_of(head[:1], tmp_path)
    sent = dcmtk(listener, "storescu", "+tla", "+cf", str(hospital.certificate), files=instances)
    assert sent.returncode == 0, sent.stderr
    assert len(kept(listener)) == 1


def test_a_context_of_the_profile_takes_no_suite_without_forward_secrecy(hospital: Authority):
    names = {suite["name"] for suite in tls.server_context(Tls(*hospital.sign("node"))).get_ciphers()}
    assert "ECDHE-ECDSA-AES128-GCM-SHA256" in names
    assert all(name.startswith(("TLS_", "ECDHE-", "DHE-")) for name in names)
    assert not any(name.endswith("-SHA") or "CBC" in name for name in names)
    assert tls.server_context(Tls(*hospital.sign("node"))).minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_end_of_the_certificate_is_known_and_told_in_time(hospital: Authority):
    now = datetime.now(UTC)
    files = Tls(*hospital.sign("node", days=60), client_ca=str(hospital.certificate))
    assert abs(tls.ends_at(files) - now - timedelta(days=60)) < timedelta(minutes=5)
    early, late = network._tls(files, now), network._tls(files, now + timedelta(days=31))
    assert (early.remedy, bool(late.remedy)) == ("", True)
    assert "(59 days)" in early.found or "(60 days)" in early.found


def test_a_certificate_that_senders_would_refuse_is_found_by_the_doctor(hospital: Authority):
    finding = network._tls(Tls(*hospital.sign("sender", purpose="clientAuth")), datetime.now(UTC))
    assert "senders refuse" in finding.found
    assert "purpose" in finding.found
    assert finding.remedy


def test_files_that_cannot_be_used_are_named_before_anything_listens(hospital: Authority, tmp_path: Path):
    certificate, key = hospital.sign("node")
    _, other_key = hospital.sign("other")
    for files, words in (
        (Tls(certificate, other_key), "KEY_VALUES_MISMATCH"),
        (Tls(certificate, str(tmp_path / "none")), "No such file"),
        (Tls(certificate, key, str(tmp_path / "none")), "client_ca"),
    ):
        with pytest.raises(ConfigError, match=words):
            tls.server_context(files)
    with pytest.raises(ConfigError, match="both certificate and key"):
        config.parse({"listen": {"tls": {"certificate": certificate}}})
    dicomnode("init", cwd=tmp_path)
    path = tmp_path / "node.toml"
    path.write_text(path.read_text().replace('certificate = "", key = ""', 'certificate = "a.pem", key = "b.pem"'))
    failed = dicomnode("listen", cwd=tmp_path, check=False)
    assert failed.returncode == 2
    assert f"{tmp_path / 'a.pem'}" in failed.stderr
