"""How optimizers are compared: tuned alike, run anew on fresh seeds, scored in steps of tuned AdamW."""
