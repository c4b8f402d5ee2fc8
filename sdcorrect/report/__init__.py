"""What became of a job's pictures, as a page or a sheet, from its output folder alone."""
