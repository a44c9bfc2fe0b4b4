"""How the daemon is watched: ``logs`` (a line per event on standard error) and ``metrics`` (one object)
of the daemon, ``cluster`` those of the controller.

Knows no service. Invariants: an event's text is constant and its facts are fields; labels come from closed
sets and never hold a name that a user chose; a scrape never fails because a part of the daemon does.
"""

from imagecached.telemetry.cluster import ClusterMetrics, ClusterReadings
from imagecached.telemetry.logs import start_logging
from imagecached.telemetry.metrics import MatchResult, Metrics, Readings

__all__ = ["ClusterMetrics", "ClusterReadings", "MatchResult", "Metrics", "Readings", "start_logging"]
