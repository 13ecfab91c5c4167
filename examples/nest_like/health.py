"""Whether the application is up, for who watches it."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, str]:
    """It is, when this comes."""
    return {"status": "up"}
