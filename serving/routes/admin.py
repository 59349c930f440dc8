"""``POST /v1/admin/reload``. It takes a JSON body, so that no web page can make a browser send it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from serving import response_schemas as schemas
from serving.engine import Engine
from serving.json_body import StrictJsonRoute
from serving.live_bundle import LiveBundle
from serving.logs import logger
from serving.openapi import documented
from serving.replies import reply
from serving.request_schemas import ReloadRequest

router = APIRouter(tags=["operations"], route_class=StrictJsonRoute)


@router.post(
    "/v1/admin/reload",
    response_model=schemas.ReloadResponse,
    responses=documented(
        "invalid_json",
        "json_too_deep",
        "missing_field",
        "unknown_field",
        "invalid_value",
        "admin_only",
        "body_timeout",
        "reload_in_progress",
        "body_too_large",
        "unsupported_media_type",
        "bundle_refused",
        "internal_error",
        "not_ready",
    ),
    operation_id="reload",
    summary="Serve what is in the bundle's directory now",
)
async def reload(body: ReloadRequest, request: Request) -> Response:
    """Loads and warms the bundle beside the old one, then swaps. Where that fails, the old one goes on answering."""
    engine: Engine = request.app.state.engine
    previous = engine.live.model
    live: LiveBundle = await request.app.state.reload(body.verify)
    logger.info("reloaded", extra={"facts": {"model": live.model, "previous": previous}})
    return reply(
        schemas.ReloadResponse(object="reload", model=live.model, previous=previous, catalog=live.catalog)
    )
