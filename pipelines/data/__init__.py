"""From raw files to the canonical store: each kind of data is known by one module here, and by no other."""
