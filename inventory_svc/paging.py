"""Pages of ListStock. A token is the id of the last product of the page before, made opaque."""

from __future__ import annotations

import base64

from mesh.validation import text_violations


def read_token(token: str) -> str:
    """Id that all products of the page come after.

    Raises:
        ValueError: no token of ours.
    """
    product_id = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    if token and list(text_violations("page_token", product_id)):
        raise ValueError("no product id")
    return product_id


def make_token(product_id: str) -> str:
    """The token of the page that begins after this product."""
    return base64.urlsafe_b64encode(product_id.encode()).decode()
