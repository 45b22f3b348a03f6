"""Where batches go: one module a destination, chosen by URL in `registry`."""
