"""The search over training runs."""
