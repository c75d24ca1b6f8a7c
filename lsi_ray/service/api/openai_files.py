"""OpenAI's Files routes: a jsonl of requests or a tar with its media comes in, results go out."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Security
from fastapi.responses import StreamingResponse

from lsi_ray.service.api import openai_wire as wire
from lsi_ray.service.api.context import BEARER, ApiOf, CallerOf, FileId
from lsi_ray.service.api.multipart import MAX_EXPIRY_S, MIN_EXPIRY_S, read_upload

router = APIRouter(prefix="/v1/files", tags=["OpenAI"], dependencies=[Security(BEARER)])

_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary", "minLength": 1},
        "purpose": {"type": "string", "enum": ["batch"]},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": MIN_EXPIRY_S, "maximum": MAX_EXPIRY_S},
    },
    "dependentRequired": {
        "expires_after[anchor]": ["expires_after[seconds]"],
        "expires_after[seconds]": ["expires_after[anchor]"],
    },
    "additionalProperties": False,
}
# FastAPI's own UploadFile would write the whole file to /tmp before our code sees a byte.
_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}
_BINARY = "application/octet-stream"


@router.post("", openapi_extra=_BODY)
async def create_file(api: ApiOf, caller: CallerOf, request: Request) -> wire.File:
    """A jsonl file in OpenAI's form, or a tar or tar.gz of jobs.jsonl and files/."""
    upload = await read_upload(request, api.settings)
    return wire.file_of(await api.backend.create_file(caller, upload))


@router.get("")
async def list_files(
    api: ApiOf,
    caller: CallerOf,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    after: Annotated[str | None, Query(description="The id of the last file seen.", max_length=128)] = None,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=64)] = None,
) -> wire.FileList:
    page = await api.backend.files(caller, purpose=purpose, limit=limit, after_id=after, descending=order == "desc")
    return wire.files_of(page)


@router.get("/{file_id}")
async def get_file(api: ApiOf, caller: CallerOf, file_id: FileId) -> wire.File:
    return wire.file_of(await api.backend.file(caller, file_id))


@router.get(
    "/{file_id}/content",
    response_class=StreamingResponse,
    responses={200: {"content": {_BINARY: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def get_content(api: ApiOf, caller: CallerOf, file_id: FileId) -> StreamingResponse:
    content = await api.backend.file_content(caller, file_id)
    headers = {
        "Content-Length": str(content.size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(content.filename)}",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(content.chunks, headers=headers, media_type=_BINARY)


@router.delete("/{file_id}")
async def delete_file(api: ApiOf, caller: CallerOf, file_id: FileId) -> wire.FileDeleted:
    await api.backend.delete_file(caller, file_id)
    return wire.FileDeleted(id=file_id)
