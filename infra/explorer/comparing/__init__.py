"""The tab Compare: runs, sweeps and registered models."""
