"""A LoRA from the https address that a user typed: the only place of the pack that uses the network."""
import concurrent.futures
import contextlib
import hashlib
import http.client
import io
import ipaddress
import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import filelock

from ..data import names

LARGEST = 8_000_000_000  # bytes of a file
LARGEST_HEADER = 32 << 20  # bytes; 100,000 tensors
HOPS = 5  # redirects
CHUNK = 1 << 20  # bytes read and written at a time
BEAT = 0.25  # seconds between two looks whether the user has cancelled
PATIENCE = 30.0  # seconds without a byte after which the other side is given up
INDEX = "addresses.json"
# What the names of a LoRA's tensors hold: LoRA, DoRA, LoHa, LoKr, GLoRA, OFT and BOFT, whole differences.
MARK = re.compile(r"lora|hada_|lokr_|\.a1\.weight|oft_|\.(diff|diff_b|set_weight|reshape_weight|[wb]_norm)$", re.IGNORECASE)
SAFE = "/%:@!$&'()*+,;=~?-._"  # stays in an address as it is


class FetchError(ValueError):
    """Why an address was not fetched, and what to do; shows neither a query nor a password."""


@dataclass(frozen=True)
class Fetched:
    file: Path
    sha256: str
    new: bool  # came over the network just now


def is_public(address: str) -> bool:
    """Whether an IP address lies on the open internet, also what IPv6 wraps up: not this machine, nor its neighbours."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if ip.version == 6:
        inner = [part for part in (ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())) if part is not None]
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # an IPv4 address behind NAT64
            inner.append(ipaddress.ip_address(int(ip) & 0xFFFFFFFF))
        if inner:
            return all(is_public(str(part)) for part in inner)
        if ip not in ipaddress.ip_network("2000::/3"):  # is_global holds for fec0::1 and ::127.0.0.1
            return False
    return ip.is_global and not ip.is_multicast


@dataclass(frozen=True)
class Net:
    """How the network is reached: whom tests put in another's place."""

    context: Callable[[], ssl.SSLContext] = ssl.create_default_context
    resolve: Callable = socket.getaddrinfo
    may_connect: Callable[[str], bool] = is_public


def is_address(text: str) -> bool:
    """Whether what was typed means an address on the network, rather than a file."""
    return re.match(r"\s*[a-z][a-z+.-]+://", text, re.IGNORECASE) is not None and not text.strip().lower().startswith("file:")


def fetched(url: str, folder: Path, told: Callable[[int, int], None]) -> Fetched | None:
    """What was fetched from the address before, if it is still the same; asks no network."""
    if not (entry := _index(folder).get(_key(url))):
        return None
    file = folder / entry["file"]
    same = file.is_file() and _sha256(file, told) == entry["sha256"]
    return Fetched(file, entry["sha256"], new=False) if same else None


def fetch(url: str, folder: Path, told: Callable[[int, int], None], net: Net = Net()) -> Fetched:
    """The LoRA at an https address, as a file of ``folder`` that bears its hash; from there, if it was fetched before.

    ``told(bytes, of)`` is called about four times a second and may raise, which ends the fetching at once. What has come
    until then stays in a hidden file, and the next call goes on from there if the other side still has the same.

    Raises:
        FetchError: the address or what lies there is not acceptable, or the network failed.
        OSError: the folder cannot be written.
    """
    start = _checked(url.strip())
    if found := fetched(url, folder, told):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, told):
        if found := fetched(url, folder, told):  # by another server, meanwhile
            return found
        part = folder / f".{_key(url)[:16]}.part"
        name = _download(start, part, told, net)
        return _keep(url, part, folder, name, _sha256(part, told))


@contextlib.contextmanager
def _alone(folder: Path, told) -> Iterator[None]:
    """While nobody else, such as a second server, fetches into the folder."""
    lock = filelock.FileLock(folder / ".lock")
    while True:
        try:
            lock.acquire(timeout=BEAT)
            break
        except filelock.Timeout:
            told(0, 0)
    try:
        yield
    finally:
        lock.release()


def _download(start: SplitResult, part: Path, told: Callable[[int, int], None], net: Net) -> str:
    """Fill ``part`` to its end, going on as long as each try brings something; returns the file's name."""
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _once(start, part, told, net)
        except (OSError, http.client.HTTPException) as error:
            size = part.stat().st_size if part.exists() else 0
            if size > before:
                continue
            kept = f" {size / 1e6:.0f} MB of it are kept: queue again to go on from there." if size else ""
            reason = "nothing came any more" if isinstance(error, TimeoutError) else error
            raise FetchError(f"{_shown(start)} could not be fetched ({reason}).{kept}") from error


def _once(start: SplitResult, part: Path, told: Callable[[int, int], None], net: Net) -> str:
    have, version, name = _begun(part)
    if have >= 8 and have == _total(part, start):  # cancelled at the very end
        return name
    headers = {"Range": f"bytes={have}-", "If-Range": version} if have else {}
    with _answer(start, headers, told, net) as (url, response):
        if response.status == 416:  # what is here is longer than what is there
            part.unlink()
            raise FetchError(f"{_shown(start)} has changed since a part of it was fetched. Queue again to fetch it anew.")
        if response.status not in (200, 206):
            hint = " Does it ask for an account? Then download the file and put it into the loras folder." * (
                response.status in (401, 403))  # fmt: skip
            raise FetchError(f"{_shown(url)} answers with {response.status} {response.reason}.{hint}")
        if response.status == 206:
            begun = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if not have or not begun or int(begun[1]) != have:
                part.unlink(missing_ok=True)
                raise FetchError(f"{_shown(url)} answers with another part than was asked for. Queue again to fetch it anew.")
        else:
            have, name = 0, _name(start, url, response)
            part.unlink(missing_ok=True)
            _stamp(part).write_text(json.dumps([_version(response), name]), encoding="utf-8")
        length = response.length or 0  # None where it is not told
        if have + length > LARGEST:
            raise FetchError(f"{_shown(url)} has {(have + length) / 1e9:.1f} GB; the limit is {LARGEST / 1e9:.0f} GB.")
        _receive(response, part, have, url, told)
        return name


def _receive(response: http.client.HTTPResponse, part: Path, have: int, url: SplitResult, told) -> None:
    """Write the answer behind the ``have`` bytes of ``part``; the header is checked before more than it is read."""
    with part.open("r+b" if have else "wb") as out:
        out.seek(have)
        total = _total(part, url) if have >= 8 else None
        while total is None or have < total:
            needed = total or (8 if have < 8 else 8 + _header_length(part, url))
            chunk = response.read1(min(CHUNK, needed - have))
            if not chunk:
                raise http.client.IncompleteRead(b"", needed - have)
            out.write(chunk)
            out.flush()
            have += len(chunk)
            if have >= needed:
                total = total or _total(part, url)
            told(have, total or 0)
        if have > total or response.read1(1):
            out.close()
            part.unlink()
            raise FetchError(f"{_shown(url)} is longer than its header says, so it is damaged.")


def _header_length(part: Path, url: SplitResult) -> int:
    with part.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= LARGEST_HEADER:
        part.unlink()
        raise FetchError(f"{_shown(url)} is no safetensors file (often a web page: copy the address of its download button).")
    return length


def _total(part: Path, url: SplitResult) -> int | None:
    """Bytes of the whole file by its header, None while that has not come. A file that is no LoRA is not kept."""
    length = _header_length(part, url)
    with part.open("rb") as file:
        file.seek(8)
        header = file.read(length)
    if len(header) < length:
        return None
    try:
        tensors = {name: about for name, about in json.loads(header).items() if name != "__metadata__"}
        ends = [about["data_offsets"] for about in tensors.values()]
        total = 8 + length + max(end for start, end in ends if 0 <= start <= end)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        why = "is no safetensors file: its header is damaged"
    else:
        if total > LARGEST:
            why = f"has {total / 1e9:.1f} GB; the limit is {LARGEST / 1e9:.0f} GB"
        elif not any(map(MARK.search, tensors)):
            why = f"holds no LoRA, but {next(iter(tensors))} and the like"
        else:
            return total
    part.unlink()
    raise FetchError(f"{_shown(url)} {why}.")


@contextlib.contextmanager
def _answer(url: SplitResult, headers: dict, told, net: Net) -> Iterator[tuple[SplitResult, http.client.HTTPResponse]]:
    """The answer at the end of all redirects, each of which must be as acceptable as what was typed. Nothing is sent along
    but what is asked for: no cookies, no credentials, no proxy."""
    for _ in range(HOPS + 1):
        told(0, 0)
        with _connected(url, told, net) as connection:
            target = quote(url.path or "/", safe=SAFE) + (f"?{quote(url.query, safe=SAFE)}" if url.query else "")
            connection.request("GET", target, headers={"User-Agent": "PairLoRA", "Accept-Encoding": "identity", **headers})
            response = connection.getresponse()
            if response.status not in (301, 302, 303, 307, 308):
                yield url, response
                return
            if not (location := response.headers.get("Location")):
                raise FetchError(f"{_shown(url)} leads on without saying where to.")
            url = _checked(urljoin(url.geturl(), location), f"{_shown(url)} leads on to it: ")
    raise FetchError(f"{_shown(url)} leads on more than {HOPS} times.")


@contextlib.contextmanager
def _connected(url: SplitResult, told, net: Net) -> Iterator[http.client.HTTPConnection]:
    """A connection to the very address that was checked; the name is resolved once."""
    host, port = url.hostname, url.port or 443
    try:
        found = [info[4][0] for info in _waited(partial(net.resolve, host, port, type=socket.SOCK_STREAM), told)]
    except (OSError, UnicodeError) as error:
        raise FetchError(f"There is no {host} ({error}). Is there a typing error in it, or no network?") from error
    if not (allowed := [address for address in dict.fromkeys(found) if net.may_connect(address)]):
        raise FetchError(f"{host} is {', '.join(found)}, an address of this machine or its network, which is not fetched from.")
    for address in allowed:
        try:
            secure = _waited(partial(_secure, address, port, host, net), told, ssl.SSLSocket.close)
            break
        except OSError as error:
            failed = error
    else:
        raise failed
    with secure:
        connection = http.client.HTTPConnection(host, port)
        connection.default_port = 443  # some sign the Host header, which has no :443 then
        connection.sock = _Watched(secure, told)
        yield connection


def _secure(address: str, port: int, host: str, net: Net) -> ssl.SSLSocket:
    plain = socket.create_connection((address, port), timeout=PATIENCE / 3)
    try:
        return net.context().wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def _waited(work: Callable, told, left: Callable = lambda result: None):
    """What ``work`` returns or raises. Neither a lookup nor a handshake can be broken off: when the user cancels, its
    thread is left behind, and what it still comes to goes to ``left``."""
    done = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="pairlora-connecting", daemon=True).start()
    try:
        while not concurrent.futures.wait([done], BEAT).done:
            told(0, 0)
    except BaseException:
        done.add_done_callback(lambda done: done.exception() or left(done.result()))
        raise
    return done.result()


class _Watched(io.RawIOBase):
    """A socket, to http.client, that looks while it waits whether the user has cancelled."""

    def __init__(self, secure: ssl.SSLSocket, told):
        self.secure, self.told = secure, told
        secure.settimeout(BEAT)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        for _ in range(int(PATIENCE / BEAT)):
            try:
                return self.secure.recv_into(buffer)
            except TimeoutError:
                self.told(0, 0)
        raise TimeoutError

    def sendall(self, data: bytes) -> None:
        self.secure.settimeout(PATIENCE)
        self.secure.sendall(data)
        self.secure.settimeout(BEAT)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        """Nothing: http.client closes before it has read all; whoever opened the socket closes it."""


def _checked(url: str, before: str = "") -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError as error:
        raise FetchError(f"{before}That is no address: {error}.") from error
    if parts.scheme.lower() != "https":
        raise FetchError(f"{before}{_shown(parts)} does not begin with https://, so nobody vouches for what comes from there.")
    if parts.username is not None or parts.password is not None:
        raise FetchError(f"{before}The address of {parts.hostname} holds a user's name or password. Take it out of there.")
    if not parts.hostname:
        raise FetchError(f"{before}{_shown(parts)} names no server.")
    return parts._replace(fragment="")


def _shown(url: SplitResult) -> str:
    """The address without what may be secret in it."""
    return f"{url.scheme}://{url.hostname}{f':{url.port}' if url.port else ''}{url.path}"


def _key(url: str) -> str:
    """What an address is called on disk, where its query, perhaps a key to an account, has no business."""
    return hashlib.sha256(url.strip().encode(errors="surrogatepass")).hexdigest()


def _version(response: http.client.HTTPResponse) -> str:
    """By what the other side knows whether it still has the same; "" where it cannot tell."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _stamp(part: Path) -> Path:
    return part.with_suffix(".stamp")


def _begun(part: Path) -> tuple[int, str, str]:
    """The bytes to go on from, the other side's word for their version, and the file's name; 0 where it gave no such word."""
    try:
        size, (version, name) = part.stat().st_size, json.loads(_stamp(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0, "", ""
    return (size, version, name) if size and version else (0, "", "")


def _name(start: SplitResult, url: SplitResult, response: http.client.HTTPResponse) -> str:
    """What the file is called, by the answer or else by the address, without its suffix."""
    name = response.headers.get_filename() or PurePosixPath(unquote(start.path)).name or url.hostname
    return names.folder_name(re.sub(r"\.safetensors$", "", PurePosixPath(name.replace("\\", "/")).name, flags=re.IGNORECASE))


def _sha256(file: Path, told) -> str:
    digest, size = hashlib.sha256(), file.stat().st_size
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK * 8):
            digest.update(chunk)
            told(size, size)
    return digest.hexdigest()


def _keep(url: str, part: Path, folder: Path, name: str, sha256: str) -> Fetched:
    """Give the whole file its name, and note where it came from; the same content from elsewhere is kept once."""
    index = _index(folder)
    same = (folder / entry["file"] for entry in index.values() if entry["sha256"] == sha256)
    file = next((file for file in same if file.is_file() and file.stat().st_size == part.stat().st_size),
                folder / f"{name}-{sha256[:12]}.safetensors")  # fmt: skip
    os.replace(part, file)
    _stamp(part).unlink(missing_ok=True)
    index[_key(url)] = {"file": file.name, "sha256": sha256, "from": _shown(urlsplit(url.strip()))}
    new = folder / f".{INDEX}.new"
    new.write_text(json.dumps(index, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(new, folder / INDEX)
    return Fetched(file, sha256, new=True)


def _index(folder: Path) -> dict[str, dict]:
    """By the key of each address its file and sha256; empty where the index is missing or damaged."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return {key: {"file": PurePosixPath(entry["file"]).name, "sha256": str(entry["sha256"]), "from": entry.get("from", "")}
                for key, entry in index.items()}  # fmt: skip
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
