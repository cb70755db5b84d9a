"""Sizes of the peers by data set: their papers', and small ones that a processor trains in minutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from vamoh.peers.functa import FunctaSpec
from vamoh.peers.gasp import GaspSpec
from vamoh.spec import DomainName, EncoderSpec

DATA: Mapping[str, tuple[DomainName, int]] = MappingProxyType(
    {
        "era5": ("sphere", 1),
        "chairs": ("cube", 1),
        "polymnist": ("plane", 3),
        "shapes3d": ("plane", 3),
        "celebahq": ("plane", 3),
    }
)
VOXELS = EncoderSpec(
    centres=(4096, 4096, 512, 64, 1),
    channels=(32, 64, 128, 256, 1),
    neighbours=(8, 27, 27, 27, 8),
    pooled=(0, 512, 64, 8, 0),
)
SMALL_DISCRIMINATOR = EncoderSpec(
    centres=(256, 64, 1), channels=(16, 32, 1), neighbours=(9, 9, 16), kernel_widths=(8, 8), pooled=(64, 16, 0)
)

# The size of the public code, which stands for all data: 512 wide, 15 deep, 128 modulations.
FUNCTA: Mapping[str, FunctaSpec] = MappingProxyType(
    {name: FunctaSpec(domain=domain, channels=channels) for name, (domain, channels) in DATA.items()}
)
SMALL_FUNCTA: Mapping[str, FunctaSpec] = MappingProxyType(
    {name: replace(spec, latent=32, width=64, depth=5) for name, spec in FUNCTA.items()}
)
# The public configurations: temperature and images alike, voxels without Fourier features.
GASP_SIZES: Mapping[str, GaspSpec] = MappingProxyType(
    {
        name: GaspSpec(domain=domain, channels=channels, encoded=False, discriminator=VOXELS)
        if domain == "cube"
        else GaspSpec(domain=domain, channels=channels)
        for name, (domain, channels) in DATA.items()
    }
)
SMALL_GASP: Mapping[str, GaspSpec] = MappingProxyType(
    {
        name: replace(
            spec,
            latent=16,
            fourier_frequencies=32,
            hypernetwork=(32, 64),
            generator=(32, 32),
            discriminator=SMALL_DISCRIMINATOR,
        )
        for name, spec in GASP_SIZES.items()
    }
)
