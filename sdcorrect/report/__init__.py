"""Show a job's pictures as a page or a contact sheet, from its output folder."""
