"""Rows into rows, the followers kept: fixed columns, units, kinks, followers that fall apart."""
