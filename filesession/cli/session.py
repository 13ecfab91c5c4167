"""``filesession show`` and ``filesession destroy``: one session, by its handle, or all of them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import rich_click as click
from rich.syntax import Syntax

from filesession.cli.directory import (
    NoSuchSessionError,
    directory_argument,
    handle_argument,
    layout_of,
    resolve,
)
from filesession.cli.terminal import output, printable
from filesession.cli.times import moment_text
from filesession.codec import dump_object
from filesession.errors import StoreUnavailable
from filesession.janitor.wording import size_text
from filesession.record import SessionInfo
from filesession.stores.file.store import FileStore
