"""The control API of the simulator, below ``/_simulator``."""
