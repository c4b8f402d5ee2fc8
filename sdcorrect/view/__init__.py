"""Pages and figures to look at: what became of a job's pictures, and why."""
