"""What a record is made of: the kinds of field, one family a file. Users make them by `simlink.fields`."""
