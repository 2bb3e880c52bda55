"""What every kernel uses: tables of names, checks, bounded batches, random streams, fills, files."""
