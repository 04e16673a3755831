"""A file over https, and over nothing else: a redirect that leads elsewhere is refused.

Owns a thread for the time of a download. Bounded in size and in the time that passes without a byte; what came is
for the caller to verify.
"""

import asyncio
import http.client
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path

from banger.base.problem import Problem, unavailable

_SILENCE_S = 30.0
_SIZE_MAX_BYTES = 256 * 1024 * 1024
_CHUNK = 256 * 1024


async def fetch_https(url: str, target: Path, *, trust: ssl.SSLContext | None = None) -> None:
    """Writes the file. Raises `unavailable` when it cannot be had; a caller that is cancelled waits for no byte."""
    abandoned = threading.Event()
    try:
        await asyncio.to_thread(_fetch, url, target, trust, abandoned)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise unavailable(f"{url} cannot be fetched: {reason}") from error
    finally:
        abandoned.set()


def _fetch(url: str, target: Path, trust: ssl.SSLContext | None, abandoned: threading.Event) -> None:
    with _open(url, trust) as response, target.open("wb") as file:
        size = 0
        while chunk := response.read(_CHUNK):
            size += len(chunk)
            if abandoned.is_set():
                return
            if size > _SIZE_MAX_BYTES:
                raise _too_large(url)
            file.write(chunk)


def _open(url: str, trust: ssl.SSLContext | None) -> http.client.HTTPResponse:
    """By handlers for https alone: any other scheme, of the address or of a redirect, is unknown to them."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(context=trust or ssl.create_default_context()),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    response = opener.open(url, timeout=_SILENCE_S)
    assert isinstance(response, http.client.HTTPResponse), url
    return response


def _too_large(url: str) -> Problem:
    return unavailable(f"{url} is larger than {_SIZE_MAX_BYTES >> 20} MiB")
