"""Where results go besides the log: a file of figures, a bar, and tools that draw curves.

A tool is one file here, a ``Tracker`` that is decorated with ``TRACKERS.register()``; its name
there is the one that ``Global.trackers`` lists. None of them ever stops a run.
"""

from ppcls.engine.trackers.handlers import MetricsFile, ProgressBar, Tracking

__all__ = ["MetricsFile", "ProgressBar", "Tracking"]
