"""The `pbe` command, one module for each subcommand that has many arguments."""
