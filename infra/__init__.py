"""Where it all runs: the command line, the outermost layer."""
