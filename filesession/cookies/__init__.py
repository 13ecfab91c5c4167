"""The session's cookie: what it looks like, and how its value is made."""

from filesession.cookies.policy import CookiePolicy
from filesession.cookies.sealing import EncryptedCookie

__all__ = ["CookiePolicy", "EncryptedCookie"]
