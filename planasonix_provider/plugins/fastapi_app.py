"""The app of the plugin: the webhook receiver and the page share it, because they share a path."""

from __future__ import annotations

from fastapi import FastAPI


def make_app(*, has_page: bool) -> FastAPI:
    """Return the app that Airflow's API server mounts at ``/planasonix``."""
    from planasonix_provider.plugins import receiver
    from planasonix_provider.plugins.refusals import RefusalCounter

    refusals = RefusalCounter()
    app = receiver.make_app(on_refusal=refusals.count)
    if has_page:
        from planasonix_provider.plugins import page

        page.add_routes(app, refusals)
    return app
