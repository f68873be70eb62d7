"""The `saga` command: a client of the coordinator's public API and nothing else.

exit code  meaning
0          done; for `watch`: the saga COMPLETED
1          the coordinator refused, for one saga at least; or a definition has errors;
           for `reconcile`: there are orphans
2          wrong usage, or a file that cannot be used;
           for `reconcile`: no orphan, but not everything could be compared
3          the coordinator is away
4          the watched saga ended, but not as COMPLETED
"""

from __future__ import annotations
