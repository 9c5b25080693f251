"""The data sets that `data.name` may name, one file each."""
