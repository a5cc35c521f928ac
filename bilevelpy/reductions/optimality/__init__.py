"""Optimality conditions in place of followers: where they may stand, what is known of them."""
