"""People's own images and boxes, in the layouts they come in, told in OpenImages' columns: see docs/own-data.md."""
