"""Stage register and the use of its models: gate, registry, served model, editor and the `pbe` command."""
