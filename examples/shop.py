"""A small tea shop: what it keeps in a session, the same under every framework.

The session is a dict of the visitor's own:

    visits   how often the shop's page was seen
    csrf     a secret that every form must send back
    flash    a message for the next page, shown once
    user     the name given at login; absent: nobody is logged in
    cart     a list of {"sku", "name", "qty", "price"}, the price in cents
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from filesession import Session

ROOT: Final = Path(__file__).resolve().parent.parent
DIRECTORY: Final = str(ROOT / (os.environ.get("FILESESSION_DIR") or "var/sessions"))
"""Where the sessions are; the store makes it, and what is missing above it.

``FILESESSION_DIR`` names another place, absolute or from the project's root."""

IDLE_TIMEOUT: Final = timedelta(minutes=30)
REMEMBERED: Final = timedelta(days=30)
LONGEST_NAME: Final = 40
MOST: Final = 99  # of one tea: enough for anybody, and a number that fits its field

Form: TypeAlias = Mapping[str, str]


class Tea(NamedTuple):
    """Something to buy; the price is in cents, because sums of fractions drift."""

    sku: str
    name: str
    note: str
    price: int


TEAS: Final = {
    tea.sku: tea
    for tea in (
        Tea("assam", "Assam", "Malty and strong; takes milk", 540),
        Tea("sencha", "Sencha", "Green, grassy, bright", 720),
        Tea("oolong", "Tie Guan Yin", "Half oxidised, like orchids", 980),
        Tea("rooibos", "Rooibos", "Red, round, no caffeine", 460),
    )
}


class Refused(Exception):  # noqa: N818 - it says what happened to the request
    """The request was not carried out, for a reason the visitor should read."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def visit(session: Session) -> str | None:
    """Count a visit; call it under the session's lock, or two at once may count as one.

    Returns:
        The message that waited for this page, if any.
    """
    session["visits"] = session.get("visits", 0) + 1
    session.setdefault("csrf", secrets.token_urlsafe())
    message: str | None = session.pop("flash", None)
    return message


def check_csrf(session: Session, form: Form) -> None:
    """See that the form is from a page of this very session, not from someone else's site.

    Raises:
        Refused: it is not.
    """
    expected, given = session.get("csrf"), form.get("csrf", "")
    # Without the first test a visitor without session, hence without token, could send none.
    if not expected or not hmac.compare_digest(expected.encode(), given.encode()):
        reason = "This form is no longer valid: the session it belonged to has ended or changed."
        raise Refused(HTTPStatus.FORBIDDEN, reason)


def log_in(session: Session, form: Form) -> None:
    """Make the visitor a user; the cart stays.

    Raises:
        Refused: no name was given.
    """
    name = form.get("name", "").strip()[:LONGEST_NAME]
    if not name:
        raise Refused(HTTPStatus.BAD_REQUEST, "Please give a name to log in.")
    session.regenerate()  # an id that somebody planted or saw before the login is worthless after
    session["user"] = name
    session["csrf"] = secrets.token_urlsafe()
    session["flash"] = f"Welcome, {name}."
    if "remember" in form:
        session.idle_timeout = REMEMBERED  # how long the server keeps the session
        session.cookie.max_age = REMEMBERED  # how long the browser keeps the cookie


def log_out(session: Session) -> None:
    """End the session; the message is the first thing in a new one."""
    session.destroy()
    session["flash"] = "You are logged out, and the session's file is deleted."


def change_cart(session: Session, action: str, form: Form) -> None:
    """Add to the cart, change a quantity or remove a tea; call it under the session's lock.

    Raises:
        Refused: there is no such action or tea, or the quantity is no number.
    """
    tea = TEAS.get(form.get("sku", ""))
    if tea is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "There is no such tea.")
    lines: list[dict[str, Any]] = session.setdefault("cart", [])
    line = next((line for line in lines if line["sku"] == tea.sku), None)
    match action:
        case "add":
            quantity = 1 if line is None else line["qty"] + 1
        case "change":
            quantity = _quantity(form)
        case "remove":
            quantity = 0
        case _:
            raise Refused(HTTPStatus.NOT_FOUND, "A cart cannot do that.")
    if line is None:
        line = {"sku": tea.sku, "name": tea.name, "qty": 0, "price": tea.price}
        lines.append(line)
    line["qty"] = min(quantity, MOST)  # however deep the change, the session notices
    if not quantity:
        lines.remove(line)
    session["flash"] = f"{tea.name}: {line['qty'] or 'none'} in your cart."


def total(session: Session) -> int:
    """What the cart costs, in cents."""
    return sum(line["qty"] * line["price"] for line in session.get("cart", []))


def _quantity(form: Form) -> int:
    text = form.get("qty", "")
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST))):
        raise Refused(HTTPStatus.BAD_REQUEST, f"A quantity is a number from 0 to {MOST}.")
    return int(text)
