"""The commands, one file for those that belong together; dicomnode.__main__ names them all."""
