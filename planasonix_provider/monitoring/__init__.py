"""Reads what runs in Planasonix, and which tasks of Airflow have started it."""
