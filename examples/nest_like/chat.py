"""A websocket that remembers, in the session, what was said."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel

from filesession import SessionGone
from filesession.contrib.fastapi import SessionDep
from filesession.contrib.typed import SessionView
from nest_like.auth import UserDep

router = APIRouter(tags=["chat"])


class Chat(BaseModel):
    """What this module keeps in the session."""

    said: list[str] = []


chats = SessionView(Chat)


@router.websocket("/chat")
async def talk(websocket: WebSocket, session: SessionDep, user: UserDep) -> None:
    """Repeat what was said, until the client leaves or the user logs out in another tab."""
    await websocket.accept()
    try:
        async for text in websocket.iter_text():
            async with session.alock():  # the session as it is now, and stored before the answer
                with chats.edit(session) as chat:
                    chat.said.append(text)
            await websocket.send_json({"user": user, "said": chat.said})
    except SessionGone:
        await websocket.close(1008, "You are logged out.")
