"""Refusals in Stripe's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with."""

    http_code: int
    body: Json


class ApiError(Exception):
    """A request is refused; `fields` are the members of Stripe's error object."""

    def __init__(self, http_code: int, kind: str, message: str, **fields: object) -> None:
        super().__init__(message)
        self.http_code = http_code
        self.error = {"type": kind, "message": message, **fields}

    @property
    def answer(self) -> Answer:
        """The refusal as it goes out."""
        return Answer(self.http_code, {"error": self.error})


def invalid(message: str, *, code: str, param: str | None = None) -> ApiError:
    """A parameter is missing, unknown or wrong."""
    return ApiError(400, "invalid_request_error", message, code=code, param=param)


def missing(kind: str, name: str, *, param: str = "id", http_code: int = 404) -> ApiError:
    """There is no such object."""
    message = f"No such {kind}: '{name}'"
    return ApiError(
        http_code, "invalid_request_error", message, code="resource_missing", param=param
    )


def unauthorized() -> ApiError:
    """The API key is missing, or no test key: a sandbox must never be shown a live one."""
    message = "Invalid API Key provided. The sandbox takes keys that begin with sk_test_."
    return ApiError(401, "invalid_request_error", message)


def key_reused() -> ApiError:
    """The idempotency key was first used with other parameters."""
    message = (
        "Keys for idempotent requests can only be used with the same endpoint and parameters"
        " they were first used with."
    )
    return ApiError(400, "idempotency_error", message)


def key_in_use() -> ApiError:
    """A request with this idempotency key is being answered at this moment."""
    message = "There is currently another in-progress request using this Idempotency-Key."
    return ApiError(409, "idempotency_error", message, code="idempotency_key_in_use")


def rate_limited() -> ApiError:
    """Too many requests."""
    message = "Request rate limit exceeded."
    return ApiError(429, "invalid_request_error", message, code="rate_limit")


def internal() -> ApiError:
    """Something is broken at the provider; whether there was an effect is not said."""
    return ApiError(500, "api_error", "An unknown error occurred.")
