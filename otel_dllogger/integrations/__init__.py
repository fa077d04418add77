"""Other people's frameworks, one module each; importing one imports its framework."""
