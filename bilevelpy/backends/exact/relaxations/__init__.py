"""Programs of one level: what every best response meets, and nothing where that is all of it."""
