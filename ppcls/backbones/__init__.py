"""Networks, one file a family. Importing a family's module registers its variants."""
