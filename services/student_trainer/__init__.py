"""The distillation client: asks teachers only what the student is unsure of, and accounts for it."""
