"""An application whose workers each run a janitor while they live, and log with their number."""

from __future__ import annotations

import logging
import os
from typing import Any

from filesession import FileStore
from filesession.janitor import Janitor

logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s")

janitor = Janitor(FileStore(os.environ["FILESESSION_DIR"]), interval=0.2)


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            janitor.start()
            await send({"type": "lifespan.startup.complete"})
        else:
            janitor.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return
