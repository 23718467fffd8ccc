"""The simulator's web pages: live views, and forms of the control API."""
