"""An output says what its model was trained on, so that whoever has only the file can tell what is beyond it."""

from dataclasses import replace

import numpy as np

from pipelines.config import ContextConfig
from pipelines.data.sphere import Lattice
from pipelines.products.doubts import doubts, taught
from pipelines.products.downscale import downscale
from pipelines.products.targets import Target


def test_the_output_names_the_region_and_the_resolutions_of_training(coarse, teller) -> None:
    attrs = downscale(coarse, teller, factor=3, members=1).attrs
    assert attrs["model_region"] == "-180,-90,180,90"
    assert attrs["model_input_degrees"] == "12 x 12" and attrs["model_grid_degrees"] == "4 x 4"


def test_a_regional_model_for_any_input_names_a_box_and_a_range(teller) -> None:
    plan = teller.checkpoint.plan
    region = Lattice(latitude=np.arange(58.0, 49.9, -0.25), longitude=np.arange(-10.0, 2.1, 0.5))
    config = plan.config.model_copy(update={"context": ContextConfig(every=(2, 6))})
    regional = replace(plan, geometry=region, config=config)
    told = taught(regional)
    assert told["model_region"] == "-10,50,2,58"
    assert told["model_input_degrees"] == "0.5 x 1 to 1.5 x 3" and told["model_grid_degrees"] == "0.25 x 0.5"
    given = Lattice(latitude=np.arange(58.0, 49.9, -1.0), longitude=np.arange(-10.0, 2.1, 2.0))
    inside = Target(latitude=region.latitude, longitude=region.longitude)
    assert doubts(regional, given, inside) == []
    said = doubts(regional, given, Target(latitude=region.latitude, longitude=region.longitude + 4.0))
    assert len(said) == 1 and "outside the region that the model was trained on" in said[0]
