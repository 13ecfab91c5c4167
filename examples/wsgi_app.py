"""The tea shop as a plain WSGI application (PEP 3333), without a framework.

    gunicorn --chdir examples wsgi_app:app -w 2
    filesession janitor var/sessions

Sessions are kept in ``var/sessions`` beside ``examples``, or in ``$FILESESSION_DIR``. The workers
share them, and the key that signs the cookie, through that directory alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse

import page
import shop

from filesession import FileStore, Session, SessionGone
from filesession.wsgi import SessionMiddleware

LONGEST_FORM: Final = 4096  # bytes; the shop's own are a tenth of that


def tea_shop(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """One request: a page, or a redirect to it after a form."""
    session: Session = environ["filesession.session"]
    html, status, headers = "", HTTPStatus.SEE_OTHER, [("Location", "/")]
    try:
        match environ["REQUEST_METHOD"]:
            case "POST":
                post(session, environ["PATH_INFO"], form_of(environ))
            case "GET" | "HEAD":
                html, status, headers = home(session, environ["PATH_INFO"]), HTTPStatus.OK, []
            case _:
                html, status = "", HTTPStatus.METHOD_NOT_ALLOWED
                headers = [("Allow", "GET, HEAD, POST")]
    except shop.Refused as refused:
        html, status, headers = page.refusal_page(refused.reason), refused.status, []
    except SessionGone:
        pass  # the visitor logged out in another tab while this request waited for the lock
    body = html.encode()
    headers += [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response(f"{status.value} {status.phrase}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def home(session: Session, path: str) -> str:
    """The shop's one page."""
    if path != "/":
        raise shop.Refused(HTTPStatus.NOT_FOUND, "There is no such page.")
    with session.lock():  # exact, however many requests run in however many workers
        message = shop.visit(session)
    return page.shop_page(session, message)


def post(session: Session, path: str, form: shop.Form) -> None:
    """What a form does, when it came from this session's own page."""
    shop.check_csrf(session, form)
    match path.split("/"):
        case ["", "login"]:
            shop.log_in(session, form)
        case ["", "logout"]:
            shop.log_out(session)
        case ["", "cart", action]:
            with session.lock():  # two clicks at once are two teas
                shop.change_cart(session, action, form)
        case _:
            raise shop.Refused(HTTPStatus.NOT_FOUND, "There is no such page.")


def form_of(environ: dict[str, Any]) -> shop.Form:
    """The posted fields."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > LONGEST_FORM:
        raise shop.Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "That is more than a form.")
    text = environ["wsgi.input"].read(length).decode("latin-1")
    return dict(parse_qsl(text))


store = FileStore(shop.DIRECTORY, idle_timeout=shop.IDLE_TIMEOUT)
app = SessionMiddleware(tea_shop, store)
