"""What comes out: an output folder, its records, and what of them stands."""
