"""The tab Downscale: coarse and fine maps under a handle, places, and what is taken away."""
