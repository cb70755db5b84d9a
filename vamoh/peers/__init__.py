"""The systems that VAMoH is compared with, in the same house: on the same FunctionBatch, with the same modules.

functa.py    a meta-learned SIREN whose modulations are fitted to a function by a few steps of gradient descent
gasp.py      a hypernetwork that generates functions, trained against a PointConv discriminator
sizes.py     their sizes, the papers' and small ones for a processor
"""

from vamoh.peers.functa import Functa, FunctaSpec
from vamoh.peers.gasp import GASP, GaspSpec

__all__ = ["GASP", "Functa", "FunctaSpec", "GaspSpec"]
