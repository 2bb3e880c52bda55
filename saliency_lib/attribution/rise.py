"""RISE: random grids, enlarged, as masks."""
