"""The Planasonix Orchestration API v1. Imports no Airflow: usable, and testable, alone."""
