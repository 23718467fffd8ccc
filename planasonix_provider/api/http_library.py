"""The HTTP library, imported here and nowhere else, so that another one is a change in one place."""

from __future__ import annotations

import httpx as httpx
