"""What the environment says of the deployment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, Field

ROOT: Final = Path(__file__).resolve().parent.parent.parent


class Settings(BaseModel):
    """One field a variable; a value of the wrong kind ends the start with an error."""

    directory: Annotated[Path, Field(alias="FILESESSION_DIR")] = Path("var/sessions")
    """Where the sessions are; from the project's root, when it is not absolute."""

    secrets: Annotated[
        list[str] | None,
        Field(alias="SESSION_SECRETS"),
        BeforeValidator(lambda text: text.split(",")),
    ] = None
    """What signs the cookie, the newest first: ``new,old``. Not set: a key in the directory."""

    idle_timeout: Annotated[int, Field(alias="SESSION_IDLE_TIMEOUT")] = 1800
    """Seconds."""

    @classmethod
    def from_environment(cls) -> Settings:
        """Those of this process; a variable that is empty counts as not set."""
        return cls.model_validate({name: text for name, text in os.environ.items() if text})
