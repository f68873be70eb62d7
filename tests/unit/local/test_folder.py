from __future__ import annotations

import os
from pathlib import Path

import pytest

from local.folder import FolderTaken, owned


def test_a_second_run_on_the_folder_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    told = f"in use by process {os.getpid()}"
    with owned(tmp_path), pytest.raises(FolderTaken, match=told), owned(tmp_path):
        pass


def test_a_folder_is_free_again_after_its_run(tmp_path: Path) -> None:
    for _ in range(2):
        with owned(tmp_path / "data") as folder:
            assert folder.is_dir()
