"""What responses say of other points: the ways out of a cut, and sets without feasible points."""
