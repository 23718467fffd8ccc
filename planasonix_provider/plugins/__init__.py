"""Plugins for Airflow's API server."""
