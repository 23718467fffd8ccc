"""Nothing but a name: Airflow 3.3 imports each provider by its distribution's, to look whether examples come with it.

Without this module it would log an error with a traceback wherever ``[core] load_examples`` is on, as it is by default.
"""
