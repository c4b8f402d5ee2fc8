"""Show what SDEdit's noise does to the decoder, and what the correction mends."""
