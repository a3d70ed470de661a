"""Files, SQLite, locks and the memory map of slots. Knows no rule of images or tenants, only their names in the map."""
