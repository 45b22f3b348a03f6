"""Accounts, signals, metrics and logs: how Collector tells what it does, and what became of each event."""
