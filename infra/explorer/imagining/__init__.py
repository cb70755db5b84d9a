"""The tab Imagine: samples of a model, and the way from one to another."""
