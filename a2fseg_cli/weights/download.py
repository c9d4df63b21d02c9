"""HTTP downloads that cannot run away: bounded in size, with timeouts, and no way off https unasked.

The only module that uses the network. Proxies, CA bundles and `.netrc` are read from the environment by requests,
which pooch downloads with.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from urllib.parse import urljoin

from a2fseg_cli.errors import A2FSegError, WeightsError
from a2fseg_cli.weights.manifest import MAX_MANIFEST_BYTES, Manifest, check_url, parse_manifest
from a2fseg_cli.weights.strict_json import printable

TIMEOUT_S = 30.0
_CHUNK_BYTES = 2**16


class DownloadFailed(Exception):
    """One URL did not deliver; the message says why in a few words. Another URL may."""


class _Sink:
    """The file-like object that pooch writes to: passes pieces on and stops at the limit."""

    def __init__(self, write: Callable[[bytes], object], limit_bytes: int) -> None:
        self._write = write
        self._left = limit_bytes
        self._limit = limit_bytes

    def write(self, chunk: bytes) -> None:
        self._left -= len(chunk)
        if self._left < 0:
            raise DownloadFailed(f"sends more than the expected {self._limit} bytes")
        self._write(chunk)

    def flush(self) -> None:
        """Nothing is held back."""


def refuse_when_offline(wanted: str) -> None:
    """Raise WeightsError if `A2FSEG_OFFLINE` is set (to anything but 0)."""
    if os.environ.get("A2FSEG_OFFLINE", "0") not in ("", "0"):
        raise WeightsError(f"{wanted}: not requested, because A2FSEG_OFFLINE is set. Unset it, or import a file.")


def download(
    url: str,
    write: Callable[[bytes], object],
    *,
    limit_bytes: int,
    timeout_s: float = TIMEOUT_S,
    insecure: bool = False,
) -> None:
    """Pass the body of a URL to `write`, piece by piece.

    Args:
        url: https, or http if `insecure`.
        write: Takes each piece. What it raises, if an A2FSegError, comes through.
        limit_bytes: Where to cut off a server that sends more.
        timeout_s: Longest silence of the server, seconds.
        insecure: Whether http is acceptable, at first or after a redirect.

    Raises:
        DownloadFailed: Refused URL or redirect, no connection, an HTTP error, a timeout, a broken or endless body.
    """
    import pooch
    import requests
    import urllib3

    responses: list[requests.Response] = []

    def check_response(response: requests.Response, **_: object) -> None:
        responses.append(response)
        if response.is_redirect:
            check_url(urljoin(response.url, response.headers["location"]), insecure=insecure)

    downloader = pooch.HTTPDownloader(
        chunk_size=_CHUNK_BYTES,
        timeout=timeout_s,
        hooks={"response": check_response},
        headers={"Accept-Encoding": "identity"},
    )
    try:
        check_url(url, insecure=insecure)
        downloader(url, _Sink(write, limit_bytes), None)
    except (A2FSegError, DownloadFailed):
        raise
    except requests.HTTPError as error:
        raise DownloadFailed(f"HTTP status {responses[-1].status_code}") from error
    except requests.exceptions.SSLError as error:
        raise DownloadFailed("TLS certificate not accepted (REQUESTS_CA_BUNDLE can name your own CA)") from error
    except requests.exceptions.ProxyError as error:
        raise DownloadFailed("the proxy (HTTPS_PROXY, HTTP_PROXY) cannot be used") from error
    except (requests.Timeout, requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise DownloadFailed(_connection_problem(error, timeout_s)) from error
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        raise DownloadFailed(printable(str(error))) from error
    finally:
        for response in responses:
            response.close()


def fetch_manifest(url: str, *, insecure: bool = False, timeout_s: float = TIMEOUT_S) -> Manifest:
    """Return the manifest at a URL. Raises: WeightsError."""
    refuse_when_offline(url)
    body = bytearray()
    try:
        download(url, body.extend, limit_bytes=MAX_MANIFEST_BYTES, timeout_s=timeout_s, insecure=insecure)
    except DownloadFailed as error:
        raise WeightsError(f"{printable(url)}: the manifest could not be read: {error}.") from error
    return parse_manifest(bytes(body), url, insecure=insecure)


def _connection_problem(error: Exception, timeout_s: float) -> str:
    text = str(error).lower()
    if "timed out" in text:
        return f"no answer for {timeout_s:g} s"
    if "incompleteread" in text or "connection broken" in text or "aborted" in text:
        return "the connection broke off"
    if "resolve" in text:
        return "the host's name is not known"
    return "no connection"
