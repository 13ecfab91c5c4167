"""A cart for who is logged in, as a typed part of the session."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, Field

from filesession.contrib.fastapi import SessionModel
from nest_like.auth import logged_in

router = APIRouter(prefix="/cart", tags=["cart"], dependencies=[Depends(logged_in)])

MOST: Final = 99  # of one tea

Tea: TypeAlias = Literal["assam", "sencha", "oolong", "rooibos"]
Quantity: TypeAlias = Annotated[int, Field(ge=1, le=MOST)]


class Cart(BaseModel):
    """What this module keeps in the session."""

    cart: dict[Tea, Quantity] = {}


CartDep: TypeAlias = Annotated[Cart, SessionModel(Cart)]
LockedCartDep: TypeAlias = Annotated[Cart, SessionModel(Cart, lock=True)]


@router.get("")
def see(cart: CartDep) -> Cart:
    """What is in it."""
    return cart


@router.post("/{tea}")
def add(tea: Tea, cart: LockedCartDep) -> Cart:
    """One more; under the session's lock, so that two clicks at once are two teas."""
    quantity = cart.cart.get(tea, 0)
    if quantity == MOST:
        raise HTTPException(409, "That is enough for anybody.")
    cart.cart[tea] = quantity + 1
    return cart


@router.delete("/{tea}")
def remove(tea: Tea, cart: LockedCartDep) -> Cart:
    """None of that any more."""
    cart.cart.pop(tea, None)
    return cart
