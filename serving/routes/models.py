"""``GET /v1/models``: what answers, and what a request may ask of it."""

from __future__ import annotations

import polars as pl
from fastapi import APIRouter, Request, Response
from polars.datatypes import DataType

from genrec.tasks import QueryDefaults, TaskDefaults
from serving import response_schemas as schemas
from serving.engine import Engine
from serving.openapi import documented
from serving.replies import reply
from serving.settings import Settings

router = APIRouter(tags=["models"])
_TYPES: tuple[tuple[DataType, str], ...] = (
    (pl.Int64(), "integer"),
    (pl.Float64(), "number"),
    (pl.String(), "string"),
    (pl.Boolean(), "boolean"),
    (pl.List(pl.String()), "list of strings"),
)


@router.get(
    "/v1/models",
    response_model=schemas.ModelListResponse,
    responses=documented(),
    operation_id="list_models",
    summary="The model, its catalog and its limits",
)
async def list_models(request: Request) -> Response:
    """A server has one model; the fields are those that filters, caps and return_fields may name."""
    engine: Engine = request.app.state.engine
    settings: Settings = request.app.state.settings
    live = engine.live
    recommender = live.recommender
    catalog = recommender.index.catalog
    info = schemas.ModelInfo.model_construct(
        id=live.model,
        object="model",
        created=int(live.loaded),
        catalog=live.catalog,
        items=len(catalog) - len(recommender.index.removed),
        modes=list(live.modes),
        defaults=[_mode_info(name, mode.defaults) for name, mode in recommender.modes.items()],
        normalize=recommender.defaults.normalize,
        beam=recommender.defaults.beam,
        fields=[
            schemas.CatalogField.model_construct(name=name, type=_type_of(catalog.frame.schema[name]))
            for name in catalog.field_names
        ],
        limits=schemas.ModelLimits(
            num_results=settings.max_results,
            beam=settings.max_beam,
            history=settings.max_history,
            max_expansions=settings.max_expansions,
            timeout_ms=settings.max_timeout_ms,
        ),
    )
    return reply(schemas.ModelListResponse.model_construct(object="list", data=[info]))


def _mode_info(name: str, defaults: TaskDefaults) -> schemas.ModeInfo:
    return schemas.ModeInfo.model_construct(
        mode=name,
        normalize=defaults.normalize,
        beam=defaults.beam,
        queries=defaults.queries if isinstance(defaults, QueryDefaults) else None,
        constraint=defaults.constraint if isinstance(defaults, QueryDefaults) else None,
    )


def _type_of(dtype: DataType) -> str:
    return next(name for known, name in _TYPES if dtype == known)
