"""The API of the simulator over HTTP."""
