"""A cookie whose attributes depend on the request: checked as the policy of all is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from filesession.cookies.policy import CookiePolicy
from filesession.cookies.varying import VaryingPolicy
from filesession.errors import ConfigurationError


def policy_with(given: Any, **attributes: Any) -> CookiePolicy:
    """That of a request for which the function gives this."""
    return VaryingPolicy(CookiePolicy(**attributes), lambda request: given).of({})


def test_what_the_function_gives_differs_and_the_rest_is_as_it_was() -> None:
    policy = policy_with(
        {"max_age": timedelta(days=1), "same_site": "strict"}, path="/shop", domain="shop.example"
    )
    assert policy == CookiePolicy(
        path="/shop", domain="shop.example", max_age=86400, same_site="strict"
    )


def test_the_function_is_asked_once_with_the_request() -> None:
    asked: list[object] = []

    def function(request: object) -> Mapping[str, Any]:
        asked.append(request)
        return {}

    request = {"path": "/"}
    VaryingPolicy(CookiePolicy(), function).of(request)
    assert asked == [request]
    assert asked[0] is request


@pytest.mark.parametrize("nothing", [{}, MappingProxyType({})])
def test_where_nothing_differs_it_is_the_policy_of_all(nothing: Any) -> None:
    policy = CookiePolicy()
    assert VaryingPolicy(policy, lambda request: nothing).of({}) is policy


def test_alike_requests_share_a_policy_that_was_checked_once() -> None:
    varying = VaryingPolicy(CookiePolicy(), dict)
    first = varying.of({"max_age": 60})
    assert varying.of({"max_age": 60}) is first
    assert varying.of({"max_age": 61}) is not first


def test_what_was_right_for_one_makes_nothing_right_that_only_equals_it() -> None:
    varying = VaryingPolicy(CookiePolicy(secure=True), dict)
    assert varying.of({"partitioned": True}).partitioned
    with pytest.raises(ConfigurationError, match="partitioned must be"):
        varying.of({"partitioned": 1})
    assert varying.of({"max_age": 1}).max_age == 1
    with pytest.raises(ConfigurationError, match="max_age must be"):
        varying.of({"max_age": True})


def test_a_lifetime_that_counts_down_fills_no_memory() -> None:
    varying = VaryingPolicy(CookiePolicy(), dict)
    for seconds in range(1, 2000):
        assert varying.of({"max_age": seconds}).max_age == seconds
    assert varying._checked.cache_info().currsize <= 256


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (None, "cookie must give a mapping of attributes, {} for no other, not None"),
        ([("max_age", 60)], "cookie must give a mapping"),
        ("lax", "cookie must give a mapping"),
        ({"name": "other"}, "cannot override the cookie attribute 'name'"),
        ({"maxAge": 60}, "cannot override the cookie attribute 'maxAge'"),
        ({7: 60}, "cannot override the cookie attribute 7"),
        ({"same_site": "none"}, "without Secure"),
        ({"max_age": -1}, "max_age must be"),
        ({"max_age": [60]}, "a list or the like for one of 'max_age'"),
        ({"path": "shop"}, "path must start with '/'"),
        ({"domain": "a;b"}, "domain must be a host name"),
    ],
    ids=repr,
)
def test_what_cannot_be_used_is_told(given: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        policy_with(given)


def test_a_prefix_of_the_name_binds_every_request() -> None:
    with pytest.raises(ConfigurationError, match="'__Host-sid' without secure=True"):
        policy_with({"secure": "auto"}, secure=True)
    with pytest.raises(ConfigurationError, match="'__Host-sid' without path='/'"):
        policy_with({"path": "/shop"}, secure=True)


async def later(request: object) -> Mapping[str, Any]:
    return {}


class Late:
    def __call__(self, request: object) -> Any:
        return later(request)


def test_a_coroutine_is_no_mapping_and_none_is_left_behind() -> None:
    with pytest.raises(ConfigurationError, match="not <coroutine"):
        VaryingPolicy(CookiePolicy(), Late()).of({})


@pytest.mark.parametrize("wrong", [{"max_age": 60}, "lax", later, 7])
def test_what_is_no_plain_function_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="attributes for all requests are keywords"):
        VaryingPolicy(CookiePolicy(), wrong)
