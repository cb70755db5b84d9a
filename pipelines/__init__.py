"""From raw data to a registered model and its products: data, training, products."""
