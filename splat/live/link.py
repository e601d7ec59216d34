"""Everything that joins a running training (or an opened file) and its viewer."""

from __future__ import annotations

from dataclasses import dataclass, field

from splat.live.commands import CommandQueue
from splat.live.mailbox import Mailbox
from splat.live.news import News
from splat.live.snapshot import Snapshot


@dataclass(frozen=True, eq=False)
class Link:
    """Neither side holds the other: one answers, the other asks."""

    commands: CommandQueue = field(default_factory=CommandQueue)
    snapshots: Mailbox[Snapshot] = field(default_factory=Mailbox)
    news: News = field(default_factory=News)
