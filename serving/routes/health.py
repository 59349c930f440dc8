"""``/v2/health/live`` and ``/v2/health/ready`` (the Open Inference Protocol's paths), and ``/metrics``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from serving import response_schemas as schemas
from serving.engine import Engine
from serving.errors import NotReady
from serving.metrics import CONTENT_TYPE
from serving.openapi import documented
from serving.replies import reply

router = APIRouter(tags=["operations"])


@router.get(
    "/v2/health/live",
    response_model=schemas.LiveResponse,
    responses=documented(),
    operation_id="live",
    summary="Whether the process answers",
)
async def live() -> Response:
    """Restart the process where this fails."""
    return reply(schemas.LiveResponse(live=True))


@router.get(
    "/v2/health/ready",
    response_model=schemas.ReadyResponse,
    responses=documented("not_ready"),
    operation_id="ready",
    summary="Whether recommendations are answered",
)
async def ready(request: Request) -> Response:
    """Send no traffic where this fails."""
    engine: Engine = request.app.state.engine
    if not engine.ready:
        raise NotReady("no model answers: the server is starting or stopping")
    if engine.hangs:
        raise NotReady("no model answers: a search has been at one step for too long; restart the process")
    return reply(schemas.ReadyResponse(ready=True))


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
    operation_id="metrics",
    summary="Metrics for Prometheus",
)
async def metrics(request: Request) -> Response:
    """Requests, phases, queue, batches, sheds, reloads, model."""
    engine: Engine = request.app.state.engine
    return Response(engine.metrics.text(), headers={"content-type": CONTENT_TYPE})
