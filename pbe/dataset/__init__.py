"""The formats that stages share: OpenImages' files, tables, images, masks, shards and attributions."""
