"""The OpenAPI document and the page that shows it."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse

from reward_service.api.security import needs

router = APIRouter(include_in_schema=False)
NEEDS: dict[str, Any] = needs("score")


@router.get("/openapi.json", openapi_extra=NEEDS)
async def document(request: Request) -> JSONResponse:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi())


@router.get("/docs", openapi_extra=NEEDS)
async def page(request: Request) -> HTMLResponse:
    """The document as a page to read and to try."""
    return get_swagger_ui_html(openapi_url="openapi.json", title=request.app.title)
