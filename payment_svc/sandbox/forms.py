"""Stripe's form encoding: `metadata[saga_id]=s-1&payment_method_types[0]=card` as nested values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

from pydantic import ValidationError

from payment_svc.sandbox.errors import ApiError, Json, invalid
from payment_svc.sandbox.objects import Parameters

_PARTS = re.compile(r"[^\[\]]+")
_CODES = {"missing": "parameter_missing", "extra_forbidden": "parameter_unknown"}


def parse(kind: type[Parameters], encoded: str) -> Parameters:
    """Read the parameters of one request from its body or query.

    Raises:
        ApiError: one of them is missing, unknown or wrong; its value is not repeated.
    """
    try:
        return kind.model_validate(_nested(parse_qsl(encoded, keep_blank_values=True)))
    except ValidationError as error:
        raise _refusal(error) from None  # its text quotes the values


def _nested(pairs: Iterable[tuple[str, str]]) -> Json:
    root: Json = {}
    for name, value in pairs:
        *way, last = _PARTS.findall(name) or [name]
        here = root
        for part in way:
            here = here.setdefault(part, {}) if isinstance(here, dict) else {}
        here[last] = value
    return {name: _listed(value) for name, value in root.items()}


def _listed(value: object) -> object:
    if isinstance(value, dict) and value and all(key.isdigit() for key in value):
        return [value[key] for key in sorted(value, key=int)]
    return value


def _refusal(error: ValidationError) -> ApiError:
    first = error.errors(include_input=False, include_url=False)[0]
    top, *rest = (str(part) for part in first["loc"])
    param = top + "".join(f"[{part}]" for part in rest)
    code = _CODES.get(first["type"], "parameter_invalid")
    return invalid(f"{param}: {first['msg']}", code=code, param=param)
