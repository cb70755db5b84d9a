"""Whether a run can work here: on this machine, on every node of a Ray, and with the services around them.

probe.py      what a node says of itself; it runs there
findings.py   what that means: ok, warn or fail, and what to do
examine.py    asks this machine, the nodes, MLflow and the shared storage
"""
