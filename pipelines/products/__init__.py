"""What the trained model is for: downscaling, scoring against truth and baselines, figures and the report page."""
