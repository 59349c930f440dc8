"""``GET /`` and ``/playground/{name}``: the page, from memory. Not part of the described API."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from serving.errors import ApiError
from serving.playground.assets import HEADERS, START, Asset, read_assets


def playground_router() -> APIRouter:
    """The page's routes; its files are read now."""
    assets = read_assets()
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        return _answer(assets[START], request)

    @router.api_route("/playground/{name}", methods=["GET", "HEAD"])
    async def file(name: str, request: Request) -> Response:
        if name not in assets:
            raise ApiError("route_not_found", f"no route {request.url.path[:200]!r}")
        return _answer(assets[name], request)

    return router


def _answer(asset: Asset, request: Request) -> Response:
    packed = "gzip" in request.headers.get("accept-encoding", "")
    headers = {**HEADERS, "etag": asset.etag(packed=packed)}
    known = request.headers.get("if-none-match", "")
    if headers["etag"] in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Response(status_code=304, headers=headers)
    if packed:
        headers["content-encoding"] = "gzip"
    return Response(asset.packed if packed else asset.body, headers=headers, media_type=asset.content_type)
