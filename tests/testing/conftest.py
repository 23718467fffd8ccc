from __future__ import annotations

from planasonix_provider.testing.plugin import _planasonix_simulator, planasonix

# Here it is the plugin's own, as everybody else has it.
__all__ = ["_planasonix_simulator", "planasonix"]
