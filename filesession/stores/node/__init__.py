"""Sessions shared with an Express app: one module an idea, ``store`` is where to begin."""
