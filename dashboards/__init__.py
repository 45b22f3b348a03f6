"""
The Splunk app, in `collector/`, and what reads it, draws it and packages it: `python -m dashboards`.
"""
