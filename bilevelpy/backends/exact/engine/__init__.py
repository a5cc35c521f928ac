"""What SCIP solves: programs of scalar rows as its models, with the functions that it has not."""
