"""See what SDEdit's noise does to the decoder, and what the correction makes of it."""
