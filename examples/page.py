"""The tea shop's pages, as HTML. Whatever a visitor may have written goes through ``escape``."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Final

import shop

from filesession import Session

_DOCUMENT: Final = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def shop_page(session: Session, message: str | None) -> str:
    """The shop as this visitor sees it, with a message that is shown once."""
    flash = f'<p class="flash" role="status">{escape(message)}</p>' if message else ""
    body = f"""{flash}
    {_account(session)}
    <div class="columns">{_shelf(session)}{_cart(session)}</div>
    {_facts(session)}"""
    return _DOCUMENT.substitute(title="Tea shop", body=body)


def refusal_page(reason: str) -> str:
    """What was not done, and the way back."""
    body = f"""<section><h2>That did not work</h2>
    <p>{escape(reason)} Nothing was changed.</p>
    <p><a href="/">Back to the shop</a></p></section>"""
    return _DOCUMENT.substitute(title="That did not work - Tea shop", body=body)


def _form(session: Session, action: str, fields: str) -> str:
    token = escape(session["csrf"])
    return f"""<form method="post" action="{action}">
    <input type="hidden" name="csrf" value="{token}">{fields}</form>"""


def _account(session: Session) -> str:
    if "user" in session:
        name = escape(session["user"])
        form = _form(session, "/logout", "<button>Log out</button>")
        return f"""<section class="row"><h2>Logged in as <span id="user">{name}</span></h2>
        {form}</section>"""
    fields = f"""
    <label>Name <input type="text" name="name" maxlength="{shop.LONGEST_NAME}" required
      autocomplete="username"></label>
    <label><input type="checkbox" name="remember"> Remember me for 30 days</label>
    <button class="main">Log in</button>"""
    return f"""<section><h2>You are not logged in</h2>{_form(session, "/login", fields)}
    <p class="soft">Any name will do: the shop is an example and asks for no password.</p>
    </section>"""


def _shelf(session: Session) -> str:
    items = "".join(
        f"""<li><span>{tea.name}, {_money(tea.price)}
        <span class="soft">{tea.note}</span></span>
        {_form(session, "/cart/add", _sku(tea.sku) + _button("Add", tea.name))}</li>"""
        for tea in shop.TEAS.values()
    )
    return f"""<section><h2>Teas</h2><ul class="shelf">{items}</ul></section>"""


def _cart(session: Session) -> str:
    lines = session.get("cart")
    if not lines:
        return "<section><h2>Your cart</h2><p>There is nothing in it yet.</p></section>"
    rows = "".join(_cart_row(session, line) for line in lines)
    return f"""<section><h2>Your cart</h2><table>
    <thead><tr><th scope="col">Tea</th><th scope="col">Quantity</th>
      <th scope="col" class="price">Price</th></tr></thead>
    <tbody>{rows}</tbody>
    <tfoot><tr><th scope="row" colspan="2">Total</th>
      <td class="price" id="total">{_money(shop.total(session))}</td></tr></tfoot>
    </table></section>"""


def _cart_row(session: Session, line: dict[str, Any]) -> str:
    tea = line["name"]
    fields = f"""{_sku(line["sku"])}
    <input type="number" name="qty" value="{line["qty"]}" min="0" max="{shop.MOST}" required
      aria-label="Quantity of {tea}">
    {_button("Set", tea)}{_button("Remove", tea, 'formaction="/cart/remove" formnovalidate')}"""
    return f"""<tr><th scope="row">{tea}</th><td>{_form(session, "/cart/change", fields)}</td>
    <td class="price">{_money(line["qty"] * line["price"])}</td></tr>"""


def _facts(session: Session) -> str:
    """What the server knows; the session's id is a secret and on no page."""
    began = session.created_at or time.time()  # a new one is stored when this answer leaves
    limit = shop.IDLE_TIMEOUT.total_seconds() if session.is_new else session.idle_timeout
    facts = (
        ("visits", "Visits", str(session["visits"])),
        ("began", "Session began", _time(began)),
        ("idle", "Ends when idle for", _span(limit)),
        ("worker", "Answered by process", str(os.getpid())),
    )
    items = "".join(
        f'<div><dt>{name}</dt><dd id="{key}">{fact}</dd></div>' for key, name, fact in facts
    )
    return f"""<section><h2>Your session</h2><dl>{items}</dl></section>"""


def _sku(sku: str) -> str:
    return f'<input type="hidden" name="sku" value="{sku}">'


def _button(verb: str, what: str, attributes: str = "") -> str:
    """A button that a screen reader can tell from the others of its kind."""
    return f'<button {attributes}>{verb}<span class="hidden"> {what}</span></button>'


def _money(cents: int) -> str:
    return f"&euro;{cents // 100}.{cents % 100:02}"


def _time(posix: float) -> str:
    at = datetime.fromtimestamp(posix, UTC)
    return f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M} UTC</time>'


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "ever"
    span = timedelta(seconds=seconds)
    return f"{span.days} days" if span.days else f"{span.seconds // 60} minutes"
