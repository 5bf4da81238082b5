"""LoRAs over the network: a real https server of this machine, whose own address only the tests may connect to."""
import hashlib
import http.server
import importlib
import json
import socket
import ssl
import subprocess
import threading
import time

import pytest

SIZE = 3_000_000


def packed(name="diffusion_model.x.lora_A.weight", size=SIZE, **about) -> bytes:
    header = json.dumps({name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size], **about}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(i * 7 % 251 for i in range(997)) * (size // 997) + bytes(size % 997)


LORA = packed()


class Site(http.server.BaseHTTPRequestHandler):
    """`pages` is what lies at each path: bytes, an address to lead on to, or a status."""

    pages, seen, cut, tag = {}, [], None, '"one"'

    def do_GET(self):
        self.seen.append((self.path, dict(self.headers)))
        page = self.pages.get(self.path.split("?")[0], 404)
        if isinstance(page, int):
            return self.send_error(page)
        if isinstance(page, str):
            self.send_response(302)
            self.send_header("Location", page)
            self.send_header("Set-Cookie", "secret=1")
            return self.end_headers()
        begin = 0
        if self.headers.get("If-Range") == self.tag:
            begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(page) - 1}/{len(page)}")
        self.send_header("Content-Length", str(len(page) - begin))
        self.send_header("ETag", self.tag)
        self.end_headers()
        end, type(self).cut = self.cut or len(page), None
        self.wfile.write(page[begin:end])

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=lora.test",
                    "-addext", "subjectAltName=DNS:lora.test", "-keyout", folder / "key", "-out", folder / "cert"],
                   check=True, capture_output=True)  # fmt: skip
    return folder


@pytest.fixture
def site(certificate):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("OneSite", (Site,), {"pages": {}, "seen": []}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert", certificate / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    page = server.RequestHandlerClass
    page.url = f"https://lora.test:{server.server_port}"
    yield page
    server.shutdown()
    server.server_close()


@pytest.fixture
def lora(plain):
    return importlib.import_module("pairlora.trainer.lora.fetch")


@pytest.fixture
def fetch(lora, certificate, tmp_path):
    """`fetch(url)`: as the node does it, but that lora.test is this machine."""

    def resolve(host, port, **how):
        return socket.getaddrinfo({"lora.test": "127.0.0.1"}.get(host, host), port, **how)

    def run(url, told=lambda done, of: None, **net):
        net = {"context": lambda: ssl.create_default_context(cafile=certificate / "cert"), "resolve": resolve,
               "may_connect": lambda address: address == "127.0.0.1"} | net  # fmt: skip
        return lora.fetch(url, tmp_path / "fetched", told, lora.Net(**net))

    return run


def test_a_lora_is_fetched_once_and_then_used_without_the_network(fetch, site, tmp_path):
    site.pages["/my%20lora.safetensors"] = LORA
    url, told = f"{site.url}/my%20lora.safetensors?token=secret", []
    one = fetch(url, lambda *told_: told.append(told_))
    assert one.new and one.file.read_bytes() == LORA and one.sha256 == hashlib.sha256(LORA).hexdigest()
    assert one.file.name == f"my lora-{one.sha256[:12]}.safetensors" and told[-1][0] == len(LORA) == told[-1][1]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".part", ".stamp")]
    assert "secret" not in (tmp_path / "fetched/addresses.json").read_text()
    again = fetch(url, resolve=None)
    assert (again.new, again.file) == (False, one.file)
    one.file.write_bytes(LORA[:-1] + b"?")  # somebody has replaced it
    assert fetch(url).new and one.file.read_bytes() == LORA


def test_the_same_content_from_elsewhere_is_kept_once(fetch, site):
    site.pages.update({"/a.safetensors": LORA, "/b.safetensors": LORA})
    assert fetch(f"{site.url}/a.safetensors").file == fetch(f"{site.url}/b.safetensors").file


def test_a_fetch_that_breaks_off_goes_on(fetch, site):
    site.pages["/a.safetensors"], site.cut = LORA, 2_000_000
    assert fetch(f"{site.url}/a.safetensors").file.read_bytes() == LORA
    (_, first), (_, second) = site.seen
    assert "Range" not in first and second["Range"] == "bytes=2000000-" and second["If-Range"] == site.tag


class Cancelled(BaseException):
    pass


@pytest.mark.parametrize("changed", [False, True])
def test_a_fetch_that_was_cancelled_goes_on_later_unless_the_file_is_another(fetch, site, changed):
    def cancel(done, of):
        if done > 1_000_000:
            raise Cancelled

    site.pages["/a.safetensors"] = LORA
    with pytest.raises(Cancelled):
        fetch(f"{site.url}/a.safetensors", cancel)
    if changed:
        site.tag, site.pages["/a.safetensors"] = '"two"', packed(size=SIZE + 5)
    assert fetch(f"{site.url}/a.safetensors").file.read_bytes() == site.pages["/a.safetensors"]
    assert int(site.seen[-1][1]["Range"].strip("bytes=-")) > 1_000_000


def test_a_fetch_cancelled_at_its_very_end_needs_no_more_network(fetch, site):
    def cancel(done, of):
        if done == of == len(LORA):
            raise Cancelled

    site.pages["/a.safetensors"] = LORA
    with pytest.raises(Cancelled):
        fetch(f"{site.url}/a.safetensors", cancel)
    assert fetch(f"{site.url}/a.safetensors", resolve=None).file.read_bytes() == LORA


def cancelled_after(seconds):
    """What cancels a fetch then, and the time that has passed since."""
    start = time.monotonic()

    def told(done, of):
        if time.monotonic() > start + seconds:
            raise Cancelled

    return told, lambda: time.monotonic() - start


def test_cancel_does_not_wait_for_a_lookup(fetch):
    answered = threading.Event()
    told, passed = cancelled_after(0.5)
    with pytest.raises(Cancelled):
        fetch("https://lora.test/a.safetensors", told, resolve=lambda *a, **k: answered.wait(30))
    assert passed() < 1.5
    answered.set()


def test_cancel_does_not_wait_for_a_handshake_and_its_connection_is_closed(fetch, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert", certificate / "key")
    with socket.create_server(("127.0.0.1", 0)) as listening:  # it does not answer yet
        told, passed = cancelled_after(0.5)
        with pytest.raises(Cancelled):
            fetch(f"https://lora.test:{listening.getsockname()[1]}/a.safetensors", told)
        assert passed() < 1.5
        listening.settimeout(5)
        with context.wrap_socket(listening.accept()[0], server_side=True) as late:
            late.settimeout(5)
            assert late.recv(1000) == b"", "nothing is asked for any more"


def test_nothing_is_sent_along_when_it_leads_on(fetch, site, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://name:password@127.0.0.1:9")
    site.pages.update({"/a": "/b?key=1", "/b": LORA})
    assert fetch(f"{site.url}/a").file.read_bytes() == LORA
    for _, headers in site.seen:
        assert set(headers) == {"Host", "User-Agent", "Accept-Encoding"}


@pytest.mark.parametrize("address", [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a00:1", "2002:7f00:1::", "2002:c0a8:101::", "2001:db8::1",
    "fec0::1", "::127.0.0.1", "::10.0.0.1", "64:ff9b:1::7f00:1", "::ffff:0:127.0.0.1",
])  # fmt: skip
def test_private_addresses_are_never_connected_to(fetch, lora, site, address, monkeypatch):
    assert not lora.is_public(address)
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("connected"))
    with pytest.raises(lora.FetchError, match="an address of this machine or its network, which is not fetched from"):
        fetch("https://looks.fine/a.safetensors", may_connect=lora.is_public, resolve=lambda *a, **k: [(0, 0, 0, "", (address, 443))])


@pytest.mark.parametrize("address", ["1.1.1.1", "140.82.121.4", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_public_addresses_may_be_connected_to(lora, address):
    assert lora.is_public(address)


@pytest.mark.parametrize("there, why", [
    ("https://127.0.0.2/x", "127.0.0.2 is 127.0.0.2, an address of this machine or its network"),
    ("https://[::1]/x", "an address of this machine or its network"),
    ("http://lora.test/x", "leads on to it: http://lora.test/x does not begin with https://"),
    ("https://user:word@lora.test/x", "leads on to it: The address of lora.test holds a user's name or password"),
    ("file:///etc/passwd", "does not begin with https://"),
    ("/loop", "leads on more than 5 times"),
])  # fmt: skip
def test_what_is_typed_and_where_it_leads_on_to_must_be_acceptable(fetch, lora, site, there, why):
    site.pages["/loop"] = there
    with pytest.raises(lora.FetchError) as error:
        fetch(f"{site.url}/loop")
    assert why in str(error.value) and "word@" not in str(error.value)
    assert len(site.seen) == (6 if there == "/loop" else 1)


@pytest.mark.parametrize("page, why", [
    (404, "answers with 404"), (401, "Does it ask for an account"), (b"<!DOCTYPE html>" + b" " * 900, "no safetensors file"),
    (b"", "could not be fetched"), (packed("model.diffusion_model.x.weight"), "holds no LoRA, but model.diffusion_model.x.weight"),
    (packed(data_offsets=[0, 9 << 30]), "has 9.7 GB; the limit is 8 GB"), (packed(data_offsets=["a", 3]), "its header is damaged"),
    (LORA + b"more", "longer than its header says"), (LORA[:-9], "could not be fetched"),
])  # fmt: skip
def test_what_is_no_lora_is_refused_before_it_is_fetched(fetch, lora, site, tmp_path, page, why):
    site.pages["/a"] = page
    most = []
    with pytest.raises(lora.FetchError, match=why):
        fetch(f"{site.url}/a?token=secret", lambda done, of: most.append(done))
    assert not list(tmp_path.rglob("*.safetensors"))
    if isinstance(page, bytes) and "LoRA" in why:
        assert max(most) < 500  # of three million bytes no more than the header has been taken


def test_another_certificate_is_refused(fetch, lora, site):
    site.pages["/a"] = LORA
    with pytest.raises(lora.FetchError, match="(?i)certificate"):
        fetch(f"{site.url}/a", context=ssl.create_default_context)
    assert not site.seen


@pytest.mark.parametrize("text, is_one", [("https://a.b/c", True), (" HTTP://a", True), ("file:///a", False), ("/a", False),
                                          ("C:\\a", False), ("c://a", False), ("a/b.safetensors", False)])  # fmt: skip
def test_addresses_are_told_from_files(lora, text, is_one):
    assert lora.is_address(text) == is_one
