"""From tensor nodes to scalar rows, entry by entry."""
