"""What is known of second derivatives beyond products: predictors, blocks, bands, data."""
