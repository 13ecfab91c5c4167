"""``filesession genkey``: a new secret."""

from __future__ import annotations

import base64
import os
import secrets
from typing import Final

import rich_click as click

from filesession.cli.teaching import command
from filesession.errors import ConfigurationError
from filesession.stores.file.documents import write_all

KEY_BYTES: Final = 32
"""256 random bits: an HMAC-SHA256 key, or one of AES-256."""

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@command(
    "genkey",
    "genkey -o /etc/app/session.key",
    codes="0 made. 2 it could not run: the file exists, for example.",
)
@click.option("-o", "--output", metavar="FILE", help="Write the raw bytes to this new file, 0600.")
def genkey(output: str | None) -> None:
    """Make a secret: 32 random bytes, printed in base64.

    For SessionMiddleware(secret=...), EncryptedCookie and EncryptedCodec. Who has it can forge
    sessions: keep it out of the code and its repository.
    """
    key = secrets.token_bytes(KEY_BYTES)
    if output is None:
        click.echo(base64.b64encode(key).decode("ascii"))
        return
    if output in {"", "-"}:
        msg = "-o takes the name of a new file; without it the key is printed, in base64"
        raise ConfigurationError(msg)
    try:
        descriptor = os.open(output, _NEW, 0o600)
    except FileExistsError:
        msg = f"{output} exists and is left as it is; name a new file"
        raise ConfigurationError(msg) from None
    except OSError as error:
        directory = os.path.dirname(os.path.abspath(output))
        there = os.path.isdir(directory)
        msg = f"{output} cannot be made: {error.strerror}"
        msg = msg if there else f"there is no directory {directory}; make it first, or name another"
        raise ConfigurationError(msg) from None
    try:
        os.fchmod(descriptor, 0o600)
        write_all(descriptor, key)
        os.fsync(descriptor)
    except OSError:
        os.unlink(output)  # half a key is worse than none
        raise
    finally:
        os.close(descriptor)
