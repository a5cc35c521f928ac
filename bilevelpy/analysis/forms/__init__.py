"""The shape of expressions in a level's variables: degrees, terms, blocks, predictors, kinks."""
