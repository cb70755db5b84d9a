"""VAMoH: a variational mixture of hypergenerators over functions.

This package is the model and nothing else: mathematics on tensors. One legend of shapes holds everywhere in it:

    B batch (functions)      N points of a function      M points of a context, or centres of a set layer
    D coordinate axes        C channels of a value       A covariates
    Z latent                 K components                J neighbours            P parameters of one generator

    z ~ p(z | context)                                   planar flow of depth L on a Gaussian
    theta_k = h_k(z), k = 1..K                           K hypergenerators
    p(y | x, z) = sum_k pi_k(x, z) p(y | f(x; theta_k))  mixture per point

Source: Koyuncu, Sanchez-Martin, Peis, Olmos and Valera, "Variational Mixture of HyperGenerators for Learning
    Distributions over Functions", ICML 2023.
"""

from vamoh.batch import FunctionBatch
from vamoh.elbo import ElboTerms
from vamoh.model import VAMoH
from vamoh.spec import ModelSpec

__all__ = ["ElboTerms", "FunctionBatch", "ModelSpec", "VAMoH"]
