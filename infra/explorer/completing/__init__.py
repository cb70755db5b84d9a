"""The tab Complete: holes, sides and cuts, and what a model puts there."""
