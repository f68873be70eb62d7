from __future__ import annotations

import pytest

from mesh import paging


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (500, 500), (501, 500)])
def test_a_page_has_50_entries_by_default_and_never_over_500(asked: int, given: int) -> None:
    assert paging.size(asked) == given
