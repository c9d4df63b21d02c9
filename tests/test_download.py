"""Downloads against a real server on the loopback interface: what arrives, what is refused, what is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from a2fseg_cli.cli.download_weights import download_weights
from a2fseg_cli.cli.needs import Command
from a2fseg_cli.errors import A2FSegError, ResourceError, UsageError, WeightsError
from a2fseg_cli.weights.cache import cached_path, fetch, import_file, resolve_weights, verify
from a2fseg_cli.weights.download import fetch_manifest
from a2fseg_cli.weights.folders import bundled_weights_folder, cache_folder
from a2fseg_cli.weights.manifest import (
    Manifest,
    ManifestEntry,
    entry_fields,
    manifest_entry_for,
    parse_manifest,
    write_manifest,
)
from a2fseg_cli.weights.registry import check_own_name, known_weights

CONTENT = bytes(range(256)) * 1200  # 307,200 bytes: several pieces of a download
SHA256 = hashlib.sha256(CONTENT).hexdigest()

Behaviour = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A loopback server: `pages` says what a path does, `requests` what was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, Behaviour] = {"/good": self.send(CONTENT)}
        self.requests: list[str] = []
        self.half_sent = threading.Event()
        self.release = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                behaviour = server.pages.get(self.path, lambda handler: handler.send_error(404))
                try:
                    behaviour(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.http.server_port}{path}"

    def close(self) -> None:
        self.release.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def send(self, body: bytes, announced: int | None = None) -> Behaviour:
        def behaviour(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body) if announced is None else announced))
            handler.end_headers()
            handler.wfile.write(body)

        return behaviour

    def half_then_wait(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(CONTENT[: len(CONTENT) // 2], len(CONTENT))(handler)
        handler.wfile.flush()
        self.half_sent.set()
        self.release.wait(20)

    def in_two_halves(self, handler: BaseHTTPRequestHandler) -> None:
        """Send the rest only once two clients have their first half."""
        half = len(CONTENT) // 2
        self.send(CONTENT[:half], len(CONTENT))(handler)
        handler.wfile.flush()
        deadline = time.monotonic() + 10
        while self.requests.count(handler.path) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        handler.wfile.write(CONTENT[half:])

    @staticmethod
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(2**16))

    @staticmethod
    def redirect(location: str) -> Behaviour:
        def behaviour(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(302)
            handler.send_header("Location", location)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        return behaviour


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for every test, and no proxy or setting of this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("A2FSEG_OFFLINE", raising=False)
    monkeypatch.setenv("A2FSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def entry_at(*urls: str) -> ManifestEntry:
    return ManifestEntry(
        name="tiny",
        file="tiny.safetensors",
        sha256=SHA256,
        size_bytes=len(CONTENT),
        licence="CC-BY-4.0",
        description="Test bytes",
        urls=urls,
    )


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def get(entry: ManifestEntry, **options: Any) -> Path:
    return fetch(entry, insecure=True, timeout_s=5, **options)


def test_a_download_arrives_once(server: Server, home: Path) -> None:
    entry = entry_at(server.url("/good"))
    progress: list[int] = []
    path = get(entry, progress=progress.append)
    assert path.read_bytes() == CONTENT
    assert path == cached_path(entry) == home / "weights" / f"{SHA256[:12]}-tiny.safetensors"
    assert progress == sorted(progress)
    assert progress[-1] == len(CONTENT)
    assert get(entry) == verify(entry) == path
    assert server.requests == ["/good"]
    assert files_in(home) == [path.name]


def test_a_damaged_cached_file_is_replaced(server: Server) -> None:
    entry = entry_at(server.url("/good"))
    path = get(entry)
    path.write_bytes(CONTENT[:-1] + b"\0")
    with pytest.raises(WeightsError, match=r"damaged.*Run `a2fseg download-weights tiny`"):
        verify(entry)
    assert get(entry).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("wrong", f"wrong content: sha256 {hashlib.sha256(bytes(len(CONTENT))).hexdigest()}, expected {SHA256}"),
        ("short", "ends after 1000 of 307200 bytes"),
        ("missing", "HTTP status 404"),
        ("cut", "the connection broke off"),
        ("endless", "sends more than the expected 307200 bytes"),
        ("long", "sends more than the expected 307200 bytes"),
        ("loop", "30 redirects"),
        ("to-file", "expected https, found file"),
        ("to-ftp", "expected https, found ftp"),
    ],
)
def test_a_bad_mirror_leaves_nothing_and_the_next_one_is_asked(
    server: Server, home: Path, page: str, reason: str
) -> None:
    server.pages |= {
        "/wrong": server.send(bytes(len(CONTENT))),
        "/short": server.send(CONTENT[:1000]),
        "/cut": server.send(CONTENT[:100_000], len(CONTENT)),
        "/endless": server.endless,
        "/long": server.send(CONTENT + b"\0"),
        "/loop": server.redirect("/loop"),
        "/to-file": server.redirect("file:///etc/hostname"),
        "/to-ftp": server.redirect("ftp://127.0.0.1/x"),
    }
    with pytest.raises(WeightsError, match=reason) as caught:
        get(entry_at(server.url(f"/{page}")))
    assert "import it by `a2fseg download-weights tiny` from the file" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
    assert files_in(home) == []
    assert get(entry_at(server.url(f"/{page}"), server.url("/good"))).read_bytes() == CONTENT
    assert server.requests[-1] == "/good"


def test_a_silent_server_is_given_up(server: Server, home: Path) -> None:
    server.pages["/slow"] = server.half_then_wait
    start_s = time.monotonic()
    with pytest.raises(WeightsError, match=r"no answer for 0\.3 s"):
        fetch(entry_at(server.url("/slow")), insecure=True, timeout_s=0.3)
    assert time.monotonic() - start_s < 5
    assert files_in(home) == []


def test_nobody_listens(server: Server) -> None:
    url = server.url("/good")
    server.close()
    with pytest.raises(WeightsError, match="no connection"):
        get(entry_at(url))


def test_every_mirrors_reason_is_told(server: Server) -> None:
    with pytest.raises(WeightsError, match=r"/a: HTTP status 404; .*/b: HTTP status 404"):
        get(entry_at(server.url("/a"), server.url("/b")))
    with pytest.raises(WeightsError, match="the manifest has no URL for it"):
        get(entry_at())


def test_http_is_not_used_unasked(server: Server) -> None:
    with pytest.raises(WeightsError, match="http is not encrypted"):
        fetch(entry_at(server.url("/good")))
    assert server.requests == []


def test_redirects_over_http_are_followed_on_request(server: Server) -> None:
    server.pages["/moved"] = server.redirect("/good")
    assert get(entry_at(server.url("/moved"))).read_bytes() == CONTENT


@pytest.mark.parametrize(("value", "is_offline"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_offline_makes_no_request(
    server: Server, monkeypatch: pytest.MonkeyPatch, value: str, is_offline: bool
) -> None:
    monkeypatch.setenv("A2FSEG_OFFLINE", value)
    entry = entry_at(server.url("/good"))
    if not is_offline:
        assert get(entry).is_file()
        return
    with pytest.raises(WeightsError, match="tiny: not requested, because A2FSEG_OFFLINE is set"):
        get(entry)
    with pytest.raises(WeightsError, match="not requested"):
        fetch_manifest(server.url("/manifest"), insecure=True)
    assert server.requests == []


def test_offline_what_is_here_is_still_found(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    path = get(entry_at(server.url("/good")))
    monkeypatch.setenv("A2FSEG_OFFLINE", "1")
    assert get(entry_at(server.url("/good"))) == path


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("A2FSEG_HOME", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match=r"cannot be written.*A2FSEG_HOME names another folder"):
        get(entry_at(server.url("/good")))
    assert server.requests == []


def test_a_disk_that_fills_up(server: Server, home: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ResourceError, match="cannot be written"):
            get(entry_at(server.url("/good"), server.url("/good")))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert files_in(home) == []
    assert server.requests == ["/good"]


FETCH = """
import json, sys
from a2fseg_cli.weights.cache import fetch
from a2fseg_cli.weights.manifest import ManifestEntry
fields = json.loads(sys.argv[1])
print(fetch(ManifestEntry(**fields | {"urls": tuple(fields["urls"])}), insecure=True))
"""


def start_fetch(entry: ManifestEntry) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, json.dumps(entry_fields(entry))]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )


def test_two_processes_at_once(server: Server, home: Path) -> None:
    server.pages["/both"] = server.in_two_halves
    entry = entry_at(server.url("/both"))
    processes = [start_fetch(entry) for _ in range(2)]
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert set(outputs) == {f"{cached_path(entry)}\n"}
    assert server.requests == ["/both", "/both"]
    assert verify(entry).read_bytes() == CONTENT
    assert files_in(home) == [cached_path(entry).name]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_download_leaves_nothing_that_looks_finished(
    server: Server, home: Path, how: signal.Signals
) -> None:
    server.pages["/slow"] = server.half_then_wait
    entry = entry_at(server.url("/slow"))
    process = start_fetch(entry)
    assert server.half_sent.wait(20)
    deadline = time.monotonic() + 10
    while not files_in(home) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    process.communicate(timeout=20)
    assert process.returncode != 0
    left = files_in(home)
    assert len(left) == (1 if how == signal.SIGKILL else 0)
    assert all(name.endswith(".part") for name in left)
    with pytest.raises(WeightsError, match="not on this machine"):
        verify(entry)
    server.release.set()
    assert get(entry_at(server.url("/good"))).read_bytes() == CONTENT


def test_remains_of_killed_downloads_go_after_a_day(server: Server, home: Path) -> None:
    folder = home / "weights"
    folder.mkdir(parents=True)
    for name, age_s in (("old", 25 * 3600), ("new", 23 * 3600)):
        part = folder / f".{name}.part"
        part.touch()
        os.utime(part, (time.time() - age_s,) * 2)
    path = get(entry_at(server.url("/good")))
    assert files_in(home) == [".new.part", path.name]


def test_a_proxy_from_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url(""))
    url = "http://weights.invalid/tiny.safetensors"
    server.pages[url] = server.send(CONTENT)
    assert get(entry_at(url)).read_bytes() == CONTENT
    assert server.requests == [url]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not here")
def test_https_with_a_ca_bundle_of_ones_own(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", *options, *subject, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    tls = Server()
    tls.http.socket = context.wrap_socket(tls.http.socket, server_side=True, do_handshake_on_connect=False)
    tls.pages["/to-http"] = tls.redirect(server.url("/good"))
    try:
        entry = entry_at(tls.url("/good", "https"))
        with pytest.raises(WeightsError, match="TLS certificate not accepted"):
            fetch(entry, timeout_s=5)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with pytest.raises(WeightsError, match="http is not encrypted"):
            fetch(entry_at(tls.url("/to-http", "https")), timeout_s=5)
        assert server.requests == []
        assert fetch(entry, timeout_s=5).read_bytes() == CONTENT
    finally:
        tls.close()


def test_import_of_a_file(tmp_path: Path, home: Path) -> None:
    entry, file = entry_at(), tmp_path / "by-post.bin"
    file.write_bytes(CONTENT[:-1] + b"\0")
    with pytest.raises(WeightsError, match=f"not tiny: sha256 is [0-9a-f]{{64}}, expected {SHA256}"):
        import_file(file, entry)
    assert files_in(home) == []
    file.write_bytes(CONTENT)
    assert import_file(file, entry) == verify(entry) == cached_path(entry)
    assert verify(entry).read_bytes() == CONTENT


def test_resolve(tmp_path: Path, server: Server) -> None:
    entry = entry_at(server.url("/good"))
    manifest = Manifest((entry,), "m.json")
    own = tmp_path / "own.safetensors"
    own.write_bytes(b"own")
    assert resolve_weights(own, manifest) == resolve_weights(str(own), manifest) == own
    for name in ("tiny", None):
        with pytest.raises(WeightsError, match=r"not on this machine\. Run `a2fseg download-weights tiny`"):
            resolve_weights(name, manifest)
    with pytest.raises(WeightsError, match="'large': no weights of this name"):
        resolve_weights("large", manifest)
    for missing in (tmp_path / "none", "runs/none", "none.safetensors"):
        with pytest.raises(WeightsError, match="no such weights file"):
            resolve_weights(missing, manifest)
    assert server.requests == []
    path = get(entry)
    assert resolve_weights("tiny", manifest) == resolve_weights(None, manifest) == path


def test_a_bundled_file_is_never_downloaded(server: Server) -> None:
    entry = replace(entry_at(server.url("/good")), bundled=True, file="not-there.safetensors")
    with pytest.raises(WeightsError, match=r"bundled file not-there\.safetensors is missing. Install a2fseg again"):
        get(entry)
    assert server.requests == []


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("A2FSEG_HOME", "~/here")
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("A2FSEG_HOME")
    assert tmp_path in cache_folder().parents
    assert cache_folder().name == "a2fseg"


def test_a_manifest_over_http(server: Server) -> None:
    table = {"version": 1, "weights": [entry_fields(entry_at())]}
    server.pages |= {
        "/run/m.json": server.send(json.dumps(table).encode()),
        "/run/tiny.safetensors": server.send(CONTENT),
        "/endless": server.endless,
        "/page": server.send(b"<html>"),
    }
    manifest = fetch_manifest(server.url("/run/m.json"), insecure=True)
    assert get(manifest.entries[0]).read_bytes() == CONTENT
    for page, message in (("/endless", "more than the expected"), ("/page", "not a manifest"), ("/none", "status 404")):
        with pytest.raises(WeightsError, match=message):
            fetch_manifest(server.url(page), insecure=True)


# The command. `main` maps the errors to one line and an exit code; here they are seen as they are raised.
app = typer.Typer()
app.command("download-weights", cls=Command)(download_weights)


def command(*arguments: str) -> tuple[str, str]:
    result = CliRunner().invoke(app, list(arguments), prog_name="download-weights")
    if result.exception is not None:
        raise result.exception
    return result.stdout, result.stderr


@pytest.fixture
def manifest_file(server: Server, tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    weights = tmp_path / "run" / "tiny.safetensors"
    weights.write_bytes(CONTENT)
    entries = [
        manifest_entry_for(weights, name="small", licence="CC0-1.0", description="First", urls=[server.url("/good")]),
        manifest_entry_for(weights, name="lost", licence="CC0-1.0", description="Gone", urls=[server.url("/none")]),
    ]
    entries[1]["sha256"] = "0" * 64
    write_manifest(tmp_path / "run" / "m.json", entries)
    return tmp_path / "run" / "m.json"


def test_command_list_download_verify(server: Server, manifest_file: Path) -> None:
    options = ("--manifest", str(manifest_file), "--allow-http")
    stdout, _ = command("--list", *options)
    assert stdout.splitlines()[:6] == [
        "small: First",
        "  size           0.3 MB",
        "  licence        CC0-1.0",
        f"  sha256         {SHA256}",
        "  not downloaded",
        f"  URL            {server.url('/good')}",
    ]
    assert server.requests == []

    path = str(cached_path(parse_manifest(manifest_file.read_bytes(), "m", insecure=True).entry("small")))
    stdout, stderr = command("small", *options)
    assert stdout == f"small: downloaded: {path}\n"
    assert stderr.splitlines()[-1] == "small: 0.3 MB of 0.3 MB"
    assert command("small", *options) == (f"small: already here: {path}\n", "")
    assert server.requests == ["/good"]
    assert command("--verify", *options)[0] == f"small: intact: {path}\nlost: not downloaded\n"
    assert f"  downloaded     {path}\n" in command("--list", "small", *options)[0]
    with pytest.raises(WeightsError, match="lost: these weights are not on this machine"):
        command("lost", "--verify", *options)


def test_command_quiet_and_json(manifest_file: Path) -> None:
    options = ("small", "--manifest", str(manifest_file), "--allow-http", "--json")
    stdout, stderr = command("--quiet", *options)
    (row,) = json.loads(stdout)
    assert (row["name"], row["state"], row["sha256"], row["size_bytes"]) == ("small", "downloaded", SHA256, 307200)
    assert Path(row["path"]).read_bytes() == CONTENT
    assert stderr == ""
    assert json.loads(command("--list", *options)[0])[0]["path"] == row["path"]


def test_command_all_goes_on_after_a_failure(server: Server, manifest_file: Path) -> None:
    table = json.loads(manifest_file.read_text())
    table["weights"].reverse()
    manifest_file.write_text(json.dumps(table))
    result = CliRunner().invoke(app, ["--all", "--manifest", str(manifest_file), "--allow-http", "--quiet"])
    assert isinstance(result.exception, WeightsError)
    assert "lost: not downloaded" in str(result.exception)
    assert result.stdout.startswith("small: downloaded: ")
    assert server.requests == ["/none", "/good"]


def test_command_from_file_finds_the_name_by_its_sha256(server: Server, manifest_file: Path, home: Path) -> None:
    options = ("--manifest", str(manifest_file), "--allow-http", "--from-file")
    assert command(*options, str(manifest_file.with_name("tiny.safetensors")))[0].startswith("small: imported: ")
    assert len([path for path in files_in(home) if str(path).endswith(".safetensors")]) == 1
    with pytest.raises(WeightsError, match=r"no weights in .* have its sha256"):
        command(*options, str(manifest_file))
    with pytest.raises(WeightsError, match="not lost: sha256 is"):
        command("lost", *options, str(manifest_file.with_name("tiny.safetensors")))
    assert server.requests == []


def test_command_manifest_at_a_url(server: Server, manifest_file: Path) -> None:
    server.pages["/m.json"] = server.send(manifest_file.read_bytes())
    with pytest.raises(WeightsError, match="http is not encrypted"):
        command("--list", "--manifest", server.url("/m.json"))
    assert server.requests == []
    assert "small: First" in command("--list", "--allow-http", "--manifest", server.url("/m.json"))[0]
    with pytest.raises(WeightsError, match="expected https, found file"):
        command("--list", "--manifest", manifest_file.as_uri())


def test_command_bundled_weights_need_no_download(tmp_path: Path) -> None:
    bundled = sorted(bundled_weights_folder().glob("*.safetensors"))
    if not bundled:
        pytest.skip("no weights are bundled yet")
    entry = manifest_entry_for(bundled[0], name="ours", licence="x", description="x", bundled=True, default=True)
    write_manifest(tmp_path / "m.json", [entry])
    stdout, _ = command("--manifest", str(tmp_path / "m.json"))
    assert stdout == f"ours: bundled, nothing to download: {bundled[0]}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--list", "--verify"),
        ("--list", "--from-file", "x"),
        ("--verify", "--from-file", "x"),
        ("small", "--all"),
        ("--all", "--from-file", "x"),
    ],
)
def test_command_options_that_exclude_each_other(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        command(*arguments)


def test_command_without_any_weights(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.json", [])
    assert command("--list", "--manifest", str(tmp_path / "m.json")) == ("", "The manifest lists no weights.\n")
    with pytest.raises(A2FSegError, match="no default weights"):
        command("--manifest", str(tmp_path / "m.json"))


def test_the_command_module_imports_nothing_heavy() -> None:
    code = (
        "import sys, a2fseg_cli.cli.download_weights; "
        "assert not {'torch', 'pooch', 'requests', 'safetensors', 'SimpleITK', 'rich.progress'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_weights_of_another_manifest_are_listed_and_found_by_their_name(manifest_file: Path, home: Path) -> None:
    command("small", "--manifest", str(manifest_file), "--allow-http", "--quiet")
    assert "small: First" in command("--list")[0]
    assert resolve_weights("small").read_bytes() == CONTENT
    assert command("small", "--verify")[0].startswith("small: intact: ")
    assert [entry.name for entry in known_weights().entries] == ["tiny", "small"]
    (home / "weights" / "known" / "small.json").write_text("not a manifest")
    assert [entry.name for entry in known_weights().entries] == ["tiny"]


def test_a_bundled_name_cannot_be_downloaded_over_or_published(server: Server, manifest_file: Path) -> None:
    table = json.loads(manifest_file.read_text())
    table["weights"][0]["name"] = "tiny"
    manifest_file.write_text(json.dumps(table))
    with pytest.raises(WeightsError, match="weights that come with a2fseg"):
        command("tiny", "--manifest", str(manifest_file), "--allow-http")
    assert server.requests == []
    with pytest.raises(WeightsError, match="Give yours another"):
        check_own_name("tiny")
    check_own_name("mine")
