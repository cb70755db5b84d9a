"""The systems that VAMoH is compared with, in the same house: on the same FunctionBatch, with the same modules.

functa.py      a meta-learned SIREN whose modulations are fitted to a function by a few steps of gradient descent
settling.py    what of it is fitted to training functions when its steps have been learned
gasp.py        a hypernetwork that generates functions, trained against a PointConv discriminator
predictive.py  what a peer says of a value, as a mixture of one component
"""

from vamoh.peers.functa import Functa, FunctaSpec
from vamoh.peers.gasp import GASP, GaspSpec

__all__ = ["GASP", "Functa", "FunctaSpec", "GaspSpec"]
