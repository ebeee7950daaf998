"""Watching: any number of watchers, one read per wake-up, no connection held between events.

A watcher subscribes first, then reads the events after its cursor and the job (or the batch) as it
stands, then takes the tail from its mailbox. What is watched is a scope: a job, a batch, or all
jobs of a team; a source reads it, once for all who watch it in this process (its topic).
Cursors make doubles harmless. Wake-ups may be lost: the sweep compares what was written with what
was sent. See docs/decisions/0005-wake-ups.md and 0011-cursors-over-many-jobs.md.
"""

from services.enqueue.watch.hub import WatchHub
from services.enqueue.watch.updates import Update

__all__ = ["Update", "WatchHub"]
