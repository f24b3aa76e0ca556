"""How good it is: predictions against truth, file by file or by a protocol."""
