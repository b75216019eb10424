"""The dashboard's process: static files, a session cookie, and calls passed on to the daemon.

Source: control protocol, sections 9 and 11; hive, section 11.
It holds nothing: no database, no file but its own static ones, no session but the handle in a cookie.
"""

from skep.dashboard.server import run_dashboard

__all__ = ["run_dashboard"]
