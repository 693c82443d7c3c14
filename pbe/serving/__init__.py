"""From a trained folder to a picture: the gate, the registry, the served model, the editor and the `pbe` command."""
