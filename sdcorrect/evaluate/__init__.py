"""How near translated pictures are to their sources, to the truth and to their prompts."""
