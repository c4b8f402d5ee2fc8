"""What goes in: which pictures, what is asked of each, and how they are read."""
