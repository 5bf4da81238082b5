"""Answering requests of the page with what a function makes of their fields."""
import asyncio
from collections.abc import Callable

from aiohttp import web

from ..trainer.data.writing import Changed


class Missing(LookupError):
    """What is asked about is not on this machine."""


def answer(path: str, method: Callable, work: Callable[[dict], dict | bytes]) -> None:
    """Serve ``work``, which takes the fields of a request: JSON or a PNG; 404 where it raises ``Missing``, 409 where a
    file has changed, 400 where it raises otherwise, with {"error": TEXT}."""

    @method(path)
    async def handler(request: web.Request) -> web.Response:
        try:
            asked = await request.json() if request.method == "POST" else dict(request.query)
            result = await asyncio.to_thread(work, asked)
        except (ValueError, TypeError, OSError, OverflowError, RecursionError, LookupError) as error:  # what a request may hold
            status = 404 if isinstance(error, Missing) else 409 if isinstance(error, Changed) else 400
            return web.json_response({"error": str(error)}, status=status)
        if isinstance(result, bytes):
            return web.Response(body=result, content_type="image/png", headers={"Cache-Control": "no-cache"})
        return web.json_response(result)
