"""Files over https: from whoever proves who they are, through redirects within https, of a bounded size."""

import asyncio
import datetime
import http.server
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from banger.base.fetch import fetch_https
from banger.base.problem import Code, Problem


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/file":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"content")
        elif self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def secure_server(tmp_path, monkeypatch):
    """An https server on loopback with a certificate of its own: its address, and the context that trusts it."""
    for variable in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "pem").write_bytes(private + pem)
    offered = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    offered.load_cert_chain(tmp_path / "pem")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.socket = offered.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"https://localhost:{server.server_port}", ssl.create_default_context(cadata=pem.decode())
        server.shutdown()
        thread.join()


async def test_a_file_comes_over_https_and_its_redirects(secure_server, tmp_path):
    address, trust = secure_server
    await fetch_https(f"{address}/to/{address}/file", tmp_path / "got", trust=trust)
    assert (tmp_path / "got").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/to/http://localhost/file", "unknown url type: http$"),
        ("/to/ftp://localhost/file", "unknown url type: ftp$"),
        ("/to/file:///etc/passwd", "is not allowed"),
        ("/none", "Not Found"),
    ],
)
async def test_a_redirect_out_of_https_and_an_error_are_refused(secure_server, tmp_path, path, why):
    address, trust = secure_server
    with pytest.raises(Problem, match=why) as caught:
        await fetch_https(address + path, tmp_path / "got", trust=trust)
    assert caught.value.code is Code.UNAVAILABLE


async def test_a_server_that_cannot_prove_who_it_is_is_refused(secure_server, tmp_path):
    address, _ = secure_server
    with pytest.raises(Problem, match="certificate"):
        await fetch_https(f"{address}/file", tmp_path / "got")


@pytest.mark.parametrize("url", ["http://localhost/x", "file:///etc/passwd", "ftp://localhost/x"])
async def test_nothing_but_https_is_fetched(tmp_path, url):
    with pytest.raises(Problem, match="unknown url type"):
        await fetch_https(url, tmp_path / "got")


async def test_a_file_that_does_not_end_is_cut_off(secure_server, tmp_path, monkeypatch):
    monkeypatch.setattr("banger.base.fetch._SIZE_MAX_BYTES", 3)
    address, trust = secure_server
    with pytest.raises(Problem, match="is larger than"):
        await asyncio.wait_for(fetch_https(f"{address}/file", tmp_path / "got", trust=trust), 10)
