"""Ties a command to the life of its parent: `python leash.py [--user NAME] COMMAND...`

The kernel then kills the command with SIGKILL the moment its parent dies, however that happens, so
not even `kill -9` of the parent leaves an orphan. The command replaces this program (exec), so pid
and exit code are its own. Linux only; elsewhere the command merely runs.

The tie is to the *thread* that started the process: start leashed processes from the main thread.
It survives exec but not a change of user, so `--user` changes the user first. Standard library
only, because it runs with `-I -S` to add no more than a few milliseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pwd
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Take the leash and become the command."""
    parser = argparse.ArgumentParser(prog="leash")
    parser.add_argument("--parent", type=int, default=os.getppid())
    parser.add_argument("--user")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    if args.user:
        _become(args.user)
    _die_with_parent(args.parent)
    os.execvp(args.command[0], args.command)  # noqa: S606 - the command is the caller's, no shell


def _become(user: str) -> None:
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _die_with_parent(parent: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the leash was on
        raise SystemExit(f"the parent {parent} is gone")


if __name__ == "__main__":
    main(sys.argv[1:])
