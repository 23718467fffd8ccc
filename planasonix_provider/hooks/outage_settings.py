"""How long tasks and hooks tolerate outages, according to Airflow's configuration."""

from __future__ import annotations

from datetime import timedelta

from planasonix_provider import configuration
from planasonix_provider.api.errors import PlanasonixConfigurationError
from planasonix_provider.waiting.outages import OutagePolicy


def outage_policy() -> OutagePolicy:
    """Return the policy of the section ``[planasonix]``; an invalid value raises ``PlanasonixConfigurationError``."""
    try:
        return OutagePolicy(
            outage=timedelta(seconds=configuration.outage_patience()),
            first_contact=timedelta(seconds=configuration.first_contact_patience()),
        )
    except ValueError as invalid:
        raise PlanasonixConfigurationError(str(invalid)) from None
