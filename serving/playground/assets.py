"""The page's files, read once: bodies, packed bodies, and the headers that go with them.

Nothing on the page comes from elsewhere, and its policy forbids that anything ever does: no script, style, font or
picture of another origin, no script in the HTML, no request to another server. Files are few and small, so they are
kept in memory and asked for by ETag every time: a new version of the package is seen at the next reload of the page.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).with_name("page")
START = "index.html"

CONTENT_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

HEADERS: Mapping[str, str] = {
    "cache-control": "no-cache",  # keep it, and ask whether it still holds
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "vary": "accept-encoding",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page."""

    content_type: str
    body: bytes
    packed: bytes  # gzip
    digest: str

    def etag(self, *, packed: bool) -> str:
        """Two encodings are two representations: each has its own tag."""
        return f'"{self.digest}{"-gzip" if packed else ""}"'


def read_assets(directory: Path = PAGE) -> dict[str, Asset]:
    """Every file of the page by its name.

    Raises:
        KeyError: a file of a kind that :data:`CONTENT_TYPES` does not know.
    """
    assets = {}
    for path in sorted(directory.iterdir()):
        body = path.read_bytes()
        assets[path.name] = Asset(
            content_type=CONTENT_TYPES[path.suffix],
            body=body,
            packed=gzip.compress(body, mtime=0),  # the same bytes whenever they are packed
            digest=hashlib.sha256(body).hexdigest()[:20],
        )
    return assets
