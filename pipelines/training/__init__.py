"""Training: one step, the distributed loop around it, checkpoints, and what is told to MLflow."""
