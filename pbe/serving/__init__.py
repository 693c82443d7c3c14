"""Stage register and what follows it: the gate, the model registry, the served model, the editor and the `pbe` command."""
