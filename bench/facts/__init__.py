"""What is measured by other means than a load: memory, time to take over, what the disk sees."""

from __future__ import annotations
