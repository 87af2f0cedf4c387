"""Files that appear whole or not at all, and folders that know whose they are."""
