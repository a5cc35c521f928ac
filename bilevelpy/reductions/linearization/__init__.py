"""Programs of one level made linear, convex or mixed-integer."""
